"""Small ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def linear(
    path: Path, *, opset: int = 18, ir_version: int = 9, weight: float = 2.0, batch: int | str = "batch"
) -> Path:
    """``y = relu(x @ w)``, x FP32[batch, 3], y FP32[batch, 2]."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        [numpy_helper.from_array(np.full((3, 2), weight, dtype=np.float32), "w")],
    )
    return save(graph, path, opset=opset, ir_version=ir_version)


def branch(path: Path) -> Path:
    """``y = x + 1 if sum(x) > 0 else x * -1``; the inner values of both branches are called ``y_inner``."""

    def body(operator: str, value: float) -> onnx.GraphProto:
        return helper.make_graph(
            [helper.make_node(operator, ["x", f"c_{operator}"], [f"inner_{operator}"])],
            operator,
            [],
            [helper.make_tensor_value_info(f"inner_{operator}", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.float32(value), f"c_{operator}")],
        )

    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            helper.make_node("Greater", ["sum", "zero"], ["positive"]),
            helper.make_node("If", ["positive"], ["y"], then_branch=body("Add", 1.0), else_branch=body("Mul", -1.0)),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.float32(0), "zero")],
    )
    return save(graph, path)


def save(graph: onnx.GraphProto, path: Path, *, opset: int = 18, ir_version: int = 9) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    onnx.save(model, str(path))
    return path
