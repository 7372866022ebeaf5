"""The configs of the five models that serve a TensorRT-LLM engine, after TensorRT-LLM's own contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repo_builder.errors import SpecError
from repo_builder.formats.engine_settings import EngineSettings
from repo_builder.llm import MOUNT
from repo_builder.llm.contract import Contract, Model
from repo_builder.model_config import build

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

ROLES = ("bls", "ensemble", "preprocessing", "tensorrt_llm", "postprocessing")
"""The models of one public name; the first bears it."""
MESSAGES = {"bls": "messages", "preprocessing": "MESSAGES"}
"""Our one addition to the contract, by role: an optional input, a JSON list of messages ({role, content})."""
_TYPES = {"float16": "TYPE_FP16", "bfloat16": "TYPE_BF16", "float32": "TYPE_FP32"}


def names(name: str) -> dict[str, str]:
    """Role -> the model's name."""
    return {role: name if role == "bls" else f"{name}_{role}" for role in ROLES}


def data_types(settings: EngineSettings) -> dict[str, str]:
    """What fills the data types that the contract leaves open; a text model has no encoder features.

    Raises:
        SpecError: a dtype that no tensor of Triton has.
    """
    for dtype in (settings.dtype, settings.logits_dtype):
        if dtype not in _TYPES:
            raise SpecError(f"the engine's dtype is {dtype!r}", expected="one of " + ", ".join(_TYPES))
    return {
        "logits_datatype": _TYPES[settings.logits_dtype],
        "encoder_input_features_data_type": "TYPE_BF16" if settings.dtype == "bfloat16" else "TYPE_FP16",
        "prompt_embedding_table_data_type": _TYPES[settings.dtype],
    }


def configs(
    name: str,
    settings: EngineSettings,
    *,
    contract: Contract,
    max_batch_size: int,
    decoupled: bool,
    parameters: Mapping[str, str],
    preprocessing: Mapping[str, str],
    postprocessing: Mapping[str, str],
    bls: Mapping[str, str],
    preprocessing_instances: int = 1,
    postprocessing_instances: int = 1,
    bls_instances: int | None = None,
    max_queue_delay_microseconds: int = 0,
    max_queue_size: int = 0,
) -> dict[str, ModelConfig]:
    """The config of each role.

    Args:
        name: the public name, which the BLS model bears.
        contract: of the TensorRT-LLM that serves.
        decoupled: of the engine's model and of the BLS model alike.
        parameters: of the engine's model, as :func:`repo_builder.llm.parameters.check` gives them.
        preprocessing, postprocessing, bls: config parameters of our own models.
        preprocessing_instances, postprocessing_instances, bls_instances: processes of our own models. A decoupled BLS
            model answers many requests at a time in one; another one answers one at a time in each (default: 8, at
            most ``max_batch_size``).
        max_queue_delay_microseconds, max_queue_size: of the engine's model and of preprocessing; 0 is no limit.

    Raises:
        SpecError: sizes that the engine does not have.
    """
    _check_sizes(settings, max_batch_size)
    called, types = names(name), data_types(settings)
    batching = {
        "preferred_batch_size": [max_batch_size],
        "max_queue_delay_microseconds": max_queue_delay_microseconds,
        "default_queue_policy": {"max_queue_size": max_queue_size},
    }
    others = {
        "tensorrt_llm_model_name": called["tensorrt_llm"],
        "preprocessing_model_name": called["preprocessing"],
        "postprocessing_model_name": called["postprocessing"],
    }
    engine = {"gpt_model_path": f"{MOUNT}/{called['tensorrt_llm']}/1", **parameters}
    engine_instances = len(engine.get("gpu_device_ids", "").split(";"))
    policy = {"model_transaction_policy": {"decoupled": decoupled}}
    fields: dict[str, dict[str, Any]] = {
        "bls": {
            "backend": "python",
            **policy,
            **_instances(bls_instances or (1 if decoupled else min(max_batch_size, 8))),
            "parameters": {**bls, **others},
        },
        "ensemble": {
            "platform": "ensemble",
            "ensemble_scheduling": {"step": _steps(contract.text["ensemble"], called)},
        },
        "preprocessing": {
            "backend": "python",
            "dynamic_batching": batching,
            **_instances(preprocessing_instances),
            "parameters": preprocessing,
        },
        "tensorrt_llm": {
            "backend": "tensorrtllm",
            **policy,
            "dynamic_batching": batching,
            **_instances(engine_instances),
            "parameters": engine,
        },
        "postprocessing": {
            "backend": "python",
            "dynamic_batching": {},
            **_instances(postprocessing_instances),
            "parameters": postprocessing,
        },
    }
    return {
        role: build(
            {
                "name": called[role],
                "max_batch_size": max_batch_size,
                **_tensors(contract.text["tensorrt_llm_bls" if role == "bls" else role], MESSAGES.get(role), types),
                **fields[role],
            }
        )
        for role in ROLES
    }


def _check_sizes(settings: EngineSettings, max_batch_size: int) -> None:
    if not 1 <= max_batch_size <= settings.max_batch_size:
        raise SpecError(
            f"batching.max_batch_size is {max_batch_size}",
            expected=f"1 to {settings.max_batch_size}, the engine's own",
            mend="lower it, or build the engine with a larger --max_batch_size",
        )
    if not 1 <= settings.max_input_len <= settings.max_seq_len:
        raise SpecError(
            f"the engine takes prompts of {settings.max_input_len} tokens in sequences of {settings.max_seq_len}",
            expected="max_input_len within max_seq_len, which holds prompt and answer together",
            mend="build the engine with a larger --max_seq_len",
        )


def _instances(count: int) -> dict[str, Any]:
    return {"instance_group": [{"count": count, "kind": "KIND_CPU"}]}


def _tensors(model: Model, messages: str | None, types: Mapping[str, str]) -> dict[str, Any]:
    inputs = [tensor.fields(types) for tensor in model.inputs]
    if messages:
        inputs.append({"name": messages, "data_type": "TYPE_STRING", "dims": [1], "optional": True})
    return {"input": inputs, "output": [tensor.fields(types) for tensor in model.outputs]}


def _steps(ensemble: Model, called: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
    """The contract's maps, which name only tensors that our models have (a test holds them together)."""
    return [
        {
            "model_name": called[step.model],
            "model_version": -1,
            "input_map": dict(step.input_map),
            "output_map": dict(step.output_map),
        }
        for step in ensemble.steps
    ]
