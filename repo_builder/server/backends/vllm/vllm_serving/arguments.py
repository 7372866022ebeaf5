"""The engine's arguments: ``model.json`` as it stands, and what a machine without a GPU makes of it."""

from __future__ import annotations

import json
import locale
import os
from pathlib import Path

MOUNT = "/models/"
"""Where a server in a container sees the repository."""
_PATHS = ("model", "tokenizer", "hf_config_path", "generation_config", "download_dir", "chat_template")
_KV_CACHE_BYTES = 1 << 30
_PARALLEL = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


def read(version_folder, repository):
    """The object of ``model.json``, paths below ``MOUNT`` that are not here looked up in ``repository``.

    Raises:
        ValueError: there is no such file, or it is no JSON object.
    """
    path = Path(version_folder) / "model.json"
    if not path.is_file():
        raise ValueError(f"'model.json' with vLLM's engine arguments must be in '{version_folder}'")
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{path}' is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise ValueError(f"'{path}' must hold a JSON object")
    for name in _PATHS:
        if isinstance(given.get(name), str):
            given[name] = located(given[name], repository)
    return given


def located(path, repository):
    """The path itself where it exists or lies elsewhere than below ``MOUNT``; else its place in ``repository``."""
    if not path.startswith(MOUNT) or Path(path).exists():
        return path
    return str(Path(repository) / path.removeprefix(MOUNT))


def without_gpu(given):
    """What differs on the CPU, and a line for the log of each change.

    One process holds the whole model; a KV cache of 1 GiB and no compilation, unless ``model.json`` says otherwise.
    """
    changed, notes = dict(given), []
    for name in _PARALLEL:
        if int(changed.get(name, 1)) > 1:
            notes.append(f"{name} {changed[name]} of model.json is for GPUs; this machine has none: 1")
            changed[name] = 1
    if "kv_cache_memory_bytes" not in changed and not os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
        changed["kv_cache_memory_bytes"] = _KV_CACHE_BYTES
    changed.setdefault("enforce_eager", True)
    return changed, notes


def set_environment(given):
    """Variables that are not set yet: nothing is sent, or fetched for a model here; processes talk on this machine.

    Files are read as UTF-8, here and in vLLM's processes: the stub starts in the C locale, where Python reads ASCII.
    """
    locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    os.environ.setdefault("PYTHONUTF8", "1")
    if Path(str(given.get("model", ""))).exists():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_HOST_IP", "127.0.0.1")


def adapters(given, version_folder, repository):
    """``multi_lora.json``: paths of LoRA adapters by name, in the file's order; empty where LoRA is not enabled.

    Raises:
        ValueError: LoRA is enabled and there is no such file.
    """
    if str(given.get("enable_lora", "")).lower() != "true":
        return {}
    path = Path(version_folder) / "multi_lora.json"
    if not path.is_file():
        raise ValueError(f"Triton backend cannot find {path}.")
    named = json.loads(path.read_text(encoding="utf-8"))
    return {name: located(where, repository) for name, where in named.items()}
