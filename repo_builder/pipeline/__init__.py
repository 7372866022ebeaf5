"""The order of the stages: spec, sources, conversion, staging, the served proof, and the exchange."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from repo_builder import client, releases, spec, tasks
from repo_builder.artifact import Artifact
from repo_builder.errors import (
    ProofFailedError,
    RepoBuilderError,
    RepositoryError,
    ServerStartError,
    SomeModelsFailedError,
)
from repo_builder.pipeline import asked, machine, serving, unit, workers
from repo_builder.pipeline.calls import bench, infer, inspect, preflight, serve, validate_all
from repo_builder.pipeline.merging import merge
from repo_builder.repository import manifest, write
from repo_builder.repository.layout import Layout
from repo_builder.repository.plan import Unit
from repo_builder.spec import ModelSpec, Spec

__all__ = ["Result", "Step", "bench", "build", "infer", "inspect", "merge", "preflight", "serve", "validate"]

Progress = Callable[[str, str], None]
Report = dict[str, Any]
LOCK_WAIT_S = 1800.0
"""Seconds that a build waits for another one on the same repository; a build holds it while it converts."""


@dataclass(frozen=True)
class Step:
    """What a build does for one model; ``dry_run`` returns these and stops.

    Attributes:
        unchanged: nothing to do, the repository already holds it.
    """

    model: ModelSpec
    source: Artifact
    task: str
    why: str
    key: str
    unchanged: bool


@dataclass
class Result:
    """What a build did.

    Attributes:
        repository: the folder for ``tritonserver --model-repository``.
        target: the release it was built for.
        steps: one per model that could be described.
        reports: by model: what was measured (of this build, or stored by the one that wrote an unchanged model).
        failed: by model: the error; nothing of such a model is written.
    """

    repository: Path
    target: str
    steps: list[Step] = field(default_factory=list)
    reports: dict[str, Report] = field(default_factory=dict)
    failed: dict[str, RepoBuilderError] = field(default_factory=dict)

    def raise_failed(self) -> None:
        """Raise the one error, or one that names all."""
        if not self.failed:
            return
        passed = [name for name in self.reports if name not in self.failed]
        if len(self.failed) == 1 and not passed:
            raise next(iter(self.failed.values()))
        raise SomeModelsFailedError(
            "\n".join(str(error) for error in self.failed.values()),
            expected=f"all of {len(self.failed) + len(passed)} models; these are fine: {', '.join(passed) or 'none'}",
            mend="mend the models named above and build again; the others are not built twice",
        )


def build(
    source: str | Path | Spec,
    out: str | Path = "model_repository",
    *,
    target: str | None = None,
    server: str = "embedded",
    verify: bool = True,
    new_version: bool = False,
    jobs: int = 1,
    dry_run: bool = False,
    progress: Progress = lambda _model, _what: None,
    **fields: Any,
) -> Result:
    """Build a model repository and prove it through a real server.

    Args:
        source: a model, a spec file, or a Spec.
        out: the repository; ``OUT.build`` beside it holds manifest, proofs and reports.
        target: Triton release; the newest by default.
        server: ``embedded``, ``docker``, or ``HOST:PORT`` of a server that reads ``out``.
        verify: serve the staged repository and compare before it replaces the old one.
        new_version: append a version and keep the old ones.
        jobs: models built at once.
        dry_run: describe only; nothing is written.
        fields: fields of ``ModelSpec`` (``task``, ``engine``, ``name``, ...).

    Returns:
        The result; models that failed are in ``failed``, call ``raise_failed()``.

    Raises:
        RepoBuilderError: what concerns no single model (the spec, the target, the disk, the server).
    """
    workers.check_main()
    wanted = resolve(source, target=target, **fields)
    release = releases.release(wanted.target) if wanted.target else releases.newest()
    layout = Layout.of(out)
    result = Result(Path(out), release.name)
    if not dry_run:
        write.recover(out, wait_s=LOCK_WAIT_S)
    for model in wanted.models:
        with _collected(result, model.public_name):
            result.steps.append(_step(model, release, layout, server if verify else "", new_version))
    todo = _todo(result, layout)
    if dry_run or not todo:
        return result
    if verify and server not in serving.STAGED:
        with client.connect(server) as connection:
            connection.server_metadata()
    with write.transaction(out, wait_s=LOCK_WAIT_S) as change:
        held = server if verify else ""
        result.steps = [replace(s, unchanged=_unchanged(s, layout, held, new_version)) for s in result.steps]
        todo = _todo(result, layout)  # another build may have done it while this one waited
        work = layout.build / "work"
        shutil.rmtree(work, ignore_errors=True)
        try:
            units = workers.make_all(todo, release, work, jobs, progress, result.failed)
            _write(change, units, result, release, held, new_version, progress)
        finally:
            _keep_logs(work)
    return result


def validate(
    repository: str | Path,
    *,
    server: str = "embedded",
    source: str | None = None,
    target: str | None = None,
    progress: Progress = lambda _model, _what: None,
) -> Result:
    """Replay the stored proofs of a repository against a server anywhere; needs no framework.

    Args:
        server: ``embedded``, ``docker``, or ``HOST:PORT`` of a running server.
        source: a model or spec: compute the reference again (this needs the framework).

    Raises:
        RepositoryError: there is no proof beside the repository.
    """
    path = Path(repository)
    reports = validate_all(
        path, where=server, source=source, target=target, progress=progress, resolve=lambda s: resolve(s).models
    )
    result = Result(path, next(iter(reports.values()))["target"])
    for name, report in reports.items():
        result.reports[name] = report
        if not report["passed"]:
            result.failed[name] = _missed(name, report)
    return result


def resolve(source: str | Path | Spec, *, target: str | None = None, **fields: Any) -> Spec:
    """The spec of a file, of flags, or of both: flags win over the file, and the machine tells what neither says."""
    if isinstance(source, Spec):
        return machine.resolved(spec.override(source, target=target, **fields))
    if spec.is_spec(str(source)):
        return machine.resolved(spec.override(spec.load(Path(source)), target=target, **fields))
    return machine.resolved(spec.from_flags(str(source), target=target, **fields))


def _step(model: ModelSpec, release: releases.Release, layout: Layout, server: str, new_version: bool) -> Step:
    source = unit.describe(model)
    task, why = tasks.choose(model, source)
    asked.check(model, source, task.NAME)
    record = manifest.load(layout.repository).units.get(model.public_name)
    key = unit.key(model, source, release, task.NAME, record.facts.get("engine") if record else None)
    step = Step(model, source, task.NAME, why, key, False)
    if _unchanged(step, layout, server, new_version):
        return replace(step, unchanged=True)
    asked.check_configs(model, release)
    return step


def _unchanged(step: Step, layout: Layout, server: str, new_version: bool) -> bool:
    """Whether the repository holds what the step would write, proven by the kind of server that is asked for."""
    name = step.model.public_name
    known = not new_version and manifest.unchanged(layout.repository, name, step.key)
    return known and (not server or serving.proves(serving.stored_report(layout, name), server))


def _todo(result: Result, layout: Layout) -> list[Step]:
    """The steps to do; of the others the stored reports go into the result."""
    for step in result.steps:
        if step.unchanged:
            result.reports[step.model.public_name] = serving.stored_report(layout, step.model.public_name)
    return [step for step in result.steps if not step.unchanged]


def _keep_logs(work: Path) -> None:
    """Remove what the models were made in, apart from the logs of conversions that failed."""
    for path in sorted(work.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):
                path.rmdir()
        elif path.suffix != ".log":
            path.unlink()
    with contextlib.suppress(OSError):
        work.rmdir()


def _write(
    change: write.Transaction,
    units: list[Unit],
    result: Result,
    release: releases.Release,
    server: str,
    new_version: bool,
    progress: Progress,
) -> None:
    """Stage, prove, leave out what failed, exchange."""
    while units:
        try:
            staged = change.stage(units, new_version=new_version)
        except RepositoryError as error:
            if error.model not in [one.name for one in units]:
                raise
            result.failed[error.model] = error
            units = [one for one in units if one.name != error.model]
            continue
        serving.check_flavour(staged, release)
        try:
            if server in serving.STAGED:
                reports = serving.prove(staged, units, release, server, progress)
            else:
                reports = serving.unproven(units, release)
        except ServerStartError as error:
            guilty = serving.not_loaded(error, units)
            if not guilty:
                raise
            result.failed.update(guilty)
            units = [one for one in units if one.name not in guilty]
            continue
        bad = {name: report for name, report in reports.items() if report["passed"] is False}
        if not bad:
            for one in units:
                progress(one.name, "write")
            change.commit(reports)
            if server and server not in serving.STAGED:
                reports = _prove_in_place(change.layout, units, release, server, progress, result)
            result.reports.update(reports)
            return
        for name, report in bad.items():
            result.failed[name] = _missed(name, report)
        units = [one for one in units if one.name not in bad]
    change.discard()


def _prove_in_place(
    layout: Layout, units: list[Unit], release: releases.Release, server: str, progress: Progress, result: Result
) -> dict[str, Report]:
    """Prove through a server that reads the repository itself, so only after it was written."""
    with client.connect(server) as connection:
        connection.load([model.name for one in units for model in reversed(one.models)])
    reports = serving.prove(layout.repository, units, release, server, progress)
    for name, report in reports.items():
        layout.report(name).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if not report["passed"]:
            result.failed[name] = _missed(name, report)
    return reports


def _missed(name: str, report: Mapping[str, Any]) -> ProofFailedError:
    return ProofFailedError(
        "; ".join(report["failures"]) or "the model did not answer",
        expected="answers equal to the source model's within the tolerances",
        mend="look at the exporter and its attempts in the report; raise `tolerances:` only if the error is acceptable",
        stage="proof",
        model=name,
    )


@contextlib.contextmanager
def _collected(result: Result, name: str) -> Iterator[None]:
    try:
        yield
    except RepoBuilderError as error:
        result.failed[name] = error.at(stage="describe", model=name)
