"""ONNX to a TensorRT plan: precision into the graph, a build in a process of its own, a check of what was built."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder import releases, toolchain
from repo_builder.artifact import Artifact
from repo_builder.convert import kept_nodes, older_parser, onnx_precision
from repo_builder.convert.cases import CheckedCase
from repo_builder.errors import ConversionError, SourceMissingError, SpecError, TargetError
from repo_builder.proof import Arrays
from repo_builder.spec import TensorRTOptions
from repo_builder.tensorrt import calls, installation, truth, versions
from repo_builder.tensors import TensorSpec, dtype

Progress = Callable[[str], None]
Profiles = Sequence[Mapping[str, Any]]

NEWEST_OPSET = 22
"""The first with bf16 convolutions; the parser of TensorRT 10.15 ends at 24 (onnx-tensorrt, docs/operators.md)."""
_EARLIER_OPSET = 20
"""Where the parser of TensorRT 10.0 ends; between the two nothing is promised."""
_NEWEST_FROM = (10, 15)
_MEASURED = 4
"""Cases that a plan answers before it counts as built; each opens the plan anew."""


@dataclass(frozen=True)
class Builder:
    """The TensorRT that builds here.

    Attributes:
        installed: where it is, its version and GPU.
        able: what this version can.
    """

    installed: installation.Installation
    able: versions.Abilities

    @property
    def opset(self) -> int:
        """The newest opset of a file for its parser."""
        newest = self.installed.module == "tensorrt_rtx" or versions.numbers(self.installed.version) >= _NEWEST_FROM
        return self.able.max_opset or (NEWEST_OPSET if newest else _EARLIER_OPSET)

    @property
    def timing_cache(self) -> Path:
        """One file per version and kind of GPU: tactics are timed on that GPU."""
        gpu = self.installed.gpu
        where = re.sub(r"\W+", "-", gpu.name).strip("-") if gpu else "no-gpu"
        return toolchain.cache_root() / "timing" / f"{self.installed.module}-{self.installed.version}-{where}.cache"


def builder(release: releases.Release, precision: str, options: TensorRTOptions) -> Builder:
    """The TensorRT of this machine, where the target's server loads what it builds.

    Raises:
        SpecError: inputs and outputs in bf16.
        TensorRTMissingError: there is none that builds and runs plans.
        TensorRTError: it has no such precision, or no plans that are as compatible as was asked.
        SourceMissingError: there is no such plugin library.
        TargetError: the release is known to carry a TensorRT that does not load its plans.
    """
    if precision == "bf16" and not options.keep_io_types:
        raise SpecError(
            "tensorrt.keep_io_types is false and the precision bf16: inputs and outputs would be BF16",
            expected="a dtype that numpy has: the proof, and most clients, can neither send nor read BF16",
            mend="leave keep_io_types out: the plan computes in bf16, with a cast at its edges; or choose fp16",
        )
    found = installation.builder()
    versions.check_precision(found.module, found.version, precision)
    compatible = {name: getattr(options, name) for name in ("version_compatible", "hardware_compatible")}
    versions.check_compatible(found.module, found.version, compatible)
    _check_there(options.plugins)
    carried = release.images["py3"].tensorrt if "py3" in release.images else None
    able = options.version_compatible
    if carried and not versions.loads(found.version, carried, version_compatible=able):
        fitting = versions.releases_for(found.version, version_compatible=able)
        raise TargetError(
            f"Triton {release.name} carries TensorRT {carried}, which does not load plans of {found.called}",
            expected=f"TensorRT {carried} here, or a release that loads plans of {found.version}",
            mend=f"--target {fitting[-1]}" if fitting else "build in the target's own container",
        )
    return Builder(found, versions.abilities(found.module, found.version))


def _check_there(libraries: Sequence[str]) -> None:
    for library in libraries:
        if not Path(library).is_file():
            raise SourceMissingError(
                f"there is no plugin library {library}",
                expected="a file for each of tensorrt.plugins",
                mend="correct the path; a relative one starts at the spec's folder",
            )


def convert(
    source: Artifact,
    out: Path,
    *,
    builder: Builder,
    precision: str,
    options: TensorRTOptions,
    profiles: Profiles,
    cases: Sequence[CheckedCase],
    corners: Sequence[Arrays] = (),
    progress: Progress | None = None,
) -> Artifact:
    """A plan of ``source`` that is what it was asked to be: opened again, inspected, and run on the cases.

    Args:
        source: an Artifact of format ``onnx``, its batch dimension proved.
        out: the plan to write, in a folder that exists; plugin libraries are copied beside it.
        builder: the TensorRT of this machine.
        precision: fp32, tf32, fp16, bf16, int8 or fp8.
        options: the spec's.
        profiles: of ``convert.profiles``, in the form of the worker's request.
        cases: inputs with the source's outputs: int8 and fp8 are calibrated on them, the loss is measured on them.
        corners: inputs of the sizes at the ends of the profiles, on which the plan must run.

    Raises:
        SpecError: keep_fp32 names what computes nothing in floating point.
        ConversionError: the graph is not for TensorRT, the plan is not what was asked, or its answers are not numbers.
        TensorRTMissingError: see :func:`builder`.
    """
    say = progress or (lambda _line: None)
    for side in (source.inputs, source.outputs):
        truth.expect(builder.installed.module, builder.installed.version, side)
    weak = not builder.able.strongly_typed
    graph, loss = onnx_precision.convert(
        older_parser.rewritten(source, out.with_name("parser.onnx")) if weak else source,
        out.with_name("precision.onnx"),
        precision,
        cases=cases,
        keep_fp32=options.keep_fp32,
        keep_io_types=options.keep_io_types,
        max_opset=builder.opset,
        progress=progress,
    )
    libraries = [out.with_name(Path(library).name) for library in options.plugins]
    for library, copy in zip(options.plugins, libraries, strict=True):
        shutil.copyfile(library, copy)
    request = {
        "onnx": str(graph.path),
        "plan": str(out),
        "precision": precision,
        "profiles": list(profiles),
        "workspace_mib": options.workspace,
        "optimization_level": options.optimization_level,
        "timing_cache": str(builder.timing_cache) if options.timing_cache and builder.able.timing_cache else None,
        "version_compatible": options.version_compatible,
        "hardware_compatible": options.hardware_compatible,
        "plugins": [str(library) for library in libraries],
        "keep_fp32": kept_nodes.outputs(graph.path, loss.kept) if weak else {},
    }
    say(f"building the plan with {builder.installed.called}")
    answer = calls.call(builder.installed, "build.py", request, progress)
    if weak and options.keep_fp32 != onnx_precision.MEASURE:
        kept_nodes.check_layers(options.keep_fp32, graph.path, answer["kept"]["missing"])
    _check(request, answer, graph, kept=any(one.why in ("asked", "measured") for one in loss.stays))
    answer["inspection"]["profiles"] = truth.completed(profiles, answer["inspection"]["profiles"])
    made = _artifact(source, graph, out, answer, builder.installed, options)
    say("running the plan")
    measured = _measured(made, cases)
    _touched(made, source, corners)
    provenance = {
        "exporter": f"{builder.installed.called} (after {source.provenance.get('exporter', 'none')})",
        "onnx": dict(source.provenance),
        "precision": precision,
        "precision_loss": loss.facts(),
        "plan_loss": measured,
        "untold": truth.untold(precision, answer),
        **{key: answer[key] for key in ("seconds", "timing_cache", "flags", "warnings")},
    }
    return replace(made, provenance=provenance)


def _check(request: Mapping[str, Any], answer: Mapping[str, Any], graph: Artifact, *, kept: bool) -> None:
    """Refuse a plan that is not what was asked for, or that nobody here can look into."""
    precision = request["precision"]
    expected = [truth.expect(answer["module"], answer["version"], side) for side in (graph.inputs, graph.outputs)]
    if apart := [Path(one["path"]).name for one in answer["plugins"] if one["how"] != "dlopen"]:
        raise ConversionError(
            f"{', '.join(apart)} tells its plugins to TensorRT's own loader of libraries alone",
            expected="a library that registers its plugins when it is opened: Triton's backend only opens it (dlopen)",
            mend="register the creators with REGISTER_TENSORRT_PLUGIN",
        )
    if problems := truth.check(request, answer, *expected, kept=kept):
        raise ConversionError(
            f"the plan is not what was asked ({precision}): " + "; ".join(problems),
            expected=f"a plan of {precision}, with the graph's tensors and the asked profiles",
            mend="look at `layers` in `repo-builder inspect` of the plan; another precision or keep_fp32 may serve",
        )
    if answer["inspection"] is None:
        raise ConversionError(
            f"the plan was built and cannot be opened here: {answer['not_opened']}",
            expected="the GPU and the TensorRT that will serve it, to look at the plan and run it",
            mend="build on that machine",
        )


def _artifact(
    source: Artifact,
    graph: Artifact,
    out: Path,
    answer: Mapping[str, Any],
    installed: installation.Installation,
    options: TensorRTOptions,
) -> Artifact:
    """The plan with its own dtypes, and the names that the graph has for its dynamic axes."""
    told = answer["inspection"]
    named = {t.name: t for t in (*graph.inputs, *graph.outputs)}

    def spec(one: Mapping[str, Any]) -> TensorSpec:
        axes = named[one["name"]].shape
        shape = tuple(n if n >= 0 else a for n, a in zip(one["shape"], axes, strict=True))
        return TensorSpec(one["name"], dtype(one["dtype"]).triton, shape)

    gpu = installed.gpu
    facts: dict[str, Any] = {
        "tensorrt": answer["version"],
        "module": answer["module"],
        "gpu": gpu.name if gpu else None,
        "compute_capability": gpu.compute_capability if gpu else None,
        "bytes": answer["plan_bytes"],
        "profiles": told["profiles"],
        "layers": told["layers"],
        "shape_tensors": [one["name"] for one in told["inputs"] if one["is_shape_tensor"]],
        "strongly_typed": answer["strongly_typed"],
        "version_compatible": options.version_compatible,
        "hardware_compatible": options.hardware_compatible,
        "plugins": [Path(path).name for path in options.plugins],
    }
    inputs, outputs = (tuple(map(spec, told[side])) for side in ("inputs", "outputs"))
    order = [t.name for t in (*graph.inputs, *graph.outputs)]
    inputs, outputs = (tuple(sorted(side, key=lambda t: order.index(t.name))) for side in (inputs, outputs))
    files = (out.name, *facts["plugins"])
    return Artifact(out, "tensorrt_plan", inputs, outputs, source.batch, files, facts)


def _touched(plan: Artifact, source: Artifact, corners: Sequence[Arrays]) -> None:
    """Run the plan at the ends of its profiles.

    Raises:
        TensorRTError: it does not run there.
        ConversionError: an answer holds NaN or infinity where the source's does not.
    """
    from repo_builder.formats import onnx, tensorrt_plan

    for inputs in corners:
        answers = tensorrt_plan.run(plan, {t.name: inputs[t.name].astype(t.numpy) for t in plan.inputs})
        bad = [name for name, array in answers.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
        if bad:
            exact = onnx.run(source, inputs)
            bad = [name for name in bad if np.isfinite(exact[name]).all()]
        if bad:
            sizes = ", ".join(f"{name}{list(array.shape)}" for name, array in inputs.items())
            raise ConversionError(
                f"the plan answers wrongly at output {bad[0]}: NaN or infinity for {sizes}",
                expected="finite numbers, as the source gives them",
                mend="fp16 overflows beyond 65504: bf16, or keep_fp32: measure, keep the layers that do",
            )


def _measured(plan: Artifact, cases: Sequence[CheckedCase]) -> dict[str, Any]:
    """The plan's own loss on some of the cases, by output.

    Raises:
        ConversionError: an answer holds NaN or infinity where the source's does not.
    """
    from repo_builder.compare import Errors, compare
    from repo_builder.formats import tensorrt_plan

    worst: dict[str, Errors] = {}
    names = [t.name for t in plan.outputs]
    for number, case in enumerate(cases[:_MEASURED]):
        answers = tensorrt_plan.run(plan, {t.name: case.inputs[t.name].astype(t.numpy) for t in plan.inputs})
        for name, source in zip(names, case.outputs, strict=True):
            kind = source.dtype if source.dtype.kind == "f" else answers[name].dtype
            errors = compare(answers[name].astype(kind), source.astype(kind), f"case {number}")
            if errors.problem:
                raise ConversionError(
                    f"the plan answers wrongly at output {name}: {errors.problem} ({errors.where})",
                    expected="finite numbers of the source's shape",
                    mend="fp16 overflows beyond 65504: bf16, or keep_fp32: measure, keep the layers that do",
                )
            worst[name] = worst[name].worst(errors) if name in worst else errors
    return {
        name: {"max_abs_error": e.max_abs_error, "max_rel_error": e.max_rel_error, "cosine": e.cosine}
        for name, e in worst.items()
    }
