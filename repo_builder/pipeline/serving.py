"""The staged repository in front of a real server: start it, validate every unit, say who served."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import repo_builder
from repo_builder import client, model_config, proof, releases, render, server, validate
from repo_builder.artifact import file_digest
from repo_builder.errors import RepositoryError, ServerStartError, SourceMissingError, TargetError
from repo_builder.repository import manifest
from repo_builder.repository.layout import Layout
from repo_builder.repository.plan import Unit
from repo_builder.tensorrt import versions

Progress = Callable[[str, str], None]
STAND_INS = ("onnxruntime", "pytorch", "tensorrt", "tensorrtllm")
"""Backends that the embedded server serves by a Python stand-in for the compiled one."""
_OWN_BACKEND = ("torch_aoti",)
"""Platforms whose stand-in is a backend of that name."""
_STAND_IN = "model.py"
"""The ``runtime`` in the config of a model whose backend is Python, as the server reports it; a library's otherwise."""

_STAND_IN_PACKAGE = "a stand-in served for the Python package tensorrt_llm: the tokens are transformers'"
STAGED = ("embedded", "docker")
"""Servers of our own: they serve the staged repository, before it replaces the old one."""


_FAILED_TO_LOAD = re.compile(r"failed to load (?:model )?'([^']+)'")


