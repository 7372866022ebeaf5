"""A framework's model to ONNX by the framework's own converter, compared with the framework's own answers."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from repo_builder import formats
from repo_builder.artifact import Artifact
from repo_builder.convert import onnx_written
from repo_builder.convert.cases import CheckedCase, Source, cases
from repo_builder.convert.runner import ROUNDED
from repo_builder.errors import SignatureError
from repo_builder.formats import framework_process, index_ranges
from repo_builder.formats.examples import SIZES, working_inputs
from repo_builder.formats.framework_process import Framework, Session
from repo_builder.tensors import TensorSpec

Progress = Callable[[str], None]


def convert(source: Artifact, out: Path, *, opset: int, ir_version: int, progress: Progress | None = None) -> Artifact:
    """``out``, written by the framework's converter, accepted because it answers as the framework does.

    Args:
        source: an Artifact that its format opened (``opened``): with its signature.
        out: the file to write, in a folder that exists.
        opset, ir_version: the highest that the target loads.

    Raises:
        ConversionError: the converter fails, or its file answers differently.
        FrameworkError: the framework's process died.
    """
    framework = cast(Any, formats.get(source.format)).FRAMEWORK
    session = framework_process.of(framework, source, progress)
    tell = progress or (lambda _line: None)

    def ask(inputs: Mapping[str, np.ndarray[Any, Any]]) -> tuple[np.ndarray[Any, Any], ...]:
        answers = session.run(inputs)
        return tuple(answers[spec.name] for spec in source.outputs)

    with tempfile.TemporaryDirectory(prefix=".convert-", dir=out.parent) as folder:
        raw = Path(folder) / "framework.onnx"
        tell(f"converting it with {framework.name}")
        notes = session.convert(raw, min(opset, framework.opset))
        tell("comparing answers")
        ranges: Mapping[str, tuple[int, int]] = {}
        if not (checked := _own_cases(source, session, ask)):
            examples, ranges = _examples(source, session, _ranges(raw, source))
            checked = cases(source.inputs, examples, ask)
            notes = (*notes, *_unknown(source, ranges))
        if session.died:
            raise session.died
        tell("checking and simplifying the ONNX file")
        told = {"exporter": framework.name, **source.facts.get("framework", {}), "notes": notes}
        with contextlib.closing(_Rounding(framework, source)) as known:
            made = onnx_written.accepted(
                *(raw, out, source.inputs, source.outputs, checked),
                opset=opset,
                ir_version=ir_version,
                provenance=told,
                rounding=known,
            )
    told = {**made.provenance, **known.told(made.provenance["notes"])}
    return replace(made, batch=source.batch, provenance=told | ({"ranges": dict(ranges)} if ranges else {}))


class _Rounding:
    """How far apart the framework's own answers are, asked twice with its sums in two orders; opened when it is asked.

    Attributes:
        found: by output, the most that was found, of its largest value; of outputs that needed it.
    """

    def __init__(self, framework: Framework, source: Artifact) -> None:
        self._framework, self._source = framework, source
        self._other: Session | None = None
        self.found: dict[str, float] = {}

    def __call__(self, case: CheckedCase, place: int) -> float:
        self._other = self._other or framework_process.otherwise(self._framework, self._source)
        if self._other is None:
            return 0.0
        name = self._source.outputs[place].name
        wanted, answer = case.outputs[place].astype(np.float64), self._other.run(case.inputs)[name]
        if answer.shape != wanted.shape:
            return 0.0
        apart = float(np.nan_to_num(np.abs(answer - wanted)).max(initial=0.0))
        largest = float(np.nan_to_num(np.abs(wanted)).max(initial=0.0)) or 1.0
        self.found[name] = max(self.found.get(name, 0.0), min(apart / largest, ROUNDED))
        return apart

    def told(self, notes: Sequence[str]) -> dict[str, Any]:
        """What the provenance says of it, ``notes`` included; nothing where nothing needed it."""
        added = [
            f"output {name}: {self._framework.name}'s own answers with its sums in two orders are up to {share:.1e} of"
            " their largest apart, so that much more is allowed"
            for name, share in self.found.items()
        ]
        return {"rounding": self.found, "notes": [*notes, *added]} if added else {}

    def close(self) -> None:
        if self._other:
            self._other.close()


def _own_cases(source: Artifact, session: Session, ask: Source) -> list[CheckedCase]:
    """The cases that the worker made from the model itself; none where it makes none."""
    found = []
    for inputs in session.examples():
        dims = (
            (d, size) for spec in source.inputs for d, size in zip(spec.shape, inputs[spec.name].shape, strict=True)
        )
        found.append(CheckedCase({d: size for d, size in dims if isinstance(d, str)}, inputs, tuple(ask(inputs))))
    return found


def _ranges(raw: Path, source: Artifact) -> dict[str, tuple[int, int]]:
    """Of the inputs that are indices into tables of the graph."""
    if not any(_counts(spec) for spec in source.inputs):
        return {}
    found = index_ranges.of(raw)
    if len(found) != len(source.inputs):
        return {}
    return {
        spec.name: one for spec, one in zip(source.inputs, found, strict=True) if one and _counts(spec) and one[1] > 1
    }


def _counts(spec: TensorSpec) -> bool:
    return spec.dtype.startswith(("INT", "UINT")) and not spec.name.lower().endswith("mask")


def _unknown(source: Artifact, ranges: Mapping[str, object]) -> list[str]:
    return [
        f"input {spec.name}: compared on 0 and 1 alone, for nothing tells which integers it takes"
        for spec in source.inputs
        if _counts(spec) and spec.shape and not spec.dtype.endswith("INT8") and spec.name not in ranges
    ]


def _examples(
    source: Artifact, session: Session, ranges: Mapping[str, tuple[int, int]]
) -> tuple[Mapping[str, np.ndarray[Any, Any]], Mapping[str, tuple[int, int]]]:
    """Inputs that the framework takes, and those of ``ranges`` that it takes them with: all, or none.

    Raises:
        SignatureError: it takes none of the sizes that were tried; with its words for the first ones.
    """
    if ranges:
        with contextlib.suppress(SignatureError):
            return working_inputs(source.inputs, session.run, ranges), ranges
    try:
        return working_inputs(source.inputs, session.run), {}
    except SignatureError as error:
        dims = dict.fromkeys(d for spec in source.inputs for d in spec.shape[1:] if isinstance(d, str))
        raise SignatureError(
            f"{source.path.name} takes none of the example inputs: {error.found}",
            expected="a model that runs with " + ", ".join(map(str, SIZES)) + " for " + ", ".join(map(str, dims)),
            mend="say sizes that it takes in `inputs:` of the spec",
        ) from error
