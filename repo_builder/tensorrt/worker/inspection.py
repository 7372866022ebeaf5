"""What an engine is: its tensors, profiles and layers by precision, from an ICudaEngine and its inspector's JSON."""

from __future__ import annotations

import json
import re

import runtime
from profile_values import profile_values

NOT_TOLD = "NOT_TOLD"
OPAQUE = "OPAQUE"
_WORDS = {
    "float": "FP32", "fp32": "FP32", "float32": "FP32", "tf32": "FP32", "half": "FP16", "fp16": "FP16",
    "float16": "FP16", "bf16": "BF16", "bfloat16": "BF16", "fp8": "FP8", "e4m3": "FP8", "f8": "FP8", "fp4": "FP4",
    "e2m1": "FP4", "e8m0": "E8M0", "int8": "INT8", "uint8": "UINT8", "int4": "INT4", "int32": "INT32",
    "int64": "INT64", "bool": "BOOL",
}  # fmt: skip
_FLOATS = ("FP32", "FP16", "BF16")
_LOW = ("INT8", "FP8", "INT4", "FP4")
_KEYS = ("Format/Datatype", "Datatype", "DataType", "Data Type", "Format")
# Layers that only move or reshape: what they are made of says nothing on the precision of the computation.
_MOVES = ("Reformat", "NoOp", "Constant", "Shape", "ShapeHostToDevice", "DeviceToShapeHost", "Signal", "Wait")


def inspect(trt, engine, context=None):
    """The ``inspection`` of an engine, as in the answers of build.py and inspect_plan.py; ``raw`` is the JSON text."""
    tensors = [_tensor(engine, engine.get_tensor_name(i)) for i in range(engine.num_io_tensors)]
    inputs = [t for t in tensors if t.pop("mode") == "INPUT"]
    outputs = [t for t in tensors if t not in inputs]
    profiles = [_profile(engine, inputs, index) for index in range(engine.num_optimization_profiles)]
    inspector = engine.create_engine_inspector()
    if inspector is None:
        raise runtime.Refused(
            f"{runtime.called(trt)} opens the plan and has no inspector for it",
            "a plan whose layers can be looked at",
            "a version-compatible plan may carry a runtime without one: leave version_compatible out",
        )
    runtime.ALIVE.append(inspector)
    if context is not None:
        inspector.execution_context = context
    raw = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    listed = layers(raw)
    found = {
        "inputs": inputs,
        "outputs": outputs,
        "profiles": profiles,
        "layers": count(listed),
        "layer_list": listed,
        **_about(trt, engine),
    }
    return found, raw


def open_engine(trt, log, plan, code_allowed=True):
    """The engine of a plan's bytes.

    Args:
        code_allowed: run the lean runtime that a version-compatible plan carries: host code out of the file.

    Raises:
        runtime.Refused: TensorRT does not open it, with its own words.
    """
    opener = trt.Runtime(log)
    if code_allowed and hasattr(opener, "engine_host_code_allowed"):
        opener.engine_host_code_allowed = True
    engine = opener.deserialize_cuda_engine(plan)
    if engine is None:
        raise runtime.Refused(
            "{} does not open the plan: {}".format(
                runtime.called(trt), "; ".join(log.errors()[:4]) or "no reason told"
            ),
            "a plan of this version, for this GPU",
            "build it again here, or open it where it was built",
        )
    return opener, engine


def with_context(trt, engine):
    """``inspect`` twice where it must be: formats of dynamic shapes are told only once shapes are bound."""
    found, raw = inspect(trt, engine)
    if "due to dynamic shapes" in raw:
        context = opt_context(engine, found["inputs"], found["profiles"])
        runtime.ALIVE.append(context)
        if context is not None:
            found, raw = inspect(trt, engine, context)
    return found, raw


def opt_context(engine, inputs, profiles):
    """A context of profile 0 with the optimal shapes bound, so that the inspector tells formats of dynamic shapes too.

    None where there is not enough memory for one, or a shape cannot be bound.
    """
    try:
        context = engine.create_execution_context()
        if context is None:
            return None
        for one in inputs:
            shape = profiles[0].get(one["name"], {}).get("opt")
            free = shape is not None and -1 in one["shape"] and not one["is_shape_tensor"]
            if free and not context.set_input_shape(one["name"], shape):
                return None
        return context
    except (RuntimeError, ValueError, TypeError):
        return None


def layers(text):
    """The layers of the inspector's JSON: ``[{"name", "type", "precision", "outputs", "tactic"}]``.

    TensorRT 8 names each tensor's format and dtype in one sentence (``Row major linear FP16``), 10 and later as
    ``Half``; the weights' type, where it is told, says what the layer computes in. ``OPAQUE`` are 8.6's fused graphs
    (Myelin), which tell nothing of their inside; ``NOT_TOLD`` what names no dtype at all (a plan built without
    detailed profiling verbosity).
    """
    told = json.loads(text, strict=False)
    told = told.get("Layers", told.get("layers", [])) if isinstance(told, dict) else told
    return [_layer(one) for one in told]


