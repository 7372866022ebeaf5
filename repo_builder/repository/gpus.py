"""A repository as its GPUs see it: for every unit and compute capability the plans, the configs and the report.

Triton's tensorrt backend takes the plan of a GPU from ``cc_model_filenames``, under ``MAJOR.MINOR`` of its compute
capability, else ``default_model_filename``, else ``model.plan`` (backend repository, backend_model_instance.cc). A
config of a GPU's own is ``configs/NAME.pbtxt``, taken by a server that was started with ``--model-config-name=NAME``.

The manifest tells which GPU a plan was built on: ``facts["engine"]["compute_capability"]`` (of a task with several
parts, in each of ``facts["engine"]["parts"]``), or ``facts["gpus"]``, which :mod:`~repo_builder.repository.merge` left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repo_builder import model_config, releases
from repo_builder.artifact import file_digest
from repo_builder.errors import RepositoryError
from repo_builder.repository import manifest, tree
from repo_builder.repository.layout import CONFIG, Layout
from repo_builder.repository.manifest import FileRecord, UnitRecord

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

ANY = ""
"""Stands for the compute capability of a unit without plans."""

PLAN = "model.plan"
_ONE_VERSION = 1


@dataclass(frozen=True)
class Side:
    """One unit as it is for one kind of GPU.

    Attributes:
        key: of the unit that was built there.
        name: of its configs, for ``--model-config-name``.
        engine: what the build knew of the engine.
        configs: by model; without names of plan files.
        plans: by model, the plan's file.
        digests: by model, sha256 of the plan.
        report: what was measured there.
    """

    key: str
    name: str
    engine: Mapping[str, Any]
    configs: Mapping[str, ModelConfig]
    plans: Mapping[str, Path]
    digests: Mapping[str, str]
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class GpuUnit:
    """One unit of a repository.

    Attributes:
        repository: the name of its folder, for messages.
        record: of the manifest.
        sides: by compute capability (``"9.0"``), sorted; one under ``ANY`` where there is no plan.
        files: every file that is the same on all GPUs, by path relative to the repository.
        folder: the repository.
        proof: the stored proof, None where there is none.
        report: the stored report.
    """

    repository: str
    record: UnitRecord
    sides: Mapping[str, Side]
    files: Mapping[str, FileRecord]
    folder: Path
    proof: Path | None
    report: Mapping[str, Any]


def config_name(capability: str) -> str:
    """``sm90`` of ``9.0``."""
    return "sm" + capability.replace(".", "")


def read(repository: Path) -> dict[str, GpuUnit]:
    """All units, by name; every file is compared with its digest.

    Raises:
        RepositoryError: no build wrote it, or it holds something else, or something changed, or more than one version.
    """
    layout = Layout.of(repository)
    records = manifest.load(repository).units
    if not records:
        raise RepositoryError(
            f"{layout.build.name} beside {repository} holds no manifest",
            expected="two repositories that `repo-builder build` wrote, with the folders NAME.build beside them",
            mend="copy that folder along with the repository, or build again",
        )
    owned = {model for record in records.values() for model in record.models}
    folders = [path.name for path in layout.repository.iterdir() if path.is_dir() and not path.name.startswith(".")]
    _refuse(repository, sorted(set(folders) - owned), "models that no build wrote")
    return {name: _unit(layout, name, record) for name, record in sorted(records.items())}


def _refuse(repository: Path, found: list[str], what: str) -> None:
    if found:
        raise RepositoryError(
            f"{repository.name} holds {what}: {', '.join(found[:10])}",
            expected="a repository as `repo-builder build` wrote it",
            mend="move them away, or build again",
        )


def _unit(layout: Layout, name: str, record: UnitRecord) -> GpuUnit:
    root = layout.repository
    changed = [path for path, file in record.files.items() if not file.matches(root / path)]
    _refuse(root, changed, "files that changed since they were built")
    there = {f"{model}/{file}" for model in record.models for file in tree.files(root / model)}
    _refuse(root, sorted(there - record.files.keys()), "files that no build wrote")
    versions = {path.split("/")[1] for path in record.files if path.count("/") > 1 and path.split("/")[1].isdecimal()}
    if versions != {str(_ONE_VERSION)}:
        raise RepositoryError(
            f"{name!r} in {root.name} has the versions {', '.join(sorted(versions, key=int))}",
            expected=f"version {_ONE_VERSION} alone",
            mend="build it into an empty folder, without --new-version, and merge that",
            model=name,
        )
    configs = {model: _config(root, f"{model}/{CONFIG}") for model in record.models}
    plan_models = [model for model, config in configs.items() if releases.backend_of(config) == "tensorrt"]
    report = _report(layout.report(name))
    told = _told(name, record, report) if plan_models else {ANY: {"key": record.key}}
    sides = {capability: _side(root, record, capability, told, plan_models, report) for capability in sorted(told)}
    own = {str(plan.relative_to(root)) for side in sides.values() for plan in side.plans.values()}
    own |= {f"{model}/{CONFIG}" for model in record.models}
    own |= {_variant(model, side.name) for model in record.models for side in sides.values() if "gpus" in record.facts}
    shared = {path: file for path, file in record.files.items() if path not in own}
    proof = layout.proof(name) if record.proof is not None else None
    if proof is not None and not (proof.is_file() and file_digest(proof) == record.proof):
        raise RepositoryError(
            f"{proof.name} beside {root.name} is not the proof that the build wrote",
            expected=f"sha256 {record.proof}",
            mend="copy the folder again from where it was built, or build the model again",
            model=name,
        )
    return GpuUnit(root.name, record, sides, shared, root, proof, report)


def _told(name: str, record: UnitRecord, report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What the manifest says of each GPU that the unit has plans for."""
    if "gpus" in record.facts:
        return {str(capability): dict(told) for capability, told in record.facts["gpus"].items()}
    engine = record.facts.get("engine") or {}
    found = {str(c) for source in (engine, report.get("engine") or {}) for c in _capabilities(source)}
    if len(found) != 1:
        raise RepositoryError(
            f"the manifest tells of no GPU that the plan of {name!r} was built on"
            if not found
            else f"the plans of {name!r} were built on GPUs of the compute capabilities {', '.join(sorted(found))}",
            expected="plans of one compute capability, as the build notes it",
            mend="build the model again on the GPU that runs it",
            model=name,
        )
    return {found.pop(): {"key": record.key, "engine": engine}}


