"""What every ONNX file that a converter wrote goes through: stamp, names, opset, simplification, checker, packing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repo_builder.convert import onnx_graph, onnx_slim
from repo_builder.errors import ConversionError, SourceCorruptError, first_line
from repo_builder.formats import framework_names, onnx_external, onnx_stamp, onnx_summary
from repo_builder.formats import onnx as onnx_format
from repo_builder.tensors import TensorSpec, from_onnx

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

_WEIGHTS_APART = 4
"""The first IR version in which weights are no inputs."""


@dataclass(frozen=True)
class Care:
    """What was done to a file.

    Attributes:
        notes: one line per finding or change.
        opset: of the default operator set, as written.
        files: names of the file and of its external data.
    """

    notes: tuple[str, ...]
    opset: int
    files: tuple[str, ...]


def care(
    path: Path,
    out: Path,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    opset: int,
    ir_version: int,
    simplify: bool = True,
) -> Care:
    """Write ``out`` as the target loads it, under the served names, shapes and dims.

    What remains to be shown is that ``out`` answers as its source: see ``runner.check``.

    Args:
        path: the file as the exporter wrote it, external data beside it.
        out: the file to write, in a folder that exists; another one than ``path``.
        inputs, outputs: the signature; the file's tensors follow in this order. An input that the exporter dropped,
            because no node uses it, is added again.
        opset, ir_version: the highest that the target loads.
        simplify: fold constants and simplify where the answers stay the same.

    Raises:
        ConversionError: the file's tensors are not those of the signature, or no opset fits.
        SourceCorruptError, PathEscapeError, SourceMissingError: the file or its external data is broken, or
            onnx.checker with strict shape inference refuses what was made of it.
    """
    model = _load(path)
    notes = [mend] if (mend := _mend_stamp(model)) else []
    _drop_weights(model)
    notes += _sign(model.graph, inputs, outputs)
    model = onnx_graph.at_opset(model, min(opset, onnx_graph.opset_of(model)))
    onnx_graph.strip(model)
    onnx_graph.lower_ir(model, ir_version)
    files = onnx_graph.save(model, out)
    onnx_format.check(out)
    notes += _inference(model)
    if simplify:
        smaller, note = onnx_slim.slim(model, out)
        notes += [note] if note else []
        if smaller is not None:
            files = onnx_graph.save(smaller, out)
    return Care(tuple(notes), onnx_graph.opset_of(model), files)


def findings(path: Path) -> list[str]:
    """What care would say of a file that is served as it is: its stamp, unused inputs, the checker's words.

    What the checker refuses ONNX Runtime may run, with the answers of the model that it was exported from, so that
    these are notes; the file is served where ONNX Runtime loads it.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    notes = [told] if (told := onnx_stamp.look(model).told()) else []
    notes += _unread(model.graph)
    try:
        onnx_format.check(path)
    except SourceCorruptError as error:
        notes.append(f"{error.found}; ONNX Runtime's answers decide")
    return notes


def _unread(graph: GraphProto) -> list[str]:
    return [f"input '{name}' is read by no node; it stays in the signature" for name in onnx_summary.unused(graph)]


def _load(path: Path) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError, RuntimeError, OSError) as error:
        raise SourceCorruptError(f"{path.name} does not parse as ONNX ({first_line(error)})") from error
    onnx_external.check_files(model, path)
    onnx.load_external_data_for_model(model, str(path.parent))
    return model


def _mend_stamp(model: ModelProto) -> str:
    """Stamp the nearest opset that all nodes fit; a note, or an empty string where the stamp is right.

    Raises:
        ConversionError: no opset has all nodes.
    """
    stamp = onnx_stamp.look(model)
    if not stamp.misfits:
        return ""
    right = stamp.nearest
    if right is None:
        raise ConversionError(
            stamp.told(),
            expected="nodes of one operator set",
            mend="export the model again, or report it to the exporter's makers; further: "
            + ("; ".join(stamp.misfits[1:]) or "none"),
        )
    for entry in model.opset_import:
        if entry.domain in onnx_stamp.DEFAULT:
            entry.version = right
    unsure = f" (of {', '.join(stamp.ambiguous)} the answers decide)" if stamp.ambiguous else ""
    return f"{stamp.told()}; stamped {right}{unsure}"


def _drop_weights(model: ModelProto) -> None:
    """Weights that are listed as inputs, as IR version 3 wants it, are inputs no more."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    for value in [value for value in graph.input if value.name in weights]:
        graph.input.remove(value)
    model.ir_version = max(model.ir_version, _WEIGHTS_APART)


def _sign(graph: GraphProto, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> list[str]:
    """Give inputs and outputs the names and shapes of the signature; notes on inputs that nothing reads."""
    told = _with_dropped(graph, inputs)
    if len(graph.output) != len(outputs):
        raise _counts("output", [v.name for v in graph.output], outputs)
    for value, spec in zip(told, inputs, strict=True):
        _same_kind("input", value, spec)
    for value, spec in zip(graph.output, outputs, strict=True):
        _same_kind("output", value, spec)
    onnx_graph.rename(
        graph, {v.name: s.name for v, s in zip(told, inputs, strict=True)}, [spec.name for spec in outputs]
    )
    for value, spec in zip((*graph.input, *graph.output), (*inputs, *outputs), strict=True):
        onnx_graph.set_shape(value, spec.shape)
    return _unread(graph)


def _with_dropped(graph: GraphProto, inputs: Sequence[TensorSpec]) -> list[Any]:
    """The file's inputs by position, after those were added that its exporter dropped for want of a reader.

    Raises:
        ConversionError: the file has other inputs.
    """
    if len(graph.input) == len(inputs):
        return list(graph.input)
    wanted = [spec.name for spec in inputs]
    found: dict[str, Any] = {}
    for value in graph.input:
        name = value.name if value.name in wanted else framework_names.legal(value.name, "")
        if name not in wanted or name in found:
            raise _counts("input", [v.name for v in graph.input], inputs)
        found[name] = value
    onnx_graph.set_inputs(graph, found, inputs)
    return list(graph.input)


def _same_kind(side: str, value: Any, spec: TensorSpec) -> None:
    """Raises ConversionError where the file's tensor has another dtype, rank or fixed size than the signature."""
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise ConversionError(f"the file's {side} '{value.name}' is no tensor, {spec} was declared")
    kind = from_onnx(tensor.elem_type, value.name).triton
    if kind != spec.dtype:
        raise ConversionError(f"the file's {side} '{value.name}' is {kind} where {spec} was declared")
    if not tensor.HasField("shape"):
        return
    sizes = [dim.dim_value if dim.WhichOneof("value") == "dim_value" else -1 for dim in tensor.shape.dim]
    pairs = zip(sizes, spec.shape, strict=False)
    clash = any(size > 0 and isinstance(want, int) and size != want for size, want in pairs)
    if len(sizes) != len(spec.shape) or clash:
        raise ConversionError(f"the file's {side} '{value.name}' has the shape {sizes} where {spec} was declared")


def _inference(model: ModelProto) -> list[str]:
    """A note where shape inference with data propagation contradicts the file, which strict inference alone did not."""
    import onnx

    if model.ByteSize() >= onnx_graph.EXTERNAL_FROM:
        return []
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # noqa: BLE001 - numbers decide, this is a hint
        return [f"shape inference with data propagation: {first_line(error)}"]
    return []


def _counts(side: str, found: Sequence[str], specs: Sequence[TensorSpec]) -> ConversionError:
    return ConversionError(
        f"the file has the {side}s {', '.join(found) or '(none)'}", expected="; ".join(map(str, specs))
    )
