"""The step behind the engine that makes answers of its outputs: a Python-backend model, often with the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repo_builder.artifact import Artifact
from repo_builder.model_config import build
from repo_builder.planned import Content, PlannedModel
from repo_builder.spec import ModelSpec
from repo_builder.tasks import vendored
from repo_builder.tasks.engine_model import engine_model
from repo_builder.tasks.tokenizer import TokenizerSettings

_TEMPLATES = Path(__file__).parent.parent / "templates"


def planned(
    model: ModelSpec,
    engine: Artifact,
    template: str,
    settings: TokenizerSettings | None,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    parameters: Mapping[str, str],
    *,
    merged: bool = True,
) -> PlannedModel:
    """``<name>_postprocess``: ``templates/<template>/model.py``; with ``settings`` also tokenizer.json and its library.

    Args:
        inputs, outputs: fields of the ModelConfig, without the batch dimension.
        merged: the server merges waiting requests of equal shapes.

    Raises:
        MissingDependencyError, TargetError: see :func:`~repo_builder.tasks.vendored.library`.
    """
    name = f"{model.public_name}_postprocess"
    files: dict[str, Content] = {"model.py": _TEMPLATES / template / "model.py"}
    own: dict[str, str] = {}
    if settings:
        library = vendored.library("tokenizers")
        files |= {"tokenizer.json": settings.tokenizer}
        files |= {f"vendor/{path}": file for path, file in library.files.items()}
        own = {"tokenizers_version": library.version, "tokenizers_sha256": library.digest}
    config = build(
        {
            "name": name,
            "backend": "python",
            "max_batch_size": engine_model(name, model, engine).config.max_batch_size,
            "input": list(inputs),
            "output": list(outputs),
            "instance_group": [{"kind": "KIND_CPU", "count": 1}],
            **({"dynamic_batching": {}} if merged else {}),
            "parameters": {**parameters, **own},
        }
    )
    return PlannedModel(config, version_files=files)
