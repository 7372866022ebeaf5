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
    "text-classification": "repo_builder.tasks.text_classification",
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
    name, why = (model.task, "asked for") if model.task else guess(source)
    task = get(name)
    if source.format not in task.SOURCES:
        raise UnknownTaskError(
            f"the task {task.NAME} does not take a model of the format {source.format}",
            expected="a model of the format " + " or ".join(sorted(task.SOURCES)),
            mend="choose the task 'tensors', or give the Hugging Face folder",
        )
    return task, why


HEADS: tuple[tuple[str, str], ...] = (("ForSequenceClassification", "text-classification"),)
"""Endings of the class that wrote a model (``architectures`` of config.json), and what it does."""


def guess(source: Artifact) -> tuple[str, str]:
    """The task that the source's own files tell, and why, in words."""
    if source.format != "huggingface":
        return "tensors", f"{source.format} files carry no task"
    if (source.folder / "modules.json").is_file():
        return "sentence-embedding", "the folder has sentence-transformers' modules.json"
    written = [str(name) for name in source.facts.get("architectures") or ()]
    for ending, task in HEADS:
        for name in written:
            if name.endswith(ending):
                return task, f"config.json names {name}"
    return "feature-extraction", "a Hugging Face encoder without a known head"
