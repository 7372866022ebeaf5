"""Tasks: what the served model does. A task owns the head that goes into the graph and the models around the engine."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol, cast

from repo_builder.artifact import Artifact
from repo_builder.errors import UnknownTaskError, nearest
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Proof
from repo_builder.spec import LLM_ENGINES, ModelSpec
from repo_builder.tasks import steps


class Task(Protocol):
    """A module of this package.

    Where the reference needs more than the builder's own environment, ``prepare(progress)`` makes it, before anything
    is converted; ``progress`` is called with one line per step. ``check(model, source)`` refuses what the spec asks for
    and the task cannot do, as far as that is known before the source is opened.
    """

    NAME: str
    SOURCES: frozenset[str]
    """Formats of ``repo_builder.formats`` that the task takes."""

    def head(self, source: Artifact, model: ModelSpec) -> TorchProgram | Mapping[str, TorchProgram]:
        """The program to convert: the source with the task's part (pooling, normalisation) in front of its outputs.

        Or several by name (encoder, decoder): ``models`` and ``proof`` then get engines and programs by these names.
        """

    def models(self, model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
        """The Triton models; the first is the public one."""

    def proof(self, model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof | None:
        """The cases, with outputs computed by the source model; None where nobody can compute them."""


TASKS: dict[str, str] = {
    "tensors": "repo_builder.tasks.plain_tensors",
    "feature-extraction": "repo_builder.tasks.feature_extraction",
    "sentence-embedding": "repo_builder.tasks.sentence_embedding",
    "sparse-embedding": "repo_builder.tasks.sparse_embedding",
    "reranking": "repo_builder.tasks.reranking",
    "text-classification": "repo_builder.tasks.text_classification",
    "token-classification": "repo_builder.tasks.token_classification",
    "question-answering": "repo_builder.tasks.question_answering",
    "zero-shot-classification": "repo_builder.tasks.zero_shot_classification",
    "fill-mask": "repo_builder.tasks.fill_mask",
    "text2text-generation": "repo_builder.tasks.text2text_generation",
    "text-generation": "repo_builder.tasks.text_generation",
    "image-classification": "repo_builder.tasks.image_classification",
    "object-detection": "repo_builder.tasks.object_detection",
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
        SpecError: ``step_configs`` names what the task's models do not have (:mod:`repo_builder.tasks.steps`), or
            what the task's ``check`` raises.
    """
    name, why = (model.task, "asked for") if model.task else guess(source)
    if not model.task and model.engine in LLM_ENGINES:
        name, why = "text-generation", f"the engine {model.engine} serves nothing else"
    if not model.task and model.image and source.format != "huggingface":
        name, why = "image-classification", "the spec has `image:`"
    task = get(name)
    if source.format not in task.SOURCES:
        raise UnknownTaskError(
            f"the task {task.NAME} does not take a model of the format {source.format}",
            expected="a model of the format " + " or ".join(sorted(task.SOURCES)),
            mend="choose the task 'tensors', or give the Hugging Face folder",
        )
    steps.check(model, task.NAME)
    if hasattr(task, "check"):
        task.check(model, source)
    return task, why


HEADS: tuple[tuple[str, str], ...] = (
    ("ForSequenceClassification", "text-classification"),
    ("ForTokenClassification", "token-classification"),
    ("ForQuestionAnswering", "question-answering"),
    ("ForQuestionAnsweringSimple", "question-answering"),
    ("ForMaskedLM", "fill-mask"),
    ("ForConditionalGeneration", "text2text-generation"),
    ("MTModel", "text2text-generation"),
    ("ForImageClassification", "image-classification"),
    ("ForImageClassificationWithTeacher", "image-classification"),
    ("ForObjectDetection", "object-detection"),
)
"""Endings of the class that wrote a model (``architectures`` of config.json), and what it does."""


_SENTENCE: dict[str, str] = {
    "SentenceTransformer": "sentence-embedding",
    "CrossEncoder": "reranking",
    "SparseEncoder": "sparse-embedding",
}
"""``model_type`` of config_sentence_transformers.json, and what it does."""


def guess(source: Artifact) -> tuple[str, str]:
    """The task that the source's own files tell, and why, in words.

    Raises:
        UnknownTaskError: a kind of sentence-transformers model that no task serves.
    """
    if source.format != "huggingface":
        return "tensors", f"{source.format} files carry no task"
    if folder := source.facts.get("sentence_transformers"):
        return _sentence_task(source, folder)
    written = [str(name) for name in source.facts.get("architectures") or ()]
    classifier = next((name for name in written if name.endswith("ForSequenceClassification")), None)
    if classifier and source.facts.get("cross_encoder"):
        return "reranking", "config.json bears the mark of sentence-transformers' CrossEncoder"
    if classifier and (len(source.facts.get("id2label") or ()) or source.facts.get("num_labels")) == 1:
        return "reranking", f"config.json names {classifier} with one label; of single texts it is text-classification"
    for ending, task in HEADS:
        for name in written:
            if name.endswith(ending):
                return task, f"config.json names {name}"
    return "feature-extraction", "a Hugging Face encoder without a known head"


def _sentence_task(source: Artifact, folder: Mapping[str, Any]) -> tuple[str, str]:
    if any(module["kind"] == "SpladePooling" for module in folder["modules"]):
        return "sparse-embedding", "modules.json names SpladePooling"
    written = folder["settings"].get("config_sentence_transformers", {}).get("model_type", "SentenceTransformer")
    if written not in _SENTENCE:
        raise UnknownTaskError(
            f"{source.path.name} is a {written} of sentence-transformers",
            expected="one of " + ", ".join(_SENTENCE),
            mend="name a task with --task that fits its transformer",
        )
    if written == "SentenceTransformer":
        return "sentence-embedding", "the folder has sentence-transformers' modules.json"
    return _SENTENCE[written], f"config_sentence_transformers.json names {written}"
