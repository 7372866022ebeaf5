"""The step behind a plan that makes text of its indices: an ONNX model of one Gather for each table, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repo_builder.artifact import Artifact
from repo_builder.model_config import build
from repo_builder.planned import PlannedModel
from repo_builder.tasks.instances import thread_parameters
from repo_builder.tensors import TensorSpec, dtype

if TYPE_CHECKING:
    from onnx import GraphProto

FACT = "tables"
"""Of an engine whose strings were taken out: output -> the strings that it is an index into."""
_OPSET, _IR = 13, 7
_MARK = "__index"


def indices(engine: Artifact) -> dict[str, str]:
    """Output of the engine -> its name in the ensemble: under its own name the step gives the strings."""
    return {name: name + _MARK for name in _tables(engine)}


def planned(name: str, engine: Artifact, max_batch_size: int) -> PlannedModel | None:
    """The model that looks up what the engine's tables hold; None where it has none."""
    from repo_builder.tasks.engine_model import tensor_fields

    tables = _tables(engine)
    if not tables:
        return None
    specs = [spec for spec in engine.outputs if spec.name in tables]
    given = [TensorSpec(spec.name + _MARK, spec.dtype, spec.shape) for spec in specs]
    made = [TensorSpec(spec.name, "BYTES", spec.shape) for spec in specs]
    config = build(
        {
            "name": name,
            "backend": "onnxruntime",
            "platform": "onnxruntime_onnx",
            "max_batch_size": max_batch_size,
            "input": [tensor_fields(spec, max_batch_size) for spec in given],
            "output": [tensor_fields(spec, max_batch_size) for spec in made],
            "instance_group": [{"kind": "KIND_CPU", "count": 1}],
            **({"dynamic_batching": {}} if max_batch_size else {}),
            "parameters": thread_parameters("onnxruntime", 1),
        }
    )
    return PlannedModel(config, {"model.onnx": _file(_graph(tables, given, made))})


def _tables(engine: Artifact) -> Mapping[str, Any]:
    return dict(engine.facts.get(FACT, {}))


def _graph(tables: Mapping[str, Any], given: list[TensorSpec], made: list[TensorSpec]) -> GraphProto:
    from onnx import TensorProto, helper

    def value(spec: TensorSpec) -> Any:
        return helper.make_tensor_value_info(spec.name, dtype(spec.dtype).onnx, list(spec.shape))

    weights, nodes = [], []
    for before, after in zip(given, made, strict=True):
        entries = [str(entry).encode() for entry in tables[after.name]]
        table = f"{after.name}__table"
        weights.append(helper.make_tensor(table, TensorProto.STRING, [len(entries)], entries))
        nodes.append(helper.make_node("Gather", [table, before.name], [after.name], name=after.name))
    return helper.make_graph(nodes, "main_graph", list(map(value, given)), list(map(value, made)), weights)


def _file(graph: GraphProto) -> bytes:
    from onnx import helper

    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    return bytes(model.SerializeToString(deterministic=True))
