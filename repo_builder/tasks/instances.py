"""How many instances of a converted model serve on the CPU, and how many threads each has."""

from __future__ import annotations

from typing import Any

_PARAMETERS = {
    "onnxruntime": ("intra_op_thread_count", "inter_op_thread_count"),
    "pytorch": ("INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT"),
}
"""By backend: threads inside one operator, and operators at once (READMEs of onnxruntime_backend, pytorch_backend)."""


def cpu_instances(weights: int, cpus: int, memory: int) -> tuple[int, int]:
    """Instances, and the threads of each.

    One instance per core with one thread each: an instance that works alone on its core waits for nobody, where threads
    that share an operator wait for each other at its end. Every instance holds its own copy of the weights; all of them
    may take half of the memory, the rest is for activations, other models and the system. Where fewer fit, those that
    do share the cores evenly.

    Args:
        weights: bytes of one copy.
        cpus: cores, at least 1.
        memory: bytes.
    """
    fitting = memory // 2 // max(1, weights)
    count = max(1, min(cpus, fitting))
    return count, cpus // count


def thread_parameters(backend: str, threads: int) -> dict[str, Any]:
    """The config parameters that give every instance ``threads`` threads inside an operator; one operator at a time."""
    intra, inter = _PARAMETERS[backend]
    return {intra: {"string_value": str(threads)}, inter: {"string_value": "1"}}


def chosen(config: Any) -> dict[str, Any] | None:
    """Count, kind and threads of the instances of a converted model, for people to read.

    None for a model of another backend, or one that leaves its instances to the server. Several groups are counted
    together, with the kind of the first; threads is 0 where the backend chooses.
    """
    if config.backend not in _PARAMETERS or not config.instance_group:
        return None
    intra = _PARAMETERS[config.backend][0]
    threads = config.parameters[intra].string_value if intra in config.parameters else ""
    first = config.instance_group[0]
    kind = type(first).Kind.Name(first.kind).removeprefix("KIND_").lower()
    count = sum(max(1, group.count) for group in config.instance_group)
    return {"count": count, "kind": kind, "threads": int(threads) if threads.isdigit() else 0}
