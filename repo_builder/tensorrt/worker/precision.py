"""Precision: which builder flags carry it in a weakly typed network, and what is refused before building."""

from __future__ import annotations

import network as onnx_network
import runtime
from runtime import Refused

# Builder flags of weakly typed networks. TensorRT 8.6 has no BF16, and its FP8 flag works nowhere.
FLAGS = {"fp32": (), "tf32": (), "fp16": ("FP16",), "bf16": ("BF16",), "int8": ("INT8",), "fp8": ("FP8",)}
_FAST = {"tf32": "platform_has_tf32", "fp16": "platform_has_fast_fp16", "int8": "platform_has_fast_int8"}
_SHAPES = ("CONSTANT", "SHAPE", "SHUFFLE", "GATHER", "CONCATENATION", "SLICE", "IDENTITY", "CAST", "QUANTIZE")


def check_hardware(builder, name):
    """Refuse a precision that the builder says this GPU has no hardware for (TensorRT 11 does not say)."""
    if not getattr(builder, _FAST.get(name, ""), True):
        raise Refused(
            f"this GPU has no fast {name.upper()}",
            "a GPU whose hardware computes in it",
            "take precision: fp32",
        )


def check_typing(trt, asked, strongly):
    """Refuse what the kind of network cannot hold: layer precisions in a strongly typed one, bf16 and fp8 in 8.6."""
    if strongly:
        if asked["keep_fp32"]:
            raise Refused(
                f"keep_fp32 was given for a strongly typed network ({runtime.called(trt)})",
                "precisions that stand in the graph",
                "keep these nodes in FP32 when the graph is converted",
            )
        return
    for name in FLAGS[asked["precision"]]:
        if asked["precision"] in ("bf16", "fp8") and (
            not hasattr(trt.BuilderFlag, name) or runtime.version(trt) < (9,)
        ):
            raise runtime.lacks(trt, "precision " + asked["precision"], "TensorRT 10 or newer", "take precision: fp16")


def set_flags(trt, config, network, asked, told, strongly):
    """Flags of a weakly typed network, TF32 of both kinds: it is on where tf32 is asked for, else off."""
    tf32 = trt.BuilderFlag.TF32
    (config.set_flag if asked["precision"] == "tf32" else config.clear_flag)(tf32)
    quantized = any(told["types"].get(kind) for kind in ("QUANTIZE", "DEQUANTIZE", "DYNAMIC_QUANTIZE"))
    if asked["precision"] in ("int8", "fp8") and not quantized:
        raise Refused(
            "{} was asked for, and the graph has no QuantizeLinear or DequantizeLinear node".format(asked["precision"]),
            "a graph with explicit Q/DQ nodes",
            "quantize the ONNX graph first",
        )
    if strongly:
        return {"layers": 0, "missing": []}
    flags = set(FLAGS[asked["precision"]])
    tensors = [t["dtype"] for t in (*told["inputs"], *told["outputs"])]
    if "FP16" in (*told["layers"]["by_precision"], *tensors):
        if asked["precision"] in ("fp32", "tf32") and "FP16" in told["compute"]:
            raise Refused(
                "{} was asked for, and the graph computes in FP16 ({} of its layers)".format(
                    asked["precision"], told["compute"]["FP16"]
                ),
                "a graph in FP32",
                "take precision: fp16, or export the graph in FP32",
            )
        flags.add("FP16")  # without it a weakly typed network takes no half tensors
    if quantized:
        flags.add("INT8")
    kept = {"layers": 0, "missing": []}
    if asked["keep_fp32"]:
        kept = _keep_fp32(trt, network, asked["keep_fp32"])
        flags.add("OBEY_PRECISION_CONSTRAINTS")
    for name in sorted(flags):
        if not hasattr(trt.BuilderFlag, name):
            raise runtime.lacks(trt, "builder flag " + name, "TensorRT 8.6 or newer")
        config.set_flag(getattr(trt.BuilderFlag, name))
    return kept


def _keep_fp32(trt, network, outputs):
    """Give FP32 to the layers made from ONNX nodes; ``{"layers": n, "missing": names without such layers}``.

    Args:
        outputs: the nodes' names, each with the names of its output tensors.
    """
    makers = {tensor: node for node, tensors in outputs.items() for tensor in tensors}
    left, kept = set(outputs), 0
    for layer in onnx_network.layers(network):
        node = _node(layer, makers)
        if node not in outputs:
            continue
        left.discard(node)
        if runtime.name_of(layer.type) in _SHAPES or not _floats(layer):
            continue
        layer.precision = trt.float32
        for index in range(layer.num_outputs):
            if runtime.dtype(layer.get_output(index).dtype) in ("FP32", "FP16"):
                layer.set_output_type(index, trt.float32)
        kept += 1
    if not kept:
        raise Refused(
            "no layer of the network computes what keep_fp32 names ({})".format(", ".join(sorted(outputs)[:5])),
            "names of ONNX nodes that compute in floating point",
            "`repo-builder inspect` lists the nodes",
        )
    return {"layers": kept, "missing": sorted(left)}


def _node(layer, makers):
    """The ONNX node of a layer: by the parser's metadata where it has them, by its name, or by what it puts out.

    The parser gives a LayerNormalization's layer neither before TensorRT 10.1 (onnx-tensorrt, pull request 967), and
    names its output as ONNX does (``ImporterContext::registerTensor``).
    """
    metadata = getattr(layer, "metadata", "") or ""
    mark = "[ONNX Layer: "
    if metadata.startswith(mark):
        return metadata[len(mark) :].split("]", 1)[0]
    if layer.name.startswith("(Unnamed Layer") and layer.num_outputs:
        return makers.get(layer.get_output(0).name, layer.name)
    return layer.name


def _floats(layer):
    return layer.num_outputs and all(
        runtime.dtype(layer.get_output(index).dtype) in ("FP32", "FP16") for index in range(layer.num_outputs)
    )
