"""An ONNX file as TensorRT's network: parsed, with its errors per node, and counted by precision."""

from __future__ import annotations

import runtime


def create(trt, builder):
    """(network, strongly_typed): strongly typed wherever the version has it, explicit batch in 8.6."""
    flags = trt.NetworkDefinitionCreationFlag
    strongly = getattr(flags, "STRONGLY_TYPED", None)
    if strongly is not None:
        return builder.create_network(1 << int(strongly)), True
    return builder.create_network(1 << int(flags.EXPLICIT_BATCH)), False


def parse(trt, network, log, path, native_instance_norm=False):
    """Fill a network from a file; the parser, which must live as long as the network.

    Args:
        native_instance_norm: no plugin for it, as version-compatible plans need.

    Raises:
        runtime.Refused: with the parser's errors, each with its node.
    """
    parser = trt.OnnxParser(network, log)
    flag = getattr(trt.OnnxParserFlag, "NATIVE_INSTANCENORM", None)
    if native_instance_norm and flag is not None:
        parser.set_flag(flag)
    if not parser.parse_from_file(str(path)) or parser.num_errors:
        found = errors(parser)
        raise runtime.Refused(
            "the ONNX parser of {} refuses the graph: {}".format(
                runtime.called(trt), "; ".join(map(shown, found[:5])) or "; ".join(log.errors()[:3]) or "no reason told"
            ),
            "a graph of operators and dtypes that it knows",
            "`repo-builder inspect --tensorrt` lists every such node with its mend",
        )
    return parser


def errors(parser):
    """The parser's errors: ``[{"code", "description", "node" (index or -1), "name", "op", "place"}]``.

    TensorRT 8.6 tells no names; ``parse.py`` finds them by the node's index.
    """
    return [_error(parser.get_error(index)) for index in range(parser.num_errors)]


def shown(error):
    node = " '{}'".format(error["name"]) if error["name"] else " {}".format(error["node"])
    said = error["description"]
    if said.lower() in ("false", ""):  # all that some versions say of an operator that they lack
        said = "the parser does not know this operator"
    op = " ({})".format(error["op"]) if error["op"] else ""
    return (f"node{node}{op}: " if error["node"] >= 0 or error["name"] else "") + said


def _error(error):
    return {
        "code": runtime.name_of(error.code()),
        "description": error.desc().strip(),
        "node": int(error.node()),
        "name": error.node_name() if hasattr(error, "node_name") else "",
        "op": error.node_operator() if hasattr(error, "node_operator") else "",
        "place": f"{error.func()}:{error.line()}",
    }


def inputs(network):
    """``[{"name", "dtype", "shape", "is_shape_tensor"}]``."""
    return [_tensor(network.get_input(index)) for index in range(network.num_inputs)]


def outputs(network):
    return [_tensor(network.get_output(index)) for index in range(network.num_outputs)]


def _tensor(tensor):
    return {
        "name": tensor.name,
        "dtype": runtime.dtype(tensor.dtype),
        "shape": runtime.dims(tensor.shape),
        "is_shape_tensor": bool(tensor.is_shape_tensor),
    }


def summary(trt, network):
    """What the parsed network says of itself: tensors, layers by the dtype of their outputs, weights by dtype (bytes).

    In a strongly typed network these dtypes are what is computed in; in a weakly typed one they are where it starts.
    """
    by_precision, by_type, weights, compute = {}, {}, {}, {}
    for layer in layers(network):
        kind = runtime.name_of(layer.type)
        by_type[kind] = by_type.get(kind, 0) + 1
        precision = _precision(layer)
        by_precision[precision] = by_precision.get(precision, 0) + 1
        if kind in COMPUTE:
            compute[precision] = compute.get(precision, 0) + 1
        for name, size in _weights(trt, layer, kind):
            weights[name] = weights.get(name, 0) + size
    return {
        "inputs": inputs(network),
        "outputs": outputs(network),
        "layers": {"total": network.num_layers, "by_precision": dict(sorted(by_precision.items()))},
        "compute": dict(sorted(compute.items())),
        "types": dict(sorted(by_type.items())),
        "weights": dict(sorted(weights.items())),
    }


_NUMPY = {"float32": "FP32", "float16": "FP16"}
# Layers that hold nearly all of a model's arithmetic.
COMPUTE = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "FULLY_CONNECTED", "EINSUM", "ATTENTION_INPUT")


def layers(network):
    return (network.get_layer(index) for index in range(network.num_layers))


def _precision(layer):
    for index in range(layer.num_outputs):
        tensor = layer.get_output(index)
        if tensor is not None:
            return runtime.dtype(tensor.dtype)
    return "NONE"


def _weights(trt, layer, kind):
    owner = {"CONSTANT": "IConstantLayer", "CONVOLUTION": "IConvolutionLayer", "DECONVOLUTION": "IDeconvolutionLayer"}
    if kind not in owner or not hasattr(trt, owner[kind]):
        return
    layer.__class__ = getattr(trt, owner[kind])
    try:
        stored = layer.weights if kind == "CONSTANT" else layer.kernel
    except (RuntimeError, TypeError, ValueError):  # a dtype that the bindings do not show
        return
    if stored.size:  # a numpy array, or tensorrt.Weights where numpy has no such dtype
        named = runtime.dtype(stored.dtype) if isinstance(stored, trt.Weights) else _NUMPY.get(stored.dtype.name)
        yield named or stored.dtype.name.upper(), int(stored.nbytes)
