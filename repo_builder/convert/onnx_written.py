"""The way of every ONNX file that is written anew: care, comparison with its source, and only then its place."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from repo_builder.artifact import Artifact
from repo_builder.convert import onnx_care
from repo_builder.convert.cases import CheckedCase
from repo_builder.convert.runner import Rounding, check
from repo_builder.tensors import TensorSpec


def accepted(
    raw: Path,
    out: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    checked: Sequence[CheckedCase],
    *,
    opset: int,
    ir_version: int,
    provenance: Mapping[str, Any],
    simplify: bool = True,
    rounding: Rounding | None = None,
) -> Artifact:
    """``out``, made of ``raw`` and answering as the source does on ``checked``; nothing is there where it does not.

    Args:
        raw: the file as it was written first, external data beside it; it stays as it is.
        inputs, outputs: the signature that ``out`` gets.
        checked: what the source answered.
        opset, ir_version: the highest that the target loads.
        provenance: what is told of how ``raw`` came to be; ``notes`` are added to.
        simplify: see :func:`onnx_care.care`.
        rounding: see :func:`runner.check`.

    Raises:
        ConversionError: the file answers differently, or has other tensors.
        SourceCorruptError: onnx.checker or ONNX Runtime refuses it.
    """
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=out.parent) as folder:
        path = Path(folder) / out.name
        cared = onnx_care.care(raw, path, inputs, outputs, opset=opset, ir_version=ir_version, simplify=simplify)
        found = check(path, inputs, outputs, checked, opset=cared.opset, ir_version=ir_version, rounding=rounding)
        made = found.artifact
        for name in made.files:
            (made.folder / name).replace(out.parent / name)
    told = {
        **provenance,
        "opset": made.facts["opset"],
        "ir_version": made.facts["ir_version"],
        "notes": [*provenance.get("notes", ()), *cared.notes],
        "cases": found.cases,
        "max_abs_error": found.max_abs_error,
    }
    return replace(made, path=out, provenance=told)
