"""Which runtime has a kernel for an operator, at an opset and for dtypes: ONNX Runtime (CPU, CUDA) and TensorRT.

Sources: the onnxruntime package itself for the CPU; ``onnx_operators.json`` (made by scripts/operator_tables.py from
ONNX Runtime's docs/OperatorKernels.md and onnx-tensorrt's docs/operators.md) for the others.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

Types = Mapping[str, str]
"""ONNX type parameter of an operator's schema (``T``) -> type (``tensor(float)``); parameters may be missing."""
YES = "yes"
FUNCTION = "yes: as the function of other operators that defines it, where those run"
_NEWEST = 2147483647
_Row = tuple[int, int, Mapping[str, Sequence[str]]]
"""First and last opset, type constraints."""


def cpu(domain: str, operator: str, opset: int, types: Types) -> str:
    """``yes``, ``FUNCTION``, or ``no`` with why, for the onnxruntime that is installed here."""
    rows = _cpu_kernels().get((domain, operator), [])
    return _verdict(domain, operator, rows, opset, types, "CPU")


def cuda(domain: str, operator: str, opset: int, types: Types, version: str = "") -> str:
    """``yes``, ``FUNCTION``, or ``no`` with why, by the list of ONNX Runtime ``version`` or the next older one."""
    rows = _cuda_kernels(known("cuda", version)).get((domain, operator), [])
    return _verdict(domain, operator, rows, opset, types, "CUDA")


def tensorrt(domain: str, operator: str, dtype: str, version: str = "") -> str:
    """``yes``, ``yes: <restriction>``, or ``no`` with why, by onnx-tensorrt's list.

    Args:
        dtype: Triton's name of the first input's dtype; empty where it is not known.
        version: of TensorRT; the next older list is taken.
    """
    listed = _table()["tensorrt"][known("tensorrt", version)]
    if domain not in ("", "ai.onnx") or listed["operators"].get(operator) is None:
        return "no: the parser does not have it (a plugin of that name would do)"
    takes = listed["operators"][operator]
    narrowed = {"FP64": "FP32", "INT64": "INT32"}.get(dtype, dtype)
    if dtype and takes and dtype not in takes and narrowed not in takes:
        return f"no: not of {dtype}"
    restriction = listed["restrictions"].get(operator)
    return f"{YES}: {restriction}" if restriction else YES


def known(kind: str, version: str = "") -> str:
    """The newest list that is not newer than ``version`` (the oldest where all are); the newest of all for none."""
    versions = list(_table()[kind])
    if not version:
        return str(versions[-1])
    asked = [int(part) for part in version.split(".")[:2]]
    fits = [one for one in versions if [int(part) for part in one.split(".")] <= asked]
    return str(fits[-1] if fits else versions[0])


def documented_opset(version: str = "") -> int:
    """The newest opset that TensorRT's list is about."""
    return int(_table()["tensorrt"][known("tensorrt", version)]["opset"])


def _verdict(domain: str, operator: str, rows: Sequence[_Row], opset: int, types: Types, where: str) -> str:
    since = _since(domain, operator, opset)
    fits = [constraints for first, last, constraints in rows if _serves(first, last, since, opset)]
    if not fits:
        if _decomposes(domain, operator, opset):
            return FUNCTION
        return f"no: no {where} kernel" + (f" for opset {opset}" if rows else "")
    lacks: list[str] = []
    for constraints in fits:
        wrong = [kind for name, kind in types.items() if name in constraints and kind not in constraints[name]]
        if not wrong:
            return YES
        lacks = lacks or wrong
    return FUNCTION if _decomposes(domain, operator, opset) else f"no: no {where} kernel of {lacks[0]}"


def _serves(first: int, last: int, since: int | None, opset: int) -> bool:
    """Whether a kernel of these opsets is taken (ONNX Runtime's kernel_registry.cc, VerifyKernelDef).

    One without a last opset serves only the version of the operator that it names: a newer one may mean something else.
    """
    if since is None:
        return first <= opset <= last
    return first == since or (first < since <= last and last != _NEWEST)


def _since(domain: str, operator: str, opset: int) -> int | None:
    import onnx

    try:
        return int(onnx.defs.get_schema(operator, opset, domain).since_version)
    except onnx.defs.SchemaError:
        return None


def _decomposes(domain: str, operator: str, opset: int) -> bool:
    """Whether ONNX Runtime replaces the operator by the function that defines it, for want of a kernel."""
    import onnx

    try:
        schema = onnx.defs.get_schema(operator, opset, domain)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


@functools.cache
def _cpu_kernels() -> dict[tuple[str, str], list[_Row]]:
    import onnxruntime.capi.onnxruntime_pybind11_state as state

    found: dict[tuple[str, str], list[_Row]] = {}
    for kernel in state.get_all_opkernel_def():
        if kernel.provider == "CPUExecutionProvider":
            first, last = kernel.version_range
            row = (first, last, dict(kernel.type_constraints))
            found.setdefault((kernel.domain, kernel.op_name), []).append(row)
    return found


@functools.cache
def _cuda_kernels(version: str) -> dict[tuple[str, str], list[_Row]]:
    table = _table()
    types = table["types"]["all"]
    return {
        (domain, operator): [
            (first, last or _NEWEST, {name: types[index] for name, index in constraints.items()})
            for first, last, constraints in rows
        ]
        for domain, operators in table["cuda"][version].items()
        for operator, rows in operators.items()
    }


@functools.cache
def _table() -> dict[str, Any]:
    text = resources.files("repo_builder.formats").joinpath("onnx_operators.json").read_text(encoding="utf-8")
    return dict(json.loads(text))
