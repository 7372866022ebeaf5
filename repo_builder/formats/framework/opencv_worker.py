"""Caffe nets in OpenCV's dnn module: the reference that a converted net is compared with. It converts nothing itself.

``options``: ``caffemodel``, a file beside the prototxt; ``prototxt``, text to read instead of it, or nothing;
``blobs``, the net's own names of the inputs; ``tops``, for each output the layer that makes it and its place among
that layer's tops; ``signature``, the tensors as served.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import loop
import numpy as np


def open_model(source: str, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """Load the net; Winograd's convolutions and fused layers are left out, as they cost digits."""
    weights = str(Path(source).with_name(options["caffemodel"]))
    if options["prototxt"]:
        source = "told.prototxt"
        Path(source).write_text(options["prototxt"], encoding="utf-8")
    try:
        net = cv2.dnn.readNetFromCaffe(source, weights)
    except cv2.error as error:
        raise loop.Refused(
            f"OpenCV {cv2.__version__} does not load the {kind} net: {_reason(error)}",
            "a net that OpenCV runs: its answers are what the converted net is compared with",
            "write the layer that it names with others",
        ) from error
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.setPreferableTarget(cv2.dnn.DNN_TARGET_CPU)
    net.enableFusion(False)
    net.enableWinograd(False)
    return {"net": net, **options}


def describe(state: dict[str, Any]) -> dict[str, Any]:
    return {**state["signature"], "versions": {"opencv": cv2.__version__}, "notes": []}


def convert(state: dict[str, Any], onnx: str, opset: int) -> dict[str, Any]:
    raise loop.Refused(f"OpenCV writes no ONNX at opset {opset} to {onnx} for {state['caffemodel']}")


def run(state: dict[str, Any], arrays: list[Any]) -> list[Any]:
    """The outputs; each top of a layer is asked for by the layer."""
    net = state["net"]
    try:
        for name, array in zip(state["blobs"], arrays, strict=True):
            net.setInput(np.ascontiguousarray(array, dtype=np.float32), name)
        layers = list(dict.fromkeys(layer for layer, _ in state["tops"]))
        found = dict(zip(layers, net.forwardAndRetrieve(layers), strict=True))
    except cv2.error as error:
        shapes = ", ".join(str(list(array.shape)) for array in arrays)
        raise loop.Refused(f"OpenCV {cv2.__version__} fails on inputs of {shapes}: {_reason(error)}") from error
    return [np.array(found[layer][index], dtype=np.float32) for layer, index in state["tops"]]


def _reason(error: Exception) -> str:
    """OpenCV's own words without the path of its source file."""
    said = str(error).strip().replace("\n", " ")
    return said.split("error: ", 1)[-1]


if __name__ == "__main__":
    loop.main(open_model, describe, convert, run)
