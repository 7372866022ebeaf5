"""What an ONNX file is made of: opsets, operators and who runs them, unused inputs, memory of activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.errors import UnsupportedDtypeError
from repo_builder.formats import onnx_kernels, onnx_stamp
from repo_builder.tensors import from_onnx

_PLACES = ("ort_cpu", "ort_cuda", "tensorrt")


@dataclass(frozen=True)
class _Use:
    domain: str
    operator: str
    types: tuple[tuple[str, str], ...]
    first: str


def summary(path: Path, *, batch: int = 1, onnxruntime: str = "", tensorrt: str = "") -> dict[str, Any]:
    """JSON values: ``opsets``, ``stamp`` (where it is wrong), ``unused_inputs``, ``activation_bytes``, ``operators``.

    ``operators`` are rows of ``operator``, ``count``, and of ``ort_cpu``, ``ort_cuda``, ``tensorrt`` with ``yes`` or
    ``no`` and why; rows with a ``no`` come first. ``ort_cuda`` ``no`` means that ONNX Runtime runs the operator on the
    CPU. The lists' versions stand in ``lists``. ``inspect --tensorrt`` asks TensorRT's parser itself.

    Args:
        batch: size of the batch that ``activation_bytes`` is for; the key is missing where a size stays unknown.
        onnxruntime, tensorrt: versions of the target; the newest lists where empty.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    opsets = {o.domain or "ai.onnx": int(o.version) for o in model.opset_import}
    inferred = _inferred(model)
    kinds = _kinds(inferred)
    rows = _rows(model, kinds, opsets, onnxruntime, tensorrt)
    found: dict[str, Any] = {"opsets": dict(sorted(opsets.items()))}
    if told := onnx_stamp.look(model).told():
        found["stamp"] = told
    if unread := unused(model.graph):
        found["unused_inputs"] = list(unread)
    peak = _peak(model, batch)
    if peak is not None:
        found["activation_bytes"] = {"batch": batch, "peak": peak}
    newest = onnx_kernels.documented_opset(tensorrt)
    found["lists"] = {
        "ort_cpu": _installed(),
        "ort_cuda": onnx_kernels.known("cuda", onnxruntime),
        "tensorrt": onnx_kernels.known("tensorrt", tensorrt)
        + (f" (about opset {newest} at most)" if opsets.get("ai.onnx", 0) > newest else ""),
    }
    return {**found, "operators": rows}


def unused(graph: Any) -> tuple[str, ...]:
    """Inputs that no node and no output reads, in order; weights that are listed as inputs are none."""
    weights = {tensor.name for tensor in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    read = {name for inner in _graphs(graph) for node in inner.node for name in node.input} | weights
    read |= {value.name for inner in _graphs(graph) for value in inner.output}
    return tuple(value.name for value in graph.input if value.name not in read)


def _rows(
    model: Any, kinds: Mapping[str, str], opsets: Mapping[str, int], onnxruntime: str, tensorrt: str
) -> list[dict[str, Any]]:
    local = {(f.domain, f.name) for f in model.functions}
    uses: dict[tuple[str, str], Counter[_Use]] = {}
    for graph in [*_graphs(model.graph), *(f for f in model.functions)]:
        for node in graph.node:
            domain = "" if node.domain == "ai.onnx" else node.domain
            if (node.domain, node.op_type) not in local:
                use = _use(node, domain, opsets.get(domain or "ai.onnx", 1), kinds)
                uses.setdefault((domain, node.op_type), Counter())[use] += 1
    rows = []
    for (domain, operator), counted in uses.items():
        opset = opsets.get(domain or "ai.onnx", 1)
        verdicts = {
            "ort_cpu": [onnx_kernels.cpu(domain, operator, opset, dict(u.types)) for u in counted],
            "ort_cuda": [onnx_kernels.cuda(domain, operator, opset, dict(u.types), onnxruntime) for u in counted],
            "tensorrt": [onnx_kernels.tensorrt(domain, operator, u.first, tensorrt) for u in counted],
        }
        name = f"{domain}.{operator}" if domain else operator
        rows.append({"operator": name, "count": counted.total(), **{k: _worst(v) for k, v in verdicts.items()}})
    return sorted(rows, key=lambda row: (-sum(_no(row[place]) for place in _PLACES), -row["count"], row["operator"]))


def _worst(verdicts: list[str]) -> str:
    return min(verdicts, key=lambda verdict: (not _no(verdict), verdict))


def _no(verdict: str) -> bool:
    return verdict.startswith("no")


def _use(node: Any, domain: str, opset: int, kinds: Mapping[str, str]) -> _Use:
    """The types that a node binds to its schema's type parameters, as far as they are known."""
    import onnx

    given = [kinds.get(name, "") for name in node.input]
    first = given[0] if given else ""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, domain)
    except onnx.defs.SchemaError:
        return _Use(domain, node.op_type, (), _triton(first))
    bound: dict[str, str] = {}
    for formals, types in ((schema.inputs, given), (schema.outputs, [kinds.get(name, "") for name in node.output])):
        for place, kind in enumerate(types):
            formal = formals[min(place, len(formals) - 1)] if formals else None
            if kind and formal is not None and "(" not in formal.type_str:
                bound.setdefault(formal.type_str, kind)
    return _Use(domain, node.op_type, tuple(sorted(bound.items())), _triton(first))


