"""TensorRT-LLM engine folders: ``config.json`` and one ``rankN.engine`` per GPU, described without TensorRT-LLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import SignatureError, SourceCorruptError, SourceMissingError, TensorRTMissingError
from repo_builder.formats import engine_config, source_file
from repo_builder.tensors import TensorSpec

NAME = "tensorrt_llm_engine"
TAKES = "a TensorRT-LLM engine folder (config.json with build_config, and rankN.engine)"
_CONFIG = "config.json"
_MOST = 1 << 20


def matches(path: Path) -> bool:
    """A folder whose config.json is an engine's, not a model's; a broken one counts where engines lie beside it."""
    config = path / _CONFIG
    if not path.is_dir() or not config.is_file():
        return False
    try:
        if config.stat().st_size > _MOST:
            return False
        return engine_config.is_engine(source_file.read_json(config))
    except (SourceCorruptError, SourceMissingError, OSError):
        return any(path.glob("*rank*.engine"))


def describe(path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
    """The artifact of an engine folder; its tensors are those of the tensorrtllm backend, so none are listed.

    Facts: ``engine`` (the fields of :class:`~repo_builder.formats.engine_settings.EngineSettings`), ``layout``
    (``build_config``, or ``builder_config`` before TensorRT-LLM 0.8), ``world_size``.

    Raises:
        SourceMissingError: no config.json, or engines of ranks that are missing.
        SourceCorruptError: config.json is no engine's, lacks a value or has one of the wrong kind; an empty engine.
        SignatureError: ``inputs`` were given.
    """
    if inputs:
        raise SignatureError(
            "`inputs:` is given for a TensorRT-LLM engine", expected="no `inputs:`: the backend's contract tells them"
        )
    config = source_file.read_json(path / _CONFIG)
    settings = engine_config.settings(config, path / _CONFIG)
    ranks = engine_config.rank_files(config, settings)
    missing = [rank for rank, name in enumerate(ranks) if not (path / name).exists()]
    if missing:
        raise SourceMissingError(
            f"{path} lacks the engines of rank {_shown(missing)} ({ranks[missing[0]]}{', ...' if missing[1:] else ''})",
            expected=f"{settings.world_size} engines: config.json says tp {settings.tensor_parallel}, "
            f"pp {settings.pipeline_parallel}, cp {settings.context_parallel}",
            mend="copy the whole output folder of trtllm-build; engines of several nodes must lie in one folder",
        )
    further = [f"rank{rank}_managed_weights.safetensors" for rank in range(settings.world_size)]
    files = [_CONFIG, *ranks, *(name for name in (*further, "quant_cfg.json") if (path / name).is_file())]
    for name in files:
        source_file.refuse_stand_ins(source_file.inside(path, name, owner=str(path)))
    files += [f"lora/{p.relative_to(path / 'lora').as_posix()}" for p in (path / "lora").rglob("*") if p.is_file()]
    layout = "build_config" if "build_config" in config else "builder_config"
    facts = {"engine": asdict(settings), "layout": layout, "world_size": settings.world_size}
    return Artifact(path, NAME, files=tuple(sorted(files)), facts=facts)


def run(artifact: Artifact, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Never: an engine runs in TensorRT-LLM only.

    Raises:
        TensorRTMissingError: always.
    """
    raise TensorRTMissingError(
        f"the engine {artifact.path.name} cannot compute a reference ({len(inputs)} inputs)",
        expected="a model that can run here",
        mend="prove it against the Hugging Face folder that it was built from (llm.tokenizer)",
    )


def _shown(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
