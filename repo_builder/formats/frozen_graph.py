"""A frozen TensorFlow graph (``.pb``): a GraphDef whose weights are constants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from repo_builder.artifact import Artifact
from repo_builder.errors import SignatureError, SourceCorruptError
from repo_builder.formats import source_file, tensorflow_framework, tensorflow_graphs
from repo_builder.tensors import TensorSpec

NAME = "frozen_graph"
TAKES = "a frozen TensorFlow graph (.pb)"
CHOOSES_OUTPUTS = True
"""``outputs`` of the spec are names of nodes: the file does not say which are its outputs."""
FRAMEWORK, RUNTIME = tensorflow_framework.FRAMEWORK, tensorflow_framework.RUNTIME
opened, run = tensorflow_framework.opened, tensorflow_framework.run
_VARIABLES = {"VarHandleOp", "VariableV2", "Variable"}


def matches(path: Path) -> bool:
    """By suffix; ``saved_model.pb`` is a SavedModel's."""
    return path.suffix.lower() == ".pb" and path.name != "saved_model.pb"


def describe(path: Path, inputs: Sequence[TensorSpec] = (), outputs: Sequence[str] = ()) -> Artifact:
    """The artifact, without a signature: ``opened`` tells it.

    Args:
        outputs: nodes whose values are served; by default those that nothing uses.

    Raises:
        RepoBuilderError: as ``tensorflow_graphs``.
        SignatureError: the graph has variables: it is not frozen.
    """
    _refuse_others(path)
    found = tensorflow_graphs.operators(path, tensorflow_graphs.GRAPH)
    if variables := sorted(_VARIABLES & set(found)):
        raise SignatureError(
            f"{path} is a graph with variables ({variables[0]}), whose values lie elsewhere",
            expected="a frozen graph: weights as constants",
            mend="name the checkpoint (.meta) or the SavedModel folder instead",
        )
    facts = {"kind": NAME, "operators": len(found), "options": {"outputs": list(outputs)}}
    return Artifact(path, NAME, tuple(inputs), files=(path.name,), facts=facts)


def _refuse_others(path: Path) -> None:
    """Protobuf messages of other kinds that bear this suffix; both begin with a number, as no GraphDef does."""
    source_file.refuse_stand_ins(path)
    head = source_file.head(path, 4)
    if head[:1] != b"\x08":  # field 1, a number: ModelProto.ir_version, SavedModel.saved_model_schema_version
        return
    saved = head[:3] == b"\x08\x01\x12"
    raise SourceCorruptError(
        f"{path} is no frozen graph: it begins as " + ("a SavedModel's file does" if saved else "an ONNX model does"),
        expected="a GraphDef of TensorFlow",
        mend="name it saved_model.pb, beside its folder variables" if saved else f"name it {path.stem}.onnx",
    )
