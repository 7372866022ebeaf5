"""What a precision costs: the answers of the converted graph against the source's float32 answers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.convert import onnx_graph, onnx_rounded, onnx_typed
from repo_builder.convert.cases import CheckedCase
from repo_builder.errors import ConversionError

FLOOR = 0.01
"""Relative errors are over the largest source value, or over this where it is smaller."""
NO_HALF = "float32 only in ONNX"
"""Why a node stays whose operator has no such type at the opset of the file."""


@dataclass(frozen=True)
class OutputLoss:
    """One output over all cases.

    Attributes:
        max_abs_error: the largest difference.
        max_rel_error: the same over ``max(0.01, max|source|)``, both over all cases.
        cosine: the smallest of a case; 1.0 where the source is all zero and the answer too.
        differing: share of the entries that are not equal; given for integers, booleans and strings, whose errors
            are then 0 or 1 and whose cosine is 1.
    """

    max_abs_error: float
    max_rel_error: float
    cosine: float
    differing: float | None = None


@dataclass(frozen=True)
class Kept:
    """A node that stays in float32.

    Attributes:
        why: ``asked``; ``measured``; ``angles`` (see onnx_angles.py); or ``NO_HALF``.
        without: the largest relative error of the model if this node, or the run of neighbours that was tried with
            it, were in the low precision; None where it was not measured or is not finite.
    """

    node: str
    operator: str
    why: str
    without: float | None = None


@dataclass(frozen=True)
class Loss:
    """What a conversion lost, per output, and what stayed in float32.

    Attributes:
        precision: what was asked for.
        outputs: by name.
        share: nodes in the low precision among the nodes that compute with floats, 0.0 to 1.0.
        stays: nodes that compute in float32 (int8 and fp8: that are not quantised), each with the reason.
        cases: how many sets of inputs were compared.
        notes: what the figures do not show, in words.
    """

    precision: str
    outputs: Mapping[str, OutputLoss]
    share: float
    stays: tuple[Kept, ...] = ()
    cases: int = 0
    notes: tuple[str, ...] = ()

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the nodes that must compute in float32, as they stand in the written file."""
        return tuple(k.node for k in self.stays if k.why != NO_HALF)

    @property
    def worst(self) -> float:
        """The largest relative error of an output; for entries that cannot be nearly right, the share that differs."""
        return worst(self.outputs)

    def facts(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {**asdict(self), "stays": [asdict(k) for k in self.stays], "notes": list(self.notes)}


def worst(outputs: Mapping[str, OutputLoss]) -> float:
    """See :attr:`Loss.worst`."""
    return max((o.max_rel_error if o.differing is None else o.differing for o in outputs.values()), default=0.0)


class Answers:
    """The answers of an ONNX file as its types say, on the CPU: half values rounded node by node, Q/DQ as written."""

    def __init__(self, path: Path, *, every: bool = False) -> None:
        """``every``: the rounded values inside the graph are answers too, beside what they were before."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.use_deterministic_compute = True
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        with tempfile.TemporaryDirectory(prefix=".rounded-", dir=path.parent) as folder:
            model = onnx_rounded.rounded(onnx_typed.load(path))
            self.types = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
            self.makers = onnx_rounded.show(model) if every else {}
            self.names = [v.name for v in model.graph.output]
            onnx_graph.save(model, Path(folder) / "rounded.onnx")
            del model
            try:
                self.session = onnxruntime.InferenceSession(
                    str(Path(folder) / "rounded.onnx"), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:
                raise ConversionError(
                    f"ONNX Runtime {onnxruntime.__version__} does not load {path.name}: {str(error).strip()[:300]}",
                    mend="keep the node that it names in float32 (keep_fp32)",
                ) from error

    def __call__(self, case: CheckedCase) -> dict[str, np.ndarray[Any, Any]]:
        feeds = {
            name: a.astype(np.float32) if a.dtype == np.float16 and self.types.get(name) == 1 else a
            for name, a in case.inputs.items()
        }
        return dict(zip(self.names, self.session.run(self.names, feeds), strict=True))


def measure(path: Path, cases: Sequence[CheckedCase], *, names: Sequence[str] = ()) -> dict[str, OutputLoss]:
    """The loss of every output of an ONNX file against the outputs of the cases.

    Args:
        names: the outputs in the order of the cases; the file's own order where empty.

    Raises:
        ConversionError: an answer is NaN or infinite where the source's is not, or has another shape.
    """
    answers = Answers(path)
    found: dict[str, list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]] = {}
    for case in cases:
        given = answers(case)
        for name, wanted in zip(names or answers.names, case.outputs, strict=True):
            found.setdefault(name, []).append((given[name], wanted))
    return {name: _output(name, pairs) for name, pairs in found.items()}


def overflow(path: Path, cases: Sequence[CheckedCase]) -> str:
    """The first node of a half-precision file whose finite answer is not finite once rounded; empty where none."""
    answers = Answers(path, every=True)
    for case in cases:
        given = answers(case)
        for name, exact in given.items():
            plain = name.removesuffix(onnx_rounded.EXACT)
            if plain == name or not np.isfinite(exact).all() or np.isfinite(given[plain]).all():
                continue
            return f"node {answers.makers[plain]!r} ({np.abs(exact).max():.3g} is beyond the range)"
    return ""


def _output(name: str, pairs: Sequence[tuple[Any, Any]]) -> OutputLoss:
    for answer, wanted in pairs:
        if answer.shape != wanted.shape:
            raise ConversionError(f"output {name} has the shape {list(answer.shape)}, the source {list(wanted.shape)}")
    if pairs[0][1].dtype.kind != "f":
        count = sum(int(np.sum(a != b)) for a, b in pairs)
        share = count / max(1, sum(b.size for _, b in pairs))
        return OutputLoss(float(count > 0), float(count > 0), 1.0, share)
    largest = error = 0.0
    cosine = 1.0
    for answer, wanted in pairs:
        a, b = answer.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
        compared = np.isfinite(b)
        if not np.isfinite(a[compared]).all():
            bad = a[compared][~np.isfinite(a[compared])]
            raise NotFiniteError(name, f"{bad.size} of {a.size} values of output {name} are {bad[0]}")
        a, b = a[compared], b[compared]
        if a.size:
            largest, error = max(largest, float(np.abs(b).max())), max(error, float(np.abs(a - b).max()))
            cosine = min(cosine, _cosine(a, b))
    return OutputLoss(error, error / max(FLOOR, largest), cosine)


def _cosine(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    if length == 0:
        return float(not a.any() and not b.any())
    return min(1.0, float(a @ b) / length)


class NotFiniteError(ArithmeticError):
    """NaN or infinity at ``output`` where the source has none."""

    def __init__(self, output: str, found: str) -> None:
        super().__init__(found)
        self.output, self.found = output, found
