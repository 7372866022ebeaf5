"""Tasks: what the served model does. A task owns the head that goes into the graph and the models around the engine."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

from repo_builder.artifact import Artifact
from repo_builder.errors import UnknownTaskError, nearest
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Proof
from repo_builder.spec import ModelSpec


class Task(Protocol):
    """A module of this package."""

    NAME: str
    SOURCES: frozenset[str]
    """Formats of ``repo_builder.formats`` that the task takes."""

    def head(self, source: Artifact, model: ModelSpec) -> TorchProgram:
        """The program to convert: the source with the task's part (pooling, normalisation) in front of its outputs."""

    def models(self, model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
        """The Triton models; the first is the public one."""

    def proof(self, model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
        """The cases, with outputs computed by the source model."""


TASKS: dict[str, str] = {
    "tensors": "repo_builder.tasks.plain_tensors",
    "feature-extraction": "repo_builder.tasks.feature_extraction",
    "sentence-embedding": "repo_builder.tasks.sentence_embedding",
}


def get(name: str) -> Task:
    """The task's module.

    Raises:
        UnknownTaskError: with the nearest known name.
    """
    if name not in TASKS:
        raise UnknownTaskError(
            f"there is no task {name!r}{nearest(name, list(TASKS))}",
            expected="one of " + ", ".join(TASKS),
            mend="choose one with --task, or leave it out",
        )
    return cast(Task, importlib.import_module(TASKS[name]))


def choose(model: ModelSpec, source: Artifact) -> tuple[Task, str]:
    """The asked task, or the one that the source's own files tell; and why, in words.

    Raises:
        UnknownTaskError: unknown, or the task does not take this format.
    """
    if model.task:
        task, why = get(model.task), "asked for"
    elif source.format != "huggingface":
        task, why = get("tensors"), f"{source.format} files carry no task"
    elif (source.folder / "modules.json").is_file():
        task, why = get("sentence-embedding"), "the folder has sentence-transformers' modules.json"
    else:
        task, why = get("feature-extraction"), "a Hugging Face encoder without a known head"
    if source.format not in task.SOURCES:
        raise UnknownTaskError(
            f"the task {task.NAME} does not take a model of the format {source.format}",
            expected="a model of the format " + " or ".join(sorted(task.SOURCES)),
            mend="choose the task 'tensors', or give the Hugging Face folder",
        )
    return task, why
