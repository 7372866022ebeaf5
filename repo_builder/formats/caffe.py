"""Caffe nets: a prototxt and its caffemodel, read here without Caffe; OpenCV runs them as the reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import RepoBuilderError, SourceMissingError, nearest
from repo_builder.formats import (
    caffe_net,
    caffe_reference,
    caffe_shapes,
    caffe_weights,
    framework_names,
    framework_process,
    signature,
    source_file,
)
from repo_builder.formats.caffe_net import Net
from repo_builder.formats.caffe_rules import Shape, Shapes
from repo_builder.tensors import TensorSpec

NAME = "caffe"
TAKES = "a Caffe net (.prototxt with its .caffemodel beside it, or a folder with such a pair)"
FRAMEWORK = framework_process.Framework(
    "opencv-4.14.0", ("opencv-python-headless==4.14.0.94", "numpy==2.2.6"), "opencv_worker.py"
)
"""OpenCV 5 no longer reads Caffe nets."""
RUNTIME = "OpenCV's dnn module"


def matches(path: Path) -> bool:
    """By suffix; a folder by having a file of either kind."""
    if path.is_dir():
        return any(path.glob("*.caffemodel")) and any(path.glob("*.prototxt"))
    return path.suffix.lower() in (".prototxt", ".caffemodel")


def describe(path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
    """The artifact of a pair; ``path`` becomes the prototxt's.

    Inputs and outputs are those of the net in phase TEST, in its order; axis 0 is called ``batch`` where every layer
    lets it have any size. Facts: ``net`` (its name), ``layers``, ``caffemodel``, ``parameters``, ``blobs`` (the net's
    own names of the inputs), ``tops`` (layer and place of each output).

    Raises:
        SourceMissingError, SourceCorruptError: a file is missing, truncated, or does not fit the other.
        SignatureError: no inputs or outputs; ``inputs`` that contradict the net.
        ConversionError: a layer that is not converted; it names the layer, its type and its place.
    """
    prototxt, caffemodel = pair(path)
    net = caffe_net.read(prototxt)
    caffe_shapes.shapes(net)
    shapes = caffe_shapes.batched(net)
    told, outputs = _signature(net, shapes)
    given, became = signature.refine(told, inputs, prototxt.name)
    batch = became.get(caffe_shapes.BATCH)
    if isinstance(batch, int):
        _, outputs = _signature(net, caffe_shapes.shapes(net, batch))
    outputs = tuple(TensorSpec(o.name, o.dtype, signature.apply(o.shape, became)) for o in outputs)
    weights = caffe_weights.fitted(net, [bottoms for bottoms, _ in caffe_shapes.shapes(net)], caffemodel)
    facts = {
        "net": net.name,
        "layers": len(net.layers),
        "caffemodel": caffemodel.name,
        "parameters": sum(array.size for arrays in weights for array in arrays),
        "blobs": [name for name, _ in net.inputs],
        "tops": [[caffe_reference.maker(layer), index] for _, layer, index in net.outputs],
    }
    return Artifact(prototxt, NAME, given, outputs, files=(prototxt.name, caffemodel.name), facts=facts)


def opened(artifact: Artifact, progress: framework_process.Progress | None = None) -> Artifact:
    """The artifact once OpenCV has opened it too, with OpenCV's version among its facts.

    Raises:
        ConversionError: OpenCV does not load the net.
        ToolchainError: OpenCV's environment cannot be made.
    """
    found = session(artifact, progress).signature
    return replace(artifact, facts={**artifact.facts, "framework": dict(found.versions)})


def run(artifact: Artifact, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs by name from OpenCV on the CPU.

    Raises:
        SignatureError: the arrays do not fit.
        ConversionError: OpenCV does not load the net, or fails on the inputs.
        ToolchainError: OpenCV's environment cannot be made.
    """
    signature.check_arrays(artifact.inputs, inputs, artifact.path.name)
    return session(artifact).run(dict(inputs))


