"""TensorFlow's SavedModel: a folder with ``saved_model.pb`` and ``variables/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from repo_builder.artifact import Artifact, tree_files
from repo_builder.errors import PathEscapeError, SourceMissingError
from repo_builder.formats import source_file, tensorflow_framework, tensorflow_graphs
from repo_builder.tensors import TensorSpec

NAME = "savedmodel"
TAKES = "a SavedModel folder (saved_model.pb)"
FRAMEWORK, RUNTIME = tensorflow_framework.FRAMEWORK, tensorflow_framework.RUNTIME
opened, run = tensorflow_framework.opened, tensorflow_framework.run
_GRAPH = "saved_model.pb"


def matches(path: Path) -> bool:
    """The folder, or the file in it, or a folder of numbered versions, as TensorFlow Serving has them."""
    return path.name == _GRAPH if not path.is_dir() else (_folder(path) / _GRAPH).is_file()


def describe(path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
    """The artifact, without a signature: ``opened`` tells it. Facts: ``kind``, ``operators`` (their number).

    Of a folder of versions, that of the highest number, as TensorFlow Serving takes it.

    Raises:
        RepoBuilderError: as ``tensorflow_graphs``; a file that is a link out of the folder.
    """
    folder = _folder(path) if path.is_dir() else path.parent
    found = tensorflow_graphs.operators(folder / _GRAPH, tensorflow_graphs.SAVED_MODEL)
    files = tree_files(folder)
    for name in files:
        source_file.inside(folder, name, owner=str(folder))
    if {"VarHandleOp", "VariableV2"} & set(found):
        if (folder / "variables").is_symlink():
            raise PathEscapeError(
                f"{folder / 'variables'} is a link to {(folder / 'variables').readlink()}",
                expected="the values in the model's own folder, where changes of them are seen",
                mend="copy that folder here",
            )
        if not (folder / "variables").is_dir():
            raise SourceMissingError(
                f"{folder} has no folder variables, and its graph has variables",
                expected="variables/variables.index and variables/variables.data-*",
                mend="copy the whole SavedModel",
            )
        tensorflow_graphs.check_variables(folder / "variables", "variables")
    return Artifact(folder, NAME, tuple(inputs), files=files, facts={"kind": NAME, "operators": len(found)})


def _folder(path: Path) -> Path:
    """The folder itself, or the highest of its versions."""
    if (path / _GRAPH).exists():
        return path
    versions = [p for p in path.iterdir() if p.name.isdecimal() and (p / _GRAPH).is_file()]
    return max(versions, key=lambda p: int(p.name), default=path)
