"""The truth check: a built plan against what was asked for. Pure: it reads the answer of ``build.py``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from repo_builder.errors import TensorRTError
from repo_builder.tensorrt import versions
from repo_builder.tensors import TensorSpec

_MARK = {"fp16": "FP16", "bf16": "BF16", "int8": "INT8", "fp8": "FP8"}
_LOW = ("FP16", "BF16", "INT8", "FP8", "INT4", "FP4")
_TOLD_BY_TEXT = ("FP16", "BF16", "FP8", "FP4")  # INT8 there may be a scratch buffer's bytes
_COMPUTE = re.compile(r"conv|gemm|matmul|matrixmultiply|fullyconnected", re.IGNORECASE)
_NAMED = ("FP32", "FP16", "BF16", "FP8", "INT8")
_BIG = 4 << 20  # bytes of weights from which on a plan's size tells how they are stored
_PLAN_DTYPES = ("FP32", "FP16", "BF16", "INT8", "UINT8", "INT32", "INT64", "BOOL")


def expect(module: str, version: str, specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The tensors of an ONNX file as a plan of that version has them: FP64 is FP32, in 8.6 INT64 is INT32.

    Raises:
        TensorRTError: a dtype that no plan has.
    """
    changed = {"FP64": "FP32"}
    if not versions.abilities(module, version).int64:
        changed["INT64"] = "INT32"
    found = []
    for spec in specs:
        dtype = changed.get(spec.dtype, spec.dtype)
        if dtype not in _PLAN_DTYPES:
            raise TensorRTError(
                f"tensor '{spec.name}' is {spec.dtype}, which no TensorRT plan has",
                expected="one of " + ", ".join(_PLAN_DTYPES),
                mend="keep strings in a model before the plan (a tokenizer)"
                if spec.dtype == "BYTES"
                else "cast it inside the graph, right after the input or before the output",
            )
        found.append(TensorSpec(spec.name, dtype, spec.shape))
    return tuple(found)


def check(
    request: Mapping[str, Any],
    answer: Mapping[str, Any],
    inputs: Sequence[TensorSpec] = (),
    outputs: Sequence[TensorSpec] = (),
    *,
    kept: bool = False,
) -> list[str]:
    """What is not as asked, one sentence each; empty where all is.

    Where no driver could open the plan (``inspection`` is null), the parsed network and the plan's text stand for it:
    less is known, and nothing is made up.

    Args:
        request: the request of ``build.py``.
        answer: its answer.
        inputs, outputs: the tensors that the plan must have (see :func:`expect`); symbolic dims must be dynamic.
        kept: layers were kept in FP32 on purpose, so they may be the most.
    """
    inspection = answer.get("inspection")
    told = inspection or answer["network"]
    problems = [*_tensors("input", inputs, told["inputs"]), *_tensors("output", outputs, told["outputs"])]
    problems += _precision(request["precision"], answer, kept=kept)
    if inspection:
        problems += _profiles(request.get("profiles") or [], inspection)
        problems += _options(request, answer, inspection)
    return problems


def _tensors(kind: str, asked: Sequence[TensorSpec], told: Sequence[Mapping[str, Any]]) -> list[str]:
    if not asked:
        return []
    found = {one["name"]: one for one in told}
    names = [spec.name for spec in asked]
    problems = [f"{kind} '{name}' is not in the plan" for name in names if name not in found]
    problems += [f"the plan has an {kind} '{name}' that was not asked for" for name in found if name not in names]
    for spec in asked:
        if spec.name not in found:
            continue
        one = found[spec.name]
        shape = list(one["shape"])
        if one["dtype"] != spec.dtype:
            problems.append(f"{kind} '{spec.name}' is {one['dtype']}, not {spec.dtype}")
        if len(shape) != len(spec.dims) or any(map(_differs(kind), spec.dims, shape)):
            problems.append(f"{kind} '{spec.name}' has the shape {shape}, not {list(spec.dims)}")
    return problems


def _differs(kind: str) -> Any:
    """Inputs must be as asked; an output may be known better, or less well, than the graph says."""
    if kind == "input":
        return lambda asked, found: asked != found
    return lambda asked, found: -1 not in (asked, found) and asked != found


