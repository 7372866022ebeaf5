"""The step behind the engine that turns tokens into text again: a Python-backend model with the source's tokenizer."""

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
    settings: TokenizerSettings,
    inputs: Sequence[Mapping[str, Any]],
    outputs: Sequence[Mapping[str, Any]],
    parameters: Mapping[str, str],
) -> PlannedModel:
    """``<name>_postprocess``: ``templates/<template>/model.py`` with tokenizer.json and its library beside it.

    Args:
        inputs, outputs: fields of the ModelConfig, without the batch dimension.

    Raises:
        MissingDependencyError, TargetError: see :func:`~repo_builder.tasks.vendored.library`.
    """
    name = f"{model.public_name}_postprocess"
    library = vendored.library("tokenizers")
    files: dict[str, Content] = {"model.py": _TEMPLATES / template / "model.py", "tokenizer.json": settings.tokenizer}
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
            "dynamic_batching": {},
            "parameters": {**parameters, **own},
        }
    )
    return PlannedModel(config, version_files=files)