def session(artifact: Artifact, progress: framework_process.Progress | None = None) -> framework_process.Session:
    """The process that runs this net, started at the first call, or where one of its files changed meanwhile."""

    def told(specs: Iterable[TensorSpec]) -> list[dict[str, Any]]:
        return [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in specs]

    options = {
        **{name: artifact.facts[name] for name in ("caffemodel", "blobs", "tops")},
        "prototxt": caffe_reference.text(caffe_net.read(artifact.path)),
        "stamp": source_file.stamp(artifact.folder, artifact.files),
        "signature": {"inputs": told(artifact.inputs), "outputs": told(artifact.outputs)},
    }
    return framework_process.session(FRAMEWORK, artifact.path, "Caffe", options, progress)


def pair(path: Path) -> tuple[Path, Path]:
    """The prototxt and the caffemodel that ``path`` names: one of the two, or their folder.

    Of several the one of equal name counts, then the only one whose layers have the names of the other's weights.

    Raises:
        SourceMissingError: one is not there, or which one is meant is not clear.
    """
    if path.is_dir():
        prototxts = _those(path, ".prototxt")
        if len(prototxts) > 1:
            prototxts = [one for one in prototxts if _deployable(one)] or prototxts
        pairs = [(one, found) for one in prototxts for found in _partners(one, _those(path, ".caffemodel"))]
        return _only(pairs, path)
    source_file.refuse_stand_ins(path)
    if path.suffix.lower() == ".prototxt":
        return _only([(path, one) for one in _partners(path, _those(path.parent, ".caffemodel"))], path)
    prototxts = [one for one in _those(path.parent, ".prototxt") if path in _partners(one, [path])]
    if len(prototxts) > 1:
        prototxts = [one for one in prototxts if _deployable(one)] or prototxts
    same = [one for one in prototxts if one.stem == path.stem]
    return _only([(one, path) for one in same or prototxts], path)


def _only(pairs: list[tuple[Path, Path]], path: Path) -> tuple[Path, Path]:
    if len(pairs) == 1:
        return pairs[0]
    folder = path if path.is_dir() else path.parent
    there = ", ".join(one.name for one in (*_those(folder, ".prototxt"), *_those(folder, ".caffemodel")))
    if pairs:
        raise SourceMissingError(
            f"{path} may mean several pairs: " + "; ".join(f"{one.name} with {other.name}" for one, other in pairs[:5]),
            expected="one prototxt and one caffemodel that belong together",
            mend="give the two files of the net that you mean one name (net.prototxt, net.caffemodel) and name one",
        )
    raise SourceMissingError(
        f"{path} has no partner{nearest(path.name, there.split(', '))}",
        expected=f"a prototxt and its caffemodel in {folder}, which has {there or 'neither'}",
        mend="put the two beside each other",
    )


def _partners(prototxt: Path, caffemodels: list[Path]) -> list[Path]:
    """The caffemodels that may belong to a prototxt."""
    if len(caffemodels) < 2:
        return caffemodels
    same = [one for one in caffemodels if one.stem == prototxt.stem]
    if same:
        return same
    names = set(caffe_net.layer_names(caffe_net.parse(prototxt)))
    return [one for one in caffemodels if _weighted(one) <= names]


def _weighted(caffemodel: Path) -> set[str]:
    return set(caffe_weights.read(caffemodel))


def _deployable(prototxt: Path) -> bool:
    try:
        return caffe_net.is_deployable(caffe_net.parse(prototxt))
    except RepoBuilderError:
        return False


def _those(folder: Path, suffix: str) -> list[Path]:
    return sorted(one for one in folder.iterdir() if one.suffix.lower() == suffix and one.is_file())


def _signature(
    net: Net, shapes: Sequence[tuple[Shapes, Shapes]] | None
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs under the names that are served; ``shapes`` has -1 for sizes that follow the batch."""
    batched = shapes is not None and any(-1 in shape for _, tops in shapes for shape in tops)
    shapes = shapes or caffe_shapes.shapes(net)
    tops = {id(layer): found for layer, (_, found) in zip(net.layers, shapes, strict=True)}
    inputs = [(name, (-1, *shape[1:]) if batched else shape) for name, shape in net.inputs]
    outputs = [(name, tops[id(layer)][index]) for name, layer, index in net.outputs]
    told = [[{"name": n, "dtype": "FP32", "shape": _axes(s)} for n, s in side] for side in (inputs, outputs)]
    return framework_names.served(told[0], told[1])


def _axes(shape: Shape) -> list[int | str]:
    return [caffe_shapes.BATCH if size == -1 else size for size in shape]