def _triton(kind: str) -> str:
    import onnx

    for number in onnx.TensorProto.DataType.values():
        if number and kind == f"tensor({_word(number)})":
            try:
                return from_onnx(number).triton
            except UnsupportedDtypeError:
                return ""
    return ""


def _word(number: int) -> str:
    import onnx

    try:
        return str(onnx.TensorProto.DataType.Name(number)).lower()
    except ValueError:
        return f"type {number}"


def _inferred(model: Any) -> Any:
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # noqa: BLE001 - what stays unknown is left out
        return model


def _kinds(model: Any) -> dict[str, str]:
    """Type of every tensor that is known by name, ``tensor(float)``."""
    found: dict[str, str] = {}
    for graph in _graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type:
                found.setdefault(value.name, f"tensor({_word(value.type.tensor_type.elem_type)})")
        for tensor in graph.initializer:
            found.setdefault(tensor.name, f"tensor({_word(tensor.data_type)})")
    return found


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(inner)


def _peak(model: Any, batch: int) -> int | None:
    """Bytes of the tensors that are alive at once at most, in the file's order of nodes, without weights.

    None where a tensor's size stays unknown, or the graph has subgraphs or no symbolic batch alone.
    """
    given = type(model)()
    given.CopyFrom(model)
    weights = {tensor.name for tensor in given.graph.initializer}
    for value in [v for v in given.graph.input if v.name not in weights]:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.WhichOneof("value") != "dim_value":
                if axis:
                    return None
                dim.dim_value = batch
    del given.graph.value_info[:]
    for value in given.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = _inferred(given).graph
    sizes = {v.name: _bytes(v.type.tensor_type) for v in (*inferred.input, *inferred.output, *inferred.value_info)}
    constants = weights | {name for node in inferred.node if node.op_type == "Constant" for name in node.output}
    return _alive(inferred, sizes, constants)


def _alive(graph: Any, sizes: Mapping[str, int | None], constants: set[str]) -> int | None:
    last = {name: step for step, node in enumerate(graph.node) for name in node.input}
    last |= {value.name: len(graph.node) for value in graph.output}
    alive = {value.name: sizes.get(value.name) for value in graph.input if value.name not in constants}
    peak = 0
    for step, node in enumerate(graph.node):
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            return None
        alive |= {name: sizes.get(name) for name in node.output if name and name not in constants}
        known = [size for size in alive.values() if size is not None]
        if len(known) != len(alive):
            return None
        peak = max(peak, sum(known))
        alive = {name: size for name, size in alive.items() if last.get(name, -1) > step}
    return peak


def _bytes(tensor: Any) -> int | None:
    import onnx

    if not tensor.HasField("shape") or any(d.WhichOneof("value") != "dim_value" for d in tensor.shape.dim):
        return None
    count = int(np.prod([d.dim_value for d in tensor.shape.dim], dtype=object))
    try:
        return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).itemsize)
    except (KeyError, ValueError):
        return None


def _installed() -> str:
    import onnxruntime

    return str(onnxruntime.__version__)
