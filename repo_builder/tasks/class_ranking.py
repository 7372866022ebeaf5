"""The step behind a classifier that gives one tensor: an ONNX model that scores, sorts and names, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repo_builder.model_config import build
from repo_builder.planned import PlannedModel
from repo_builder.tasks.classification import OUTPUTS
from repo_builder.tasks.engine_model import tensor_fields
from repo_builder.tasks.instances import thread_parameters
from repo_builder.tensors import TensorSpec, dtype

VALUES = "class_values"
"""The input: what the classifier gives."""
_OPSET, _IR = 13, 7
_FUNCTIONS = {"softmax": "Softmax", "sigmoid": "Sigmoid", "none": "Identity"}


def planned(name: str, values: TensorSpec, labels: Sequence[str], scores: str, max_batch_size: int) -> PlannedModel:
    """The model from ``values`` to labels and scores, best first, and logits in the order of the labels.

    Equal scores keep the order of the labels (ONNX, TopK).

    Args:
        values: [rows, ...] with as many values a row as there are labels.
        scores: ``none``, ``softmax`` or ``sigmoid``: what makes scores of the values.
    """
    rows, count = values.shape[0], len(labels)
    given = TensorSpec(VALUES, values.dtype, values.shape)
    made = [TensorSpec(inner, "BYTES" if inner == "labels" else "FP32", (rows, count)) for inner in OUTPUTS.values()]
    config = build(
        {
            "name": name,
            "backend": "onnxruntime",
            "platform": "onnxruntime_onnx",
            "max_batch_size": max_batch_size,
            "input": [tensor_fields(given, max_batch_size)],
            "output": [tensor_fields(spec, max_batch_size) for spec in made],
            "instance_group": [{"kind": "KIND_CPU", "count": 1}],
            **({"dynamic_batching": {}} if max_batch_size else {}),
            "parameters": thread_parameters("onnxruntime", 1),
        }
    )
    return PlannedModel(config, {"model.onnx": _file(given, made, labels, scores)})


def _file(given: TensorSpec, made: Sequence[TensorSpec], labels: Sequence[str], scores: str) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    def value(spec: TensorSpec) -> object:
        return helper.make_tensor_value_info(spec.name, dtype(spec.dtype).onnx, list(spec.shape))

    count = len(labels)
    weights = [
        helper.make_tensor("table", TensorProto.STRING, [count], [label.encode() for label in labels]),
        numpy_helper.from_array(np.array([-1, count], dtype=np.int64), "flat"),
        numpy_helper.from_array(np.array([count], dtype=np.int64), "count"),
    ]
    function = _FUNCTIONS[scores]
    nodes = [
        helper.make_node("Cast", [given.name], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["floats", "flat"], ["logits"]),
        helper.make_node(function, ["logits"], ["unsorted"], **({"axis": -1} if scores == "softmax" else {})),
        helper.make_node("TopK", ["unsorted", "count"], ["scores", "order"], axis=-1),
        helper.make_node("Gather", ["table", "order"], ["labels"]),
    ]
    graph = helper.make_graph(nodes, "main_graph", [value(given)], [value(spec) for spec in made], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    return bytes(model.SerializeToString(deterministic=True))