def _precision(asked: str, answer: Mapping[str, Any], *, kept: bool) -> list[str]:
    problems = _tf32(asked, answer)
    counts = _counts(answer)
    shown = ", ".join(f"{count} {name}" for name, count in counts.items()) or "none tells one"
    if not _known(answer):
        return [*problems, "no layer of the plan tells its precision (built without detailed profiling verbosity)"]
    if asked in ("fp32", "tf32"):
        if low := [name for name in _LOW if counts.get(name)]:
            problems.append(f"layers compute in {' and '.join(low)} where {asked} was asked for ({shown})")
        return problems
    mark = _MARK[asked]
    if untold(asked, answer):
        return problems
    if not counts.get(mark) and not (asked in ("int8", "fp8") and _quantized_only(answer, mark)):
        problems.append(f"no layer computes in {mark} ({shown})")
    elif asked in ("fp16", "bf16"):
        problems += _mostly(mark, answer, kept=kept)
    return problems


def untold(asked: str, answer: Mapping[str, Any]) -> str:
    """In words, that nothing tells whether a plan computes in fp16; empty where something does.

    TensorRT 8.6 may fuse a whole network into one layer that names no precision; the size of the plan tells it, unless
    the weights are few (8.6.1, tiny BERT models, tried).
    """
    inspection = answer.get("inspection")
    if asked != "fp16" or not inspection or not inspection["layers"]["by_precision"].get("OPAQUE"):
        return ""
    if "FP16" not in answer["flags"] or _counts(answer):
        return ""
    return (
        "TensorRT fused the plan into a layer that names no precision, and its weights are too few for its size to "
        "tell: the network was given in FP16, whether all of it computes so is not known"
    )


def _tf32(asked: str, answer: Mapping[str, Any]) -> list[str]:
    flag = "TF32" in answer["flags"]
    text = (answer.get("text") or {}).get("tf32")
    tactics = ((answer.get("inspection") or {}).get("layers") or {}).get("tf32_tactics", 0)
    problems = []
    if asked == "tf32":
        if not flag or text is False:
            problems.append("TF32 is off where tf32 was asked for")
        return problems
    if flag or text:
        problems.append(f"TF32 was left on where {asked} was asked for")
    if tactics:
        problems.append(f"{tactics} layers run TF32 kernels where {asked} was asked for")
    return problems


def _counts(answer: Mapping[str, Any]) -> dict[str, int]:
    """Layers by precision, fused graphs by what the plan's text says; the network's where no plan was opened."""
    inspection = answer.get("inspection")
    layers = inspection["layers"]["by_precision"] if inspection else answer["network"]["layers"]["by_precision"]
    counts = {name: count for name, count in layers.items() if name in (*_NAMED, *_LOW)}
    text = (answer.get("text") or {}).get("tensors", {})
    if inspection and not layers.get("OPAQUE"):
        return counts
    for name in _TOLD_BY_TEXT:
        if text.get(name) and not counts.get(name):
            counts[name] = text[name]
    if inspection and not text and not any(counts.get(name) for name in _LOW):
        stored = _stored(answer)
        if stored:
            counts[stored] = layers["OPAQUE"]
    return counts


def _stored(answer: Mapping[str, Any]) -> str:
    """FP16 where the plan is too small for the network's weights in FP32, else FP32; empty where size tells nothing."""
    weights = answer["network"]["weights"]
    full = weights.get("FP32", 0) + 2 * (weights.get("FP16", 0) + weights.get("BF16", 0))
    carries_a_runtime = "VERSION_COMPATIBLE" in answer["flags"]
    if full < _BIG or carries_a_runtime:
        return ""
    return "FP16" if answer["plan_bytes"] < 0.8 * full else "FP32"


def _known(answer: Mapping[str, Any]) -> bool:
    inspection = answer.get("inspection")
    if not inspection:
        return True
    return any(name != "NOT_TOLD" for name in inspection["layers"]["by_precision"]) or not inspection["layers"]["total"]


