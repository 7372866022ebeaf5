"""What each TensorRT version can, and which Triton releases load a plan of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from repo_builder import releases
from repo_builder.errors import TensorRTError

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
_WEAK_PRECISIONS = ("fp32", "tf32", "fp16", "int8")
_WEAK_OPSET = 17
_NEXT = (((8,), (10,)), ((10,), (11,)))


@dataclass(frozen=True)
class Abilities:
    """What a version can.

    Attributes:
        strongly_typed: networks compute in the dtypes of the graph; precision lies in the graph alone.
        precisions: what ``precision:`` may ask for.
        max_opset: the newest ai.onnx opset that its parser takes; None where it follows ONNX's own.
        int64: whether it keeps INT64 inputs and outputs; 8.6 makes them INT32.
        timing_cache, compatible_plans: whether it has these (TensorRT-RTX has neither).
    """

    strongly_typed: bool
    precisions: tuple[str, ...]
    max_opset: int | None
    int64: bool
    timing_cache: bool
    compatible_plans: bool


def numbers(version: str) -> tuple[int, ...]:
    """``(8, 6, 1, 6)`` of ``8.6.1.6``; what follows a part that is no number is left out."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def abilities(module: str, version: str) -> Abilities:
    """What ``tensorrt`` or ``tensorrt_rtx`` of that version can (NVIDIA's release notes; 8.6 and RTX 1.7 were tried).

    Raises:
        TensorRTError: below 8.6, or a version that is none.
    """
    told = numbers(version)
    if module == "tensorrt_rtx":
        return Abilities(True, PRECISIONS, None, True, timing_cache=False, compatible_plans=False)
    if told < (8, 6):
        raise TensorRTError(
            f"TensorRT {version} is too old", expected="TensorRT 8.6, 10 or newer", mend="use a newer container"
        )
    if told < (10,):
        return Abilities(False, _WEAK_PRECISIONS, _WEAK_OPSET, False, timing_cache=True, compatible_plans=True)
    return Abilities(True, PRECISIONS, None, True, timing_cache=True, compatible_plans=True)


def check_precision(module: str, version: str, precision: str) -> None:
    """Refuse a precision that this version has not got.

    Raises:
        TensorRTError: with the precisions that it has.
    """
    able = abilities(module, version)
    if precision not in able.precisions:
        raise TensorRTError(
            f"TensorRT {version} has no precision {precision}",
            expected="one of " + ", ".join(able.precisions),
            mend="build with TensorRT 10 or newer" + (", or take fp16" if precision == "bf16" else ", or take int8"),
        )


def check_compatible(module: str, version: str, wanted: Mapping[str, bool]) -> None:
    """Refuse plans for other versions or GPUs where this TensorRT makes none.

    Args:
        wanted: by option (``version_compatible``, ``hardware_compatible``), whether it was asked for.

    Raises:
        TensorRTError: with the option.
    """
    asked = [option for option, there in wanted.items() if there]
    if asked and not abilities(module, version).compatible_plans:
        called = "TensorRT-RTX" if module == "tensorrt_rtx" else "TensorRT"
        raise TensorRTError(
            f"{called} {version} makes no {asked[0].replace('_', '-')} plans",
            expected="TensorRT 8.6 or newer",
            mend=f"leave tensorrt.{asked[0]} out, or build with TensorRT",
        )


def unchecked(release: str, built: str) -> str:
    """What is not known of a plan on a release whose TensorRT the table does not have; empty where it has it."""
    carried = _carried()
    if release not in carried or carried[release]:
        return ""
    return (
        f"which TensorRT release {release} carries is not known: whether it loads this plan of TensorRT {built} was "
        "not checked"
    )


def check_opset(module: str, version: str, opset: int, file: str) -> None:
    """Refuse an ONNX opset that the parser of this version does not take.

    Raises:
        TensorRTError: naming both opsets.
    """
    highest = abilities(module, version).max_opset
    if highest is not None and opset > highest:
        raise TensorRTError(
            f"{file} has opset {opset}, and the ONNX parser of TensorRT {version} ends at {highest}",
            expected=f"opset {highest} or older",
            mend=f"export with opset {highest} (for a PyTorch source: it is chosen for you; an ONNX file: "
            "onnx.version_converter), or build with TensorRT 10",
        )


def loads(plan_version: str, runtime_version: str, *, version_compatible: bool = False) -> bool:
    """Whether a TensorRT runtime loads a plan: the same version, or, version-compatible, a later one from 8.6 on.

    Later means of the same major, or of the next: 8 to 10, 10 to 11 (NVIDIA, "Engine Compatibility").

    Versions are compared over the parts that both tell.
    """
    plan, runtime = numbers(plan_version), numbers(runtime_version)
    if version_compatible:
        near = plan[:1] == runtime[:1] or (plan[:1], runtime[:1]) in _NEXT
        return bool(plan) and near and (8, 6) <= plan <= runtime[: len(plan)] + (0,) * (len(plan) - len(runtime))
    shared = min(len(plan), len(runtime))
    return shared >= 3 and plan[:shared] == runtime[:shared]


def releases_for(plan_version: str, *, version_compatible: bool = False) -> tuple[str, ...]:
    """Triton releases whose py3 image is known to load a plan of that TensorRT version, oldest first."""
    known = {name: version for name, version in _carried().items() if version}
    return tuple(name for name, has in known.items() if loads(plan_version, has, version_compatible=version_compatible))


def releases_unknown() -> tuple[str, ...]:
    """Triton releases whose TensorRT the table does not know: nothing is said of them."""
    return tuple(name for name, version in _carried().items() if not version)


def _carried() -> dict[str, str | None]:
    images = {name: releases.release(name).images.get("py3") for name in releases.names()}
    return {name: image.tensorrt if image else None for name, image in images.items()}
