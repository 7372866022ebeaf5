"""The vLLM layout: one model of Triton's vllm backend, and ``model.json`` with the arguments of vLLM's AsyncEngineArgs.

Inputs and outputs are those that the backend completes by itself (vllm_backend src/model.py at the release branches);
written out, the model loads under ``--disable-auto-complete-config`` too. Names of arguments are checked against
``vllm_args.json``, read from the wheels of the vLLM that each release from 26.01 on carries; of an older vLLM they pass
unchecked, as do the values of those that only the user gives.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repo_builder.errors import SpecError, TargetError, UnsafeSourceError, nearest
from repo_builder.formats import source_file
from repo_builder.llm.source import LanguageModel
from repo_builder.model_config import build
from repo_builder.spec import LlmOptions, ModelSpec

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

_OLDEST = (0, 6, 3)
_EMBEDDINGS = (0, 11)
_FP8_PER_CHANNEL = (0, 24)
_INT8_CACHE = (0, 24)
_RETURNS = ("finish_reason", "cumulative_logprob", "logprobs", "num_input_tokens", "num_output_tokens")
_OUTPUTS = {
    "text_output": ("STRING", -1),
    "finish_reason": ("STRING", -1),
    "cumulative_logprob": ("FP32", -1),
    "logprobs": ("STRING", -1),
    "num_input_tokens": ("UINT32", 1),
    "num_output_tokens": ("UINT32", -1),
}
_HEADS = ("num_attention_heads", "n_head")


def config(name: str, *, parameters: Mapping[str, str], version: str, decoupled: bool = True) -> ModelConfig:
    """The model's config, with all that the backend would complete.

    Args:
        name: of the model.
        parameters: config parameters, such as the chat template.
        version: of the target's vLLM, ``0.24.0+092c4842.nv26.7``.

    Raises:
        TargetError: a vLLM whose backend has other inputs.
        SpecError: not decoupled.
    """
    if _numbers(version) < _OLDEST:
        raise TargetError(
            f"vLLM {version} of the target is older than the inputs and outputs that are written",
            expected="release 25.01 (vLLM 0.6.3) or newer",
            mend="choose a newer --target",
            model=name,
        )
    if not decoupled:
        raise SpecError(
            "llm.decoupled is false, and the vllm backend serves decoupled models only",
            expected="decoupled: true",
            mend="leave it out; a request without `stream` has one response",
            model=name,
        )
    inputs = [
        {"name": "text_input", "data_type": "TYPE_STRING", "dims": [1]},
        _optional("image", "STRING", -1),
        _optional("stream", "BOOL"),
        _optional("sampling_parameters", "STRING"),
        _optional("exclude_input_in_output", "BOOL"),
        *(_optional(f"return_{output}", "BOOL") for output in _RETURNS),
    ]
    if _numbers(version) >= _EMBEDDINGS:
        inputs.append(_optional("embedding_request", "STRING"))
    return build(
        {
            "name": name,
            "backend": "vllm",
            "max_batch_size": 0,
            "input": inputs,
            "output": [
                {"name": output, "data_type": f"TYPE_{kind}", "dims": [size]}
                for output, (kind, size) in _OUTPUTS.items()
            ],
            "instance_group": [{"count": 1, "kind": "KIND_MODEL"}],
            "model_transaction_policy": {"decoupled": True},
            "parameters": {key: {"string_value": value} for key, value in parameters.items()},
        }
    )


def model_json(model: ModelSpec, language: LanguageModel, weights: str, version: str) -> bytes:
    """``model.json``: arguments of AsyncEngineArgs from the options, ``llm.engine_args`` laid over.

    ``kv_cache_fraction`` is written as ``gpu_memory_utilization``, vLLM's fraction of the whole memory for weights and
    KV cache together; ``max_input_len`` has no counterpart: ``max_model_len`` bounds prompt and answer together.

    Args:
        weights: where the server finds the model.
        version: of the target's vLLM.

    Raises:
        SpecError: an option that vLLM does not have, an unknown argument, or sizes that contradict each other.
        UnsafeSourceError: ``engine_args`` allow remote code and ``trust_remote_code`` does not.
    """
    options = model.llm
    _check_options(options)
    arguments: dict[str, Any] = {
        "model": weights,
        "dtype": options.dtype,
        "tensor_parallel_size": options.tp,
        "pipeline_parallel_size": options.pp,
    }
    given = {
        "quantization": _quantization(options, version),
        "kv_cache_dtype": _cache_dtype(options, version),
        "max_model_len": options.max_seq_len,
        "max_num_seqs": model.batching.max_batch_size or None,
        "max_num_batched_tokens": options.max_num_tokens,
        "gpu_memory_utilization": options.kv_cache_fraction,
        "trust_remote_code": model.trust_remote_code or None,
    }
    arguments.update({name: value for name, value in given.items() if value is not None})
    _check_names(options.engine_args, version)
    arguments.update(options.engine_args)
    _check_safe(model, arguments)
    _check_sizes(arguments, language, options)
    return (json.dumps(arguments, indent=1, ensure_ascii=False) + "\n").encode()


def known_arguments(version: str) -> frozenset[str] | None:
    """Names that AsyncEngineArgs of that vLLM has; None where nobody looked at it."""
    return _tables().get(".".join(map(str, _numbers(version))))


@cache
def _tables() -> dict[str, frozenset[str]]:
    changes = json.loads(Path(__file__).with_name("vllm_args.json").read_text(encoding="utf-8"))["versions"]
    tables, names = {}, frozenset[str]()
    for version, change in changes.items():
        names = (names | frozenset(change["added"])) - frozenset(change["removed"])
        tables[version] = names
    return tables


def _numbers(version: str) -> tuple[int, ...]:
    """Major, minor and micro; local and pre-release parts (``+nv26.7``, ``rc1``) left out."""
    found = re.match(r"\d+(\.\d+){0,2}", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def _optional(name: str, kind: str, size: int = 1) -> dict[str, Any]:
    return {"name": name, "data_type": f"TYPE_{kind}", "dims": [size], "optional": True}


def _check_options(options: LlmOptions) -> None:
    """Refuse what only the other engines have."""
    others = {
        "max_beam_width": (options.max_beam_width > 1, "vLLM's engine has no beam search", "leave it out"),
        "build_flags": (bool(options.build_flags), "vLLM builds no engine", "use llm.engine_args"),
        "parameters": (bool(options.parameters), "they are the tensorrtllm backend's", "use llm.engine_args"),
    }
    for name, (given, why, mend) in others.items():
        if given:
            raise SpecError(f"llm.{name} has no effect on engine vllm: {why}", mend=mend)


def _quantization(options: LlmOptions, version: str) -> str | None:
    """What vLLM makes of unquantized weights while it loads them (its quantization.py, ``_ONLINE_SHORTHANDS``)."""
    wanted = options.quantization
    if wanted in (None, "fp8"):
        return wanted
    if wanted == "fp8_pc_pt" and _numbers(version) >= _FP8_PER_CHANNEL:
        return "fp8_per_channel"
    choices = "fp8, fp8_pc_pt" if _numbers(version) >= _FP8_PER_CHANNEL else "fp8"
    raise SpecError(
        f"llm.quantization is {wanted}, which vLLM {version} does not make of unquantized weights",
        expected=f"one of {choices}, or a folder that is quantized already",
        mend="quantize the folder first (with LLM Compressor, say), make it the source and leave the option out: vLLM "
        "reads its quantization_config",
    )


def _cache_dtype(options: LlmOptions, version: str) -> str | None:
    if options.kv_cache_dtype != "int8":
        return options.kv_cache_dtype
    if _numbers(version) >= _INT8_CACHE:
        return "int8_per_token_head"
    raise SpecError(
        f"llm.kv_cache_dtype is int8, which vLLM {version} does not have",
        expected="fp8, or a target with vLLM 0.24 (release 26.07)",
        mend="set kv_cache_dtype: fp8, or leave it out",
    )


def _check_names(given: Mapping[str, Any], version: str) -> None:
    known = known_arguments(version)
    unknown = sorted(set(given) - known) if known is not None else []
    if unknown:
        meant = nearest(unknown[0], sorted(known or ()))
        raise SpecError(
            f"llm.engine_args: AsyncEngineArgs of vLLM {version} has no '{unknown[0]}'{meant}",
            expected="arguments of vLLM's AsyncEngineArgs, with underscores",
            mend="correct the name, or choose a --target whose vLLM has it",
        )
    if "hf_token" in given:
        raise SpecError(
            "llm.engine_args: hf_token would stand in the repository for all to read",
            mend="set the variable HF_TOKEN where the server runs",
        )


def _check_safe(model: ModelSpec, arguments: Mapping[str, Any]) -> None:
    if arguments.get("trust_remote_code") and not model.trust_remote_code:
        raise UnsafeSourceError(
            "llm.engine_args has the server run Python code that comes with the model",
            expected="trust_remote_code: true of the model, or none in engine_args",
            mend="read the code, then build with --trust-remote-code",
        )


def _check_sizes(arguments: Mapping[str, Any], language: LanguageModel, options: LlmOptions) -> None:
    """What vLLM would refuse when it starts."""
    length, positions = arguments.get("max_model_len"), language.max_positions
    if isinstance(length, int) and positions and length > positions and "hf_overrides" not in arguments:
        raise SpecError(
            f"max_model_len (llm.max_seq_len) is {length}, and the model has {positions} positions",
            expected=f"at most {positions}",
            mend="set a smaller llm.max_seq_len, or override rope_parameters with engine_args: {hf_overrides: ...}",
        )
    step, sequences = arguments.get("max_num_batched_tokens"), arguments.get("max_num_seqs")
    if isinstance(step, int) and isinstance(sequences, int) and step < sequences:
        raise SpecError(
            f"max_num_batched_tokens (llm.max_num_tokens) is {step}, and max_num_seqs (max_batch_size) is {sequences}",
            expected="at least one token for each sequence of a step",
            mend="raise the one or lower the other",
        )
    tensor, pipeline = (int(arguments[f"{kind}_parallel_size"]) for kind in ("tensor", "pipeline"))
    if tensor * pipeline > options.gpus_per_node and not {"distributed_executor_backend", "nnodes"} & set(arguments):
        raise SpecError(
            f"tp * pp is {tensor * pipeline}, and a machine has {options.gpus_per_node} GPUs (llm.gpus_per_node)",
            expected="as many GPUs as one machine has, or a cluster that vLLM is told of",
            mend="for several machines set engine_args: {distributed_executor_backend: ray}",
        )
    heads = _heads(language)
    if heads % tensor:
        raise SpecError(
            f"tensor_parallel_size (llm.tp) is {tensor}, and the model has {heads} attention heads",
            expected="a divisor of the number of heads",
        )


def _heads(language: LanguageModel) -> int:
    """Attention heads, as config.json says; 0 where it does not."""
    said = source_file.read_json(language.folder / "config.json")
    return next((int(said[key]) for key in _HEADS if isinstance(said.get(key), int)), 0)
