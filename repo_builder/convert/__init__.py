"""Converters: one module per edge from a source format to a served format, and the runner that checks their files."""

from __future__ import annotations

import importlib
from types import ModuleType

from repo_builder.errors import ConversionError

EDGES: dict[tuple[str, str], str] = {
    ("huggingface", "onnx"): "torch_to_onnx",
    ("factory", "onnx"): "torch_to_onnx",
    ("torchscript", "onnx"): "torch_to_onnx",
    ("exported_program", "onnx"): "torch_to_onnx",
    ("onnx", "onnx"): "onnx_to_onnx",
    ("caffe", "onnx"): "caffe_to_onnx",
    ("savedmodel", "onnx"): "framework_to_onnx",
    ("frozen_graph", "onnx"): "framework_to_onnx",
    ("tf_checkpoint", "onnx"): "framework_to_onnx",
    ("keras", "onnx"): "framework_to_onnx",
    ("tflite", "onnx"): "framework_to_onnx",
    ("mxnet", "onnx"): "framework_to_onnx",
    ("jax", "onnx"): "framework_to_onnx",
    ("xgboost", "onnx"): "framework_to_onnx",
    ("lightgbm", "onnx"): "framework_to_onnx",
    ("catboost", "onnx"): "framework_to_onnx",
    ("sklearn", "onnx"): "framework_to_onnx",
    ("torchscript", "torchscript"): "as_it_is",
    ("aoti", "aoti"): "as_it_is",
    ("onnx", "tensorrt_plan"): "onnx_to_tensorrt",
    ("huggingface", "tensorrt_llm_engine"): "huggingface_to_tensorrt_llm",
    ("tensorrt_llm_engine", "tensorrt_llm_engine"): "as_it_is",
    ("huggingface", "huggingface"): "as_it_is",
}
"""(source format, target format) -> module of this package whose ``convert`` carries a model along that edge."""


FROM_PROGRAM = "torch_to_onnx"
"""The converter that takes a task's program; every other one takes the source itself."""

BEFORE = {"onnx": "onnx", "torchscript": "torchscript", "torch_aoti": "aoti", "tensorrt": "onnx"}
BEFORE |= {"tensorrt-llm": "tensorrt_llm_engine", "llmapi": "huggingface", "vllm": "huggingface"}
"""By engine: the format that a source is carried to first; a plan is made from ONNX."""


def edge(source: str, target: str) -> ModuleType:
    """The converter's module, imported at the first call.

    Raises:
        ConversionError: there is no such edge.
    """
    return importlib.import_module(f"{__name__}.{edge_name(source, target)}")


def edge_name(source: str, target: str) -> str:
    """The name of the converter's module; imports nothing.

    Raises:
        ConversionError: there is no such edge.
    """
    name = EDGES.get((source, target))
    if name is None:
        engines = [engine for engine, first in BEFORE.items() if (source, first) in EDGES]
        raise ConversionError(
            f"nothing converts {source} to {target}",
            expected=f"{source} to " + " or ".join(engines) if engines else "a source of PyTorch or ONNX",
            mend="choose another engine" if engines else "export the model to ONNX first",
        )
    return name
