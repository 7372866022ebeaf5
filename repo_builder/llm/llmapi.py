"""The layout ``llmapi``: a Python model on TensorRT-LLM's LLM API, its config and ``model.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repo_builder.errors import SpecError, UnsafeSourceError, nearest
from repo_builder.llm import contract
from repo_builder.llm.source import LanguageModel
from repo_builder.model_config import build
from repo_builder.planned import Content
from repo_builder.spec import LlmOptions, ModelSpec

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

MODEL = Path(__file__).parent.parent / "templates" / "llm" / "llmapi" / "model.py"
_ARGUMENTS = frozenset(
    (
        *("model", "tokenizer", "tokenizer_mode", "skip_tokenizer_init", "trust_remote_code"),
        *("tensor_parallel_size", "dtype", "revision", "tokenizer_revision", "pipeline_parallel_size"),
        *("context_parallel_size", "moe_tensor_parallel_size", "moe_expert_parallel_size", "enable_lora"),
        *("lora_config", "batched_logits_processor", "guided_decoding_backend", "speculative_config"),
        *("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens", "max_beam_width", "load_format"),
        *("enable_chunked_prefill", "kv_cache_config", "stream_interval", "gpus_per_node"),
        *("moe_cluster_parallel_size", "enable_attention_dp", "cp_config", "iter_stats_max_iterations"),
        *("peft_cache_config", "scheduler_config", "cache_transceiver_config", "backend", "cuda_graph_config"),
        *("moe_config", "attn_backend", "disable_overlap_scheduler", "torch_compile_config"),
        *("enable_iter_perf_stats", "allreduce_strategy", "reasoning_parser", "num_postprocess_workers"),
        *("checkpoint_format", "checkpoint_loader", "print_iter_log", "enable_iter_req_stats", "enable_autotuner"),
        *("garbage_collection_gen0_threshold", "enable_trtllm_sampler", "enable_mixed_sampler"),
        *("request_stats_max_iterations", "force_dynamic_quantization"),
    )
)
"""Of ``tensorrt_llm.LLM`` (TensorRT-LLM, tests/unittest/api_stability/references_committed/llm.yaml and references);
one table for all versions, but for ``_UNTIL_0_19``: which version brought which name is not known here."""
_UNTIL_0_19 = "pytorch_backend_config"
CANCELLATION_CHECK_MS = 100


def config(name: str, *, parameters: Mapping[str, str], version: str, decoupled: bool) -> ModelConfig:
    """The model's config, its tensors those of TensorRT-LLM's own ``llmapi`` model.

    Args:
        parameters: config parameters, such as the chat template.
        version: of the target's TensorRT-LLM.

    Raises:
        TargetError: no table tells this version.
    """
    model = contract.of(version).models["llmapi"]
    return build(
        {
            "name": name,
            "backend": "python",
            "max_batch_size": 0,
            "input": [tensor.fields({}) for tensor in model.inputs],
            "output": [tensor.fields({}) for tensor in model.outputs],
            "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
            "model_transaction_policy": {"decoupled": decoupled},
            "parameters": {key: {"string_value": value} for key, value in parameters.items()},
        }
    )


def files() -> dict[str, Content]:
    """The Python files of the version folder."""
    return {"model.py": MODEL}


def model_yaml(model: ModelSpec, language: LanguageModel, weights: str, version: str) -> bytes:
    """``model.yaml``: arguments of ``tensorrt_llm.LLM`` from the options, ``llm.engine_args`` laid over.

    Args:
        weights: where the server finds the model.
        version: of the target's TensorRT-LLM.

    Raises:
        SpecError: an option that the LLM API does not have, an unknown argument, or sizes that contradict each other.
        UnsafeSourceError: ``engine_args`` allow remote code and ``trust_remote_code`` does not.
    """
    import yaml

    options = model.llm
    _check(options, language)
    given: dict[str, Any] = {
        "model": weights,
        "backend": "pytorch",
        "dtype": options.dtype,
        "tensor_parallel_size": options.tp,
        "pipeline_parallel_size": options.pp,
        "max_batch_size": model.batching.max_batch_size or None,
        "max_input_len": options.max_input_len,
        "max_seq_len": options.max_seq_len,
        "max_num_tokens": options.max_num_tokens,
        "max_beam_width": options.max_beam_width if options.max_beam_width > 1 else None,
        "trust_remote_code": model.trust_remote_code or None,
    }
    cache = {"free_gpu_memory_fraction": options.kv_cache_fraction, "dtype": options.kv_cache_dtype}
    given["kv_cache_config"] = {key: value for key, value in cache.items() if value is not None} or None
    arguments = {key: value for key, value in given.items() if value is not None}
    _check_names(options.engine_args, version)
    arguments |= options.engine_args
    if arguments.get("trust_remote_code") and not model.trust_remote_code:
        raise UnsafeSourceError(
            "llm.engine_args has the server run Python code that comes with the model",
            expected="trust_remote_code: true of the model, or none in engine_args",
            mend="read the code, then build with trust_remote_code",
        )
    arguments["triton_config"] = {
        "max_batch_size": 0,
        "decoupled": options.decoupled,
        "cancellation_check_period_ms": CANCELLATION_CHECK_MS,
    }
    text: str = yaml.safe_dump(arguments, sort_keys=True, allow_unicode=True)
    return text.encode("utf-8")


def _check(options: LlmOptions, language: LanguageModel) -> None:
    others = {
        "build_flags": (options.build_flags, "the LLM API builds no engine", "use llm.engine_args"),
        "parameters": (options.parameters, "they are the tensorrtllm backend's", "use llm.engine_args"),
        "quantization": (
            options.quantization,
            "its PyTorch backend quantizes nothing while it loads",
            "quantize the folder first (TensorRT Model Optimizer), make it the source and leave the option out",
        ),
    }
    for name, (given, why, mend) in others.items():
        if given:
            raise SpecError(f"llm.{name} has no effect on engine llmapi: {why}", mend=mend)
    sizes = (options.max_input_len, options.max_seq_len or language.max_positions)
    if sizes[0] and sizes[1] and sizes[0] > sizes[1]:
        raise SpecError(
            f"llm.max_input_len is {sizes[0]}, and prompt and answer together have {sizes[1]} tokens",
            expected="max_input_len within max_seq_len",
        )


def _check_names(given: Mapping[str, Any], version: str) -> None:
    known = _ARGUMENTS | ({_UNTIL_0_19} if contract.family(version) == "0.19" else set())
    for name in given:
        if name == "triton_config" or name not in known:
            raise SpecError(
                f"llm.engine_args: the LLM API of TensorRT-LLM {version} has no {name!r}{nearest(name, sorted(known))}",
                expected="arguments of tensorrt_llm.LLM",
                mend="correct the name",
            )