@dataclass(frozen=True)
class Served:
    """Who answered: how the server was reached, and the versions that served."""

    url: str
    kind: str
    versions: Mapping[str, str]
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By model: fields of its config that the embedded server cannot parse, left out of what was served."""


def prove(
    repository: Path, units: Sequence[Unit], release: releases.Release, where: str, progress: Progress
) -> dict[str, dict[str, Any]]:
    """Serve a repository and validate every unit; reports by unit. Units without a proof are not loaded."""
    without = unproven([unit for unit in units if unit.proof is None], release)
    units = [unit for unit in units if unit.proof is not None]
    if not units:
        return without
    models = [model.name for unit in units for model in unit.models]
    for unit in units:
        progress(unit.name, "serve")
    tell = lambda said: progress(units[0].name, f"serve: {said}")  # noqa: E731
    found = {unit.name: (unit.facts, [model.name for model in unit.models]) for unit in units}
    with serve(repository, release, where, models, tell, _checkpoints(repository, found)) as served:
        return without | {
            unit.name: report(unit.name, unit.proof, served, release, unit.facts, unit_backends(unit), progress)
            for unit in units
            if unit.proof is not None
        }


@contextlib.contextmanager
def serve(
    repository: Path,
    release: releases.Release,
    where: str,
    models: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
    checkpoints: Mapping[str, Path] | None = None,
) -> Iterator[Served]:
    """A server for a repository: ``embedded``, ``docker``, or the address of one that already reads it.

    ``checkpoints``: see ``as_embedded_knows``.
    """
    if where == "embedded":
        with (
            as_embedded_knows(repository, models, checkpoints) as (known, left_out),
            server.start(known, models=models, onnxruntime=runtime(release), progress=progress) as running,
        ):
            yield Served(running.url, "embedded", running.versions, left_out)
    elif where == "docker":
        flavour = check_flavour(repository, release)
        with server.docker.start(repository, release.name, flavour, models=models, progress=progress) as running:
            yield Served(running.url, "docker", running.versions)
    else:
        with client.connect(where) as connection:
            connection.wait_ready(models=models)
            yield Served(where, "url", {"tritonserver": connection.server_metadata().version})


@contextlib.contextmanager
def as_embedded_knows(
    repository: Path, models: Sequence[str] = (), checkpoints: Mapping[str, Path] | None = None
) -> Iterator[tuple[Path, dict[str, list[str]]]]:
    """The repository itself, or one of links to it whose configs lack the fields that the embedded server refuses.

    Of ``_OWN_BACKEND`` platforms they name the stand-in's own backend: this release's core refuses the pair, and takes
    any platform of a backend that it does not know (model_config_utils.cc, ValidateModelConfig).

    Args:
        checkpoints: by model, the Hugging Face folder that its stand-in generates from: ``checkpoint`` in its version
            folders. Default: those that the manifest remembers.
    """
    beside = _remembered(repository) if checkpoints is None else checkpoints
    embedded = releases.embedded()
    found = configs(repository, models)
    unknown = {name: releases.unknown_fields(embedded, config) for name, config in found.items()}
    left_out = {name: fields for name, fields in unknown.items() if fields}
    apart = {name for name, config in found.items() if config.platform in _OWN_BACKEND}
    if not left_out and not apart and not beside:
        yield repository, {}
        return
    with tempfile.TemporaryDirectory(prefix="repo_builder-") as folder:
        for model in (p for p in repository.iterdir() if p.is_dir()):
            copy = Path(folder) / model.name
            copy.mkdir()
            for entry in model.iterdir():
                if model.name in beside and entry.is_dir() and entry.name.isdigit():
                    (copy / entry.name).mkdir()
                    for file in entry.iterdir():
                        (copy / entry.name / file.name).symlink_to(file.resolve())
                    (copy / entry.name / "checkpoint").symlink_to(beside[model.name])
                elif entry.name != "config.pbtxt" or model.name not in {*left_out, *apart}:
                    (copy / entry.name).symlink_to(entry.resolve())
            if model.name in {*left_out, *apart}:
                known = model_config.without(found[model.name], left_out.get(model.name, []))
                if model.name in apart:
                    known.backend = known.platform
                (copy / "config.pbtxt").write_text(render.render_config(known), encoding="utf-8")
        yield Path(folder), left_out


def _remembered(repository: Path) -> dict[str, Path]:
    return _checkpoints(repository, {name: (one.facts, one.models) for name, one in units(repository).items()})


def _checkpoints(repository: Path, found: Mapping[str, tuple[Mapping[str, Any], Sequence[str]]]) -> dict[str, Path]:
    """By model of the backend ``tensorrtllm``: what its stand-in is served from.

    Args:
        found: facts and models by unit.

    Raises:
        SourceMissingError: the folder is gone.
    """
    held: dict[str, Path] = {}
    for name, (facts, models) in found.items():
        folder = Path(str(facts.get("checkpoint") or ""))
        if not facts.get("checkpoint"):
            continue
        if not (folder / "config.json").is_file():
            raise SourceMissingError(
                f"{folder} is gone, from which the stand-in of TensorRT-LLM's engine is served",
                expected="the Hugging Face folder that the repository was built from",
                mend="build it again from where the folder is now, or serve it with TensorRT-LLM",
                stage="serve",
                model=name,
            )
        own = configs(repository, models)
        held |= {model: folder for model, config in own.items() if config.backend == "tensorrtllm"}
    return held


def report(
    name: str,
    stored: proof.Proof,
    served: Served,
    release: releases.Release,
    facts: Mapping[str, Any],
    backends: Mapping[str, str],
    progress: Progress,
) -> dict[str, Any]:
    """Validate one unit against a running server; JSON values."""
    progress(name, "prove")
    with client.connect(served.url) as connection:
        connection.wait_ready(models=[stored.model])
        measured = validate.validate(connection, stored, lambda what: progress(name, f"prove: {what}"))
        metadata = connection.server_metadata()
        stand_ins = {m for m, b in backends.items() if b in STAND_INS and connection.config(m).runtime == _STAND_IN}
    return {
        "model": name,
        "passed": measured.passed,
        "failures": measured.failures(),
        **{k: v for k, v in asdict(measured).items() if k not in ("model", "passed")},
        "server": {
            "name": metadata.name,
            "version": metadata.version,
            "kind": served.kind,
            "versions": dict(served.versions),
        },
        "backends": {m: f"{b} (Python stand-in)" if m in stand_ins else b for m, b in backends.items()},
        "limits": limits(served, release, metadata.version, {backends[m] for m in stand_ins}, backends)
        + ([_STAND_IN_PACKAGE] if served.kind == "embedded" and facts.get("stand_in_package") else [])
        + ([] if served.kind == "docker" else unchecked_plans(release, facts)),
        "target": release.name,
        "repo_builder": repo_builder.__version__,
        **{k: facts[k] for k in ("task", "engine", "source", "instances") if k in facts},
    }


def not_loaded(error: ServerStartError, units: Sequence[Unit]) -> dict[str, ServerStartError]:
    """The error by unit, for every unit with a model that the server's log says it failed to load."""
    names = set(_FAILED_TO_LOAD.findall(error.found))
    return {
        unit.name: ServerStartError(
            error.found, expected=error.expected, mend=error.mend, stage=error.stage, model=unit.name
        )
        for unit in units
        if names & {model.name for model in unit.models}
    }


def limits(
    served: Served, release: releases.Release, version: str, stand_ins: Collection[str], models: Collection[str]
) -> list[str]:
    """What this proof does not show, in words.

    Args:
        version: of the server, as it says it.
        stand_ins: backends that a Python stand-in served.
        models: the Triton models of the unit.
    """
    embedded = releases.embedded()
    said = []
    if version != release.server:
        who = f"Triton {embedded.name} ({version})" if version == embedded.server else f"tritonserver {version}"
        said.append(f"served by {who}, not by the target image {release.name}")
    if stand_ins:
        said.append(f"Python stand-ins served for the compiled backends {', '.join(sorted(stand_ins))}")
    for model in sorted(set(served.left_out) & set(models)):
        fields = ", ".join(served.left_out[model])
        said.append(
            f"{model}: Triton {embedded.name} does not know {fields}; served without, to be proven on the target"
        )
    return said


