"""Constant folding and simplification of an ONNX file by onnxslim, kept where the numbers stay.

onnxslim drops unused inputs and may fuse what only looks alike, so nothing that it writes is taken unseen.
"""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from repo_builder.convert import onnx_graph
from repo_builder.convert.runner import compare, own_cases
from repo_builder.errors import RepoBuilderError, first_line
from repo_builder.formats import onnx as onnx_format

if TYPE_CHECKING:
    from onnx import ModelProto


def slim(model: ModelProto, path: Path) -> tuple[ModelProto | None, str]:
    """A smaller model with the same answers, or None, and a note that says what became of it.

    Args:
        model: as ``path`` holds it.
        path: the file; its folder takes the simplified one while both are compared.
    """
    if importlib.util.find_spec("onnxslim") is None:
        return None, "not simplified: pip install 'repo-builder[simplify]' brings onnxslim"
    if model.ByteSize() >= onnx_graph.EXTERNAL_FROM:
        return None, "not simplified: its weights are too large for one protobuf message"
    made = path.with_name(f"slim-{path.name}")
    try:
        smaller = _slimmed(model)
        if smaller.ByteSize() > model.ByteSize():
            return None, f"not simplified: {model.ByteSize()} bytes would become {smaller.ByteSize()}"
        onnx_graph.save(smaller, made)
        onnx_format.check(made)
        source, other = onnx_format.describe(path), onnx_format.describe(made)
        if (source.inputs, source.outputs) != (other.inputs, other.outputs):
            return None, "not simplified: onnxslim changes the signature"
        compare(other, own_cases(source))
    except RepoBuilderError as error:
        return None, f"not simplified: {error.found}"
    except Exception as error:  # noqa: BLE001 - an optimizer may raise anything
        return None, f"not simplified: onnxslim fails ({type(error).__name__}: {first_line(error)})"
    finally:
        made.unlink(missing_ok=True)
    before, after = len(model.graph.node), len(smaller.graph.node)
    return (smaller, f"simplified by onnxslim: {before} nodes became {after}") if after < before else (None, "")


def _slimmed(model: ModelProto) -> ModelProto:
    import onnxslim

    given = copy.deepcopy(model)
    made: ModelProto = onnxslim.slim(given)
    for side in ("input", "output"):
        kept = getattr(model.graph, side)
        del getattr(made.graph, side)[:]
        getattr(made.graph, side).extend(kept)
    made.ir_version = model.ir_version
    onnx_graph.strip(made)
    return made
