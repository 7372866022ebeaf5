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
from repo_builder.formats import kv_cache
from repo_builder.formats.examples import example_inputs
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import DEFAULT_TOLERANCE, Arrays, Case, Proof, Tolerance
from repo_builder.spec import ModelSpec
from repo_builder.tasks import plan_cases, string_lookup
from repo_builder.tasks.engine_model import engine_model, max_batch_size, tensor_fields
from repo_builder.tasks.ensemble import Step, ensemble
from repo_builder.tasks.tolerances import tolerances
from repo_builder.tensors import TensorSpec

NAME = "tensors"
SOURCES = frozenset(
    {"onnx", "torchscript", "exported_program", "aoti", "factory", "jax", "caffe", "mxnet"}
    | {"xgboost", "lightgbm", "catboost", "sklearn"}
    | {"savedmodel", "frozen_graph", "tf_checkpoint", "keras", "tflite"}
)
_CASES, _ROWS = 8, 40
_PAST = (5, 0, 8, 1)
"""Tokens in a model's cache; none in a first call."""


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    program = cast(TorchProgram, cast(Any, formats.get(source.format)).load(source))
    if model.outputs and len(model.outputs) != len(source.outputs):
        raise SpecError(
            f"outputs: names {len(model.outputs)}, but the model has {len(source.outputs)}",
            expected="a name for every output, in order: " + "; ".join(map(str, source.outputs)),
        )
    return dataclasses.replace(program, outputs=model.outputs) if model.outputs else program


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    """The converted model; of a plan whose strings stand behind it, the ensemble of both."""
    name = model.public_name
    if not (given := string_lookup.indices(engine)):
        return (engine_model(name, model, engine),)
    own = engine_model(f"{name}_engine", model, engine)
    size = own.config.max_batch_size
    strings = string_lookup.planned(f"{name}_strings", engine, size)
    assert strings is not None
    inputs = [tensor_fields(spec, size) for spec in engine.inputs]
    outputs = [spec.name for spec in engine.outputs]
    return ensemble(name, inputs, [Step(own, given), Step(strings)], outputs, size), own, strings


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    inputs = _examples(model, source, engine) or requests(model, engine)
    if program is None:
        runtime = formats.get(source.format)
        cases = [Case(arrays, runtime.run(source, _as(source.inputs, arrays))) for arrays in inputs]
        in_process = {"onnx": "ONNX Runtime in process", "torchscript": "PyTorch in process"}.get(source.format)
        reference = f"the {source.format} file itself, in {in_process or cast(Any, runtime).RUNTIME}"
    else:
        names = [o.name for o in engine.outputs]
        answers = (program.run(_as(program.inputs, arrays)) for arrays in inputs)
        cases = [Case(arrays, dict(zip(names, one, strict=True))) for arrays, one in zip(inputs, answers, strict=True)]
        reference = f"the {source.format} model, in PyTorch"
    rank = 1 if max_batch_size(model, engine) else 0
    cases = [Case(_with_an_axis(case.inputs, rank), _with_an_axis(case.outputs, rank)) for case in cases]
    rounding = engine.provenance.get("rounding", {})  # of the source's own answers: see convert.framework_to_onnx
    limit = DEFAULT_TOLERANCE.max_rel_error or 0.0
    defaults = {o.name: Tolerance(max_rel_error=limit + rounding.get(o.name, 0.0)) for o in engine.outputs}
    return Proof(model.public_name, tuple(cases), engine.batch is not None, tolerances(model, defaults), {}, reference)


def _examples(model: ModelSpec, source: Artifact, engine: Artifact) -> list[Arrays]:
    """Some rows of the cases that a framework made from the model itself, such as values at the thresholds of trees."""
    module = formats.get(source.format)
    if model.samples.arrays or not hasattr(module, "examples"):
        return []
    cases = cast(Any, module).examples(source)
    if engine.batch is None:
        return list(cases)
    rows: list[Arrays] = [
        {name: array[row : row + 1] for name, array in case.items()}
        for case in cases
        for row in range(len(next(iter(case.values()))))
    ]
    return rows[:: max(1, len(rows) // _ROWS)]


def _with_an_axis(arrays: Arrays, rank: int) -> Arrays:
    """As it is served: a scalar, of the ``rank`` of a batch's axis alone, has an axis of size 1 (``tensor_fields``)."""
    return {name: array[..., None] if array.ndim == rank else array for name, array in arrays.items()}


def requests(model: ModelSpec, engine: Artifact) -> list[Arrays]:
    """The samples' arrays, or seeded random tensors where the spec names none.

    Raises:
        SourceMissingError, SpecError: a sample cannot be read, does not fit the inputs, or fits no profile of a plan.
    """
    found = [_read(Path(path), engine) for path in model.samples.arrays]
    for path, arrays in zip(model.samples.arrays, found, strict=True):
        if why := plan_cases.outside(engine, arrays):
            raise SpecError(
                f"the sample file {path}: {why}",
                expected="samples of sizes that the plan takes, as every request must have them",
                mend="widen shapes or tensorrt.profiles, or choose other samples",
                stage="proof",
            )
    return found or _random(model, engine)


def _random(model: ModelSpec, engine: Artifact) -> list[Arrays]:
    """Seeded random inputs; a batch of one where there is a batch dimension, three sizes for every other free axis.

    For a plan those that its profiles take.
    """
    if engine.facts.get("profiles"):
        return list(plan_cases.requests(engine, _CASES, model.samples.seed))
    cases: list[Arrays] = []
    for number in range(_CASES):
        known: dict[str, int] = engine.facts.get("sizes", {})
        sizes = {axis: size for axis, size in known.items() if size == 0}
        for axis in {d for t in engine.inputs for d in t.shape if isinstance(d, str)} - sizes.keys():
            asked = model.shapes.get(axis)
            choices = (asked.min, asked.opt, asked.max) if asked else (2, 5, 8)
            sizes[axis] = 1 if axis == engine.batch else choices[number % 3]
        for axis in kv_cache.past_axes(engine.inputs):
            if axis not in model.shapes:
                sizes[axis] = _PAST[number % len(_PAST)]
        ranges = engine.provenance.get("ranges", {})  # of indices: see convert.framework_to_onnx
        cases.append(example_inputs(engine.inputs, sizes, seed=model.samples.seed + number, ranges=ranges))
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
        if array.dtype.kind in "SU" and dtype.kind == "O":
            array = arrays[name] = array.astype(object)
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