def count(listed):
    """``{"total", "by_precision": {name: n}, "tf32_tactics": n, "moves": n}``; moves are in no precision."""
    by_precision, moves = {}, 0
    for one in listed:
        if one["moves"]:
            moves += 1
        else:
            by_precision[one["precision"]] = by_precision.get(one["precision"], 0) + 1
    return {
        "total": len(listed),
        "by_precision": dict(sorted(by_precision.items())),
        "tf32_tactics": sum("tf32" in one["tactic"].lower() for one in listed),
        "moves": moves,
    }


def _layer(one):
    if not isinstance(one, dict):
        return {"name": str(one), "type": "", "precision": NOT_TOLD, "outputs": [], "tactic": "", "moves": False}
    kind = str(one.get("LayerType", one.get("Type", "")))
    outputs, inputs = one.get("Outputs") or [], one.get("Inputs") or []
    return {
        "name": str(one.get("Name", "")),
        "type": kind,
        "precision": _precision(one, kind, inputs, outputs),
        "outputs": [_of_tensor(t) or NOT_TOLD for t in outputs],
        "tactic": str(one.get("TacticName", "")),
        "moves": kind in _MOVES,
    }


def _precision(one, kind, inputs, outputs):
    told = _word(one.get("Precision"))
    if told:
        return told
    weights = one.get("Weights")
    weights = _word(weights.get("Type") if isinstance(weights, dict) else weights)
    into, out = ([_of_tensor(t) for t in tensors] for tensors in (inputs, outputs))
    for low in _LOW:
        if weights == low or (low in into and kind not in _MOVES and not _dequantizes(kind)):
            return low
    if kind in ("Myelin", "ForeignNode"):
        return OPAQUE
    if weights in _FLOATS:
        return weights
    for choices in (out, into):
        floats = [p for p in choices if p in _FLOATS]
        if floats:
            return floats[0]
    return next((p for p in [*out, *into] if p), NOT_TOLD)


def _dequantizes(kind):
    return "dequant" in kind.lower()


def _of_tensor(tensor):
    if not isinstance(tensor, dict):
        return _word(tensor)
    for key in _KEYS:
        found = _word(tensor.get(key))
        if found:
            return found
    return ""


def _word(text):
    if not text:
        return ""
    for word in re.findall(r"[A-Za-z]+\d*[A-Za-z]*\d*", str(text)):
        bare = word.lower()
        if bare[:1] == "k" and bare[1:] in _WORDS:
            bare = bare[1:]
        if bare in _WORDS:
            return _WORDS[bare]
    return ""


def _tensor(engine, name):
    is_shape = getattr(engine, "is_shape_inference_io", None)
    return {
        "mode": runtime.name_of(engine.get_tensor_mode(name)),
        "name": name,
        "dtype": runtime.dtype(engine.get_tensor_dtype(name)),
        "shape": runtime.dims(engine.get_tensor_shape(name)),
        "is_shape_tensor": bool(is_shape(name)) if is_shape else False,
        "location": runtime.name_of(engine.get_tensor_location(name)).lower(),
    }


def _profile(engine, inputs, index):
    found = {}
    for one in inputs:
        ranges = _values(engine, one["name"], index) if one["is_shape_tensor"] else None
        if ranges is None:
            ranges = [runtime.dims(shape) for shape in engine.get_tensor_profile_shape(one["name"], index)]
            if ranges and len(ranges) == 3:
                found[one["name"]] = dict(zip(("min", "opt", "max"), ranges))
        else:
            found.setdefault("values", {})[one["name"]] = dict(zip(("min", "opt", "max"), ranges))
    return found


def _values(engine, name, index):
    try:
        ranges = profile_values(engine, name, index)
        return ranges if len(ranges) == 3 else None
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return None


def _about(trt, engine):
    level = getattr(engine, "hardware_compatibility_level", None)
    memory = getattr(engine, "device_memory_size_v2", None)
    if memory is None:
        memory = getattr(engine, "device_memory_size", None)
    verbosity = getattr(engine, "profiling_verbosity", None)
    return {
        "refittable": bool(getattr(engine, "refittable", False)),
        "streamable_weights_bytes": int(getattr(engine, "streamable_weights_size", 0) or 0),
        "stripped_weights_bytes": _stripped(trt, engine),
        "hardware_compatible": level is not None and runtime.name_of(level) != "NONE",
        "device_memory_bytes": None if memory is None else int(memory),
        "detailed": verbosity is not None and runtime.name_of(verbosity) == "DETAILED",
    }


def _stripped(trt, engine):
    """Bytes of weights that were left out of the plan; 0 where the version cannot leave any out, or does not tell."""
    stat = getattr(getattr(trt, "EngineStat", None), "STRIPPED_WEIGHTS_SIZE", None)
    return 0 if stat is None or not hasattr(engine, "get_engine_stat") else max(int(engine.get_engine_stat(stat)), 0)
