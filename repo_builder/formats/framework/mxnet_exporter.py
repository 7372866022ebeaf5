"""MXNet's own exporter with its known faults mended: its opset, its defaults, and layers that it writes wrongly."""

from __future__ import annotations

import json
import re
from typing import Any

import loop
import mxnet as mx
import numpy as np
import onnx
from mxnet.onnx.mx2onnx._export_onnx import MXNetGraph

OPSET = 13
"""The newest whose nodes the exporter writes; it stamps the newest that the package onnx knows."""
RANKS: dict[str, int] = {}
"""Of what each layer gives, in the graph that is being exported."""
_DEFAULT = re.compile(r"default='?([^',\s]+)'?$")

onnx.defs.onnx_opset_version = lambda: OPSET
onnx.checker.DEFAULT_CONTEXT.opset_imports = {"": OPSET}


def export(
    symbol: Any, weights: dict[str, Any], shapes: dict[str, tuple[int, ...]], told: list[dict[str, Any]], path: str
) -> None:
    """Write an ONNX file whose inputs and outputs stand in the order of ``told`` and of the symbol.

    The outputs pass through an operator each, whose name tells their place.

    Args:
        shapes: sizes of the inputs that the symbol takes.
        told: name, numpy dtype and shape of each input, free axes as names.

    Raises:
        loop.Refused: the exporter does not know a layer, or writes it wrongly.
    """
    names = [f"served_{place}" for place in range(len(symbol.list_outputs()))]
    symbol = mx.sym.Group([mx.sym.identity(one, name=name) for one, name in zip(symbol, names, strict=True)])
    symbol = mx.sym.load_json(_completed(symbol.tojson()))
    found, _, _ = symbol.infer_shape(**shapes)
    inferred = dict(zip(symbol.list_arguments(), found, strict=True))
    free = [n for n in symbol.list_inputs() if n not in weights]
    given = {one["name"]: one for one in told}
    RANKS.clear()
    RANKS.update(_ranks(symbol, shapes))
    try:
        mx.onnx.export_model(
            symbol,
            dict(weights),
            in_shapes=[inferred[n] for n in free],
            in_types=[np.dtype(given[n]["numpy"] if n in given else "float32") for n in free],
            onnx_file_path=path,
            dynamic=True,
            dynamic_input_shapes=[tuple(given[n]["shape"]) if n in given else inferred[n] for n in free],
        )
    except (AttributeError, NotImplementedError) as error:
        raise _refusal(symbol, str(error)) from error
    written = onnx.load(path)
    _in_order(written.graph.input, [one["name"] for one in told])
    _in_order(written.graph.output, names)
    onnx.save(written, path)


def _refusal(symbol: Any, said: str) -> loop.Refused:
    unknown = re.search(r"No conversion function registered for op type (\S+)", said)
    if not unknown:
        return loop.Refused(f"MXNet's exporter refuses a layer: {said}")
    layers = [node["name"] for node in json.loads(symbol.tojson())["nodes"] if node["op"] == unknown[1]]
    return loop.Refused(
        f"MXNet's exporter does not know the operator {unknown[1]} (layer {', '.join(layers[:3])})",
        expected="operators of its support matrix",
        mend="express the layer in other operators and export the symbol again",
    )


def _completed(text: str) -> str:
    """Attributes that the file leaves out, with the operator's own defaults: the exporter has others."""
    graph = json.loads(text)
    for node in graph["nodes"]:
        if node["op"] == "null":
            continue
        attributes = node.setdefault("attrs", {})
        known = mx.operator.get_operator_arguments(node["op"])
        for name, kind in zip(known.names, known.types, strict=True):
            default = _DEFAULT.search(kind)
            if name in attributes or not default or default[1] in ("None", "[]", "()"):
                continue
            boolean = kind.startswith("boolean")
            attributes[name] = {"0": "False", "1": "True"}.get(default[1], default[1]) if boolean else default[1]
    return json.dumps(graph)


