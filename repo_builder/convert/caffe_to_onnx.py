"""Caffe to ONNX: layers written one by one, and the file compared with OpenCV's answers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.convert import onnx_graph, onnx_written
from repo_builder.convert.caffe import net as caffe_model
from repo_builder.convert.cases import cases
from repo_builder.errors import TargetError
from repo_builder.formats import caffe, caffe_net, caffe_shapes, caffe_weights
from repo_builder.formats.examples import example_inputs
from repo_builder.formats.framework_process import Session

Progress = Callable[[str], None]
_PIXELS = 64.0
"""The scale of a second set of inputs: images less their mean, as most nets take them."""


def convert(source: Artifact, out: Path, *, opset: int, ir_version: int, progress: Progress | None = None) -> Artifact:
    """``out``, written layer by layer at opset 13 and compared with OpenCV's answers at two batch sizes.

    Args:
        source: an Artifact of format ``caffe``.
        out: the file to write, in a folder that exists.
        opset, ir_version: the highest that the target loads.

    Raises:
        TargetError: the target is older than opset 13.
        ConversionError: a layer that is not converted, or answers that differ.
    """
    if opset < caffe_model.OPSET or ir_version < caffe_model.IR_VERSION:
        raise TargetError(
            f"Caffe nets are written at opset {caffe_model.OPSET} and IR version {caffe_model.IR_VERSION}",
            expected=f"opset {opset} and IR version {ir_version} at most",
            mend="choose a newer target release",
        )
    if progress:
        progress("running the net in OpenCV")
    session = caffe.session(source, progress)
    checked = [
        case
        for one in example_sets(source)
        for case in cases(source.inputs, one, lambda inputs: _answers(source, session, inputs))
    ]
    if session.died:
        raise session.died
    if progress:
        progress("writing its layers as ONNX")
    provenance = {
        "exporter": "repo_builder caffe_to_onnx",
        "reference": "OpenCV " + caffe.FRAMEWORK.requirements[0].partition("==")[2],
    }
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=out.parent) as folder:
        raw = Path(folder) / "caffe.onnx"
        write(source, raw)
        return onnx_written.accepted(
            raw, out, source.inputs, source.outputs, checked, opset=opset, ir_version=ir_version, provenance=provenance
        )


def write(source: Artifact, path: Path) -> None:
    """The net as an ONNX file, unchecked.

    Raises:
        ConversionError: a layer that is not converted; names it.
    """
    net = caffe_net.read(source.path)
    batches = {spec.shape[0] for spec in source.inputs}
    batch = batches.pop() if len(batches) == 1 else None
    shapes = caffe_shapes.batched(net) if isinstance(batch, str) else None
    shapes = shapes or caffe_shapes.shapes(net, batch if isinstance(batch, int) else None)
    fixed = caffe_shapes.shapes(net)
    weights = caffe_weights.fitted(net, [bottoms for bottoms, _ in fixed], source.folder / source.facts["caffemodel"])
    onnx_graph.save(caffe_model.model(net, shapes, weights, source.inputs, source.outputs), path)


def example_sets(source: Artifact) -> list[dict[str, np.ndarray[Any, Any]]]:
    """Inputs of standard deviation 1, and of 64."""
    small = example_inputs(source.inputs, {caffe_shapes.BATCH: 2})
    large = example_inputs(source.inputs, {caffe_shapes.BATCH: 2}, seed=1)
    return [small, {name: array * np.float32(_PIXELS) for name, array in large.items()}]


def _answers(
    source: Artifact, session: Session, inputs: Mapping[str, np.ndarray[Any, Any]]
) -> tuple[np.ndarray[Any, Any], ...]:
    """OpenCV's answers; where it drops or adds axes of size 1, the net's own shape is put back."""
    answers = session.run(inputs)
    sizes = {
        dim: size
        for spec in source.inputs
        for dim, size in zip(spec.shape, inputs[spec.name].shape, strict=True)
        if isinstance(dim, str)
    }
    found = []
    for spec in source.outputs:
        answer = answers[spec.name]
        shape = tuple(sizes.get(dim, -1) if isinstance(dim, str) else dim for dim in spec.shape)
        only_ones = [s for s in answer.shape if s != 1] == [s for s in shape if s != 1]
        found.append(answer.reshape(shape) if only_ones else answer)
    return tuple(found)
