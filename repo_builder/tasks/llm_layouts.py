"""The Triton models of each layout in which a large language model is served."""

from __future__ import annotations

from collections.abc import Mapping

from repo_builder import releases
from repo_builder.artifact import Artifact
from repo_builder.errors import SpecError, nearest
from repo_builder.formats import tensorrt_llm_engine
from repo_builder.formats.engine_settings import EngineSettings
from repo_builder.llm import MOUNT, contract, engine_configs, vllm, written
from repo_builder.llm import parameters as backend_parameters
from repo_builder.llm.source import LanguageModel
from repo_builder.model_config import apply_overrides
from repo_builder.planned import Content, PlannedModel
from repo_builder.spec import ModelSpec
from repo_builder.tasks.llm_tokens import LlmTokens

WEIGHTS = "weights"
"""Folder in the version folder that holds the Hugging Face folder."""
ROLES = ("bls", "ensemble", "preprocessing", "tensorrt_llm", "postprocessing")
"""The models of the engine path; the first is the public one."""


def models(
    model: ModelSpec,
    source: Artifact,
    language: LanguageModel,
    tokens: LlmTokens,
    engine: Artifact,
    release: releases.Release,
) -> tuple[PlannedModel, ...]:
    """The models of the engine's layout, the user's overrides laid over; the first is the public one."""
    made = {"tensorrt-llm": _engine_path, "llmapi": _llmapi, "vllm": _vllm}
    planned = made[model.engine](model, source, language, tokens, engine, release)
    return tuple(_overridden(model, planned).values())


def _vllm(
    model: ModelSpec,
    source: Artifact,
    language: LanguageModel,
    tokens: LlmTokens,
    engine: Artifact,
    release: releases.Release,
) -> dict[str, PlannedModel]:
    name = model.public_name
    where, files = _weights(model, source)
    version = str(release.image("vllm-python-py3").vllm)
    config = vllm.config(name, parameters=tokens.chat, version=version)
    arguments = vllm.model_json(model, language, where, version)
    return {"": PlannedModel(config, {"model.json": arguments, **files})}


def _llmapi(
    model: ModelSpec,
    source: Artifact,
    language: LanguageModel,
    tokens: LlmTokens,
    engine: Artifact,
    release: releases.Release,
) -> dict[str, PlannedModel]:
    from repo_builder.llm import llmapi

    name = model.public_name
    where, files = _weights(model, source)
    version = str(release.image("trtllm-python-py3").tensorrt_llm)
    config = llmapi.config(name, parameters=tokens.chat, version=version, decoupled=model.llm.decoupled)
    arguments = llmapi.model_yaml(model, language, where, version)
    return {"": PlannedModel(config, {**llmapi.files(), "model.yaml": arguments, **files})}


def _engine_path(
    model: ModelSpec,
    source: Artifact,
    language: LanguageModel,
    tokens: LlmTokens,
    engine: Artifact,
    release: releases.Release,
) -> dict[str, PlannedModel]:
    name, options = model.public_name, model.llm
    settings = EngineSettings(**engine.facts["engine"])
    version = settings.version or str(release.image("trtllm-python-py3").tensorrt_llm)
    given = {"kv_cache_free_gpu_mem_fraction": options.kv_cache_fraction, **options.parameters}
    parameters = backend_parameters.check(
        {key: value for key, value in given.items() if value is not None}, version, settings
    )
    configs = engine_configs.configs(
        name,
        settings,
        contract=contract.of(version),
        max_batch_size=model.batching.max_batch_size or settings.max_batch_size,
        decoupled=options.decoupled,
        parameters=parameters,
        preprocessing={**tokens.preprocessing.parameters, **_lengths(model, settings)},
        postprocessing={**tokens.postprocessing.parameters, **({} if options.decoupled else {"streaming": "false"})},
        bls={**tokens.bls.parameters, **tokens.chat},
    )
    files: dict[str, Mapping[str, Content]] = {
        "bls": tokens.bls.files,
        "preprocessing": tokens.preprocessing.files,
        "postprocessing": tokens.postprocessing.files,
        "tensorrt_llm": {file: engine.folder / file for file in engine.files},
    }
    beside = written.files(model, source, language, settings, release)
    return {
        role: PlannedModel(configs[role], files.get(role, {}), beside if role == "tensorrt_llm" else {})
        for role in ROLES
    }


def _lengths(model: ModelSpec, settings: EngineSettings) -> dict[str, str]:
    """What preprocessing refuses before the engine would."""
    prompt = min(model.llm.max_input_len or settings.longest_prompt, settings.longest_prompt)
    return {"max_input_len": str(prompt), "max_seq_len": str(settings.max_seq_len)}


def _weights(model: ModelSpec, source: Artifact) -> tuple[str, dict[str, Content]]:
    """Where the server finds the Hugging Face folder, and its files where they travel in the repository."""
    if model.llm.weights:
        return model.llm.weights, {}
    files: dict[str, Content] = {f"{WEIGHTS}/{file}": source.folder / file for file in source.files}
    return f"{MOUNT}/{model.public_name}/1/{WEIGHTS}", files


def _overridden(model: ModelSpec, planned: Mapping[str, PlannedModel]) -> dict[str, PlannedModel]:
    """``config`` goes over the model that runs the engine, ``step_configs`` over the others by role."""
    runs = "tensorrt_llm" if "tensorrt_llm" in planned else ""
    steps = [role for role in planned if role != runs]
    for step in model.step_configs:
        if step not in steps:
            raise SpecError(
                f"step_configs: there is no step {step!r}{nearest(step, steps)}",
                expected="one of " + ", ".join(steps)
                if steps
                else "none: this layout has one model, whose config is `config:`",
                mend="correct the name in the spec",
            )
    overrides = {runs: model.config, **model.step_configs}
    return {
        role: PlannedModel(apply_overrides(one.config, overrides.get(role, {})), one.version_files, one.model_files)
        for role, one in planned.items()
    }


def is_engine(source: Artifact) -> bool:
    """Whether the source is an engine folder, not the model that it was built from."""
    return source.format == tensorrt_llm_engine.NAME
