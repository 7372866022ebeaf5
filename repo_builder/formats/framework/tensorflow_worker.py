"""TensorFlow, Keras and TFLite: SavedModel, frozen graph, TF1 checkpoint, .keras and .h5, .tflite; tf2onnx converts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import loop

os.environ.update({"KERAS_BACKEND": "tensorflow", "KERAS_HOME": str(Path.cwd()), "TF_CPP_MIN_LOG_LEVEL": "2"})
os.environ["TF_USE_LEGACY_KERAS"] = "0"

import keras
import numpy as np
import onnx
import tensorflow as tf
import tensorflow_keras_file
import tensorflow_savers
import tensorflow_v1
import tf2onnx
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

_DTYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
_SIZES = (3, 16, 32, 224)


@dataclass
class Model:
    """One opened model.

    Attributes:
        inputs, outputs: (name, dtype name of numpy, shape with None; or None where the rank is unknown), in order.
        call: the answers, for arrays in the order of ``inputs``.
        write: the ONNX file, at an opset; gives its tensors' names, (inputs, outputs) in our order.
    """

    inputs: list[tuple[str, str, Any]]
    outputs: list[tuple[str, str, Any]]
    call: Callable[[Sequence[Any]], list[Any]]
    write: Callable[[str, int], tuple[list[str], list[str]]]
    notes: list[str] = field(default_factory=list)


def open_model(source: str, kind: str, options: dict[str, Any]) -> Model:
    if kind in ("frozen_graph", "tf_checkpoint"):
        read = {"frozen_graph": tensorflow_v1.frozen_graph, "tf_checkpoint": tensorflow_v1.checkpoint}[kind]
        opened = _of_graph(*read(source, options.get("outputs", ())))
    else:
        opened = {"savedmodel": _saved_model, "keras": _keras, "tflite": _tflite}[kind](source)
    _check_dtypes(opened)
    opened.outputs = [_ranked(opened, place) for place in range(len(opened.outputs))]
    return opened


def describe(model: Model) -> dict[str, Any]:
    batched = any(shape and shape[0] is None for _, _, shape in model.inputs)
    return {
        "inputs": [_told(*tensor, batched) for tensor in model.inputs],
        "outputs": [_told(*tensor, batched) for tensor in model.outputs],
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__, "tf2onnx": tf2onnx.__version__},
        "notes": model.notes,
    }


def convert(model: Model, path: str, opset: int) -> dict[str, Any]:
    inputs, outputs = model.write(path, min(opset, 18))
    written = onnx.load(path)
    found = {value.name: value for value in written.graph.input}
    notes = []
    values = []
    for name, (told, dtype, shape) in zip(inputs, model.inputs, strict=True):
        if name not in found:
            notes.append("the input " + told + " has no effect on the outputs")
            kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            found[name] = onnx.helper.make_tensor_value_info(name, kind, shape)
        values.append(found[name])
    answers = {value.name: value for value in written.graph.output}
    ordered = [answers[name] for name in outputs]
    del written.graph.input[:], written.graph.output[:]
    written.graph.input.extend(values)
    written.graph.output.extend(ordered)
    onnx.save(written, path)
    return {"notes": notes}


def run(model: Model, arrays: list[Any]) -> list[Any]:
    return [np.asarray(array) for array in model.call(arrays)]


def _told(name: str, dtype: str, shape: Sequence[Any], batched: bool) -> dict[str, Any]:
    def dim(axis: int, size: Any) -> Any:
        return size if size is not None else "batch" if axis == 0 and batched else f"{name}_dim{axis}"

    return {"name": name, "dtype": _DTYPES[dtype], "shape": [dim(axis, size) for axis, size in enumerate(shape)]}


def _check_dtypes(model: Model) -> None:
    for side, tensors in (("input", model.inputs), ("output", model.outputs)):
        for name, dtype, _ in tensors:
            if dtype not in _DTYPES:
                words = "strings do" if dtype in ("string", "object") else f"{dtype} does"
                raise loop.Refused(
                    f"{side} '{name}' is of dtype {dtype}, and {words} not convert to ONNX",
                    "tensors of " + ", ".join(_DTYPES),
                    "export a signature that begins and ends with numbers",
                    "UnsupportedDtypeError",
                )
    for name, _, shape in model.inputs:
        if shape is None:
            raise loop.Refused(
                f"input '{name}' has no rank", "a known rank", "export it with a shape", "SignatureError"
            )


def _ranked(model: Model, place: int) -> tuple[str, str, Any]:
    """The output, its rank found by running the model where the file does not tell it."""
    name, dtype, shape = model.outputs[place]
    if shape is not None:
        return name, dtype, shape
    for size in _SIZES:
        try:
            given = [_example(tensor, size) for tensor in model.inputs]
            answer = np.asarray(model.call(given)[place])
        except Exception:  # noqa: BLE001  the size does not fit; the next may
            continue
        return name, dtype, [None] * answer.ndim
    raise loop.Refused(
        f"output '{name}' has no rank", "a rank, or sizes that the model runs with", "export shapes", "SignatureError"
    )


def _example(tensor: tuple[str, str, Any], size: int) -> Any:
    _, dtype, shape = tensor
    return np.ones([2 if d is None and axis == 0 else size if d is None else d for axis, d in enumerate(shape)], dtype)


def _saved_model(source: str) -> Model:
    for meta in SavedModel.FromString(Path(source, "saved_model.pb").read_bytes()).meta_graphs:
        tensorflow_savers.check(meta)
    try:
        loaded = tf.saved_model.load(source)
        signatures = dict(loaded.signatures)
    except Exception as error:  # noqa: BLE001  Keras' own loader fails on old files; the graph is whole still
        print("tf.saved_model.load failed:", repr(error))
        model = _of_graph(*tensorflow_v1.saved_model(source))
        model.notes.append("its objects do not load in this TensorFlow: its graph was frozen instead")
        return model
    chosen = tensorflow_v1.choose_signature(signatures)
    served = signatures[chosen]
    names = sorted(served.structured_input_signature[1])  # a signature keeps no order of its own
    specs = [served.structured_input_signature[1][name] for name in names]
    answers = sorted(served.structured_outputs)

    def call(*tensors: Any) -> list[Any]:
        found = served(**dict(zip(names, tensors, strict=True)))
        return [found[name] for name in answers]

    outputs = [(name, served.structured_outputs[name]) for name in answers]
    model = _of_function(call, list(zip(names, specs, strict=True)), outputs)
    model.loaded = loaded  # type: ignore[attr-defined]  # its variables live as long as it
    others = sorted(set(signatures) - {chosen})
    if others:
        model.notes.append(f"signature {chosen} is taken; there are also " + ", ".join(others))
    return model


def _keras(source: str) -> Model:
    tensorflow_keras_file.check(source)
    loaded = keras.saving.load_model(source, compile=False, safe_mode=True)
    if not getattr(loaded, "inputs", None):
        raise loop.Refused(
            "the Keras model was saved before it knew its input shapes",
            "a model that was built",
            "call it once, or give it an Input layer, and save it again",
            "SignatureError",
        )
    inputs = [(tensor.name, tf.TensorSpec(tensor.shape, tensor.dtype)) for tensor in keras.tree.flatten(loaded.inputs)]
    structure = getattr(loaded, "_inputs_struct", None)

    def call(*tensors: Any) -> list[Any]:
        given = keras.tree.pack_sequence_as(structure, list(tensors)) if structure is not None else tensors[0]
        return list(keras.tree.flatten(loaded(given, training=False)))

    tensors = keras.tree.flatten(loaded.outputs)
    functional = getattr(loaded, "_functional", None) or loaded  # what a Sequential wraps; it names layers
    names = list(getattr(functional, "output_names", ())) or [tensor.name for tensor in tensors]
    outputs = [(name, tf.TensorSpec(tensor.shape, tensor.dtype)) for name, tensor in zip(names, tensors, strict=True)]
    return _of_function(call, inputs, outputs)


def _of_function(call: Any, inputs: list[tuple[str, Any]], outputs: list[tuple[str, Any]]) -> Model:
    signature = [tf.TensorSpec(spec.shape, spec.dtype, name=f"input_{i}") for i, (_, spec) in enumerate(inputs)]
    function = tf.function(call, input_signature=signature, autograph=False)

    def run_it(arrays: Sequence[Any]) -> list[Any]:
        return [tensor.numpy() for tensor in function(*map(tf.constant, arrays))]

    def write(path: str, opset: int) -> tuple[list[str], list[str]]:
        made, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=opset, output_path=path)
        return [spec.name for spec in signature], [value.name for value in made.graph.output]

    return Model([_tensor(*pair) for pair in inputs], [_tensor(*pair) for pair in outputs], run_it, write)


def _of_graph(graph: Any, inputs: list[str], outputs: list[str], names: Any, notes: list[str]) -> Model:
    """A frozen GraphDef; ``inputs`` and ``outputs`` are tensors (``x:0``), ``names`` what they are called."""

    def imported() -> None:
        tf.graph_util.import_graph_def(graph, name="")

    whole = tf.compat.v1.wrap_function(imported, [])
    tensors = [[whole.graph.get_tensor_by_name(name) for name in side] for side in (inputs, outputs)]
    function = whole.prune(tensors[0], tensors[1])

    def run_it(arrays: Sequence[Any]) -> list[Any]:
        return [tensor.numpy() for tensor in function(*map(tf.constant, arrays))]

    def write(path: str, opset: int) -> tuple[list[str], list[str]]:
        tf2onnx.convert.from_graph_def(graph, input_names=inputs, output_names=outputs, opset=opset, output_path=path)
        return inputs, outputs

    described = [[_tensor(names.get(t.name, t.name), t) for t in side] for side in tensors]
    return Model(described[0], described[1], run_it, write, list(notes))


def _tflite(source: str) -> Model:
    interpreter = tf.lite.Interpreter(model_path=source)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run_it(arrays: Sequence[Any]) -> list[Any]:
        for told, array in zip(inputs, arrays, strict=True):
            interpreter.resize_tensor_input(told["index"], array.shape)
        interpreter.allocate_tensors()
        for told, array in zip(inputs, arrays, strict=True):
            interpreter.set_tensor(told["index"], array)
        interpreter.invoke()
        return [interpreter.get_tensor(told["index"]).copy() for told in outputs]

    def write(path: str, opset: int) -> tuple[list[str], list[str]]:
        tf2onnx.convert.from_tflite(source, opset=opset, output_path=path)
        return [told["name"] for told in inputs], [told["name"] for told in outputs]

    names: dict[tuple[str, int], str] = {}
    for signature in interpreter._get_full_signature_list().values():  # the public list has no tensors in it
        for side in ("inputs", "outputs"):
            names.update({(side, index): name for name, index in signature[side].items()})

    def tensor(side: str, told: Any) -> tuple[str, str, Any]:
        shape = [None if d < 0 else int(d) for d in told["shape_signature"]]
        return names.get((side, told["index"]), told["name"]), np.dtype(told["dtype"]).name, shape

    described = [[tensor("inputs", told) for told in inputs], [tensor("outputs", told) for told in outputs]]
    return Model(described[0], described[1], run_it, write)


def _tensor(name: str, spec: Any) -> tuple[str, str, Any]:
    dims = None if spec.shape.rank is None else list(spec.shape)
    return name, tf.as_dtype(spec.dtype).name, dims


if __name__ == "__main__":
    loop.main(open_model, describe, convert, run)
