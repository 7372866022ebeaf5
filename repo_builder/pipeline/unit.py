"""One model of the spec, from source to planned Triton models: describe, head, convert, plan, reference."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from repo_builder import convert, formats, releases, tasks
from repo_builder.artifact import Artifact, file_digest, files_digest, tree_files
from repo_builder.errors import ConversionError, DiskFullError, RepoBuilderError, SpecError, nearest
from repo_builder.formats.batch import prove_batch
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.pipeline import plans
from repo_builder.repository.plan import Unit
from repo_builder.spec import LLM_ENGINES, ModelSpec
from repo_builder.tasks import instances

Progress = Callable[[str, str], None]
"""Called with the model's name and what is being done to it."""

Programs = TorchProgram | Mapping[str, TorchProgram] | None
Built = tuple[Mapping[str, Any], Mapping[str, str]]
Engines = Artifact | Mapping[str, Artifact]
"""A task whose head gives several programs by name gets the engines by the same names."""

OPSET = 20
"""The opset to export at, where the target takes it: the newest that the dynamo exporter writes without conversion."""

_TEXT_AXES = frozenset({"batch", "sequence"})
"""What a range has an effect on in text tasks; windows, labels and the cache's tokens follow from the request, and only
a plan has ranges for them."""

_PACKAGES = (
    "torch", "onnx", "onnxscript", "onnxruntime", "onnxslim", "transformers", "tokenizers", "sentence-transformers",
    "pillow",
)  # fmt: skip


def describe(model: ModelSpec) -> Artifact:
    """The source, opened as far as its format can without a framework."""
    name, path = formats.detect(model.source)
    inputs = tuple(t.tensor() for t in model.inputs)
    if name == "huggingface":
        from repo_builder.formats import huggingface

        return huggingface.describe(path, inputs, trust_remote_code=model.trust_remote_code)
    module = formats.get(name)
    if getattr(module, "CHOOSES_OUTPUTS", False):
        return cast(Artifact, cast(Any, module).describe(path, inputs, outputs=model.outputs))
    if getattr(module, "PICKLES", False):
        return cast(Artifact, cast(Any, module).describe(path, inputs, trust_pickle=model.trust_pickle))
    return module.describe(path, inputs)


