"""Weights of a caffemodel as arrays, fitted to the layers of their prototxt by name, number and shape."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.errors import SourceCorruptError, first_line
from repo_builder.formats import caffe_rules, caffe_schema, caffe_windows, source_file
from repo_builder.formats.caffe_net import Layer, Net

Array = "np.ndarray[Any, Any]"
Shape = tuple[int, ...]
_FILE_LIMIT = (1 << 31) - 1
_RAW = {0: "<f8", 1: "<f4", 2: "<f2"}


def read(path: Path) -> dict[str, list[list[Any]]]:
    """By layer name the blobs (messages) of each layer of that name that has any, in the file's order.

    Raises:
        SourceMissingError, SourceCorruptError: the file is missing, truncated, or no caffemodel.
    """
    from google.protobuf.message import DecodeError

    source_file.refuse_stand_ins(path)
    if path.stat().st_size > _FILE_LIMIT:
        raise SourceCorruptError(f"{path} is larger than 2 GiB", expected="a caffemodel: protobuf ends at 2 GiB")
    message = caffe_schema.weights()
    try:
        message.ParseFromString(path.read_bytes())
    except (DecodeError, ValueError) as error:
        raise SourceCorruptError(
            f"{path} does not parse as a caffemodel ({first_line(error)})",
            expected="a whole binary NetParameter",
            mend="the file is truncated or no caffemodel: copy it again (weights in HDF5 are not read)",
        ) from error
    found: dict[str, list[list[Any]]] = {}
    for layer in (*message.layer, *message.layers):
        if layer.blobs:
            found.setdefault(layer.name.decode("utf-8", "surrogateescape"), []).append(list(layer.blobs))
    if not message.layer and not message.layers:
        raise SourceCorruptError(
            f"{path} parses, but holds no layer",
            expected="a caffemodel with the net's layers",
            mend="the file is truncated or no caffemodel: copy it again",
        )
    return found


def fitted(net: Net, bottoms: Sequence[Sequence[Shape]], path: Path) -> list[list[np.ndarray[Any, Any]]]:
    """For every layer of the net its weights as float32 arrays in Caffe's own shapes (what a layer lacks is not there).

    Args:
        bottoms: the shapes of each layer's bottoms.

    Raises:
        SourceCorruptError: the caffemodel does not belong to this net; names the layer, what it has and what it needs.
    """
    blobs = read(path)
    found = []
    for layer, shapes in zip(net.layers, bottoms, strict=True):
        wanted = needed(layer, list(shapes))
        waiting = blobs.get(layer.name, [])
        given = waiting.pop(0) if waiting else []
        if len(given) != len(wanted):
            raise _misfit(layer, path, f"{len(given)} blobs", f"{len(wanted)}: {_told(wanted)}")
        found.append(
            [
                _array(layer, path, number, blob, shape)
                for number, (blob, shape) in enumerate(zip(given, wanted, strict=True))
            ]
        )
    return found


def needed(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    """The shapes of a layer's weights."""
    first, message = bottoms[0], layer.message
    if layer.type in ("Convolution", "Deconvolution"):
        told = message.convolution_param
        kernel = caffe_windows.of_convolution(layer, first).kernel
        outer, inner = (told.num_output, first[1]) if layer.type == "Convolution" else (first[1], told.num_output)
        return [(outer, inner // told.group, *kernel), *([(told.num_output,)] if told.bias_term else [])]
    if layer.type == "InnerProduct":
        told = message.inner_product_param
        size = prod(first[caffe_rules.axis_of(layer, told.axis, len(first)) :])
        return [(told.num_output, size), *([(told.num_output,)] if told.bias_term else [])]
    if layer.type == "BatchNorm":
        channels = first[1] if len(first) > 1 else 1
        return [(channels,), (channels,), (1,)]
    if layer.type in ("Scale", "Bias"):
        _, shape = caffe_rules.spread(layer, bottoms)
        own = len(bottoms) == 1
        return [shape] * (own + (layer.type == "Scale" and message.scale_param.bias_term))
    if layer.type == "PReLU":
        return [(1,) if message.prelu_param.channel_shared else (first[1],)]
    if layer.type == "Normalize":
        return [(1,) if message.norm_param.channel_shared else (first[1],)]
    return []


def _array(layer: Layer, path: Path, number: int, blob: Any, wanted: Shape) -> np.ndarray[Any, Any]:
    old = any(blob.HasField(name) for name in ("num", "channels", "height", "width"))
    shape = (blob.num, blob.channels, blob.height, blob.width) if old else tuple(blob.shape.dim)
    if min(shape, default=1) < 0 or prod(shape) != prod(wanted) or _bare(shape) != _bare(wanted):
        raise _misfit(layer, path, f"blob {number} of shape {list(shape)}", f"{list(wanted)}")
    values = _values(blob)
    if values is None or values.size != prod(wanted):
        have = "an unknown type of values" if values is None else f"{values.size} values"
        raise _misfit(layer, path, f"blob {number} of shape {list(shape)} with {have}", f"{prod(wanted)} values")
    return values.reshape(wanted).astype(np.float32)


def _values(blob: Any) -> np.ndarray[Any, Any] | None:
    for packed, kind in ((blob.data, "<f4"), (blob.double_data, "<f8")):
        if packed:
            joined = b"".join(packed)
            return np.frombuffer(joined[: len(joined) // int(kind[2]) * int(kind[2])], kind)
    if blob.raw_data:
        kind = _RAW.get(blob.raw_data_type, "")
        whole = kind and len(blob.raw_data) % int(kind[2]) == 0
        return np.frombuffer(blob.raw_data, kind) if whole else None
    message = caffe_schema.unpacked(blob)
    return np.array(message.data or message.double_data, dtype=np.float64)


def _bare(shape: Shape) -> Shape:
    """A shape without its ones: old files write every blob with four numbers."""
    return tuple(size for size in shape if size != 1)


def _misfit(layer: Layer, path: Path, found: str, expected: str) -> SourceCorruptError:
    return SourceCorruptError(
        f"{path.name} does not fit its prototxt: it has {found} for layer {layer.name!r} of type {layer.type!r} "
        f"({layer.place})",
        expected=expected,
        mend="give the caffemodel that was trained with this prototxt, under the same name beside it",
    )


def _told(shapes: list[Shape]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes) or "no weights"
