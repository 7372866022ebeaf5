"""Two repositories that were built on different GPUs become one: a plan for each, everything else once.

Pure: nothing is written here. What may differ between GPUs is the plan and, in the configs, the fields of
``merge_checks.PER_GPU``; the rest is equal to the byte, or the merge is refused with what differs. The result does not
depend on the order of the two, and what was merged can be merged again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repo_builder import proof as proofs
from repo_builder import releases
from repo_builder.errors import RepoBuilderError, TargetError, UsageError
from repo_builder.planned import Content, PlannedModel
from repo_builder.proof import Proof, Tolerance
from repo_builder.repository.gpus import ANY, GpuUnit, Side, config_name
from repo_builder.repository.layout import CONFIG
from repo_builder.repository.merge_checks import (
    check_configs,
    check_facts,
    check_files,
    check_sides,
    check_versions,
    differ,
)
from repo_builder.repository.names import check_name
from repo_builder.repository.plan import Unit

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

VARIANTS_SINCE = "24.05"
"""The first release with ``--model-config-name`` (server, docs/user_guide/model_configuration.md of its branch)."""

Units = Mapping[str, GpuUnit]
Report = dict[str, Any]


def merged(one: Units, other: Units, names: Mapping[str, str] | None = None) -> list[tuple[Unit, Report]]:
    """The units of both, each with plans for all GPUs, and their reports.

    Args:
        names: by compute capability, names for the configs of GPUs that need their own, instead of ``sm90``.

    Raises:
        RepositoryError: what the two differ in, apart from plans.
        TargetError: different releases, TensorRT versions that no server loads together, or configs per GPU on a
            release that has none.
    """
    for name in sorted(one.keys() ^ other.keys()):
        raise differ(
            f"{name!r} is only in {(one.get(name) or other[name]).repository}", "the same models on both sides"
        )
    known = {capability for side in (one, other) for unit in side.values() for capability in unit.sides} - {ANY}
    if not known:
        raise differ("neither repository has a TensorRT plan", "plans of two GPUs: other models run on any")
    for capability, name in (names or {}).items():
        if capability not in known:
            raise differ(f"no plan is for compute capability {capability!r}", "one of " + ", ".join(sorted(known)))
        if not name or check_name(name, "config").split() != [name]:
            raise UsageError(
                f"the config name of compute capability {capability} is {name!r}", expected="a word: 9.0=h100"
            )
    made = []
    for name in sorted(one):
        try:
            made.append(_unit(name, one[name], other[name], names or {}))
        except RepoBuilderError as error:
            raise error.at(stage="merge", model=name) from error.__cause__
    return made


def _unit(name: str, one: GpuUnit, other: GpuUnit, names: Mapping[str, str]) -> tuple[Unit, Report]:
    check_facts(one, other)
    check_files(one, other)
    check_sides(one, other)
    sides = _sides(one, other, names)
    check_configs(sides)
    target = str(one.record.facts.get("target", ""))
    check_versions(sides, target)
    lowest = one if next(iter(sides)) in one.sides else other
    proof = _proof(lowest, other if lowest is one else one)
    if list(sides) == [ANY]:
        models = tuple(_model(model, sides, lowest) for model in lowest.record.models)
        return Unit(name, lowest.record.key, models, proof, lowest.record.facts), dict(lowest.report)
    models = tuple(_model(model, sides, lowest) for model in lowest.record.models)
    varied = any(path.startswith("configs/") for model in models for path in model.model_files)
    if varied and target in releases.names() and _before(target):
        raise TargetError(
            f"the configs differ between GPUs, and release {target} takes one config for all",
            expected=f"{VARIANTS_SINCE} or newer, which has --model-config-name",
            mend="build both with the same instances and batch sizes, or for a newer --target",
        )
    gpus = {
        capability: {"key": s.key, "config_name": s.name, "engine": dict(s.engine), "plans": dict(s.digests)}
        for capability, s in sides.items()
    }
    told = {capability: [s.key, s.name, sorted(s.digests.items())] for capability, s in sides.items()}
    key = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    facts = {**lowest.record.facts, "engine": {"format": "tensorrt_plan"}, "gpus": gpus}
    return Unit(name, key, models, proof, facts), _report(name, sides, facts, proof, varied)


def _before(target: str) -> bool:
    return releases.names().index(target) < releases.names().index(VARIANTS_SINCE)


def _sides(one: GpuUnit, other: GpuUnit, names: Mapping[str, str]) -> dict[str, Side]:
    """By compute capability, sorted by number."""
    found = {**other.sides, **one.sides}
    ordered = sorted(found, key=lambda capability: [int(part) for part in capability.split(".") if part])
    sides = {c: replace(found[c], name=names.get(c, found[c].name)) for c in ordered}
    taken: dict[str, str] = {}
    for capability, side in sides.items():
        if taken.setdefault(side.name, capability) != capability:
            raise differ(
                f"{taken[side.name]} and {capability} both have the config name {side.name!r}", "a name for each GPU"
            )
    return sides


def _model(model: str, sides: Mapping[str, Side], unit: GpuUnit) -> PlannedModel:
    """The model with every plan; its own config per GPU where they differ.

    The config without a name is that of the smallest: less batches and profiles are what every GPU is most likely to
    take. It is the same GPU's for all models of the unit, whose batch sizes belong together.
    """
    files: dict[str, Content] = {path: unit.folder / model / path for path in _below(unit, model)}
    version = {path.partition("/")[2]: c for path, c in files.items() if path.startswith("1/")}
    beside = {path: content for path, content in files.items() if not path.startswith("1/")}
    for side in sides.values():
        if model in side.plans:
            version[_plan_file(sides, side)] = side.plans[model]
    configs = {capability: _with_files(model, side.configs[model], sides) for capability, side in sides.items()}
    smallest = min(sides, key=lambda capability: _size(sides[capability]))
    if any(config != configs[smallest] for config in configs.values()):
        from repo_builder.render import render_config

        for capability, config in configs.items():
            beside[f"configs/{sides[capability].name}.pbtxt"] = render_config(config).encode()
    if list(version) == [".keep"]:
        version = {}
    return PlannedModel(configs[smallest], version, beside)


def _below(unit: GpuUnit, model: str) -> list[str]:
    return [
        path.partition("/")[2] for path in unit.files if path.startswith(f"{model}/") and path != f"{model}/{CONFIG}"
    ]


def _size(side: Side) -> tuple[int, int]:
    groups = [group for config in side.configs.values() for group in config.instance_group]
    return sum(c.max_batch_size for c in side.configs.values()), sum(len(group.profile) for group in groups)


def _plan_file(sides: Mapping[str, Side], side: Side) -> str:
    capability = next(c for c, one in sides.items() if one is side)
    return f"model_{config_name(capability)}.plan"


def _with_files(model: str, config: ModelConfig, sides: Mapping[str, Side]) -> ModelConfig:
    """The config with the plan's file for each GPU; one that other GPUs can run is the default for those."""
    copy = type(config)()
    copy.CopyFrom(config)
    for capability, side in sides.items():
        if model in side.plans:
            copy.cc_model_filenames[capability] = _plan_file(sides, side)
            if side.engine.get("hardware_compatible") and not copy.default_model_filename:
                copy.default_model_filename = _plan_file(sides, side)
    return copy


