"""A file that Triton's pytorch backend takes as it is (TorchScript, AOTInductor); the writer links or copies it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from repo_builder.artifact import Artifact
from repo_builder.errors import ConversionError

_FLAT = re.compile(r"Tensor|Tuple\[Tensor(, Tensor)*\]")


def convert(source: Artifact, out: Path, *, progress: Callable[[str], None] | None = None) -> Artifact:  # noqa: ARG001
    """The source's own file; nothing is written to ``out``.

    Raises:
        ConversionError: TorchScript that gives or takes what the backend does not carry (pytorch_backend, libtorch.cc,
            ModelInstanceState::ValidateInputs and Execute).
    """
    returns, takes = str(source.facts.get("returns", "Tensor")), list(map(str, source.facts.get("takes", [])))
    if not _FLAT.fullmatch(returns):
        raise ConversionError(
            f"forward of {source.path.name} returns {returns}",
            expected="for the engine torchscript: Tensor, or a flat tuple of tensors that are always there",
            mend="return such a tuple and script it again, or take engine onnx, which flattens lists and dictionaries",
        )
    if others := [kind for kind in takes if kind != "Tensor"]:
        raise ConversionError(
            f"forward of {source.path.name} takes {', '.join(others)}, if only by default",
            expected="for the engine torchscript: tensors alone, each of them given with every request",
            mend="set what has a default in the module itself and script it again, or take engine onnx",
        )
    if len(takes) > len(source.inputs):
        raise ConversionError(
            f"forward of {source.path.name} takes {len(takes)} tensors, `inputs:` gives {len(source.inputs)}",
            expected="for the engine torchscript: every argument, those with a default too",
            mend="add it to `inputs:`, or take engine onnx",
        )
    return replace(source, provenance={"exporter": "none: taken as it is"})
