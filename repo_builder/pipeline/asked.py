"""What the spec asks for and the build of this model could not do: refused, never left out in silence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repo_builder import convert, formats, model_config, releases
from repo_builder.artifact import Artifact
from repo_builder.convert import onnx_to_tensorrt
from repo_builder.errors import ConversionError, RepoBuilderError, SpecError
from repo_builder.spec import LLM_ENGINES, ModelSpec
from repo_builder.tasks import plan_model

_GENERATING = ("text2text-generation", "text-generation")
_OF_IMAGES = ("image-classification", "object-detection")


def check(model: ModelSpec, source: Artifact, task: str) -> None:
    """Refuse an engine that nothing converts this source to, and options without any effect on source and task.

    Raises:
        ConversionError: no converter leads from the source to the engine.
        SpecError: names the first option without effect, and why it has none.
    """
    first = convert.BEFORE[model.engine]
    exported = convert.edge_name(source.format, first) == convert.FROM_PROGRAM
    chosen = getattr(formats.get(source.format), "CHOOSES_OUTPUTS", False)
    if model.engine in LLM_ENGINES and task != "text-generation":
        raise ConversionError(
            f"the engine {model.engine} was asked for, and the task {task}",
            expected="the task text-generation, which is all that it serves",
            mend="leave task out, or take engine onnx",
        )
    if model.engine == "tensorrt" and task in _GENERATING:
        raise ConversionError(
            f"the task {task} makes no TensorRT plans: its decoder's cache grows with every token",
            expected="engine onnx for this task" + (", or tensorrt-llm" if task == "text-generation" else ""),
            mend="leave engine out",
        )
    taken = f"the {source.format} file is served as it is, nothing is exported"
    pictures = task in _OF_IMAGES
    told = "the folder tells it" if source.format == "huggingface" else f"the task {task} takes no images"
    silent = pictures and source.format != "huggingface"
    takes = f"the task {task} takes {'images' if pictures else 'texts'}"
    one = f"the task {task} makes one model, whose config is `config:`"
    no_texts = f"the task {task} takes no texts"
    for option, asked, why in (
        ("exporter", model.exporter and source.format == first, taken),
        ("exporter", model.exporter and not exported, f"a {source.format} model has one converter"),
        ("outputs", model.outputs and not (exported or chosen), "its file names the outputs"),
        ("outputs", model.outputs and task != "tensors", f"the task {task} names the outputs"),
        ("step_configs", model.step_configs and task == "tensors", one),
        ("image", model.image and not silent, told),
        ("labels", model.labels and not silent, told),
        ("scores", model.scores != "none" and not silent, told),
        ("samples.texts", model.samples.texts is not None and (task == "tensors" or pictures), no_texts),
        ("samples.arrays", model.samples.arrays and task != "tensors", takes),
        ("samples.images", model.samples.images and not pictures, f"the task {task} takes no images"),
    ):
        if asked:
            raise SpecError(
                f"{option} has no effect here: {why}",
                expected="only what this model's build can do",
                mend=f"leave {option} out" + (", or choose the task 'tensors'" if option == "samples.arrays" else ""),
            )


def check_configs(model: ModelSpec, release: releases.Release) -> None:
    """Refuse what cannot be built here, before any conversion: plans without TensorRT, overrides without a field.

    Raises:
        SpecError: an unknown field, or a value that does not fit it.
        TargetError: a field, platform or backend that the target lacks.
        TensorRTMissingError, TensorRTError, SourceMissingError: see ``onnx_to_tensorrt.builder``.
    """
    for place, fields in {"": model.config, **{f"step_configs.{s}": c for s, c in model.step_configs.items()}}.items():
        if fields:
            try:
                config = model_config.build(_set(fields))
                releases.check_config(config, release)
                if model.engine == "tensorrt" and not place:
                    plan_model.check_kinds(config)
            except RepoBuilderError as error:
                raise error.at(stage=place) from error.__cause__
    if model.engine == "tensorrt":
        onnx_to_tensorrt.builder(release, model.precision, model.tensorrt)


def _set(fields: Any) -> Any:
    """The fields without those that ``null`` clears: they need the config that they are laid over."""
    if isinstance(fields, Mapping):
        return {key: _set(value) for key, value in fields.items() if value is not None}
    return [_set(value) for value in fields] if isinstance(fields, (list, tuple)) else fields