def _proof(one: GpuUnit, other: GpuUnit) -> Proof | None:
    """The proof of the lower compute capability, with the wider tolerances of both: plans of two GPUs round apart.

    Raises:
        RepositoryError: the two were proven with other inputs.
    """
    if one.proof is None or other.proof is None:
        return None if one.proof is other.proof else proofs.load(one.proof or other.proof or Path())
    a, b = proofs.load(one.proof), proofs.load(other.proof)
    if a.inputs() != b.inputs() or [_bytes(c.inputs) for c in a.cases] != [_bytes(c.inputs) for c in b.cases]:
        raise differ(
            f"the proofs of {one.repository} and {other.repository} have other inputs",
            "one set of inputs",
            "build both with the same samples",
        )
    names = sorted({*a.tolerances, *b.tolerances})
    wider = {n: _wider(a.tolerance(n), b.tolerance(n)) for n in names}
    return replace(a, tolerances=wider)


def _bytes(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: (array.shape, array.tolist() if array.dtype == object else array.tobytes())
        for name, array in arrays.items()
    }


def _wider(a: Tolerance, b: Tolerance) -> Tolerance:
    def of(field: str, choose: Any) -> float | None:
        one, other = getattr(a, field), getattr(b, field)
        return None if one is None or other is None else float(choose(one, other))

    return Tolerance(of("max_abs_error", max), of("max_rel_error", max), of("cosine", min))


def _report(
    name: str, sides: Mapping[str, Side], facts: Mapping[str, Any], proof: Proof | None, varied: bool
) -> Report:
    verdicts = {side.report.get("passed") for side in sides.values()}
    limits = [f"merged: each plan was proven where it was built ({', '.join(sides)}), see gpus"]
    if not any(side.engine.get("hardware_compatible") for side in sides.values()):
        limits.append(f"loads on GPUs of compute capability {', '.join(sides)} alone")
    if varied:
        flags = ", ".join(f"{side.name} ({capability})" for capability, side in sides.items())
        limits.append(f"the configs differ between GPUs: start tritonserver with --model-config-name, one of {flags}")
    return {
        "model": name,
        "passed": False if False in verdicts else True if verdicts == {True} else None,
        "failures": [],
        "inputs": proof.inputs() if proof else {},
        "limits": limits,
        "target": facts.get("target"),
        **{k: facts[k] for k in ("task", "engine", "source") if k in facts},
        "gpus": {capability: dict(side.report) for capability, side in sides.items()},
    }