def _ranks(symbol: Any, shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    inner = symbol.get_internals()
    _, found, _ = inner.infer_shape(**shapes)
    return {
        re.sub(r"_output\d*$", "", name): len(shape) for name, shape in zip(inner.list_outputs(), found, strict=True)
    }


def _in_order(values: Any, names: list[str]) -> None:
    found = {value.name: value for value in values}
    del values[:]
    values.extend(found[name] for name in names)


def _taken(node: dict[str, Any], kwargs: dict[str, Any]) -> list[str]:
    return [kwargs["outputs_lookup"][place][port].name for place, port, *_ in node["inputs"]]


def _constant(name: str, array: Any, kwargs: dict[str, Any]) -> str:
    kwargs["initializer"].append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
    return name


def _leaky_relu(node: dict[str, Any], **kwargs: Any) -> Any:
    """A slope per channel gets the axes after the channel's, which ONNX's broadcasting needs."""
    if node["attrs"]["act_type"] != "prelu":
        return _EXPORTED["LeakyReLU"](node, **kwargs)
    name, (data, gamma) = node["name"], _taken(node, kwargs)
    if gamma not in kwargs["weights"]:
        raise NotImplementedError(f"the slope of {name} is computed")
    slope = kwargs["weights"][gamma]
    shaped = slope.reshape(-1, *[1] * max(RANKS[name] - 2, 0)) if slope.size > 1 else slope.reshape(1)
    return [onnx.helper.make_node("PRelu", [data, _constant(f"{name}_slope", shaped, kwargs)], [name], name)]


def _softmax_output(node: dict[str, Any], **kwargs: Any) -> list[Any]:
    name, attrs = node["name"], node["attrs"]
    channels = attrs["multi_output"] == "True"
    if not channels and attrs["preserve_shape"] != "True" and RANKS[name] > 2:
        raise NotImplementedError(
            f"{name} is a SoftmaxOutput over several axes, which MXNet's builds answer differently"
        )
    taken = _taken(node, kwargs)[:1]
    return [onnx.helper.make_node("Softmax", taken, [name], name, axis=1 if channels else -1)]


def _batch_norm(node: dict[str, Any], **kwargs: Any) -> Any:
    """``fix_gamma``, the default: the layer ignores its gamma, which the exporter writes."""
    made = _EXPORTED["BatchNorm"](node, **kwargs)
    if node["attrs"]["fix_gamma"] == "True":
        beta = kwargs["weights"][_taken(node, kwargs)[2]]
        made[0].input[1] = _constant(f"{node['name']}_ones", np.ones_like(beta), kwargs)
    return made


def _embedding(node: dict[str, Any], **kwargs: Any) -> Any:
    """Indices outside the table are clipped to its first and last row; ONNX counts from the end, or fails."""
    name, (data, table), attrs = node["name"], _taken(node, kwargs), node["attrs"]
    make, limits = onnx.helper.make_node, []
    for end, value in (("first", 0), ("last", int(attrs["input_dim"]) - 1)):
        limits.append(_constant(f"{name}_{end}", np.array(value, np.int64), kwargs))
    nodes = [
        make("Cast", [data], [f"{name}_whole"], to=onnx.TensorProto.INT64),
        make("Clip", [f"{name}_whole", *limits], [f"{name}_rows"]),
        make("Gather", [table, f"{name}_rows"], [name], name),
    ]
    return nodes, (attrs["dtype"],)


def _as_it_is(node: dict[str, Any], **kwargs: Any) -> list[Any]:
    return [onnx.helper.make_node("Identity", _taken(node, kwargs)[:1], [node["name"]], node["name"])]


_EXPORTED = dict(MXNetGraph.registry_[12])
_NEWEST = MXNetGraph.registry_.setdefault(OPSET, {})
_NEWEST.update({"LeakyReLU": _leaky_relu, "BatchNorm": _batch_norm, "Embedding": _embedding})
_NEWEST["SoftmaxOutput"] = _NEWEST["Softmax"] = _softmax_output
for _name in ("LinearRegressionOutput", "MAERegressionOutput", "SVMOutput"):
    _NEWEST[_name] = _as_it_is
