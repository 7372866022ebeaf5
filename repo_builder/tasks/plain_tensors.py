"""Task ``tensors``: the model as it is, tensors in and tensors out."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from repo_builder import formats
from repo_builder.artifact import Artifact
from repo_builder.errors import SourceMissingError, SpecError
from repo_builder.formats.examples import example_inputs
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import DEFAULT_TOLERANCE, Arrays, Case, Proof
from repo_builder.spec import ModelSpec
from repo_builder.tasks.engine_model import engine_model
from repo_builder.tasks.tolerances import tolerances
from repo_builder.tensors import TensorSpec

NAME = "tensors"
SOURCES = frozenset({"onnx", "torchscript", "exported_program", "factory"})
_CASES = 8


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    program = cast(TorchProgram, cast(Any, formats.get(source.format)).load(source))
    if model.outputs and len(model.outputs) != len(source.outputs):
        raise SpecError(
            f"outputs: names {len(model.outputs)}, but the model has {len(source.outputs)}",
            expected="a name for every output, in order: " + "; ".join(map(str, source.outputs)),
        )
    return dataclasses.replace(program, outputs=model.outputs) if model.outputs else program


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    return (engine_model(model.public_name, model, engine),)


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    inputs = requests(model, engine)
    if program is None:
        runtime = formats.get(source.format)
        cases = [Case(arrays, runtime.run(source, _as(source.inputs, arrays))) for arrays in inputs]
        in_process = {"onnx": "ONNX Runtime", "torchscript": "PyTorch"}[source.format]
        reference = f"the {source.format} file itself, in {in_process} in process"
    else:
        names = [o.name for o in engine.outputs]
        answers = (program.run(_as(program.inputs, arrays)) for arrays in inputs)
        cases = [Case(arrays, dict(zip(names, one, strict=True))) for arrays, one in zip(inputs, answers, strict=True)]
        reference = f"the {source.format} model, in PyTorch"
    defaults = {o.name: DEFAULT_TOLERANCE for o in engine.outputs}
    return Proof(model.public_name, tuple(cases), engine.batch is not None, tolerances(model, defaults), {}, reference)


def requests(model: ModelSpec, engine: Artifact) -> list[Arrays]:
    """The samples' arrays, or seeded random tensors where the spec names none."""
    return [_read(Path(path), engine) for path in model.samples.arrays] or _random(model, engine)


def _random(model: ModelSpec, engine: Artifact) -> list[Arrays]:
    """Seeded random inputs; a batch of one where there is a batch dimension, three sizes for every other free axis."""
    cases: list[Arrays] = []
    for number in range(_CASES):
        sizes: dict[str, int] = {}
        for axis in {d for t in engine.inputs for d in t.shape if isinstance(d, str)}:
            asked = model.shapes.get(axis)
            choices = (asked.min, asked.opt, asked.max) if asked else (2, 5, 8)
            sizes[axis] = 1 if axis == engine.batch else choices[number % 3]
        cases.append(example_inputs(engine.inputs, sizes, seed=model.samples.seed + number))
    return cases


def _as(specs: Sequence[TensorSpec], arrays: Arrays) -> Arrays:
    """The arrays in the dtypes of the source, which a plan may have changed (INT64 is INT32 in TensorRT 8.6)."""
    return {spec.name: arrays[spec.name].astype(spec.numpy, copy=False) for spec in specs}


def _read(path: Path, engine: Artifact) -> Arrays:
    """One request from an ``.npz`` file: an array for every input, with the batch dimension where there is one."""
    if not path.is_file():
        raise SourceMissingError(f"the sample file {path} does not exist", stage="proof")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, zipfile.BadZipFile, OSError) as error:
        raise SpecError(f"the sample file {path} is no .npz of plain arrays ({error})", stage="proof") from error
    wanted = {t.name: t for t in engine.inputs}
    if set(arrays) != set(wanted):
        raise SpecError(
            f"the sample file {path} has the arrays {', '.join(sorted(arrays)) or 'none'}",
            expected="one array for every input: " + ", ".join(wanted),
            mend="save it with numpy.savez(path, " + ", ".join(f"{n}=..." for n in wanted) + ")",
            stage="proof",
        )
    for name, array in arrays.items():
        dtype = wanted[name].numpy
        if array.dtype.kind in "iu" and dtype.kind in "iu" and (array.astype(dtype) == array).all():
            array = arrays[name] = array.astype(dtype)
        if array.dtype != dtype or array.ndim != len(wanted[name].shape):
            raise SpecError(
                f"{path}: '{name}' is {array.dtype} of shape {list(array.shape)}",
                expected=str(wanted[name]),
                mend="save the array in the model's dtype and rank",
                stage="proof",
            )
    return arrays
