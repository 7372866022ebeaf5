"""Signatures: the user's ``inputs:`` laid over the file's, and arrays checked against a signature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from repo_builder.errors import SignatureError, UnsupportedDtypeError, nearest
from repo_builder.tensors import Shape, TensorSpec, from_numpy


def refine(
    told: Sequence[TensorSpec], given: Sequence[TensorSpec], owner: str
) -> tuple[tuple[TensorSpec, ...], dict[str, int | str]]:
    """The file's inputs with the user's names and sizes for symbolic dims.

    Args:
        told: what the file says.
        given: what the user says; any subset of the inputs, by name.
        owner: the file, for messages.

    Returns:
        The refined inputs, and what each symbolic dim of the file became, to be applied to the outputs.

    Raises:
        SignatureError: an unknown name, another dtype or rank, a static dim that contradicts the file.
    """
    by_name = {spec.name: spec for spec in told}
    became: dict[str, int | str] = {}
    for spec in given:
        if spec.name not in by_name:
            raise SignatureError(
                f"`inputs:` names '{spec.name}', which {owner} does not have{nearest(spec.name, list(by_name))}",
                expected="one of " + ", ".join(by_name),
            )
        for ours, users in _pairs(by_name[spec.name], spec, owner):
            if isinstance(ours, str) and became.setdefault(ours, users) != users:
                raise SignatureError(
                    f"`inputs:` calls the dim '{ours}' of {owner} both '{became[ours]}' and '{users}'",
                    expected="one name or size for one symbolic dim",
                )
    return tuple(TensorSpec(s.name, s.dtype, apply(s.shape, became)) for s in told), became


def apply(shape: Shape, became: Mapping[str, int | str]) -> Shape:
    """A shape with its symbolic dims replaced."""
    return tuple(became.get(d, d) if isinstance(d, str) else d for d in shape)


def _pairs(told: TensorSpec, given: TensorSpec, owner: str) -> list[tuple[int | str, int | str]]:
    clash = SignatureError(
        f"`inputs:` says {given}, but {owner} says {told}",
        expected="the dtype, the rank and the static sizes of the file",
        mend="correct `inputs:`, or export the model with the shape that you want",
    )
    if given.dtype != told.dtype or len(given.shape) != len(told.shape):
        raise clash
    pairs = list(zip(told.shape, given.shape, strict=True))
    if any(isinstance(ours, int) and ours != users for ours, users in pairs):
        raise clash
    return pairs


def check_arrays(specs: Sequence[TensorSpec], arrays: Mapping[str, np.ndarray[Any, Any]], owner: str) -> None:
    """Check names, dtypes, ranks and static sizes of arrays before a model sees them.

    Raises:
        SignatureError: naming the tensor, what came and what was expected.
    """
    names = [spec.name for spec in specs]
    for name in arrays:
        if name not in names:
            raise SignatureError(
                f"{owner} has no input '{name}'{nearest(name, names)}", expected="the inputs " + ", ".join(names)
            )
    for spec in specs:
        if spec.name not in arrays:
            raise SignatureError(f"{owner} got no input '{spec.name}'", expected=str(spec))
        array = arrays[spec.name]
        fits = len(array.shape) == len(spec.shape) and all(
            isinstance(want, str) or want == size for want, size in zip(spec.shape, array.shape, strict=True)
        )
        if not fits or from_numpy(array.dtype).triton != spec.dtype:
            came = f"{array.dtype}[{', '.join(map(str, array.shape))}]"
            raise SignatureError(f"input '{spec.name}' of {owner} came as {came}", expected=str(spec))


def check_answer(spec: TensorSpec, shape: tuple[int, ...], owner: str) -> None:
    """Check the shape of an answer: no config could say both what a file declares and what it answers.

    Raises:
        SignatureError: it has another rank, or another size on a static axis.
    """
    pairs = zip(spec.shape, shape, strict=False)
    if len(shape) != len(spec.shape) or any(isinstance(want, int) and want != size for want, size in pairs):
        raise SignatureError(
            f"{owner} declares the output {spec} and answers the shape {list(shape)}",
            expected="answers of the declared shape",
            mend="export the model again, or write the right shape, or a symbolic dim, into the file's outputs",
        )


def refuse_bf16(specs: Sequence[TensorSpec], owner: str) -> None:
    """Refuse BF16 tensors where arrays are needed.

    Raises:
        UnsupportedDtypeError: naming the tensor.
    """
    for spec in specs:
        if spec.dtype == "BF16":
            raise UnsupportedDtypeError(
                f"tensor '{spec.name}' of {owner} is BF16, which numpy cannot hold",
                expected="FP32 or FP16 inputs and outputs, to compute a reference",
                mend="cast at the inputs and outputs inside the model and export it again",
            )
