"""A TensorFlow 1 checkpoint: ``x.meta`` (the graph) with ``x.index`` and ``x.data-*`` (the weights)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from repo_builder.artifact import Artifact
from repo_builder.errors import SourceMissingError
from repo_builder.formats import tensorflow_framework, tensorflow_graphs
from repo_builder.tensors import TensorSpec

NAME = "tf_checkpoint"
TAKES = "a TensorFlow 1 checkpoint (.meta with .index and .data-*)"
CHOOSES_OUTPUTS = True
FRAMEWORK, RUNTIME = tensorflow_framework.FRAMEWORK, tensorflow_framework.RUNTIME
opened, run = tensorflow_framework.opened, tensorflow_framework.run


def matches(path: Path) -> bool:
    """One of the files, or a folder with ``.meta`` files."""
    if path.is_dir():
        return any(path.glob("*.meta")) and any(path.glob("*.index"))
    return path.name.endswith((".meta", ".index")) or ".data-0" in path.name


def describe(path: Path, inputs: Sequence[TensorSpec] = (), outputs: Sequence[str] = ()) -> Artifact:
    """The artifact, without a signature: ``opened`` tells it. ``outputs`` as for a frozen graph.

    Raises:
        RepoBuilderError: as ``tensorflow_graphs``; a folder with several checkpoints.
    """
    if path.is_dir():
        path = _in_folder(path)
    name = path.name.split(".data-")[0].removesuffix(".index").removesuffix(".meta")
    meta = path.with_name(f"{name}.meta")
    if not meta.is_file():
        raise SourceMissingError(
            f"there is no {meta.name} beside {path.name}: its weights are there, its graph is not",
            expected="the .meta file that tf.train.Saver wrote",
            mend="copy it too; without it, build the graph, load the weights and export a SavedModel",
        )
    found = tensorflow_graphs.operators(meta, tensorflow_graphs.META_GRAPH)
    weights = tensorflow_graphs.check_variables(meta.parent, name)
    facts = {"kind": NAME, "operators": len(found), "options": {"outputs": list(outputs)}}
    return Artifact(meta, NAME, tuple(inputs), files=(meta.name, *(w.name for w in weights)), facts=facts)


def _in_folder(folder: Path) -> Path:
    found = sorted(folder.glob("*.meta"))
    if len(found) > 1:
        raise SourceMissingError(
            f"{folder} holds {len(found)} checkpoints",
            expected="one",
            mend="name the file: " + ", ".join(str(path) for path in found[-3:]),
        )
    return found[0]
