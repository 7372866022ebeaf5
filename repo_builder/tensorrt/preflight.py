"""An ONNX file against TensorRT's parser, with or without a GPU: what it refuses, where, and what mends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from repo_builder.errors import SourceCorruptError, UnsupportedDtypeError
from repo_builder.tensorrt import calls, installation, mends, versions
from repo_builder.tensors import from_onnx

HINT = (
    "TensorRT-RTX's parser, not TensorRT's own: a good hint. A few operators (NonZero, for one) are TensorRT's alone, "
    "and each TensorRT version has its own list"
)
_OLDEST = "8.6"


def preflight(
    path: Path, progress: Callable[[str], None] | None = None, *, plugins: Sequence[Path] = ()
) -> dict[str, Any]:
    """What TensorRT says of an ONNX file, as JSON values.

    Keys: ``parser`` (``TensorRT-RTX 1.7.1.116``), ``module``, ``version``, ``hint`` (true where it is not TensorRT's
    own verdict), ``note``, ``supported``, ``unsupported`` (``[{"index", "name", "op_type", "inputs", "outputs",
    "reason", "mend", "place"}]``; index -1 is the graph itself), ``supported_subgraphs`` (``[[node indices]]`` between
    the refused nodes; absent where all is supported), ``inputs`` and ``outputs`` (``[{"name", "onnx", "tensorrt",
    "shape", "is_shape_tensor", "remark"}]``), ``layers`` (null where it does not parse), ``remarks``, ``warnings``.

    Args:
        path: the ONNX file; external data lies beside it.
        progress: told when an environment is made and when the parser runs.
        plugins: libraries to load first.

    Raises:
        SourceCorruptError: no ONNX file.
        ToolchainError, TensorRTError: no parser can be had, or its process died.
    """
    model = _load(path)
    found = installation.parser(progress)
    request = {"onnx": str(path.absolute()), "plugins": [str(p.absolute()) for p in plugins]}
    answer = calls.call(found, "parse.py", request, progress)
    refused = _unsupported(model, answer["errors"])
    network = answer["network"]
    return {
        "parser": found.called,
        "module": answer["module"],
        "version": answer["version"],
        "hint": found.is_rtx,
        "note": HINT if found.is_rtx else "",
        "supported": answer["supported"],
        "unsupported": refused,
        **({} if answer["supported"] else {"supported_subgraphs": _runs(model, refused)}),
        "inputs": _tensors(_inputs(model), network and network["inputs"]),
        "outputs": _tensors(list(model.graph.output), network and network["outputs"]),
        "layers": network and network["layers"],
        "remarks": _remarks(model, found),
        "warnings": answer["warnings"],
    }


def _load(path: Path) -> Any:
    import google.protobuf.message
    import onnx

    try:
        return onnx.load(str(path), load_external_data=False)
    except (OSError, google.protobuf.message.DecodeError, ValueError) as error:
        raise SourceCorruptError(
            f"{path} does not parse as ONNX ({error})", expected="an ONNX file", mend="export or copy it again"
        ) from error


def _unsupported(model: Any, errors: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The refused nodes, each once, in the order of the graph."""
    dtypes = _dtypes(model)
    sides = [value.name for value in (*model.graph.input, *model.graph.output)]
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for error in errors:
        node = _node(model, error)
        tensors = [*node.input, *node.output] if node is not None else sides
        op = error["op"] or (node.op_type if node is not None else "")
        index = error["node"] if node is not None else -1
        one = {
            "index": index,
            "name": error["name"] or (node.name if node is not None else ""),
            "op_type": op,
            "inputs": [f"{t} {dtypes.get(t, '')}".strip() for t in node.input if t] if node is not None else [],
            "outputs": [f"{t} {dtypes.get(t, '')}".strip() for t in node.output] if node is not None else [],
            "reason": mends.reason(error["description"], op),
            "mend": mends.mend(op, error["description"], [dtypes[t] for t in tensors if t in dtypes]),
            "place": error["place"],
        }
        found.setdefault((index, one["name"]), one)
    return [found[key] for key in sorted(found)]


def _node(model: Any, error: Mapping[str, Any]) -> Any:
    """The node that an error means: by its name where the parser tells one, for an index may be a subgraph's."""
    nodes = model.graph.node
    if error["name"]:
        named = [node for node in nodes if node.name == error["name"]]
        if len(named) == 1:
            return named[0]
    if not 0 <= error["node"] < len(nodes):
        return None
    node = nodes[error["node"]]
    return node if error["op"] in ("", node.op_type) else None


def _dtypes(model: Any) -> dict[str, str]:
    """Triton's dtype name of every tensor that the file, or ONNX shape inference, types."""
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # noqa: BLE001 - an odd graph is what this looks at; the file's own types remain
        graph = model.graph
    found = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        found[value.name] = value.type.tensor_type.elem_type
    return {name: _triton(number) for name, number in found.items() if number}


def _triton(elem_type: int) -> str:
    try:
        return from_onnx(elem_type).triton
    except UnsupportedDtypeError as error:
        return error.found.split()[1].rstrip(",")


def _inputs(model: Any) -> list[Any]:
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def _tensors(values: Sequence[Any], told: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    by_name = {one["name"]: one for one in told or ()}
    found = []
    for value in values:
        onnx = _triton(value.type.tensor_type.elem_type)
        one = by_name.get(value.name, {})
        found.append(
            {
                "name": value.name,
                "onnx": onnx,
                "tensorrt": one.get("dtype"),
                "shape": one.get("shape"),
                "is_shape_tensor": one.get("is_shape_tensor"),
                "remark": _remark(onnx, one),
            }
        )
    return found


def _remark(onnx: str, told: Mapping[str, Any]) -> str:
    if onnx == "BYTES":
        return "TensorRT has no strings: tokenize in a model before the plan"
    if told.get("is_shape_tensor"):
        return "its values decide shapes: a profile must give their range"
    if told and told["dtype"] != onnx:
        return f"becomes {told['dtype']} in the plan: clients send {told['dtype']}"
    if onnx == "INT64":
        return "stays INT64 from TensorRT 10 on; TensorRT 8.6 makes it INT32"
    return ""


def _remarks(model: Any, found: installation.Installation) -> list[str]:
    opsets = {one.domain: one.version for one in model.opset_import}
    opset = opsets.get("", opsets.get("ai.onnx", 0))
    highest = versions.abilities("tensorrt", _OLDEST).max_opset or 0
    if not found.is_rtx and versions.numbers(found.version) >= (10,):
        return []
    remarks = []
    if opset > highest:
        remarks.append(f"the file has opset {opset}: the parser of TensorRT {_OLDEST} ends at {highest}")
    if cut := [node.name or node.op_type for node in model.graph.node if _cuts_a_shape(node)]:
        named = ", ".join(cut[:5]) + ", ..." * (len(cut) > 5)
        remarks.append(
            f"Shape with start or end ({named}): the parser of TensorRT {_OLDEST} ignores these attributes; a build "
            "for it writes a slice instead"
        )
    return remarks


def _cuts_a_shape(node: Any) -> bool:
    given = {one.name: one.i for one in node.attribute}
    return node.op_type == "Shape" and bool(given.get("start") or "end" in given)


def _runs(model: Any, unsupported: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The node indices between refused nodes, as runs."""
    runs: list[list[int]] = [[]]
    refused = {one["index"] for one in unsupported}
    for index in range(len(model.graph.node)):
        if index in refused:
            runs.append([])
        else:
            runs[-1].append(index)
    return [run for run in runs if run]
