"""The plan of one model of the spec: limits of the TensorRT here, profiles, cases, and what the target can load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from repo_builder import releases
from repo_builder.artifact import Artifact, file_digest
from repo_builder.convert import onnx_to_tensorrt
from repo_builder.convert.cases import CheckedCase
from repo_builder.convert.profiles import profiles
from repo_builder.errors import ConversionError
from repo_builder.formats import onnx
from repo_builder.spec import AxisRange, ModelSpec
from repo_builder.tasks import calibration, engine_model
from repo_builder.tensorrt import installation

_IR = 10
"""An IR version that every parser here reads; TensorRT looks at the opset alone."""
_USUAL_TOKENS = 128
"""Tokens to optimize for where the spec names none."""


class Plan:
    """How one model becomes a plan.

    Attributes:
        limits: newest opset and IR version of the ONNX file in between.

    Raises:
        TensorRTMissingError, TensorRTError, TargetError: see ``onnx_to_tensorrt.builder``.
    """

    def __init__(self, model: ModelSpec, source: Artifact, release: releases.Release) -> None:
        self._model, self._source = model, source
        self._builder = onnx_to_tensorrt.builder(release, model.precision, model.tensorrt)
        self.limits = (self._builder.able.max_opset or onnx_to_tensorrt.NEWEST_OPSET, _IR)

    def make(self, graph: Artifact, out: Path, progress: Callable[[str], None]) -> Artifact:
        """The plan of ``graph``, an ONNX file whose batch dimension is proved."""
        model = self._model
        made = profiles(
            graph.inputs,
            model.shapes,
            model.tensorrt.profiles,
            engine_model.max_batch_size(model, graph),
            graph.batch,
            self._defaults(),
            shape_tensors(model, graph),
        )
        return onnx_to_tensorrt.convert(
            graph,
            out,
            builder=self._builder,
            precision=model.precision,
            options=model.tensorrt,
            profiles=made,
            cases=self._cases(graph),
            progress=progress,
        )

    def _defaults(self) -> dict[str, AxisRange]:
        if self._source.format != "huggingface":
            return {}
        longest = calibration.longest(self._model, self._source)
        return {"sequence": AxisRange(min=1, opt=min(_USUAL_TOKENS, longest), max=longest)}

    def _cases(self, graph: Artifact) -> list[CheckedCase]:
        names = [t.name for t in graph.outputs]
        found = []
        for inputs in calibration.requests(self._model, self._source, graph):
            answers = onnx.run(graph, inputs)
            found.append(CheckedCase({}, dict(inputs), tuple(answers[name] for name in names)))
        if not found:
            raise ConversionError(
                "no sample has a single token", expected="samples that the model can be asked", mend="name others"
            )
        return found


def shape_tensors(model: ModelSpec, graph: Artifact) -> list[str]:
    """Inputs for whose values the spec gives ranges: ``shapes: {size: ...}``, or one by one, ``size[0]``."""
    named = {key.partition("[")[0] for key in model.shapes}
    return [t.name for t in graph.inputs if t.name in named and t.dtype in ("INT32", "INT64")]


def built_with(model: ModelSpec) -> dict[str, str | None]:
    """What a plan depends on beside its spec: the TensorRT and the GPU here, and the plugins' content."""
    if model.engine != "tensorrt":
        return {}
    found = installation.find()
    gpu = found.gpu if found else None
    return {
        "version": found.version if found else None,
        "gpu": f"{gpu.name} {gpu.compute_capability}" if gpu else None,
        **{Path(path).name: file_digest(Path(path)) for path in model.tensorrt.plugins if Path(path).is_file()},
    }
