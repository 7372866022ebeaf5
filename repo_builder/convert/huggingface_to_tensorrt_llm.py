"""A Hugging Face folder to a TensorRT-LLM engine: built where TensorRT-LLM is installed, else planned for elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from repo_builder import releases
from repo_builder.artifact import Artifact
from repo_builder.formats import tensorrt_llm_engine
from repo_builder.llm import build_commands, building, settings, source
from repo_builder.spec import ModelSpec


def convert(
    folder: Artifact,
    work: Path,
    *,
    model: ModelSpec,
    release: releases.Release,
    progress: Callable[[str], None],
) -> Artifact:
    """The engine; without files where TensorRT-LLM is not installed: its script and its Job say how it is built.

    Raises:
        TargetError: the target has no TensorRT-LLM, or another version is installed here.
        SpecError, ConversionError: see ``llm.settings.planned``, ``llm.build_commands.recipe``, ``llm.building.build``.
    """
    language = source.read(folder.path / str(folder.facts.get("transformer", "")))
    planned = settings.planned(model, language, release)
    recipe = build_commands.recipe(model, language, planned)
    for note in recipe.notes:
        progress(note)
    if not building.installed():
        progress("TensorRT-LLM is not installed here: build_engine.sh builds the engine where it is")
        facts = {"engine": asdict(planned)}
        return Artifact(folder.path, tensorrt_llm_engine.NAME, facts=facts, provenance={"built": False})
    built = tensorrt_llm_engine.describe(building.build(recipe, work, language.folder, planned.version, progress))
    return replace(built, provenance={"built": True})
