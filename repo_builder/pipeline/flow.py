"""The flow of a repository: which tensors go through which models, as a graph of its ModelConfigs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tensor:
    """A tensor of a flow; ``kind`` is ``TYPE[dims]``, with the batch axis where the model has one."""

    name: str
    kind: str


@dataclass(frozen=True)
class Node:
    """A model of a flow: what it is, and the tensors of the flow that it reads and writes."""

    name: str
    engine: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True)
class Flow:
    """One public model: an ensemble with its steps, or a model alone."""

    name: str
    tensors: tuple[Tensor, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def flows(configs: Mapping[str, Any]) -> tuple[Flow, ...]:
    """Every ensemble, and every model that is a step of none, by name.

    Args:
        configs: the ModelConfigs of a repository, by folder.
    """
    steps = {step.model_name for config in configs.values() for step in config.ensemble_scheduling.step}
    return tuple(_flow(name, configs) for name in sorted(configs) if name not in steps)


def _flow(name: str, configs: Mapping[str, Any]) -> Flow:
    config = configs[name]
    kinds = {told.name: _kind(told, config) for told in (*config.input, *config.output)}
    nodes = []
    for step in config.ensemble_scheduling.step:
        inner = configs.get(step.model_name)
        bindings = [(step.input_map, inner.input), (step.output_map, inner.output)] if inner is not None else []
        for names, told in ((names, told) for names, side in bindings for told in side):
            if bound := names.get(told.name):
                kinds.setdefault(bound, _kind(told, inner))
        reads, writes = tuple(sorted(step.input_map.values())), tuple(sorted(step.output_map.values()))
        nodes.append(Node(step.model_name, _engine(inner), reads, writes))
    inputs, outputs = (tuple(told.name for told in side) for side in (config.input, config.output))
    if not nodes:
        nodes = [Node(name, _engine(config), inputs, outputs)]
    used: Sequence[str] = [*inputs, *(n for node in nodes for n in (*node.reads, *node.writes)), *outputs]
    tensors = tuple(Tensor(one, kinds.get(one, "")) for one in dict.fromkeys(used))
    return Flow(name, tensors, tuple(nodes), inputs, outputs)


def _engine(config: Any) -> str:
    if config is None:
        return "not in this repository"
    return str(config.backend or config.platform)


def _kind(told: Any, config: Any) -> str:
    from tritonclient.grpc import model_config_pb2

    dims = [*(["batch"] if config.max_batch_size > 0 else []), *(str(dim) if dim >= 0 else "?" for dim in told.dims)]
    known = model_config_pb2.DataType.values()
    name = model_config_pb2.DataType.Name(told.data_type) if told.data_type in known else f"TYPE_{told.data_type}"
    name = name.removeprefix("TYPE_")
    return f"{'BYTES' if name == 'STRING' else name}[{', '.join(dims)}]"
