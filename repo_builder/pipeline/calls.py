"""The verbs around a build: inspect a model, serve a repository, call a model, validate again."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder import client, formats, proof, releases, server, spec, tasks
from repo_builder.artifact import Artifact
from repo_builder.errors import RepositoryError, SourceMissingError, SpecError, UsageError, nearest
from repo_builder.formats import onnx_summary, tensorrt_plan
from repo_builder.pipeline import arguments, serving, unit
from repo_builder.spec import ModelSpec
from repo_builder.tensorrt import installation, performance
from repo_builder.tensors import TensorSpec, from_numpy

Progress = Callable[[str, str], None]


def inspect(source: str, *, plugins: Sequence[Path] = (), version_compatible: bool = False) -> dict[str, Any]:
    """Format, signature and facts of a model, or the models of a spec or of a repository; JSON values.

    Args:
        plugins, version_compatible: of a plan: see ``formats.tensorrt_plan.describe``.

    Raises:
        SpecError: these were given for something else.
    """
    path = Path(source)
    if plugins or version_compatible:
        plan = _plan(source)
        return _artifact(tensorrt_plan.describe(plan, plugins=plugins, version_compatible=version_compatible))
    if spec.is_spec(source):
        return {"spec": path.name, "models": [_described(model) for model in spec.load(path).models]}
    if path.is_dir() and any(path.glob("*/config.pbtxt")):
        found = serving.configs(path)
        options = server.needs.backend_options(path)
        models = [_summary(name, config) for name, config in found.items()]
        return {"repository": path.name, "models": models, **({"tritonserver": list(options)} if options else {})}
    name, location = formats.detect(source)
    found = _artifact(formats.get(name).describe(location))
    return {**found, **onnx_summary.summary(location)} if name == "onnx" else found


def _artifact(artifact: Artifact) -> dict[str, Any]:
    return {
        "format": artifact.format,
        **_signature(artifact.inputs, artifact.outputs),
        **{k: v for k, v in artifact.facts.items() if v not in (None, "", [], {})},
        "files": list(artifact.files),
        "bytes": sum((artifact.folder / f).stat().st_size for f in artifact.files),
        "sha256": artifact.digest(),
    }


def preflight(
    source: str,
    progress: Callable[[str], None] | None = None,
    *,
    plugins: Sequence[Path] = (),
    version_compatible: bool = False,
) -> dict[str, Any]:
    """What TensorRT's parser says of an ONNX file, with or without a GPU; JSON values.

    Args:
        plugins: libraries to load first.
        version_compatible: refused, for an ONNX file carries no code of its own.

    Raises:
        SpecError: not an ONNX file.
        UsageError: ``version_compatible``.
        SourceCorruptError, ToolchainError, TensorRTError: see ``tensorrt.preflight``.
    """
    from repo_builder.tensorrt import preflight as parser

    name, path = formats.detect(source)
    if name != "onnx":
        raise SpecError(
            f"{source} is of format {name}",
            expected="an ONNX file, which is what TensorRT's parser reads",
            mend="build it with engine: onnx first; its repository holds the file as 1/model.onnx",
        )
    if version_compatible:
        raise UsageError(
            f"--version-compatible is for plans, and {source} is of format onnx",
            expected="--plugin FILE at most",
            mend="leave it out",
        )
    return parser.preflight(path, progress, plugins=plugins)


def bench(
    plan: str,
    *,
    batches: Sequence[int] = (),
    cuda_graph: bool = False,
    plugins: Sequence[Path] = (),
    version_compatible: bool = False,
    duration_s: float = 3,
    progress: Callable[[str], None] | None = None,
) -> performance.Performance:
    """Time a plan on this machine's GPU: see ``tensorrt.performance.measure``.

    Of a plan in a repository the config beside it tells what it needs; ``plugins`` and ``version_compatible`` are for
    one that lies elsewhere.

    Raises:
        SpecError: not a plan.
        RepositoryError: its config names a plugin library that is not beside it.
        TensorRTMissingError: no TensorRT, or no GPU.
    """
    path = _plan(plan)
    beside, carries = server.needs.of_plan(path)
    given = {library.name for library in plugins}
    return performance.measure(
        installation.builder(),
        path,
        batches=batches,
        cuda_graph=cuda_graph,
        plugins=[*plugins, *(library for library in beside if library.name not in given)],
        version_compatible=version_compatible or carries,
        duration_s=duration_s,
        progress=progress,
    )


def _plan(source: str) -> Path:
    name, path = formats.detect(source)
    if name != "tensorrt_plan":
        raise SpecError(
            f"{source} is of format {name}",
            expected="a TensorRT plan",
            mend="name the file: REPOSITORY/MODEL/1/model.plan",
        )
    return path


def serve(
    repository: Path, *, target: str | None, ports: tuple[int, int, int], progress: Callable[[str], None] | None = None
) -> server.RunningServer:
    """The embedded server on a repository, with the target's ONNX Runtime where a wheel exists.

    What the embedded server's release does not know is left out of the configs that it reads, and ``progress`` is told.
    """
    if not repository.is_dir():
        raise SourceMissingError(f"there is no folder {repository}", expected="a model repository", stage="serve")
    release = target_of(repository, target)
    grpc, http, metrics = ports
    with contextlib.ExitStack() as held:
        known, left_out = held.enter_context(serving.as_embedded_knows(repository))
        for model, fields in left_out.items():
            if progress:
                progress(f"{model} is served without {', '.join(fields)}, which this server does not know")
        running = server.start(
            known,
            grpc_port=grpc,
            http_port=http,
            metrics_port=metrics,
            onnxruntime=serving.runtime(release),
            progress=progress,
        )
        running.afterwards(held.pop_all().close)
    return running


def infer(
    where: str,
    model: str,
    *,
    texts: Sequence[str] = (),
    tensors: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """One request to a repository (served for the occasion) or to ``grpc://HOST:PORT``.

    Args:
        texts: one row each for the model's only BYTES input, or its input ``TEXT``.
        tensors: ``NAME=FILE.npy``, or ``NAME=VALUE`` for one row; repeated, its row has several values.
    """
    inputs = arguments.parse(tensors)
    if not inputs and not texts:
        raise UsageError("no input was given", expected="--text TEXT or --input NAME=VALUE", mend="give one")
    if "://" in where or (":" in where and not Path(where).exists()):
        with client.connect(where) as connection:
            return _send(connection, model, texts, inputs)
    repository = Path(where)
    if not repository.is_dir():
        raise SourceMissingError(f"there is no folder {where}", expected="a repository, or grpc://HOST:PORT")
    found = serving.configs(repository)
    if model not in found:
        raise RepositoryError(
            f"{repository.name} has no model {model!r}{nearest(model, list(found))}",
            expected="one of " + ", ".join(found) if found else "a repository: folders with a config.pbtxt",
        )
    names = with_steps(model, found)
    release = target_of(repository)
    with (
        serving.serve(repository, release, "embedded", names, progress) as served,
        client.connect(served.url) as connection,
    ):
        connection.wait_ready(models=[model])
        return _send(connection, model, texts, inputs)


def validate_all(
    repository: Path, *, where: str, source: str | None, target: str | None, progress: Progress, resolve: Any
) -> dict[str, dict[str, Any]]:
    """Replay the stored proofs; reports by unit. With ``source`` the reference is computed again first."""
    if not repository.is_dir():
        raise SourceMissingError(f"there is no folder {repository}", expected="a model repository", stage="validate")
    proofs = serving.stored_proofs(repository)
    release = target_of(repository, target)
    again = _recomputed(resolve(source), proofs, release, progress) if source else {}
    found = serving.configs(repository)
    models = [m for _, record in proofs.values() for m in record.models]
    name = next(iter(proofs))
    with serving.serve(repository, release, where, models, lambda said: progress(name, f"serve: {said}")) as served:
        return {
            name: serving.report(
                name,
                again.get(name, stored),
                served,
                release,
                record.facts,
                {m: serving.backend(found[m]) for m in record.models if m in found},
                progress,
            )
            for name, (stored, record) in proofs.items()
        }


def _recomputed(
    models: Sequence[ModelSpec], proofs: Mapping[str, Any], release: releases.Release, progress: Progress
) -> dict[str, proof.Proof]:
    again = {}
    for model in models:
        if model.public_name not in proofs:
            raise SpecError(
                f"the repository has no model {model.public_name!r}{nearest(model.public_name, list(proofs))}",
                expected="one of " + ", ".join(proofs),
                mend="name it as it was built: --source SPEC.yaml, or the same MODEL",
            )
        work = Path(tempfile.mkdtemp(prefix="repo_builder-"))
        try:
            stored, record = proofs[model.public_name]
            shown = {**stored.cases[0].inputs, **stored.cases[0].outputs}
            built = (record.facts.get("engine", {}), {n: from_numpy(a.dtype).triton for n, a in shown.items()})
            made = unit.make(model, unit.describe(model), release, work, progress, built)
            if made.proof is not None:
                again[made.name] = made.proof
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return again


def target_of(repository: Path, asked: str | None = None) -> releases.Release:
    """The asked release, else the one that the repository was built for, else the newest."""
    if asked:
        return releases.release(asked)
    built = {str(record.facts.get("target")) for record in serving.units(repository).values()} & set(releases.names())
    return releases.release(max(built)) if built else releases.newest()


def with_steps(model: str, found: Mapping[str, Any]) -> list[str]:
    """The model, the steps of its ensemble, and the models that its parameters name: those that it calls itself."""
    names = [model]
    for name in names:  # it grows
        if name in found:
            steps = [step.model_name for step in found[name].ensemble_scheduling.step]
            called = [p.string_value for p in found[name].parameters.values() if p.string_value in found]
            names += [n for n in dict.fromkeys((*steps, *called)) if n not in names]
    return names


def _send(
    connection: client.Client, model: str, texts: Sequence[str], given: arguments.Given
) -> dict[str, np.ndarray[Any, Any]]:
    wanted = connection.metadata(model).inputs
    inputs = arguments.fit(given, wanted)
    if texts:
        strings = [t.name for t in wanted if t.dtype == "BYTES" and t.name not in inputs]
        name = "TEXT" if "TEXT" in strings else strings[0] if len(strings) == 1 else ""
        if not name:
            raise UsageError(
                f"--text does not fit {model!r}: its inputs are {', '.join(str(t) for t in wanted)}",
                expected="a model with one BYTES input",
                mend="use --input NAME=VALUE",
            )
        inputs[name] = list(texts)
    return connection.infer(model, inputs)


def _row(tensor: TensorSpec) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}


def _summary(name: str, config: Any) -> dict[str, Any]:
    from repo_builder import model_config

    inputs, outputs = model_config.tensors(config)
    return {"name": name, "backend": serving.backend(config), **_signature(inputs, outputs)}


def _described(model: ModelSpec) -> dict[str, Any]:
    source = unit.describe(model)
    task, _ = tasks.choose(model, source)
    signature = _signature(source.inputs, source.outputs)
    return {"name": model.public_name, "format": source.format, "task": task.NAME, **signature}


def _signature(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> dict[str, Any]:
    return {"inputs": [_row(t) for t in inputs], "outputs": [_row(t) for t in outputs]}