def key(
    model: ModelSpec,
    source: Artifact,
    release: releases.Release,
    task: str,
    stored: Mapping[str, Any] | None = None,
) -> str:
    """Digest of all that a build depends on: spec, source, samples, target, this tool's code, versions of packages.

    Where files lie does not count, and a task that was guessed equals the same task when it is asked for. ``stored``:
    see ``plans.built_with``.
    """
    package = Path(__file__).parent.parent
    texts = None if isinstance(model.samples.texts, str) else model.samples.texts
    apart: dict[str, Any] = {"source": True, "samples": True, "name": True, "task": True, "tensorrt": {"plugins"}}
    if isinstance(model.labels, str):
        apart["labels"] = True
    parts = {
        "spec": json.loads(model.model_dump_json(exclude=apart)),
        "name": model.public_name,
        "factory": source.facts.get("factory"),
        "task": task,
        "source": source.digest(),
        "format": source.format,
        "weights": source.facts.get("weights_sha256"),
        "samples": [model.samples.seed, texts, *(file_digest(Path(p)) for p in _sample_files(model))],
        "target": release.name,
        "tensorrt": plans.built_with(model, stored),
        "code": files_digest(package, [f for f in tree_files(package) if f.endswith((".py", ".json", ".j2"))]),
        "packages": {name: _version(name) for name in _PACKAGES},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def make(
    model: ModelSpec,
    source: Artifact,
    release: releases.Release,
    work: Path,
    progress: Progress,
    built: Built | None = None,
) -> Unit:
    """Convert, plan and compute the reference; files lie under ``work`` until the writer links them.

    With ``built``, the engine's facts and the public tensors' dtypes of a repository, its plan is not built again:
    only the proof of the unit is of use.

    The key is that of the source before it is loaded: one that changes meanwhile is built again by the next build.

    Raises:
        RepoBuilderError: with stage and model filled in.
    """
    name = model.public_name
    stage = "describe"

    def now(what: str) -> None:
        nonlocal stage
        stage = what
        progress(name, what)

    try:
        task, why = tasks.choose(model, source)
        own_key, sha256 = key(model, source, release, task.NAME), source.digest()
        if hasattr(task, "prepare"):
            now("prepare")
            task.prepare(lambda what: progress(name, f"prepare: {what}"))
        now("load")
        source = formats.opened(source, lambda what: progress(name, f"load: {what}"))
        edge = convert.edge_name(source.format, convert.BEFORE[model.engine])
        program: Programs = task.head(source, model) if edge == convert.FROM_PROGRAM else None
        now("convert")
        tell = lambda what: progress(name, f"convert: {what}")  # noqa: E731
        if model.engine in LLM_ENGINES:
            engine: Engines = _language_engine(model, source, release, work, tell)
        else:
            engine = _engines(model, source, program, release, work, tell, built)
        now("plan")
        _check_axes(model, engine, _text_axes(model) if source.format == "huggingface" else None)
        planned = task.models(model, source, cast(Any, engine))
        for one in planned:
            releases.check_config(one.config, release)
        now("reference")
        proof = task.proof(model, source, cast(Any, engine), cast(Any, program))
    except RepoBuilderError as error:
        raise error.at(stage=stage, model=name) from error.__cause__
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFullError(
                f"the disk is full at {work.parent}: {shutil.disk_usage(work).free:,} bytes free",
                expected="room for the converted model beside the repository",
                mend="free some space, or build on another disk",
                stage=stage,
                model=name,
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if stage not in ("load", "convert", "reference"):
            raise RepoBuilderError(
                f"{type(error).__name__}: {reason}",
                expected="no such failure: this is a defect of repo-builder",
                mend="report it with the model's `repo-builder inspect`",
                stage=stage,
                model=name,
            ) from error
        raise ConversionError(
            f"the source model failed with {type(error).__name__}: {reason}",
            expected="a model that its own framework runs on the samples",
            mend="run it in its framework first; name samples that fit it in the spec (`samples:`)",
            stage=stage,
            model=name,
        ) from error
    facts = {
        "source": {"format": source.format, "sha256": sha256, **source.facts},
        "task": {"name": task.NAME, "why": why},
        "engine": _engine_facts(engine),
        "instances": {one.name: found for one in planned if (found := instances.chosen(one.config))},
        "target": release.name,
        **(task.facts(model, source, engine) if hasattr(task, "facts") else {}),
    }
    return Unit(name, own_key, planned, proof, facts)


def _engines(
    model: ModelSpec,
    source: Artifact,
    program: Programs,
    release: releases.Release,
    work: Path,
    progress: Callable[[str], None],
    built: Built | None,
) -> Engines:
    """The converted model; of a head with several programs the converted parts, each in a folder of its own."""
    if not isinstance(program, Mapping):
        return _engine(model, source, program, release, work, progress, built)

    def made(part: str) -> Artifact:
        (work / part).mkdir()
        tell = lambda what: progress(f"{part}: {what}")  # noqa: E731
        return _engine(model, source, program[part], release, work / part, tell, built)

    return {part: made(part) for part in program}


def _engine(
    model: ModelSpec,
    source: Artifact,
    program: TorchProgram | None,
    release: releases.Release,
    work: Path,
    progress: Callable[[str], None],
    built: Built | None,
) -> Artifact:
    """The converted model, its batch dimension proved by running it."""
    plan = plans.Plan(model, source, release) if model.engine == "tensorrt" and built is None else None
    first = convert.BEFORE[model.engine]
    edge = convert.edge(source.format, first)
    max_opset, ir_version = plan.limits if plan else (release.max_opset, release.max_ir_version)
    if program is not None:
        engine = edge.convert(
            program,
            work / "model.onnx",
            opset=min(max_opset, OPSET),
            ir_version=ir_version,
            exporter=model.exporter,
            progress=progress,
        )
    elif first == "onnx":
        engine = edge.convert(source, work / "model.onnx", progress=progress, opset=max_opset, ir_version=ir_version)
    else:
        engine = edge.convert(source, work / "model.pt", progress=progress)
    runtime = formats.get(engine.format)
    progress("running two batch sizes")
    proved = prove_batch(engine, runtime.run)
    if model.engine == "tensorrt" and built is not None:
        return plans.as_built(proved, *built, work / "indices.onnx")
    return plan.make(proved, work / "model.plan", progress) if plan else proved


def _language_engine(
    model: ModelSpec, source: Artifact, release: releases.Release, work: Path, progress: Callable[[str], None]
) -> Artifact:
    """What TensorRT-LLM or vLLM serves: the folder itself, or an engine built of it, where that can be built here."""
    edge = convert.edge(source.format, convert.BEFORE[model.engine])
    if convert.edge_name(source.format, convert.BEFORE[model.engine]) == "as_it_is":
        engine = source
    else:
        engine = cast(Artifact, edge.convert(source, work, model=model, release=release, progress=progress))
    return replace(engine, facts={**engine.facts, "target": release.name})


def _engine_facts(engine: Engines) -> dict[str, Any]:
    """How the engine was made; of several parts each, under the exporters that they took."""
    if isinstance(engine, Artifact):
        plan = dict(engine.facts) if engine.format == "tensorrt_plan" else {}
        plan.pop("tables", None)  # a vocabulary, maybe; it stands in the model that looks it up
        return {"format": engine.format, "batch": engine.batch, **plan, **engine.provenance}
    parts = {part: _engine_facts(one) for part, one in engine.items()}
    exporters = dict.fromkeys(str(part["exporter"]) for part in parts.values() if part.get("exporter"))
    return {"format": next(iter(parts.values()))["format"], "exporter": ", ".join(exporters), "parts": parts}


def _text_axes(model: ModelSpec) -> frozenset[str]:
    return _TEXT_AXES | plans.REQUESTED.keys() if model.engine == "tensorrt" else _TEXT_AXES


def _check_axes(model: ModelSpec, engine: Engines, only: frozenset[str] | None = None) -> None:
    """Refuse ranges of axes that the model does not have, or (with ``only``) that have no effect on it."""
    engines = [engine] if isinstance(engine, Artifact) else list(engine.values())
    axes = sorted({d for one in engines for t in one.inputs for d in t.shape if isinstance(d, str)})
    axes = [axis for axis in axes if only is None or axis in only]
    values = plans.shape_tensors(model, engine) if isinstance(engine, Artifact) else []
    for axis in model.shapes:
        if axis not in axes and axis.partition("[")[0] not in values:
            raise SpecError(
                f"shapes: the model has no dynamic axis {axis!r}{nearest(axis, axes)}"
                + (" that a range has an effect on" if only else ""),
                expected="one of " + (", ".join(axes) or "none: every axis is static"),
                mend="correct the name in the spec",
            )


def _sample_files(model: ModelSpec) -> list[str]:
    texts = [model.samples.texts] if isinstance(model.samples.texts, str) else []
    labels = [model.labels] if isinstance(model.labels, str) else []
    samples = model.samples
    return [p for p in (*texts, *samples.arrays, *samples.images, *labels) if Path(p).is_file()]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
