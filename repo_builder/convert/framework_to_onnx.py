"""A framework's model to ONNX by the framework's own converter, compared with the framework's own answers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from repo_builder import formats
from repo_builder.artifact import Artifact
from repo_builder.convert import onnx_written
from repo_builder.convert.cases import CheckedCase, Source, cases
from repo_builder.errors import SignatureError
from repo_builder.formats import framework_process
from repo_builder.formats.examples import SIZES, working_inputs
from repo_builder.formats.framework_process import Session

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
        checked = _own_cases(source, session, ask) or cases(source.inputs, _examples(source, session), ask)
        if session.died:
            raise session.died
        tell("checking and simplifying the ONNX file")
        told = {"exporter": framework.name, **source.facts.get("framework", {}), "notes": notes}
        made = onnx_written.accepted(
            raw, out, source.inputs, source.outputs, checked, opset=opset, ir_version=ir_version, provenance=told
        )
    return replace(made, batch=source.batch)


def _own_cases(source: Artifact, session: Session, ask: Source) -> list[CheckedCase]:
    """The cases that the worker made from the model itself; none where it makes none."""
    found = []
    for inputs in session.examples():
        dims = (
            (d, size) for spec in source.inputs for d, size in zip(spec.shape, inputs[spec.name].shape, strict=True)
        )
        found.append(CheckedCase({d: size for d, size in dims if isinstance(d, str)}, inputs, tuple(ask(inputs))))
    return found


def _examples(source: Artifact, session: Session) -> Mapping[str, np.ndarray[Any, Any]]:
    """Inputs that the framework takes.

    Raises:
        SignatureError: it takes none of the sizes that were tried; with its words for the first ones.
    """
    try:
        return working_inputs(source.inputs, session.run)
    except SignatureError as error:
        dims = dict.fromkeys(d for spec in source.inputs for d in spec.shape[1:] if isinstance(d, str))
        raise SignatureError(
            f"{source.path.name} takes none of the example inputs: {error.found}",
            expected="a model that runs with " + ", ".join(map(str, SIZES)) + " for " + ", ".join(map(str, dims)),
            mend="say sizes that it takes in `inputs:` of the spec",
        ) from error
