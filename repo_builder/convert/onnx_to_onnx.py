"""ONNX to ONNX: taken as it is where the target loads it, else at a lower opset and IR version, with equal numbers."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.convert import onnx_graph
from repo_builder.convert.cases import cases
from repo_builder.convert.runner import check
from repo_builder.errors import RepoBuilderError, TargetError
from repo_builder.formats import onnx as onnx_format
from repo_builder.formats.examples import example_inputs
from repo_builder.tensors import TensorSpec

Progress = Callable[[str], None]


def convert(
    source: Artifact,
    out: Path,
    *,
    opset: int,
    ir_version: int,
    examples: Mapping[str, np.ndarray[Any, Any]] | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """The source itself where its opset and IR version fit, else ``out``, converted and compared with the source.

    A source that fits is not rewritten: the Artifact names its own files, for the writer to link or copy. But the axis
    of an input that has size 0, which no ModelConfig can say, gets a symbolic dim; ``facts["sizes"]`` has its size.

    Args:
        source: an Artifact of format ``onnx``.
        out: the file to write, in a folder that exists.
        opset, ir_version: the highest that the target loads.
        examples: one array per input that the model takes, to compare with; made up where None.

    Raises:
        TargetError: the target cannot load it, and it cannot be lowered with the same answers.
    """
    facts = source.facts
    fits = facts["opset"] <= opset and facts["ir_version"] <= ir_version
    if fits and not any(0 in spec.shape for spec in source.inputs):
        return replace(source, provenance={"exporter": "none: taken as it is", **_versions(facts)})
    if progress and not fits:
        progress(f"lowering opset {facts['opset']} to {min(opset, facts['opset'])}")
    try:
        return _lowered(source, out, min(opset, facts["opset"]), ir_version, examples)
    except RepoBuilderError as error:
        raise TargetError(
            f"{source.path.name} has opset {facts['opset']} and IR version {facts['ir_version']}, and cannot be "
            f"{'given symbolic dims for its empty axes' if fits else 'lowered'}: {error.found}",
            expected=f"opset {opset} and IR version {ir_version} at most",
            mend="choose a newer target release, or export the model at that opset",
        ) from error


def _lowered(
    source: Artifact, out: Path, opset: int, ir_version: int, examples: Mapping[str, np.ndarray[Any, Any]] | None
) -> Artifact:
    import onnx

    def ask(inputs: Mapping[str, np.ndarray[Any, Any]]) -> tuple[np.ndarray[Any, Any], ...]:
        answers = onnx_format.run(source, inputs)
        return tuple(answers[spec.name] for spec in source.outputs)

    checked = cases(source.inputs, examples or _examples(source), ask, all_dims=False)
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=out.parent) as folder:
        path = Path(folder) / out.name
        model = onnx_graph.at_opset(onnx.load(str(source.path)), opset)
        onnx_graph.lower_ir(model, ir_version)
        inputs, sizes = _opened(source.inputs)
        opened = {spec.name: spec.shape for spec in inputs if sizes.keys() & set(spec.shape)}
        for value in model.graph.input:
            if value.name in opened:
                onnx_graph.set_shape(value, opened[value.name])
        onnx_graph.save(model, path)
        accepted = check(path, inputs, source.outputs, checked, opset=opset, ir_version=ir_version)
        made = accepted.artifact
        for name in made.files:
            (made.folder / name).replace(out.parent / name)
    provenance = {
        "exporter": "onnx.version_converter",
        **_versions(made.facts),
        "from_opset": source.facts["opset"],
        "from_ir_version": source.facts["ir_version"],
        "onnx": onnx.__version__,
        "cases": accepted.cases,
        "max_abs_error": accepted.max_abs_error,
    }
    facts = {**made.facts, "sizes": sizes} if sizes else made.facts
    return replace(made, path=out, batch=source.batch, facts=facts, provenance=provenance)


def _opened(inputs: Sequence[TensorSpec]) -> tuple[tuple[TensorSpec, ...], dict[str, int]]:
    """The inputs with a symbolic dim for each axis of size 0, and the sizes of those dims."""
    opened: list[TensorSpec] = []
    sizes: dict[str, int] = {}
    for spec in inputs:
        shape = tuple(f"{spec.name}_dim{axis}" if dim == 0 else dim for axis, dim in enumerate(spec.shape))
        sizes |= {str(name): 0 for name, dim in zip(shape, spec.shape, strict=True) if dim == 0}
        opened.append(replace(spec, shape=shape))
    return tuple(opened), sizes


def _examples(source: Artifact) -> Mapping[str, np.ndarray[Any, Any]]:
    """Inputs that the source takes: small sizes, or those of images where it needs them."""
    dims = dict.fromkeys(d for spec in source.inputs for d in spec.shape if isinstance(d, str))
    for step in (1, 32, 224):
        sizes = {name: 2 if number == 0 else step * (number + 2) for number, name in enumerate(dims)}
        made = example_inputs(source.inputs, sizes)
        try:
            onnx_format.run(source, made)
        except RepoBuilderError:
            continue
        return made
    return example_inputs(source.inputs)


def _versions(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"opset": facts["opset"], "ir_version": facts["ir_version"]}
