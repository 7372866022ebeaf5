"""Output signatures found by running: which axes of an output follow which symbolic dim of the inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from repo_builder.errors import SignatureError
from repo_builder.formats import examples
from repo_builder.formats.torch_program import TorchProgram, output_names
from repo_builder.tensors import TensorSpec, from_numpy

OTHER_SIZES = (5, 32, 224)
"""Sizes tried for symbolic dims beyond axis 0 where nobody says which fit; axis 0 gets 2."""

Outputs = tuple["np.ndarray[Any, Any]", ...]


def working_sizes(program: TorchProgram, owner: str) -> dict[str, int]:
    """Sizes of the symbolic dims that the model takes, the first that do.

    Raises:
        SignatureError: with the model's own error for the first sizes.
    """
    return examples.working_sizes(program.inputs, lambda sizes: run(program, sizes, owner), OTHER_SIZES)


def find_outputs(
    program: TorchProgram, names: Sequence[str], sizes: Mapping[str, int], owner: str
) -> tuple[TensorSpec, ...]:
    """The outputs, each axis named after the input dim that it equals, ``<output>_dim<axis>`` where it follows one
    in another way, else static.

    Args:
        program: the model.
        names: a name for each flattened output; where their number differs, outputs are ``output`` or ``output_<i>``.
        sizes: sizes of the symbolic dims that the model takes.
        owner: the file, for messages.

    Raises:
        SignatureError: the model fails when one symbolic dim changes alone, or has no tensor outputs.
        UnsupportedDtypeError: an output of a dtype that Triton lacks.
    """
    base = run(program, sizes, owner)
    if not base:
        raise SignatureError(f"{owner} returns no tensors", expected="at least one tensor")
    if len(names) != len(base):
        names = output_names(len(base))
    shapes: list[list[int | str]] = [list(array.shape) for array in base]
    for symbol in sizes:
        grown, outputs = _grow(program, sizes, symbol, owner)
        for index, (before, after) in enumerate(zip(base, outputs, strict=True)):
            if before.ndim != after.ndim:
                raise SignatureError(
                    f"output '{names[index]}' of {owner} changes its rank with '{symbol}'", expected="a fixed rank"
                )
            for axis in range(before.ndim):
                if before.shape[axis] == after.shape[axis]:
                    continue
                follows = (before.shape[axis], after.shape[axis]) == (sizes[symbol], grown)
                free = isinstance(shapes[index][axis], int)
                shapes[index][axis] = symbol if follows and free else f"{names[index]}_dim{axis}"
    return tuple(
        TensorSpec(name, from_numpy(array.dtype).triton, tuple(shape))
        for name, array, shape in zip(names, base, shapes, strict=True)
    )


def run(program: TorchProgram, sizes: Mapping[str, int], owner: str) -> Outputs:
    """The outputs for seeded example inputs of these sizes.

    Raises:
        SignatureError: with the model's own error.
    """
    arrays = examples.example_inputs(program.inputs, sizes)
    unnamed = dataclasses.replace(program, outputs=())
    return tuple(unnamed.run_named(arrays, owner).values())


def _grow(program: TorchProgram, sizes: Mapping[str, int], symbol: str, owner: str) -> tuple[int, Outputs]:
    try:
        return sizes[symbol] + 1, run(program, {**sizes, symbol: sizes[symbol] + 1}, owner)
    except SignatureError:
        return sizes[symbol] * 2, run(program, {**sizes, symbol: sizes[symbol] * 2}, owner)
