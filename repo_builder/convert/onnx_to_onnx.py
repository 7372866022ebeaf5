"""ONNX to ONNX: taken as it is where the target loads it, else at a lower opset and IR version, with equal numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.convert import onnx_care, onnx_written
from repo_builder.convert.runner import own_cases
from repo_builder.errors import RepoBuilderError, SourceCorruptError, TargetError
from repo_builder.formats import onnx_stamp
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
    External data whose file names cannot stand in a repository go into the file itself.
    What ``onnx_care`` finds is told in ``provenance["notes"]``. Names stay, and nodes are not simplified: the file is
    the user's. A wrong stamp is not mended, since nothing else tells what the nodes mean.

    Args:
        source: an Artifact of format ``onnx``.
        out: the file to write, in a folder that exists.
        opset, ir_version: the highest that the target loads.
        examples: one array per input that the model takes, to compare with; made up where None.

    Raises:
        TargetError: the target cannot load it, and it cannot be lowered with the same answers.
        SourceCorruptError: its nodes are not of the opset that it is stamped with.
    """
    facts = source.facts
    inputs, sizes = _opened(source.inputs)
    fits = facts["opset"] <= opset and facts["ir_version"] <= ir_version
    packs = _packs(source, out.name)
    if fits and not sizes and not packs:
        told = {"exporter": "none: taken as it is", "opset": facts["opset"], "ir_version": facts["ir_version"]}
        notes = onnx_care.findings(source.path)
        return replace(source, provenance={**told, "notes": notes} if notes else told)
    if progress and not fits:
        progress(f"lowering opset {facts['opset']} to {min(opset, facts['opset'])}")
    told = {"exporter": "onnx.version_converter", "onnx": metadata.version("onnx")}
    told |= {"from_opset": facts["opset"], "from_ir_version": facts["ir_version"]}
    told |= {"notes": ["its weights are packed: their files bear names that a repository cannot hold"]} if packs else {}
    try:
        checked = own_cases(source, examples)
        made = onnx_written.accepted(
            source.path,
            out,
            inputs,
            source.outputs,
            checked,
            opset=opset,
            ir_version=ir_version,
            provenance=told,
            simplify=False,
        )
    except RepoBuilderError as error:
        if isinstance(error, SourceCorruptError) and _stamped_wrongly(source.path):
            raise
        raise _cannot(source, fits, opset, ir_version, error) from error
    return replace(made, batch=source.batch, facts={**made.facts, "sizes": sizes} if sizes else made.facts)


def _stamped_wrongly(path: Path) -> bool:
    import onnx

    return bool(onnx_stamp.look(onnx.load(str(path), load_external_data=False)).misfits)


def _cannot(source: Artifact, fits: bool, opset: int, ir_version: int, error: RepoBuilderError) -> TargetError:
    what = "written anew for its empty axes or odd files" if fits else "lowered"
    return TargetError(
        f"{source.path.name} has opset {source.facts['opset']} and IR version {source.facts['ir_version']}, and cannot "
        f"be {what}: {error.found}",
        expected=f"opset {opset} and IR version {ir_version} at most",
        mend="choose a newer target release, or export the model at that opset",
    )


def _packs(source: Artifact, served: str) -> bool:
    """Whether files of external data cannot lie beside the graph, which is called ``served`` there."""
    names = source.files[1:]
    folded = {name.casefold() for name in names}
    clash = {served.casefold(), source.path.name.casefold()} & folded or len(folded) < len(names)
    return bool(clash) or not all(name.isprintable() for name in names)


def _opened(inputs: Sequence[TensorSpec]) -> tuple[tuple[TensorSpec, ...], dict[str, int]]:
    """The inputs with a symbolic dim for each axis of size 0, and the sizes of those dims."""
    opened: list[TensorSpec] = []
    sizes: dict[str, int] = {}
    for spec in inputs:
        shape = tuple(f"{spec.name}_dim{axis}" if dim == 0 else dim for axis, dim in enumerate(spec.shape))
        sizes |= {str(name): 0 for name, dim in zip(shape, spec.shape, strict=True) if dim == 0}
        opened.append(replace(spec, shape=shape))
    return tuple(opened), sizes
