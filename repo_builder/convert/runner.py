"""The runner: re-opens what a converter wrote and compares it with what was declared and with the source's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.compare import settled
from repo_builder.convert.cases import CheckedCase
from repo_builder.convert.cases import cases as make_cases
from repo_builder.errors import ConversionError
from repo_builder.formats import onnx
from repo_builder.formats.examples import working_inputs
from repo_builder.tensors import TensorSpec

RELATIVE = {"float64": 1e-6, "float32": 1e-4, "float16": 1e-2}
"""A float output passes when ``max|file - source| <= ABSOLUTE + RELATIVE[dtype] * max|source|``; others are equal."""
ABSOLUTE = 1e-6
ROUNDED = 1e-2
"""The most that ``rounding`` may add, of ``max|source|``."""

Rounding = Callable[[CheckedCase, int], float]
"""How far rounding alone moves the source's own answer, of a case and an output: asked where the file's is too far."""


@dataclass(frozen=True)
class Accepted:
    """What the runner measured on a file that it accepted.

    Attributes:
        artifact: the file as described again.
        max_abs_error: by output, over all cases; 0.0 for integers and booleans.
        cases: number of input sets compared.
    """

    artifact: Artifact
    max_abs_error: dict[str, float]
    cases: int


def check(
    path: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    cases: Sequence[CheckedCase],
    *,
    opset: int,
    ir_version: int,
    ranked: Mapping[str, str] | None = None,
    rounding: Rounding | None = None,
) -> Accepted:
    """Accept an ONNX file, or say why not.

    Args:
        inputs, outputs: names, dtypes and shapes (symbolic dims by name) that the file must have, in this order.
        cases: inputs with the source's outputs, in the order of ``outputs``.
        opset: the version of the default operator set that the file must have.
        ir_version: the highest IR version that the file may have.
        ranked: see :class:`~repo_builder.formats.torch_program.TorchProgram`.
        rounding: what a float output may differ by besides.

    Raises:
        ConversionError: one line that names the first difference.
        RepoBuilderError: onnx.checker or ONNX Runtime refuses the file.
    """
    onnx.check(path)
    artifact = onnx.describe(path)
    if artifact.facts["opset"] != opset:
        raise ConversionError(f"asked for opset {opset}, the file has {artifact.facts['opset']}")
    if artifact.facts["ir_version"] > ir_version:
        raise ConversionError(f"asked for IR version {ir_version} at most, the file has {artifact.facts['ir_version']}")
    _same_signature("input", artifact.inputs, inputs)
    _same_signature("output", artifact.outputs, outputs)
    return Accepted(artifact, compare(artifact, cases, ranked, rounding), len(cases))


def own_cases(source: Artifact, examples: Mapping[str, np.ndarray[Any, Any]] | None = None) -> list[CheckedCase]:
    """Cases with an ONNX file's own answers, of two sizes where it takes them; for what is made of the file.

    Args:
        examples: one array per input; made up where None.

    Raises:
        SignatureError: the file takes none of the sizes that were tried.
        RepoBuilderError: ONNX Runtime refuses it, or it answers differently when asked twice.
    """

    def ask(inputs: Mapping[str, np.ndarray[Any, Any]]) -> tuple[np.ndarray[Any, Any], ...]:
        answers = onnx.run(source, inputs)
        return tuple(answers[spec.name] for spec in source.outputs)

    return make_cases(source.inputs, examples or working_inputs(source.inputs, ask), ask, all_dims=False)


def compare(
    artifact: Artifact,
    cases: Sequence[CheckedCase],
    ranked: Mapping[str, str] | None = None,
    rounding: Rounding | None = None,
) -> dict[str, float]:
    """The largest absolute error of every output in ONNX Runtime on the CPU.

    Raises:
        ConversionError: an answer differs.
        RepoBuilderError: ONNX Runtime refuses the file or an input.
    """
    errors = {spec.name: 0.0 for spec in artifact.outputs}
    for case in cases:
        answers = onnx.run(artifact, case.inputs)
        source = {spec.name: wanted for spec, wanted in zip(artifact.outputs, case.outputs, strict=True)}
        for name, values in (ranked or {}).items():
            answers[name] = settled(answers[name], source[name], answers[values], source[values])
        for place, spec in enumerate(artifact.outputs):
            own = (lambda case=case, place=place: rounding(case, place)) if rounding else float
            error = _difference(spec, answers[spec.name], source[spec.name], case, own)
            errors[spec.name] = max(errors[spec.name], error)
    return errors


def _same_signature(side: str, found: Sequence[TensorSpec], declared: Sequence[TensorSpec]) -> None:
    names, wanted = [spec.name for spec in found], [spec.name for spec in declared]
    if names != wanted:
        raise ConversionError(f"the file's {side}s are {names}, not {wanted}")
    for spec, told in zip(found, declared, strict=True):
        if spec != told:
            raise ConversionError(f"the file has the {side} {spec} where {told} was declared")


def _difference(
    spec: TensorSpec,
    answer: np.ndarray[Any, Any],
    wanted: np.ndarray[Any, Any],
    case: CheckedCase,
    own: Callable[[], float],
) -> float:
    if answer.shape != wanted.shape or answer.dtype != wanted.dtype:
        raise ConversionError(
            f"the file answers differently: output {spec.name} is {answer.dtype}{list(answer.shape)} where the source "
            f"gives {wanted.dtype}{list(wanted.shape)}, for {_shapes(case)}"
        )
    if not answer.size:
        return 0.0
    if answer.dtype.kind != "f":
        if np.array_equal(answer, wanted):
            return 0.0
        count = int(np.sum(answer != wanted))
        raise ConversionError(
            f"the file answers differently: {count} of {answer.size} values at output {spec.name} for {_shapes(case)}"
        )
    a, b = answer.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        raise ConversionError(
            f"the file answers differently: NaN or infinity at output {spec.name} differ for {_shapes(case)}"
        )
    if not finite.any():
        return 0.0
    error = float(np.max(np.abs(a[finite] - b[finite])))
    largest = float(np.max(np.abs(b[finite])))
    limit = ABSOLUTE + RELATIVE[answer.dtype.name] * largest
    if not error <= limit:
        limit += min(own(), ROUNDED * largest)
    if not error <= limit:
        raise ConversionError(
            f"the file answers differently: max abs error {error:.3g} (allowed {limit:.3g}) at output {spec.name} "
            f"for {_shapes(case)}"
        )
    return error


def _shapes(case: CheckedCase) -> str:
    return ", ".join(f"{name}{list(array.shape)}" for name, array in case.inputs.items()) or "no inputs"
