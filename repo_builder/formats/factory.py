"""``module.py:factory``: the user's own Python, run because the user named it.

The digest covers that one file, and ``weights_sha256`` the weights, wherever the factory reads them. Code of modules
that it imports is not covered.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import SignatureError, UnsupportedDtypeError
from repo_builder.formats import factory_call, output_shapes, signature, source_file
from repo_builder.formats.dynamic_shapes import axis_names
from repo_builder.formats.torch_import import import_torch
from repo_builder.formats.torch_program import TorchProgram, output_names
from repo_builder.tensors import TensorSpec, dtype

NAME = "factory"
TAKES = "a factory in a Python file (module.py:factory)"
_SOURCE = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)")


def matches(path: Path) -> bool:
    """A ``.py`` file, a colon and a function's name."""
    return _SOURCE.fullmatch(str(path)) is not None


def describe(path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
    """The artifact of a factory. ``factory()`` returns ``(module, example_inputs)`` or
    ``(module, example_inputs, dynamic_shapes)``, the last in any form that ``torch.export.export`` takes.

    Inputs are named as the forward's parameters, dims as their ``Dim``; an axis with ``Dim.AUTO`` or ``Dim.DYNAMIC``
    is ``<input>_dim<axis>``. Outputs are found by running the module on two sizes of every dim. Facts: ``factory``,
    ``module`` (its class), ``sizes`` (of the symbolic dims in the examples), ``parameters``, ``parameter_bytes``.

    Raises:
        SpecError: the file or the factory fails; with file and line of the user's code.
        SignatureError: what it returns is not a module with tensors, or the module fails on them.
        UnsupportedDtypeError: an example of a dtype that Triton lacks.
    """
    file, name = split(path)
    source_file.refuse_stand_ins(file)
    program = _program(str(file), name, source_file.stamp(file.parent, [file.name]))
    given, became = signature.refine(program.inputs, inputs, str(path))
    sizes = _sizes(program, became)
    outputs = output_shapes.find_outputs(replace(program, inputs=given), program.outputs, sizes, str(path))
    weights = [*program.module.parameters(), *program.module.buffers()]
    facts = {
        "factory": name,
        "module": type(getattr(program.module, "module", program.module)).__name__,
        "sizes": sizes,
        "parameters": sum(int(w.numel()) for w in weights),
        "parameter_bytes": sum(int(w.numel()) * int(w.element_size()) for w in weights),
        "weights_sha256": _weights_digest(weights),
    }
    return Artifact(file, NAME, given, outputs, files=(file.name,), facts=facts)


def load(artifact: Artifact) -> TorchProgram:
    """The module in eval mode with its own examples. The same module object as long as the file does not change, so
    that a factory with random weights is converted and proved with the same ones."""
    stamp = source_file.stamp(artifact.folder, artifact.files)
    program = _program(str(artifact.path), str(artifact.facts["factory"]), stamp)
    return replace(program, inputs=artifact.inputs, outputs=tuple(spec.name for spec in artifact.outputs))


def run(artifact: Artifact, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs by name, computed by PyTorch on the CPU.

    Raises:
        SignatureError: the arrays do not fit, or the module fails on them.
    """
    return load(artifact).run_named(inputs, f"{artifact.path.name}:{artifact.facts['factory']}")


def _weights_digest(weights: Sequence[Any]) -> str:
    """sha256 over all parameters and buffers: weights that the factory reads from elsewhere belong to the model."""
    import torch

    digest = hashlib.sha256()
    for tensor in weights:
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def split(path: Path) -> tuple[Path, str]:
    """The file and the function of what ``matches``."""
    found = _SOURCE.fullmatch(str(path))
    assert found is not None, "detect gives only what matches"
    return Path(found["file"]), found["name"]


@functools.lru_cache(maxsize=8)
def _program(file: str, name: str, stamp: object) -> TorchProgram:  # noqa: ARG001 - part of the cache's key
    torch = import_torch(f"{file}:{name}")
    owner = f"{file}:{name}"
    module, examples, shapes = factory_call.call(Path(file), name)
    module = module.to("cpu").eval()
    if hasattr(shapes, "dynamic_shapes"):
        by_name = isinstance(examples, Mapping)
        shapes = shapes.dynamic_shapes(module, () if by_name else tuple(examples), examples if by_name else {})
    named, module = factory_call.named_inputs(module, examples, owner)
    axes = axis_names(shapes, list(named), module, owner)
    specs = tuple(_spec(n, tensor, axes[n], owner) for n, tensor in named.items())
    tensors = tuple(tensor.detach().to("cpu") for tensor in named.values())
    with torch.no_grad():
        result = factory_call.guarded(lambda: module(*tensors), Path(file), f"{owner}: the module on its examples")
    return TorchProgram(module, "eager", specs, _names(result), tensors)


def _spec(name: str, tensor: Any, axes: Mapping[int, str], owner: str) -> TensorSpec:
    try:
        kind = dtype(str(tensor.dtype)).triton
    except UnsupportedDtypeError as error:
        error.found = f"input '{name}' of {owner} has dtype {tensor.dtype}, which Triton does not have"
        raise
    spec = TensorSpec(name, kind, tuple(axes.get(axis, size) for axis, size in enumerate(tensor.shape)))
    if any(axis >= tensor.dim() for axis in axes):
        raise SignatureError(
            f"dynamic_shapes of {owner} names axis {max(axes)} of '{name}', whose example has {tensor.dim()} axes",
            expected=f"axes 0 to {tensor.dim() - 1}",
        )
    signature.refuse_bf16([spec], owner)
    return spec


def _names(result: Any) -> tuple[str, ...]:
    from repo_builder.formats.torch_program import flatten

    if isinstance(result, Mapping):
        kept = [(str(key), len(flatten(value))) for key, value in result.items()]
        if all(count <= 1 for _, count in kept):
            return tuple(key for key, count in kept if count)
    return output_names(len(flatten(result)))


def _sizes(program: TorchProgram, became: Mapping[str, int | str]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for spec, tensor in zip(program.inputs, program.examples, strict=True):
        for dim, size in zip(spec.shape, tensor.shape, strict=True):
            name = became.get(dim, dim) if isinstance(dim, str) else dim
            if isinstance(name, str) and sizes.setdefault(name, int(size)) != size:
                raise SignatureError(
                    f"the examples give the dim '{name}' both {sizes[name]} and {int(size)}",
                    expected="one size for one dim in all examples",
                )
    return sizes