def _quantized_only(answer: Mapping[str, Any], mark: str) -> bool:
    """Where no opened layer tells it: a network with Q/DQ layers, and weights or tensors of the low precision."""
    inspection = answer.get("inspection")
    if inspection and not inspection["layers"]["by_precision"].get("OPAQUE"):
        return False
    types, weights = answer["network"]["types"], answer["network"]["weights"]
    text = (answer.get("text") or {}).get("tensors", {})
    return bool(types.get("QUANTIZE") or types.get("DEQUANTIZE")) and bool(weights.get(mark) or text.get(mark))


def _mostly(mark: str, answer: Mapping[str, Any], *, kept: bool) -> list[str]:
    """Of the layers that do the arithmetic, those in FP32 must not outnumber the others, unless some were kept back."""
    inspection = answer.get("inspection")
    if inspection:
        named = [one for one in inspection["layer_list"] if _COMPUTE.search(one["type"] + " " + one.get("tactic", ""))]
        full, low = (sum(one["precision"] == name for one in named) for name in ("FP32", mark))
    else:
        compute = answer["network"]["compute"]
        full, low = compute.get("FP32", 0), compute.get(mark, 0)
    if full > low and not kept:
        return [f"{full} convolutions and matrix products compute in FP32 and {low} in {mark}"]
    return []


def _profiles(asked: Sequence[Mapping[str, Any]], inspection: Mapping[str, Any]) -> list[str]:
    found = inspection["profiles"]
    if asked and len(found) != len(asked):
        return [f"the plan has {len(found)} profiles, not {len(asked)}"]
    problems = []
    for index, (wanted, made) in enumerate(zip(asked, found, strict=False)):
        for name, ranges in wanted.items():
            if name != "values" and name in made and _plain(made[name]) != _plain(ranges):
                problems.append(f"profile {index} of '{name}' is {made[name]}, not {dict(ranges)}")
            elif name != "values" and name not in made:
                problems.append(f"profile {index} has no range for '{name}'")
        for name, ranges in wanted.get("values", {}).items():
            told = made.get("values", {}).get(name)
            if told is not None and not _holds(told, _plain(ranges)):
                problems.append(f"profile {index}: the values of '{name}' are {told}, not {dict(ranges)}")
    return problems


def _plain(ranges: Mapping[str, Any]) -> dict[str, list[int]]:
    return {kind: [int(size) for size in ranges[kind]] for kind in ("min", "opt", "max")}


def _holds(told: Mapping[str, Any], wanted: Mapping[str, list[int]]) -> bool:
    """Whether the values of a profile are those wanted; None is one that TensorRT does not tell."""
    return all(
        len(told[kind]) == len(values)
        and all(here is None or int(here) == value for here, value in zip(told[kind], values, strict=True))
        for kind, values in wanted.items()
    )


def completed(asked: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A checked plan's profiles; values that its TensorRT does not tell (None) are those that were asked for."""
    profiles: list[dict[str, Any]] = []
    for wanted, made in zip(asked or found, found, strict=True):
        values = {
            name: {
                kind: [w if h is None else h for w, h in zip(wanted["values"][name][kind], ranges[kind], strict=True)]
                for kind in ("min", "opt", "max")
            }
            for name, ranges in made.get("values", {}).items()
        }
        profiles.append({**made, **({"values": values} if values else {})})
    return profiles


def _options(request: Mapping[str, Any], answer: Mapping[str, Any], inspection: Mapping[str, Any]) -> list[str]:
    problems = []
    if request.get("version_compatible") and "VERSION_COMPATIBLE" not in answer["flags"]:
        problems.append("the plan is not version-compatible")
    if request.get("hardware_compatible") and not inspection["hardware_compatible"]:
        problems.append("the plan is not hardware-compatible")
    return problems + unservable(inspection)


def unservable(inspection: Mapping[str, Any]) -> list[str]:
    """What Triton's tensorrt backend has no call for, of a plan that another builder made."""
    problems = []
    if inspection["refittable"]:
        problems.append("the plan is refittable: Triton's tensorrt backend never refits one")
    if inspection["streamable_weights_bytes"] > 0:
        problems.append("the plan streams its weights: Triton's tensorrt backend sets no budget for it")
    if inspection.get("stripped_weights_bytes", 0) > 0:
        problems.append("the plan's weights are stripped: Triton's tensorrt backend never refits them")
    return problems
