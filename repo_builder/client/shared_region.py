"""System shared memory: all tensors of one request in one region that client and server both map.

Source: server docs/protocol/extension_shared_memory.md. The region is a file of /dev/shm; its name is unlinked as soon
as the server has mapped it, so that nothing is left behind even by a process that is killed.
"""

from __future__ import annotations

import errno
import mmap
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repo_builder.client import wire
from repo_builder.client.inputs import match_inputs
from repo_builder.client.messages import Options, add_input, envelope, set_parameter
from repo_builder.client.metadata import ModelMetadata
from repo_builder.client.wire import Array
from repo_builder.errors import DiskFullError, InferenceError
from repo_builder.tensors import TensorSpec

FOLDER = Path("/dev/shm")
_ALIGNMENT = 64


@dataclass(frozen=True)
class Slot:
    """One tensor's place in the region: offset and size in bytes."""

    offset: int
    size: int


@dataclass(frozen=True)
class Layout:
    """Places of all tensors, and the inputs' raw bytes."""

    inputs: dict[str, tuple[TensorSpec, Array, bytes, Slot]]
    outputs: dict[str, Slot]
    size: int


def plan(
    metadata: ModelMetadata, values: Mapping[str, Any], options: Options, sizes: Mapping[str, int], batched: bool
) -> Layout:
    """Where every tensor of a request lies.

    Raises:
        InferenceError: an input does not fit, or an output's size is neither known nor in ``sizes``.
    """
    at = 0

    def slot(size: int) -> Slot:
        nonlocal at
        found, at = Slot(at, size), -(-(at + size) // _ALIGNMENT) * _ALIGNMENT
        return found

    specs = {spec.name: spec for spec in metadata.inputs}
    arrays = match_inputs(metadata.inputs, values, metadata.name)
    inputs = {}
    for name, array in arrays.items():
        raw = wire.encode(name, specs[name].dtype, array)
        inputs[name] = (specs[name], array, raw, slot(len(raw)))
    batch = next((len(array) for array in arrays.values()), 1) if batched else None
    wanted = [metadata.output(name) for name in options.outputs or [spec.name for spec in metadata.outputs]]
    for name in sizes:
        metadata.output(name)
    outputs = {spec.name: slot(sizes.get(spec.name) or _size(spec, batch, metadata.name)) for spec in wanted}
    return Layout(inputs, outputs, max(at, 1))


def _size(spec: TensorSpec, batch: int | None, model: str) -> int:
    dims = spec.dims if batch is None else (batch, *spec.dims[1:])
    if spec.dtype == "BYTES" or -1 in dims:
        raise InferenceError(
            f"the size of output '{spec.name}' is not known before the answer: {spec}",
            expected="its largest size in bytes, for shared memory",
            mend=f"pass shared_memory={{'{spec.name}': BYTES}}, or leave shared_memory out",
            model=model,
        )
    return wire.size(spec.dtype, dims)


class Region:
    """A region of /dev/shm, mapped here. Unlinked by ``unlink``; unmapped when the last array over it is gone."""

    def __init__(self, size: int) -> None:
        """Make the region with its memory reserved.

        Raises:
            DiskFullError: /dev/shm is too small.
            InferenceError: this system has no /dev/shm.
        """
        self.name = f"repo_builder_client_{os.getpid()}_{secrets.token_hex(8)}"
        self.size = size
        self._path = FOLDER / self.name
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        except OSError as error:
            raise InferenceError(
                f"no shared memory can be made in {FOLDER}: {error.strerror}",
                expected="a Linux system with a writable /dev/shm",
                mend="leave shared_memory out",
            ) from error
        try:
            os.posix_fallocate(descriptor, 0, size)
            self.memory = mmap.mmap(descriptor, size)
        except OSError as error:
            self.unlink()
            if error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
                raise
            raise DiskFullError(
                f"{FOLDER} has no room for {size} bytes",
                mend="enlarge it (docker run --shm-size), send smaller batches, or leave shared_memory out",
            ) from error
        finally:
            os.close(descriptor)

    def unlink(self) -> None:
        self._path.unlink(missing_ok=True)


def fill(region: Region, layout: Layout, metadata: ModelMetadata, options: Options) -> Any:
    """Write the inputs into the region; returns the ModelInferRequest that points into it.

    Tensors without bytes have nothing to share (and Triton refuses regions of size 0): they are plain and empty.
    """
    request = envelope(metadata, options)
    del request.outputs[:]
    for spec, array, raw, slot in layout.inputs.values():
        tensor = add_input(request, spec, array)
        if slot.size:
            region.memory[slot.offset : slot.offset + slot.size] = raw
            _point(tensor, region, slot)
        else:
            request.raw_input_contents.append(b"")
    for name, slot in layout.outputs.items():
        tensor = request.outputs.add(name=name)
        if slot.size:
            _point(tensor, region, slot)
    return request


def _point(tensor: Any, region: Region, slot: Slot) -> None:
    set_parameter(tensor.parameters["shared_memory_region"], region.name, "shared_memory_region")
    set_parameter(tensor.parameters["shared_memory_byte_size"], slot.size, "shared_memory_byte_size")
    set_parameter(tensor.parameters["shared_memory_offset"], slot.offset, "shared_memory_offset")


def read(region: Region, layout: Layout, response: Any) -> dict[str, Array]:
    """The outputs as arrays over the region's own memory, where the dtype allows it."""
    view = memoryview(region.memory)
    found = {}
    for tensor in response.outputs:
        slot, shape = layout.outputs[tensor.name], tuple(tensor.shape)
        size = slot.size if tensor.datatype == "BYTES" else wire.size(tensor.datatype, shape)
        raw = view[slot.offset : slot.offset + min(size, slot.size)]
        found[tensor.name] = wire.decode(tensor.name, tensor.datatype, shape, raw)
    return found


def not_shared(target: str, message: str, model: str) -> InferenceError:
    """The error for a server that cannot, or may not, map a region of this machine."""
    return InferenceError(
        f"the server at {target} does not take the shared memory: {message}",
        expected="a server on this machine, run by the same user, that sees the same /dev/shm",
        mend="leave shared_memory out, or let a container share it (docker run --ipc=host)",
        model=model,
    )
