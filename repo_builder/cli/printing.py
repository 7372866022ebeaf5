"""What the user sees: progress, tables, JSON, errors. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from repo_builder.cli import example_call
from repo_builder.errors import RepoBuilderError, SourceMissingError

if TYPE_CHECKING:
    from repo_builder.pipeline import Result

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)
_STAGES = ("load", "convert", "plan", "reference", "serve", "prove", "write")
_mode = {"json": False, "quiet": False, "printed": False}


def mode(*, as_json: bool = False, quiet: bool = False) -> None:
    """Choose JSON or silence for the rest of this process."""
    _mode.update(json=as_json, quiet=quiet)


def error(problem: RepoBuilderError) -> None:
    """The message; with ``--json`` as the one document, unless ``built`` has printed it with the error inside."""
    if _mode["json"]:
        if not _mode["printed"]:
            print(json.dumps({"error": _fields(problem)}, ensure_ascii=False))
    else:
        _err.print(f"[bold red]error:[/] {_escape(str(problem))}")


def _fields(problem: RepoBuilderError) -> dict[str, Any]:
    fields = {n: getattr(problem, n) for n in ("found", "expected", "mend", "stage", "model")}
    return {"type": type(problem).__name__, "exit_code": problem.exit_code, **fields}


def note(text: str) -> None:
    if not _mode["quiet"]:
        _err.print(_escape(text))


@contextlib.contextmanager
def results_apart() -> Iterator[None]:
    """Send to stderr what models and libraries print meanwhile, so that stdout holds the result alone."""
    if sys.stdout is None:
        yield
        return
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, str], None]]:
    """A line per model with what is being done to it; on a terminal a bar over the stages, elsewhere plain lines."""
    if _mode["quiet"] or _mode["json"]:
        yield lambda _model, _what: None
        return
    if not _err.is_terminal:
        said: dict[str, str] = {}

        def plain(model: str, what: str) -> None:
            if said.get(model) != what:
                said[model] = what
                _err.print(f"{model}: {what}", markup=False)

        yield plain
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[model]}"),
        BarColumn(bar_width=len(_STAGES) * 2),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=_err, transient=True) as bars:
        rows: dict[str, Any] = {}

        def live(model: str, what: str) -> None:
            if model not in rows:
                rows[model] = bars.add_task(what, total=len(_STAGES), model=model)
            stage = what.split(":")[0]
            done = _STAGES.index(stage) if stage in _STAGES else None
            bars.update(rows[model], description=_escape(what), completed=done)

        yield live


def write_report(path: Path, result: Result) -> None:
    """One JSON file for the whole build; a file that already says so is left as it is."""
    text = json.dumps(_finite(document(result)), indent=1, ensure_ascii=False) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def document(result: Result) -> dict[str, Any]:
    return {
        "repository": result.repository.name,
        "target": result.target,
        "passed": _passed(result),
        "models": result.reports,
        "failed": {name: _fields(problem) for name, problem in result.failed.items()},
    }


def _passed(result: Result) -> bool | None:
    """None where nothing failed, but something was not proven (all of it in a dry run)."""
    verdicts = {report.get("passed") for report in result.reports.values()}
    if result.failed or False in verdicts:
        return False
    return True if verdicts == {True} else None


def built(result: Result, *, dry_run: bool = False) -> None:
    """The result of build and validate, short, with what to type next."""
    if _mode["json"]:
        found = {**document(result), "steps": [_step(step) for step in result.steps]}
        try:
            result.raise_failed()
        except RepoBuilderError as problem:
            found["error"] = _fields(problem)
        print(json.dumps(_finite(found), indent=1, ensure_ascii=False))
        _mode["printed"] = True
        return
    if _mode["quiet"]:
        return
    if dry_run:
        for step in result.steps:
            done = "nothing to do" if step.unchanged else f"{step.source.format} -> {step.model.engine}"
            _out.print(f"{step.model.public_name}: {done}, task {step.task} ({step.why}), target {result.target}")
        return
    unchanged = {step.model.public_name for step in result.steps if step.unchanged}
    for name, report in result.reports.items():
        _report(name, report, " (unchanged, not built again)" if name in unchanged else "")
    if result.reports and not result.failed:
        _next(result)


def _step(step: Any) -> dict[str, Any]:
    return {
        "model": step.model.public_name,
        "source": {"format": step.source.format},
        "task": step.task,
        "why": step.why,
        "unchanged": step.unchanged,
    }


def _report(name: str, report: Mapping[str, Any], suffix: str) -> None:
    verdict = {True: "[green]proven[/]", False: "[red]FAILED[/]", None: "[yellow]not proven[/]"}[report.get("passed")]
    _out.print(f"{name}: {verdict}{suffix}")
    if task := report.get("task"):
        _out.print(f"  task        {task['name']} ({task['why']})", markup=False)
    engine = report.get("engine", {})
    if engine.get("exporter"):
        opset = f", opset {engine['opset']}, IR {engine['ir_version']}" if "opset" in engine else ""
        _out.print(f"  converted   by {engine['exporter']}{opset}", markup=False)
    for attempt in engine.get("attempts", []):
        if attempt.get("why"):
            _out.print(f"  not by      {attempt['exporter']}: {attempt['why']}", markup=False)
    for model, instances in report.get("instances", {}).items():
        _out.print(f"  instances   {model}: {_instances(instances)}", markup=False)
    if "server" in report:
        server = report["server"]
        who = ", ".join(f"{n} {v}" for n, v in server["versions"].items() if n != "tritonserver")
        _out.print(f"  served by   {server['name']} {server['version']} ({server['kind']}{', ' + who if who else ''})")
        _out.print(f"  against     {report['reference']}", markup=False)
    for output, measured in report.get("outputs", {}).items():
        what = (
            "equal"
            if measured["exact"]
            else f"max abs error {measured['max_abs_error']:.2e}, cosine {measured['cosine']:.8f}"
        )
        _out.print(f"  {output}  {what}", markup=False)
    if report.get("latency_ms"):
        ms = report["latency_ms"]
        sent = ", ".join(f"{count} {how}" for how, count in report["requests"].items())
        _out.print(f"  latency     p50 {ms['p50']:.1f} ms, p90 {ms['p90']:.1f} ms, p99 {ms['p99']:.1f} ms ({sent})")
    for limit in report.get("limits", []):
        _out.print(f"  limit       {limit}", markup=False)


def _instances(chosen: Mapping[str, Any]) -> str:
    """``2 on the CPU, 1 thread each``."""
    where = {"cpu": "on the CPU", "gpu": "on each GPU"}.get(chosen["kind"], "where the server puts them")
    threads = f", {chosen['threads']} thread{'s' * (chosen['threads'] > 1)} each" if chosen["threads"] else ""
    return f"{chosen['count']} {where}{threads}"


def _next(result: Result) -> None:
    name, report = next(iter(result.reports.items()))
    repository = shlex.quote(str(result.repository))
    inputs = report.get("inputs") or {}
    if report.get("first_response_ms"):
        call = f"chat {repository} --model {name}"
    else:
        call = f"infer {repository} {name} {example_call.options(result.repository, name, inputs)}"
    _out.print(f"\nNext:\n  repo-builder {call}", markup=False)
    _out.print(f"  repo-builder serve {repository}", markup=False)
    _out.print(f"  {_tritonserver(result.repository)}", markup=False)


def _tritonserver(repository: Path) -> str:
    """The line for a server of the user's own."""
    from repo_builder.server import needs

    return shlex.join(needs.command_line(repository.resolve()))