def unchecked_plans(release: releases.Release, facts: Mapping[str, Any]) -> list[str]:
    """What is not known of a unit's plans: whether the release's TensorRT loads them, in what they compute; in words.

    Args:
        release: the target.
        facts: the unit's, as ``unit.make`` gives them.
    """
    engine = facts.get("engine") or {}
    sides = [side.get("engine") or {} for side in (facts.get("gpus") or {}).values()]
    parts = [part for one in (engine, *sides) for part in (one, *(one.get("parts") or {}).values())]
    built = dict.fromkeys(str(part["tensorrt"]) for part in parts if part.get("tensorrt"))
    untold = dict.fromkeys(str(part["untold"]) for part in parts if part.get("untold"))
    unchecked = filter(None, (versions.unchecked(release.name, version) for version in built))
    absent = ["the engine is not built yet: build_engine.sh builds it where TensorRT-LLM is"]
    return [*unchecked, *untold, *(absent if facts.get("built") is False else [])]


def unproven(units: Sequence[Unit], release: releases.Release) -> dict[str, dict[str, Any]]:
    """Reports of a build that was told not to verify."""
    return {
        unit.name: {
            "model": unit.name,
            "passed": None,
            "failures": [],
            "inputs": unit.proof.inputs() if unit.proof else {},
            "limits": [
                "not served: " + ("built with --no-verify" if unit.proof else "nobody can compute the reference"),
                *unchecked_plans(release, unit.facts),
            ],
            "target": release.name,
            "repo_builder": repo_builder.__version__,
            **{k: unit.facts[k] for k in ("task", "engine", "source", "instances") if k in unit.facts},
        }
        for unit in units
    }


def runtime(release: releases.Release) -> str | None:
    """The ONNX Runtime of the target's image, for the stand-in; None where the table has none."""
    return release.images["py3"].onnxruntime if "py3" in release.images else None


def unit_backends(unit: Unit) -> dict[str, str]:
    """Model name -> backend (``ensemble`` for an ensemble)."""
    return {model.name: backend(model.config) for model in unit.models}


def backend(config: Any) -> str:
    return str(releases.backend_of(config) or config.platform)


def configs(repository: Path, models: Sequence[str] = ()) -> dict[str, Any]:
    """The ModelConfigs of ``models`` (default: all), by folder; folders without ``config.pbtxt`` are left out."""
    found = {}
    for path in sorted(repository.glob("*/config.pbtxt")):
        if not models or path.parent.name in models:
            found[path.parent.name] = model_config.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def check_flavour(repository: Path, release: releases.Release) -> str:
    """The one image flavour that serves the whole repository; raises TargetError where there is none.

    A model of another origin whose config does not parse, or names no known platform, does not count.
    """
    needed: dict[str, list[str]] = {}
    for name in sorted(path.parent.name for path in repository.glob("*/config.pbtxt")):
        with contextlib.suppress(RepositoryError, TargetError):
            needed.setdefault(backend(configs(repository, [name])[name]), []).append(name)
    return releases.flavour_for({b: names for b, names in needed.items() if b not in ("ensemble", "")}, release)


def stored_report(layout: Layout, unit: str) -> dict[str, Any]:
    """The report that the build of a unit left; empty where there is none."""
    path = layout.report(unit)
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def proves(report: Mapping[str, Any], where: str) -> bool:
    """Whether a stored report is of a proof that passed, by the kind of server that is asked for.

    A proof by the target's image or by a server of the user's serves for ``embedded`` too, not the other way round.
    """
    kind = where if where in STAGED else "url"
    return report.get("passed") is True and (where == "embedded" or report.get("server", {}).get("kind") == kind)


def units(repository: Path) -> Mapping[str, manifest.UnitRecord]:
    """What builds wrote into a repository; empty for one of another origin."""
    return manifest.load(repository).units


def stored_proofs(repository: Path) -> dict[str, tuple[proof.Proof, manifest.UnitRecord]]:
    """The proofs beside a repository, by unit.

    Raises:
        RepositoryError: there is none.
    """
    layout = Layout.of(repository)
    found = {}
    for name, record in units(repository).items():
        path = layout.proof(name)
        if record.proof and path.is_file() and file_digest(path) != record.proof:
            raise RepositoryError(
                f"{path} is not the proof that the build wrote (its digest differs from the manifest's)",
                expected=f"sha256 {record.proof}",
                mend="copy the folder again from where it was built, or build the model again",
            )
        if record.proof:
            found[name] = (proof.load(path), record)
    if not found:
        raise RepositoryError(
            f"{layout.build} holds no proof",
            expected="the folder that `repo-builder build` left beside the repository",
            mend=f"build the repository with repo-builder, and copy {layout.build.name} along with it",
        )
    return found
