"""PyTorch to ONNX: exporters in order until the runner accepts a file, with a report of why the others did not."""

from __future__ import annotations

import errno
import re
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from repo_builder.artifact import Artifact
from repo_builder.convert import onnx_graph, onnx_signature, string_tables
from repo_builder.convert.capture import capture
from repo_builder.convert.cases import CheckedCase, cases
from repo_builder.convert.runner import Accepted, check
from repo_builder.convert.torch_exporters import Exporter, exporters, input_names
from repo_builder.errors import ConversionError, RepoBuilderError, nearest
from repo_builder.formats.torch_program import TorchProgram

Progress = Callable[[str], None]
_NOISE = re.compile(r"\x1b\[[0-9;]*m| at 0x[0-9a-f]+")


@dataclass(frozen=True)
class _Attempt:
    """One exporter's verdict; ``why`` is empty where its file was accepted."""

    exporter: str
    why: str
    log: str
    accepted: Accepted | None

    @property
    def json(self) -> dict[str, str]:
        return {"exporter": self.exporter, "verdict": "failed" if self.why else "accepted", "why": self.why}


def convert(
    program: TorchProgram,
    out: Path,
    *,
    opset: int,
    ir_version: int,
    exporter: str | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Write ``out`` (an ``.onnx`` file) and return it as an Artifact of format ``onnx``.

    Args:
        program: the model; its ``outputs`` name the flattened outputs (``output``, or ``output_0`` and so on, where
            they are empty).
        out: the file to write, in a folder that exists; weights beyond 2 GiB go to ``NAME.data`` beside it.
        opset: the version of the default operator set that the file gets.
        ir_version: the highest IR version that the file may have.
        exporter: only this one (``dynamo``, ``script``, ``trace``).
        progress: called with one short line per step.

    Raises:
        ConversionError: no exporter's file was accepted; one line for each, and the full text in ``NAME.log`` beside
            ``out``.
    """
    say = progress or (lambda _: None)
    chain = _chosen(program.kind, exporter)
    say("asking the source model")
    program, checked = _asked(program)
    attempts: list[_Attempt] = []
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=out.parent) as folder:
        for choice in chain:
            say(f"exporting with {choice.name}")
            path = Path(folder) / choice.name / out.name
            path.parent.mkdir()
            attempt = _attempt(choice, program, checked, path, opset, ir_version)
            attempts.append(attempt)
            if attempt.accepted is not None:
                made = attempt.accepted.artifact
                for name in made.files:
                    (made.folder / name).replace(out.parent / name)
                return replace(made, path=out, provenance=_provenance(attempts, attempt.accepted))
    raise _all_failed(program.kind, attempts, out)


def _asked(program: TorchProgram) -> tuple[TorchProgram, list[CheckedCase]]:
    """The program with every output named, and the cases that its source answered."""
    examples = {s.name: e.detach().cpu().numpy() for s, e in zip(program.inputs, program.examples, strict=True)}
    checked = cases(program.inputs, examples, program.run)
    count = len(checked[0].outputs)
    names = program.outputs or (("output",) if count == 1 else tuple(f"output_{i}" for i in range(count)))
    if len(names) != count or len({*names, *examples}) != count + len(examples):
        raise ConversionError(
            f"the model has the inputs {list(examples)} and {count} outputs, which are to be called {list(names)}",
            expected="one name for each output, no two alike, none that an input bears",
            mend="correct the names of the outputs",
        )
    return replace(program, outputs=tuple(names)), checked


def _chosen(kind: str, exporter: str | None) -> tuple[Exporter, ...]:
    chain = exporters(kind)
    names = [choice.name for choice in chain]
    if exporter is not None and exporter not in names:
        raise ConversionError(
            f"the exporter '{exporter}' does not take this kind of source ({kind}){nearest(exporter, names)}",
            expected=" or ".join(names),
        )
    return tuple(choice for choice in chain if exporter in (None, choice.name))


def _attempt(
    exporter: Exporter, program: TorchProgram, checked: Sequence[CheckedCase], path: Path, opset: int, ir_version: int
) -> _Attempt:
    """One exporter from its first line to the runner's verdict; what it raises is its reason, but for a full disk."""
    import torch

    example = _example(checked)
    tensors = tuple(torch.from_numpy(example.inputs[spec.name].copy()) for spec in program.inputs)
    accepted, why, trail = None, "", ""
    place = f"{path.parent}/"
    with capture() as said:
        try:
            with torch.no_grad():
                exporter.export(program, tensors, path, opset)
            accepted = _finished(exporter, program, checked, path, opset, ir_version)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            why, trail = reason(error).replace(place, ""), traceback.format_exc()
    if said.tracer:
        accepted, why = None, f"TracerWarning: {said.tracer[0].strip().splitlines()[0]}"
    return _Attempt(exporter.name, why, "\n".join((*said.warnings, said.text, trail)), accepted)


def _finished(
    exporter: Exporter, program: TorchProgram, checked: Sequence[CheckedCase], path: Path, opset: int, ir_version: int
) -> Accepted:
    """Give the exported file its names, shapes, opset and IR version, and let the runner decide."""
    import onnx

    model = onnx_graph.at_opset(onnx.load(str(path)), opset)
    string_tables.append(model, program.outputs, program.tables)
    declared = dict(zip(input_names(program), program.inputs, strict=True))
    outputs = onnx_signature.write(model, declared, program.outputs, checked, symbolic=exporter.symbolic)
    onnx_graph.strip(model)
    onnx_graph.lower_ir(model, ir_version)
    onnx_graph.save(model, path)
    return check(path, program.inputs, outputs, checked, opset=opset, ir_version=ir_version, ranked=program.ranked)


def _example(checked: Sequence[CheckedCase]) -> CheckedCase:
    """The case to export with: sizes of at least 2, no two alike (exporters bake 1 and tie equal sizes together)."""
    return max(checked, key=lambda c: (min(c.sizes.values(), default=2) > 1, len(set(c.sizes.values()))))


def reason(error: BaseException) -> str:
    """One short line: the deepest cause's first telling line (exporters wrap it in general advice), no addresses."""
    while error.__cause__ is not None and not isinstance(error, RepoBuilderError):
        error = error.__cause__
    ours = isinstance(error, RepoBuilderError)
    lines = (error.found if isinstance(error, RepoBuilderError) else str(error)).splitlines()
    text = _NOISE.sub("", next((line.strip() for line in lines if line.strip()), ""))
    short = text if len(text) <= 240 else text[:237] + "..."
    return short if ours and short else f"{type(error).__name__}: {short}".removesuffix(": ")


def _provenance(attempts: Sequence[_Attempt], accepted: Accepted) -> dict[str, Any]:
    facts = accepted.artifact.facts
    return {
        "exporter": attempts[-1].exporter,
        "attempts": [attempt.json for attempt in attempts],
        "checker": "onnx.checker accepted it with full shape inference",
        "opset": facts["opset"],
        "ir_version": facts["ir_version"],
        **{package: _version(package) for package in ("torch", "onnx", "onnxscript", "onnxruntime")},
        "cases": accepted.cases,
        "max_abs_error": accepted.max_abs_error,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _all_failed(kind: str, attempts: Sequence[_Attempt], out: Path) -> ConversionError:
    log = out.with_name(out.name + ".log")
    log.write_text("\n\n".join(f"== {a.exporter}: {a.why}\n{a.log}" for a in attempts), encoding="utf-8")
    reasons = "".join(f"\n  {attempt.exporter}: {attempt.why}" for attempt in attempts)
    return ConversionError(
        f"no exporter carries this model to ONNX ({kind} source):{reasons}\n  full text: {log}",
        expected="a file that answers as the model does, for every size of its dynamic dims",
        mend="change the model where the first reason points, declare fewer dynamic dims, or serve it as TorchScript",
    )
