"""Builds a plan from an ONNX file: ``build.py REQUEST ANSWER`` (JSON files).

Request: ``onnx`` and ``plan`` (paths), ``precision`` (fp32, tf32, fp16, bf16, int8, fp8), ``profiles``
(``[{input: {"min", "opt", "max"}, "values": {shape tensor: {"min", "opt", "max"}}}]``), and, where they are wanted,
``workspace_mib``, ``optimization_level``, ``timing_cache`` (path), ``version_compatible``, ``hardware_compatible``,
``plugins`` (paths), ``keep_fp32`` (names of ONNX nodes, each with its
outputs' names; weakly typed networks only), ``module``.

Answer: ``module``, ``version``, ``seconds``, ``timing_cache`` (new, reused or null), ``plan_bytes``,
``strongly_typed``, ``flags`` (names of all builder flags that are on), ``plugins``, ``kept`` (``{"layers": n,
"missing": [names]}``), ``warnings``, ``network`` (see network.summary), ``inspection`` (see inspection.inspect; null
with ``not_opened`` saying why, where no driver could open the plan), ``text`` (see plan_text.read).
"""

from __future__ import annotations

import time

import inspection
import network as onnx_network
import plan_text
import precision
import profiles
import runtime
import timing_cache
from runtime import Refused


def work(request):
    trt = runtime.load(request)
    asked = _asked(trt, request)
    log = runtime.logger(trt)
    builder = trt.Builder(log)
    precision.check_hardware(builder, asked["precision"])
    loaded = runtime.load_plugins(trt, log, asked["plugins"])
    network, strongly = onnx_network.create(trt, builder)
    precision.check_typing(trt, asked, strongly)
    parser = onnx_network.parse(trt, network, log, asked["onnx"], asked["version_compatible"])
    inputs = onnx_network.inputs(network)
    profiles.check(inputs, asked["profiles"])
    told = onnx_network.summary(trt, network)
    config = builder.create_builder_config()
    kept = precision.set_flags(trt, config, network, asked, told, strongly)
    _set_options(trt, config, asked)
    for wanted in asked["profiles"]:
        if config.add_optimization_profile(profiles.make(builder, inputs, wanted)) < 0:
            raise Refused(f"{runtime.called(trt)} does not take the profile {wanted}")
    cache, state, remark = timing_cache.load(trt, config, asked["timing_cache"])
    runtime.ALIVE.extend((parser, network, config, builder, cache))
    began = time.perf_counter()
    plan = builder.build_serialized_network(network, config)
    seconds = time.perf_counter() - began
    if plan is None:
        raise _not_built(trt, log)
    plan = bytes(plan)
    runtime.write(asked["plan"], plan)
    if cache is not None:
        timing_cache.save(config, cache, asked["timing_cache"])
    answer = {
        **runtime.describe(trt),
        "seconds": round(seconds, 3),
        "timing_cache": state,
        "plan_bytes": len(plan),
        "strongly_typed": strongly,
        "flags": _flags(trt, config),
        "plugins": loaded,
        "kept": kept,
        "network": told,
    }
    return {**answer, **opened(trt, log, plan), "warnings": [*remark, *log.warnings()[:20]]}


def opened(trt, log, plan):
    """``inspection`` of a plan just built, or null and ``not_opened`` where no driver could open it."""
    told = {"text": plan_text.read(plan)}
    try:
        opener, engine = inspection.open_engine(trt, log, plan)
        runtime.ALIVE.extend((opener, engine))
        found, _raw = inspection.with_context(trt, engine)
    except (Refused, RuntimeError, TypeError) as error:
        return {**told, "inspection": None, "not_opened": getattr(error, "found", "") or str(error)}
    return {**told, "inspection": found, "not_opened": ""}


def _not_built(trt, log):
    reason = "; ".join(log.errors()[:5]) or "no reason told"
    lean = "libnvinfer_lean" in reason
    return Refused(
        f"{runtime.called(trt)} did not build the plan: {reason}",
        "TensorRT's lean runtime beside it" if lean else "a graph, precision and profiles that it can build",
        "install TensorRT's lean runtime (tensorrt-lean), or leave version_compatible out" if lean else "",
    )


def _asked(trt, request):
    known = {
        "onnx": "", "plan": "", "precision": "fp32", "profiles": [], "workspace_mib": None, "optimization_level": None,
        "timing_cache": None, "version_compatible": False, "hardware_compatible": False, "plugins": [],
        "keep_fp32": {}, "module": None,
    }  # fmt: skip
    unknown = sorted(set(request) - set(known))
    if unknown:
        raise Refused("the request has unknown keys: {}".format(", ".join(unknown)), ", ".join(known))
    asked = {**known, **request}
    if asked["precision"] not in precision.FLAGS:
        raise Refused("precision '{}' is unknown".format(asked["precision"]), "one of " + ", ".join(precision.FLAGS))
    present = {
        "version_compatible": hasattr(trt.BuilderFlag, "VERSION_COMPATIBLE"),
        "hardware_compatible": hasattr(trt, "HardwareCompatibilityLevel"),
        "optimization_level": hasattr(trt.IBuilderConfig, "builder_optimization_level"),
    }
    for key, there in present.items():
        if asked[key] not in (None, False) and not there:
            raise runtime.lacks(trt, key, "TensorRT 8.6 or newer")
    return asked


def _set_options(trt, config, asked):
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if asked["workspace_mib"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, asked["workspace_mib"] << 20)
    level = asked["optimization_level"]
    if level is not None:
        config.builder_optimization_level = level
        if config.builder_optimization_level != level:
            raise runtime.lacks(trt, f"builder optimization level {level}", "0 to 5", "take one of these")
    if asked["version_compatible"]:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if asked["hardware_compatible"]:
        wanted = trt.HardwareCompatibilityLevel.AMPERE_PLUS
        config.hardware_compatibility_level = wanted
        if config.hardware_compatibility_level != wanted:
            raise runtime.lacks(trt, "hardware-compatible plans", "TensorRT 8.6 or newer")


def _flags(trt, config):
    members = trt.BuilderFlag.__members__
    return sorted(name for name, flag in members.items() if config.get_flag(flag))


if __name__ == "__main__":
    runtime.main(work)