def inspected(found: Mapping[str, Any]) -> None:
    if _mode["json"]:
        print(json.dumps(_finite(found), indent=1, ensure_ascii=False))
        return
    for key, value in found.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            value = _caches_once(value)
            table = Table(*value[0], title=key, title_justify="left", box=None)
            for row in value:
                table.add_row(*(_escape(_cell(v)) for v in row.values()))
            _out.print(table)
        else:
            _out.print(f"{key}: {value}", markup=False)


def _caches_once(rows: list[Any]) -> list[Any]:
    """Tensors of a cache in one row; rows of anything else as they are."""
    from repo_builder.formats import kv_cache
    from repo_builder.tensors import TensorSpec

    if any(row.keys() != {"name", "dtype", "shape"} for row in rows):
        return rows
    specs = [TensorSpec(row["name"], row["dtype"], tuple(row["shape"])) for row in rows]
    return [{"name": s.name, "dtype": s.dtype, "shape": list(s.shape)} for s in kv_cache.grouped(specs)]


def _cell(value: Any) -> str:
    """Tensors one below the other, as ``name DTYPE[shape]``; anything else as it is."""
    if isinstance(value, list) and all(isinstance(v, Mapping) for v in value):
        value = _caches_once(value)
        return "\n".join(f"{v['name']} {v['dtype']}[{', '.join(map(str, v['shape']))}]" for v in value)
    return str(value)


def serving(running: Any, repository: Path) -> None:
    _out.print(f"serving {repository} with tritonserver {running.versions.get('tritonserver', '')}", markup=False)
    _out.print(f"  gRPC    127.0.0.1:{running.ports.grpc}\n  HTTP    127.0.0.1:{running.ports.http}")
    _out.print(f"  metrics 127.0.0.1:{running.ports.metrics}/metrics")
    _out.print(f"Elsewhere: {_tritonserver(repository)}\nCtrl-C stops it.", markup=False)


def answered(answer: Mapping[str, Any], folder: Path | None) -> None:
    """Outputs by name: saved as ``.npy``, as JSON, or printed short."""
    import numpy as np

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in answer.items():
            if "/" in name or name.startswith("."):
                raise SourceMissingError(f"the output {name!r} cannot be a file name", mend="print it with --json")
            np.save(folder / f"{name}.npy", array.astype(bytes) if array.dtype == object else array, allow_pickle=False)
            note(f"{folder / name}.npy {array.dtype}{list(array.shape)}")
    elif _mode["json"]:
        print(json.dumps(_finite({n: _plain(a) for n, a in answer.items()}), ensure_ascii=False))
    else:
        for name, array in answer.items():
            kind = "BYTES" if array.dtype == object else array.dtype
            with np.printoptions(precision=6, threshold=16, edgeitems=4):
                _out.print(f"{name} {kind}{list(array.shape)}\n{np.array(_plain(array))}", markup=False)


def _plain(array: Any) -> Any:
    if array.dtype != object:
        return array.tolist()
    return [_plain(a) if hasattr(a, "dtype") else a.decode("utf-8", "replace") for a in array]


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they go as strings."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, (list, tuple)) else value


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
