"""Reading a prototxt: the layers of a Caffe net as they run in phase TEST, its inputs and its outputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from repo_builder.errors import ConversionError, SignatureError, SourceCorruptError, first_line
from repo_builder.formats import caffe_schema, source_file

_TEXT_LIMIT = 64 << 20
_ELEMENTS = 1 << 31
_V1_NAMES = {
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "IM2COL": "Im2col",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}
"""Types of ``layers {}`` whose name as a ``layer {}`` is not simply the words in capitals."""

_DATA = frozenset({"Data", "ImageData", "HDF5Data", "MemoryData", "WindowData", "DummyData", "AnnotatedData", "Python"})


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        name, type: as the prototxt says; the type of a ``layers {}`` is told by its name as a ``layer {}``.
        bottoms, tops: names of blobs; a top that is a bottom is computed in place.
        place: where it stands, for messages.
        runs_as: the name that OpenCV gives the layer (a name's second layer gets ``_1``).
        message: its parameters (:mod:`repo_builder.formats.caffe_schema`).
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    place: str
    runs_as: str
    message: Any

    def refuse(self, why: str, *, expected: str = "", mend: str = "") -> ConversionError:
        """The error that names the layer, its type and its place."""
        return ConversionError(
            f"layer {self.name!r} of type {self.type!r} ({self.place}) {why}", expected=expected, mend=mend
        )


@dataclass(frozen=True)
class Net:
    """A net as it answers.

    Attributes:
        inputs: declared blobs with their sizes, in the order of their declaration.
        layers: those of phase TEST that compute something, in order.
        outputs: blobs that no layer takes, each with the layer that makes it and its place among the layer's tops.
        left_out: how many layers the prototxt has for training alone.
    """

    name: str
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    layers: tuple[Layer, ...]
    outputs: tuple[tuple[str, Layer, int], ...]
    left_out: int


def read(path: Path) -> Net:
    """The net of a prototxt.

    Raises:
        SourceMissingError, SourceCorruptError: the file, or text that is no net.
        SignatureError: no inputs, or inputs without sizes.
        ConversionError: a layer that only training has, a blob that nothing makes.
    """
    message = parse(path)
    every = list(_layers(message, path.name))
    layers = [layer for layer in every if _runs(layer.message)]
    inputs = _declared(message, path.name)
    for layer in layers:
        if layer.type in _DATA and not layer.bottoms:
            raise layer.refuse(
                "reads training data",
                expected="a deploy net, whose inputs are declared by an Input layer or by input: and input_shape",
                mend=_input_mend(layer.tops[:1]),
            )
        if layer.type == "Input":
            inputs += _input_layer(layer)
    if not inputs:
        raise SignatureError(
            f"{path.name} declares no input",
            expected="an Input layer, or input: with input_shape or input_dim",
            mend=_input_mend(("data",)),
        )
    if len({name for name, _ in inputs}) < len(inputs):
        raise SignatureError(
            f"{path.name} declares an input twice: {', '.join(repr(name) for name, _ in inputs)}",
            expected="every input once, by input: or by an Input layer",
            mend="remove one of the two declarations",
        )
    working = tuple(layer for layer in layers if layer.type != "Input")
    if not working:
        raise SourceCorruptError(f"{path.name} has no layers that compute anything", expected="a net with layers")
    return Net(message.name, tuple(inputs), working, _outputs(inputs, working, path.name), len(every) - len(layers))


def parse(path: Path) -> Any:
    """The message of a prototxt.

    Raises:
        SourceMissingError, SourceCorruptError: with the line where the text stops being a net.
    """
    from google.protobuf import text_format

    source_file.refuse_stand_ins(path)
    if path.stat().st_size > _TEXT_LIMIT:
        raise SourceCorruptError(
            f"{path} is larger than {_TEXT_LIMIT >> 20} MiB", expected="a prototxt", mend="weights go into a caffemodel"
        )
    message = caffe_schema.net()
    try:
        text_format.Parse(path.read_bytes().decode("utf-8-sig"), message, allow_unknown_field=True)
    except (text_format.ParseError, UnicodeDecodeError, ValueError, RecursionError) as error:
        why = "nested too deep" if isinstance(error, RecursionError) else first_line(error)
        raise SourceCorruptError(
            f"{path} does not parse as a Caffe net ({why})",
            expected="protobuf text: layer { name: ... type: ... } or layers { ... }",
            mend="correct that line, or copy the file again",
        ) from error
    if not message.layer and not message.layers:
        raise SourceCorruptError(
            f"{path} holds no layer", expected="a Caffe net", mend="a solver's prototxt names the net's: give that file"
        )
    return message


def layer_names(message: Any) -> tuple[str, ...]:
    """The names of all layers, of every phase."""
    return tuple(layer.name for layer in (*message.layer, *message.layers))


def is_deployable(message: Any) -> bool:
    """Whether a net declares inputs and reads no training data."""
    layers = [layer for layer in _layers(message, "") if _runs(layer.message)]
    reads = any(layer.type in _DATA and not layer.bottoms for layer in layers)
    return not reads and bool(message.input or any(layer.type == "Input" for layer in layers))


def _layers(message: Any, file: str) -> Iterable[Layer]:
    if message.layer and message.layers:
        raise SourceCorruptError(
            f"{file} has both `layer` and `layers`", expected="one kind", mend="upgrade it with upgrade_net_proto_text"
        )
    names: dict[str, int] = {}
    for number, one in enumerate(message.layer or message.layers, start=1):
        kind = one.type if message.layer else _upgraded(one)
        count = names[one.name] = names.get(one.name, -1) + 1
        place = f"number {number} of {file}"
        runs_as = f"{one.name}_{count}" if count else one.name
        yield Layer(one.name, kind, tuple(one.bottom), tuple(one.top), place, runs_as, one)


def _upgraded(layer: Any) -> str:
    kind = layer.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[layer.type].name
    return _V1_NAMES.get(kind) or "".join(part.capitalize() for part in kind.split("_"))


def _runs(layer: Any) -> bool:
    """Whether the layer is part of the net in phase TEST, without stages and at level 0."""
    if layer.include:
        return any(_meets(rule) for rule in layer.include)
    return not any(_meets(rule) for rule in layer.exclude)


def _meets(rule: Any) -> bool:
    phase_fits = not rule.HasField("phase") or rule.phase == 1
    levels_fit = (not rule.HasField("min_level") or rule.min_level <= 0) and (
        not rule.HasField("max_level") or rule.max_level >= 0
    )
    return phase_fits and levels_fit and not rule.stage


def _declared(message: Any, file: str) -> list[tuple[str, tuple[int, ...]]]:
    """Inputs of ``input:`` with ``input_shape`` or, four numbers for each, ``input_dim``."""
    names, dims = list(message.input), list(message.input_dim)
    shapes = [tuple(shape.dim) for shape in message.input_shape]
    shapes = shapes or [tuple(dims[i : i + 4]) for i in range(0, len(dims), 4)]
    if len(shapes) != len(names) or (dims and not message.input_shape and len(dims) != 4 * len(names)):
        raise SignatureError(
            f"{file} declares {len(names)} inputs with "
            + (f"{len(shapes)} input_shape" if message.input_shape else f"{len(dims)} input_dim"),
            expected="one input_shape, or four input_dim, for every input",
            mend="write input_shape { dim: ... } once for every input, in their order",
        )
    return [(name, _sizes(name, shape, file)) for name, shape in zip(names, shapes, strict=True)]


def _input_layer(layer: Layer) -> list[tuple[str, tuple[int, ...]]]:
    shapes = [tuple(shape.dim) for shape in layer.message.input_param.shape]
    shapes = shapes * len(layer.tops) if len(shapes) == 1 else shapes
    if len(shapes) != len(layer.tops) or not layer.tops:
        raise SignatureError(
            f"layer {layer.name!r} of type 'Input' ({layer.place}) has {len(layer.tops)} tops and {len(shapes)} shapes",
            expected="one shape, or one for every top",
            mend=_input_mend(layer.tops[:1]),
        )
    return [(top, _sizes(top, shape, layer.place)) for top, shape in zip(layer.tops, shapes, strict=True)]


def _sizes(name: str, shape: tuple[int, ...], where: str) -> tuple[int, ...]:
    if not shape or min(shape) < 1 or prod(shape) > _ELEMENTS:
        raise SignatureError(
            f"input {name!r} ({where}) has the sizes {list(shape)}",
            expected="sizes of 1 or more, at most 2**31 values",
            mend="write the sizes that the net was trained with",
        )
    return shape


def _outputs(
    inputs: Iterable[tuple[str, Any]], layers: tuple[Layer, ...], file: str
) -> tuple[tuple[str, Layer, int], ...]:
    made: dict[str, tuple[Layer, int] | None] = dict.fromkeys((name for name, _ in inputs), None)
    free: dict[str, None] = {}
    for layer in layers:
        for bottom in layer.bottoms:
            if bottom not in made:
                raise layer.refuse(
                    f"takes the blob {bottom!r}, which no layer before it makes", mend="correct its `bottom`"
                )
            free.pop(bottom, None)
        for index, top in enumerate(layer.tops):
            if top in made and top not in layer.bottoms:
                raise layer.refuse(
                    f"makes the blob {top!r}, which another layer makes too",
                    expected="one maker for each blob; a layer that works in place has it as `bottom` too",
                    mend="give the blob another name",
                )
            made[top] = (layer, index)
            free[top] = None
    found = [(name, *place) for name in free if (place := made[name])]
    if not found:
        raise SignatureError(f"{file} has no output: every blob is taken by a layer", expected="a blob that is left")
    return tuple(found)


def _input_mend(tops: tuple[str, ...]) -> str:
    name = tops[0] if tops else "data"
    return (
        f'replace the data layers by layer {{ name: "{name}" type: "Input" top: "{name}" '
        "input_param { shape { dim: 1 dim: 3 dim: 224 dim: 224 } } }, with the sizes that the net was trained with"
    )
