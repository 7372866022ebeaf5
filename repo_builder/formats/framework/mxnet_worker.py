"""MXNet: a symbol.json and its .params; MXNet's own exporter, mended in ``mxnet_exporter.py``, converts.

``options``: ``params``, the file beside the symbol; ``inputs``, the tensors that are no weights with their dtype and
shape, in the symbol's order; ``labels``, variables that only training gives.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import loop
import mxnet as mx
import mxnet_exporter
import numpy as np
import onnx

_SIZES = (224, 32, 16, 3, 299, 64, 112)
_NAMES = {"FP32": "float32", "FP64": "float64", "FP16": "float16", "UINT8": "uint8", "INT8": "int8"}
_NAMES.update({"INT32": "int32", "INT64": "int64", "BOOL": "bool"})


class Model:
    """The symbol, its weights, and the executor of the last shapes that were asked."""

    def __init__(self, source: str, options: dict[str, Any]) -> None:
        self.symbol = mx.sym.load(source)
        loaded = mx.nd.load(str(Path(source).with_name(options["params"])))
        values = {name.split(":", 1)[-1]: array for name, array in (loaded or {}).items()}  # none: an empty list
        self.arguments, self.states = self.symbol.list_arguments(), self.symbol.list_auxiliary_states()
        self.weights = {n: values[n] for n in (*self.arguments, *self.states) if n in values}
        self.inputs: list[dict[str, Any]] = options["inputs"]
        self.labels: list[str] = options["labels"]
        self.executor: Any = None
        self.shapes: Any = None

    def bound(self, shapes: dict[str, tuple[int, ...]]) -> Any:
        if self.shapes != shapes:
            found, _, _ = self.symbol.infer_shape(**shapes)
            wanted = dict(zip(self.arguments, found, strict=True))
            types = {told["name"]: _NAMES[told["dtype"]] for told in self.inputs}
            given = {n: self.weights.get(n) for n in self.arguments}
            for name in given:
                if given[name] is None:
                    given[name] = mx.nd.zeros(wanted[name], dtype=types.get(name, "float32"))
            states = {n: self.weights[n] for n in self.states}
            self.executor = self.symbol.bind(mx.cpu(), given, grad_req="null", aux_states=states)
            self.shapes = shapes
        return self.executor


def open_model(source: str, kind: str, options: dict[str, Any]) -> Model:  # noqa: ARG001  one kind
    """Load both files and see that they fit each other at some size."""
    model = Model(source, options)
    lacks = [n for n in model.states if n not in model.weights]
    if lacks:
        raise loop.Refused(
            f"{options['params']} has no values for {', '.join(lacks[:5])}",
            expected="a .params file of this symbol",
            error="SourceCorruptError",
        )
    _example(model)
    return model


def describe(model: Model) -> dict[str, Any]:
    """Free axes of the outputs are found by asking MXNet for the shapes at several sizes."""
    base = _example(model)
    shapes = [list(shape) for shape in _outputs(model, base)]
    names: list[list[Any]] = [list(shape) for shape in shapes]
    for symbol in base:
        grown = {**base, symbol: base[symbol] + 1 if symbol == _first(model) else 2 * base[symbol]}
        try:
            other = _outputs(model, grown)
        except mx.MXNetError:
            continue
        for place, shape in enumerate(other):
            for axis, size in enumerate(shape):
                if size != shapes[place][axis]:
                    follows = (shapes[place][axis], size) == (base[symbol], grown[symbol])
                    names[place][axis] = symbol if follows else f"output_{place}_dim{axis}"
    given = {told["name"]: _NAMES[told["dtype"]] for told in model.inputs}
    given.update({n: a.dtype for n, a in model.weights.items() if n in model.arguments})
    _, types, _ = model.symbol.infer_type(**given)
    triton = {numpy: name for name, numpy in _NAMES.items()}
    outputs = [
        {"name": re.sub("_output$", "", name), "dtype": triton[np.dtype(kind).name], "shape": shape}
        for name, kind, shape in zip(model.symbol.list_outputs(), types, names, strict=True)
    ]
    notes = [f"{name} is a label of training: it is not served" for name in model.labels]
    versions = {"mxnet": mx.__version__, "onnx": onnx.__version__}
    return {"inputs": model.inputs, "outputs": outputs, "versions": versions, "notes": notes}


def convert(model: Model, path: str, opset: int) -> dict[str, Any]:  # noqa: ARG001  it writes one opset
    """MXNet's exporter, mended."""
    base = _example(model)
    shapes = {told["name"]: _sized(told["shape"], base) for told in model.inputs}
    told = [{**one, "numpy": _NAMES[one["dtype"]]} for one in model.inputs]
    mxnet_exporter.export(model.symbol, model.weights, shapes, told, path)
    return {"notes": []}


def run(model: Model, arrays: list[Any]) -> list[Any]:
    """MXNet's own answers on the CPU."""
    given = {told["name"]: array for told, array in zip(model.inputs, arrays, strict=True)}
    executor = model.bound({name: array.shape for name, array in given.items()})
    for name, array in given.items():
        executor.arg_dict[name][:] = mx.nd.array(array, dtype=array.dtype)
    return [output.asnumpy() for output in executor.forward(is_train=False)]


def _first(model: Model) -> Any:
    return next((one["shape"][0] for one in model.inputs if one["shape"]), None)


def _sized(shape: list[Any], sizes: dict[str, int]) -> tuple[int, ...]:
    return tuple(sizes[d] if isinstance(d, str) else d for d in shape)


def _outputs(model: Model, sizes: dict[str, int]) -> list[tuple[int, ...]]:
    shapes = {told["name"]: _sized(told["shape"], sizes) for told in model.inputs}
    _, outputs, _ = model.symbol.infer_shape(**shapes)
    if outputs is None:
        raise mx.MXNetError("its shapes do not follow from those of its inputs")
    return list(outputs)


def _example(model: Model) -> dict[str, int]:
    """Sizes of the free axes that the symbol takes."""
    firsts = {one["shape"][0] for one in model.inputs if one["shape"]}
    free = dict.fromkeys(d for one in model.inputs for d in one["shape"] if isinstance(d, str))
    said = ""
    for size in _SIZES if set(free) - firsts else _SIZES[:1]:
        sizes = {symbol: 2 if symbol in firsts else size for symbol in free}
        try:
            _outputs(model, sizes)
            shapes = {told["name"]: _sized(told["shape"], sizes) for told in model.inputs}
            found, _, states = model.symbol.infer_shape(**shapes)
        except mx.MXNetError as error:
            said = said or next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
            continue
        for name, shape in (*zip(model.arguments, found, strict=True), *zip(model.states, states, strict=True)):
            if name in model.weights and model.weights[name].shape != shape:
                raise _misfit(f"{name} has the shape {model.weights[name].shape}, and its layer takes {shape}")
        return sizes
    raise _misfit(said.strip()[:500])


def _misfit(why: str) -> loop.Refused:
    return loop.Refused(
        f"the symbol does not take its weights and inputs: {why}",
        expected="a .params file of this symbol, and inputs of the shape that it was trained with",
        mend="name the right files, or say the right shape in `inputs:`",
        error="SignatureError",
    )


if __name__ == "__main__":
    loop.main(open_model, describe, convert, run)
