"""A stand-in framework: numpy. A model is a JSON file; some do what a framework can do to whoever runs it."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import loop
import numpy as np


def open_model(source: str, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    with open(source, encoding="utf-8") as file:
        model = json.load(file)
    print("opening", kind, options)
    misbehave(model.get("open"))
    return model


def misbehave(how: str | None) -> None:
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "memory":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        os._exit(3)
    elif how == "hang":
        time.sleep(600)
    elif how == "flood":
        for _ in range(3000):
            os.write(1, b"x" * 1023 + b"\n")
            sys.stderr.write("y" * 1023 + "\n")
    elif how == "raise":
        raise KeyError("conv_7\nand more")
    elif how == "refuse":
        raise loop.Refused("layer conv_7 is a Lambda", "layers", "replace it", "UnsafeSourceError")


def describe(model: dict[str, Any]) -> dict[str, Any]:
    rows, columns = np.shape(model["weights"])
    lookup = "lookup" in model
    return {
        "inputs": [
            {"name": "serving_default_x:0", "dtype": "INT64", "shape": ["batch"]}
            if lookup
            else {"name": "serving_default_x:0", "dtype": "FP32", "shape": ["batch", rows]}
        ],
        "outputs": [{"name": "net/y 1:0", "dtype": "FP32", "shape": ["batch", columns]}],
        "versions": {"numpy": np.__version__},
        "notes": ["a stand-in"],
    }


def convert(model: dict[str, Any], onnx: str, opset: int) -> dict[str, Any]:
    misbehave(model.get("convert"))
    from onnx import TensorProto, helper, numpy_helper, save

    weights = np.array(model.get("converted", model["weights"]), dtype=np.float32)
    nodes = [helper.make_node("MatMul", ["serving_default_x:0", "w"], ["net/y:0"])]
    constants = [numpy_helper.from_array(weights, "w")]
    if "sharp" in model:
        nodes[0].output[0] = "sums"
        nodes += [
            helper.make_node("Mul", ["sums", "sharp"], ["large"]),
            helper.make_node("Sin", ["large"], ["net/y:0"]),
        ]
        constants.append(numpy_helper.from_array(np.float32(model["sharp"]), "sharp"))
    given = helper.make_tensor_value_info("serving_default_x:0", TensorProto.FLOAT, ["unk__1", weights.shape[0]])
    if "lookup" in model:
        nodes = [helper.make_node("Gather", ["w", "serving_default_x:0"], ["net/y:0"])]
        given = helper.make_tensor_value_info("serving_default_x:0", TensorProto.INT64, ["unk__1"])
    graph = helper.make_graph(
        nodes,
        "g",
        [given],
        [helper.make_tensor_value_info("net/y:0", TensorProto.FLOAT, ["unk__2", weights.shape[1]])],
        constants,
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), onnx)
    return {"notes": ["written by hand"]}


def run(model: dict[str, Any], arrays: list[Any]) -> list[Any]:
    misbehave(model.get("run"))
    if len(arrays[0]) == model.get("refused_rows"):
        raise ValueError("no such batch")
    if "lookup" in model:
        if (arrays[0] >= model["lookup"]).any():
            raise ValueError("no such row")
        return [np.array(model["weights"], dtype=np.float32)[arrays[0]]]
    sums = arrays[0] @ np.array(model["weights"], dtype=np.float32)
    if os.environ.get("SUMS") == "otherwise":
        sums *= np.float32(1 + 2.0**-21)
    return [np.sin(sums * np.float32(model["sharp"])) if "sharp" in model else sums]


def examples(model: dict[str, Any]) -> list[list[Any]]:
    return [[np.array(rows, dtype=np.float32)] for rows in model.get("examples", ())]


if __name__ == "__main__":
    loop.main(open_model, describe, convert, run, examples)
