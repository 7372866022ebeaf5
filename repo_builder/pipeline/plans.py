"""The plan of one model of the spec: limits of the TensorRT here, profiles, cases, and what the target can load."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from repo_builder import releases, tasks
from repo_builder.artifact import Artifact, file_digest
from repo_builder.convert import onnx_to_tensorrt, string_tables
from repo_builder.convert.cases import CheckedCase
from repo_builder.convert.profiles import profiles
from repo_builder.errors import ConversionError
from repo_builder.formats import onnx
from repo_builder.proof import Arrays
from repo_builder.spec import AxisRange, ModelSpec
from repo_builder.tasks import calibration, engine_model, plan_cases, string_lookup
from repo_builder.tensorrt import installation
from repo_builder.tensors import TensorSpec

_IR = 10
"""An IR version that every parser here reads; TensorRT looks at the opset alone."""
_USUAL_TOKENS = 128
"""Tokens to optimize for where the spec names none."""
_INTEGERS = {"INT32", "INT64"}
REQUESTED = {
    "windows": AxisRange(min=1, opt=4, max=32),
    "labels": AxisRange(min=1, opt=4, max=32),
}
"""Sequences in a row that a plan takes where the spec names no range: windows of a context, candidate labels."""


class Plan:
    """How one model becomes a plan.

    Attributes:
        limits: newest opset and IR version of the ONNX file in between.

    Raises:
        ConversionError: the source is an ONNX file that takes text.
        TensorRTMissingError, TensorRTError, TargetError: see ``onnx_to_tensorrt.builder``.
    """

    def __init__(self, model: ModelSpec, source: Artifact, release: releases.Release) -> None:
        self._model, self._source = model, source
        self._task = tasks.choose(model, source)[0]
        self._builder = onnx_to_tensorrt.builder(release, model.precision, model.tensorrt)
        string_tables.refuse_text(source)
        self.limits = (self._builder.opset, _IR)

    def make(self, graph: Artifact, out: Path, progress: Callable[[str], None]) -> Artifact:
        """The plan of ``graph``, an ONNX file whose batch dimension is proved.

        Text that the graph looks up by an index stays outside: the plan gives the index, its fact ``tables`` what the
        step behind it looks up.

        Raises:
            SpecError: ranges, or samples of sizes that the plan does not take.
            ConversionError: see ``onnx_to_tensorrt.convert`` and ``string_tables.split``.
        """
        model = self._model
        graph, tables = string_tables.split(graph, out.with_name("indices.onnx"))
        made = profiles(
            graph.inputs,
            model.shapes,
            model.tensorrt.profiles,
            engine_model.max_batch_size(model, graph),
            graph.batch,
            self._defaults(),
            shape_tensors(model, graph),
        )
        profiled = replace(graph, facts={**graph.facts, "profiles": made})
        plan = onnx_to_tensorrt.convert(
            graph,
            out,
            builder=self._builder,
            precision=model.precision,
            options=model.tensorrt,
            profiles=made,
            cases=self._cases(profiled),
            corners=corners(profiled, made),
            progress=progress,
        )
        return replace(plan, facts={**plan.facts, string_lookup.FACT: tables}) if tables else plan

    def _defaults(self) -> dict[str, AxisRange]:
        if self._source.format != "huggingface":
            return {}
        longest = calibration.longest(self._model, self._source)
        return {**REQUESTED, "sequence": AxisRange(min=1, opt=min(_USUAL_TOKENS, longest), max=longest)}

    def _cases(self, graph: Artifact) -> list[CheckedCase]:
        names = [t.name for t in graph.outputs]
        found = []
        for inputs in calibration.requests(self._model, self._source, graph, self._task):
            answers = onnx.run(graph, inputs)
            found.append(CheckedCase({}, dict(inputs), tuple(answers[name] for name in names)))
        if not found:
            raise ConversionError(
                "no sample has a token and a size that the plan takes",
                expected="samples that the model can be asked",
                mend="name others, or widen shapes or tensorrt.profiles",
            )
        return found


def as_built(graph: Artifact, built: Mapping[str, Any], dtypes: Mapping[str, str], out: Path) -> Artifact:
    """The signature and facts of a plan that a repository holds, for a reference that is computed again; no plan.

    Args:
        graph: the ONNX file that such a plan is built from.
        built: the engine's facts of the repository.
        dtypes: the public tensors' of the repository, which tell integers that the plan made narrower.
        out: the file to write where an output is a string; in a folder that exists.
    """
    graph, tables = string_tables.split(graph, out)

    def typed(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        named = {t.name: dtypes.get(t.name, "") for t in specs}
        return tuple(replace(t, dtype=named[t.name]) if {t.dtype, named[t.name]} <= _INTEGERS else t for t in specs)

    facts = {**built, **({string_lookup.FACT: tables} if tables else {})}
    return replace(graph, format="tensorrt_plan", inputs=typed(graph.inputs), outputs=typed(graph.outputs), facts=facts)


def corners(graph: Artifact, profiles: Sequence[Mapping[str, Any]]) -> list[Arrays]:
    """Random inputs of the smallest, usual and largest sizes of every profile, whole batches."""
    return [
        plan_cases.request(graph, profile, kind, seed=number)
        for number, profile in enumerate(profiles)
        for kind in plan_cases.KINDS
    ]


def shape_tensors(model: ModelSpec, graph: Artifact) -> list[str]:
    """Inputs for whose values the spec gives ranges: ``shapes: {size: ...}``, or one by one, ``size[0]``."""
    named = {key.partition("[")[0] for key in model.shapes}
    return [t.name for t in graph.inputs if t.name in named and t.dtype in ("INT32", "INT64")]


def built_with(model: ModelSpec, stored: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a plan depends on beside its spec: the TensorRT and the GPU here, and the plugins' content.

    Args:
        stored: the engine's facts of a repository. A machine without a GPU cannot build another plan: there the ones
            that were built elsewhere count as built with what they were.
    """
    if model.engine != "tensorrt":
        return {}
    found = installation.find()
    gpu = found.gpu if found else None
    version, name = found.version if found else None, f"{gpu.name} {gpu.compute_capability}" if gpu else None
    plan = next(iter((stored or {}).get("parts", {}).values()), stored or {})
    if gpu is None and plan.get("gpu"):
        version, name = plan["tensorrt"], f"{plan['gpu']} {plan['compute_capability']}"
    return {
        "version": version,
        "gpu": name,
        "plugins": [
            [path.name, file_digest(path) if path.is_file() else None] for path in map(Path, model.tensorrt.plugins)
        ],
    }
