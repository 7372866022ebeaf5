"""The declared signature, written into an exported graph: names, and for every axis a size or a symbolic name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repo_builder.convert import onnx_graph
from repo_builder.convert.cases import CheckedCase
from repo_builder.errors import ConversionError
from repo_builder.tensors import Shape, TensorSpec, from_numpy

if TYPE_CHECKING:
    from onnx import ModelProto


def write(
    model: ModelProto,
    inputs: Mapping[str, TensorSpec],
    outputs: Sequence[str],
    cases: Sequence[CheckedCase],
    *,
    symbolic: bool,
) -> tuple[TensorSpec, ...]:
    """Rename inputs and outputs, put the inputs in order, name the dims; returns the outputs.

    An output's axis is a size where it was the same in every case, and a symbolic dim where it followed one.

    Args:
        inputs: name in the file -> declared input, in the declared order.
        outputs: names of the outputs, by position.
        cases: what the source answered.
        symbolic: the exporter reasons about shapes: an axis that it leaves open stays open.

    Raises:
        ConversionError: the exporter fixed a dynamic axis, tied two dims together, or changed the number of tensors.
    """
    graph = model.graph
    names = _input_dims(graph, inputs)
    onnx_graph.rename(graph, {name: spec.name for name, spec in inputs.items()}, outputs)
    onnx_graph.set_inputs(graph, {value.name: value for value in graph.input}, list(inputs.values()))
    for value, spec in zip(graph.input, inputs.values(), strict=True):
        onnx_graph.set_shape(value, spec.shape)
    specs = []
    for position, value in enumerate(graph.output):
        shape = _output_shape(value, [case.outputs[position].shape for case in cases], cases, names, symbolic)
        onnx_graph.set_shape(value, shape)
        specs.append(TensorSpec(value.name, from_numpy(cases[0].outputs[position].dtype).triton, shape))
    return tuple(specs)


def _input_dims(graph: Any, inputs: Mapping[str, TensorSpec]) -> dict[str, str]:
    """The exporter's symbols and what they are declared as."""
    names: dict[str, str] = {}
    for value in graph.input:
        spec = inputs.get(value.name)
        if spec is None:
            raise ConversionError(f"the exporter added the input '{value.name}'")
        for axis, (dim, declared) in enumerate(zip(value.type.tensor_type.shape.dim, spec.shape, strict=False)):
            if dim.HasField("dim_value") and dim.dim_value != declared:
                raise ConversionError(
                    f"the exporter fixed axis {axis} of input '{spec.name}' at {dim.dim_value}, declared {declared}"
                )
            if dim.dim_param and isinstance(declared, str) and names.setdefault(dim.dim_param, declared) != declared:
                raise ConversionError(f"the exporter ties the dims '{names[dim.dim_param]}' and '{declared}' together")
    return names


def _output_shape(
    value: Any,
    shapes: Sequence[tuple[int, ...]],
    cases: Sequence[CheckedCase],
    names: Mapping[str, str],
    symbolic: bool,
) -> Shape:
    if len({len(shape) for shape in shapes}) > 1:
        raise ConversionError(f"output '{value.name}' changes its number of dimensions with its inputs")
    written = list(value.type.tensor_type.shape.dim)
    shape: list[int | str] = []
    for axis, sizes in enumerate(zip(*shapes, strict=True)):
        dim = written[axis] if len(written) == len(shapes[0]) else None
        left_open = dim is not None and bool(dim.dim_param)
        if len(set(sizes)) == 1 and sizes[0] > 0 and not (symbolic and left_open):
            shape.append(sizes[0])
            continue
        if symbolic and dim is not None and dim.HasField("dim_value"):
            raise ConversionError(f"the exporter fixed axis {axis} of output '{value.name}' at {dim.dim_value}")
        follows = [n for n in cases[0].sizes if all(s == c.sizes[n] for s, c in zip(sizes, cases, strict=True))]
        known = names.get(dim.dim_param, "") if dim is not None else ""
        shape.append(known if known in follows else next(iter(follows), f"{value.name}_dim{axis}"))
    return tuple(shape)