def _capabilities(engine: Mapping[str, Any]) -> list[Any]:
    parts = [engine, *(engine.get("parts") or {}).values()]
    return [part["compute_capability"] for part in parts if part.get("compute_capability")]


def _side(
    root: Path,
    record: UnitRecord,
    capability: str,
    told: Mapping[str, Mapping[str, Any]],
    plan_models: list[str],
    report: Mapping[str, Any],
) -> Side:
    known = told[capability]
    name = str(known.get("config_name") or (config_name(capability) if capability else ""))
    configs, plans = {}, {}
    for model in record.models:
        variant = _variant(model, name)
        config = _config(root, variant if "gpus" in record.facts and variant in record.files else f"{model}/{CONFIG}")
        if model in plan_models:
            file = config.cc_model_filenames.get(capability) or config.default_model_filename or PLAN
            plans[model] = root / model / str(_ONE_VERSION) / file
            if str(plans[model].relative_to(root)) not in record.files:
                raise RepositoryError(
                    f"the config of {model!r} names the plan {file!r}, which is not there",
                    expected=f"a plan for compute capability {capability}",
                    mend="build the model again",
                    model=model,
                )
            config.ClearField("cc_model_filenames")
            config.ClearField("default_model_filename")
        configs[model] = config
    digests = {model: record.files[str(path.relative_to(root))].sha256 for model, path in plans.items()}
    own = report.get("gpus", {}).get(capability, {}) if "gpus" in record.facts else report
    return Side(str(known["key"]), name, dict(known.get("engine") or {}), configs, plans, digests, own)


def _variant(model: str, name: str) -> str:
    return f"{model}/configs/{name}.pbtxt"


def _config(root: Path, path: str) -> ModelConfig:
    return model_config.parse((root / path).read_text(encoding="utf-8"), path)


def _report(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
