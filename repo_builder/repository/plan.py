"""Planning in memory: which files, which bytes, which configs and which version number. Writes nothing.

What a build may replace: files that the manifest says a build wrote, as they were written, and files that already are
what this build would write. Everything else in the way is refused by name, so no work of a user is lost.

Versions: a build replaces the unit's newest version, which is version 1 unless ``new_version`` ever appended one; older
versions stay byte for byte. (Replacing version 1 under a newer 2 would leave the old model served: Triton's default
version policy serves the highest number.) All versions of a model share one ``config.pbtxt``, so a config whose inputs
or outputs differ is refused while an older version stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repo_builder.errors import RepoBuilderError, RepositoryError, SourceMissingError
from repo_builder.planned import Content, PlannedModel
from repo_builder.proof import Proof
from repo_builder.repository.conflicts import check_nothing_lost, check_same_signatures
from repo_builder.repository.layout import CONFIG, KEEP
from repo_builder.repository.manifest import FileRecord, Manifest, UnitRecord
from repo_builder.repository.names import check_case, check_name, check_path
from repo_builder.repository.tree import entries


@dataclass(frozen=True)
class Unit:
    """One model of the spec as the user named it, with every Triton model that serves it.

    Attributes:
        name: the user's name; names the proof and the report.
        key: digest of all that the unit was made from.
        models: the Triton models, each a folder of the repository.
        proof: the stored proof, None where there is none.
        facts: JSON values to remember in the manifest.
    """

    name: str
    key: str
    models: tuple[PlannedModel, ...]
    proof: Proof | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What writing one unit means.

    Attributes:
        unit: what is written.
        version: the number of the version folder that is written.
        models: model folders that are made anew: the unit's own, and those that it owned before.
        keep: files of the current repository that stay, with their digests.
        write: new files, by path relative to the repository.
    """

    unit: Unit
    version: int
    models: tuple[str, ...]
    keep: Mapping[str, FileRecord]
    write: Mapping[str, Content]

    @property
    def new_bytes(self) -> int:
        """Bytes of all new files."""
        return sum(len(c) if isinstance(c, bytes) else c.stat().st_size for c in self.write.values())


def plan(
    current: Manifest,
    repository: Path,
    unit: Unit,
    *,
    new_version: bool = False,
    written: Mapping[str, FileRecord] | None = None,
) -> Plan:
    """Plan one unit against the repository as it is.

    Args:
        current: who owns which models.
        new_version: append a version instead of replacing the newest one.
        written: files as earlier builds wrote them; those of ``current`` by default.

    Raises:
        RepositoryError: a name is not usable or taken, files that no build wrote (or that changed since) are in the
            way, or an older version that stays has other inputs or outputs.
        PathEscapeError: a model name or a file path leaves its folder.
        SourceMissingError: a file to write is not there.
    """
    names = _check_unit(current, unit)
    record = current.units.get(unit.name)
    versions = _versions(repository, record)
    newest = max(versions, default=0)
    version = newest + 1 if new_version else max(newest, 1)
    kept = versions - {version}
    keep = _kept_files(record, kept) if record else {}
    write: dict[str, Content] = {}
    for model in unit.models:
        write |= _files(model, version)
    keep = {path: file for path, file in keep.items() if path not in write}
    touched = tuple(sorted({*names, *(record.models if record else ())}))
    for name in touched:
        check_nothing_lost(repository, name, current.files() if written is None else written, write, keep)
    if kept and record:
        check_same_signatures(repository, unit.name, unit.models, record, kept)
    return Plan(unit, version, touched, keep, write)


def plan_all(
    current: Manifest, repository: Path, units: Sequence[Unit], *, new_version: bool = False, remove: Sequence[str] = ()
) -> tuple[Plan, ...]:
    """Plan several units, and the removal of others, as one change. Raises as :func:`plan`."""
    check_case([unit.name for unit in units], "the spec")
    gone = {name: current.units[name] for name in remove if name in current.units}
    claimed = {n: record for n, record in current.units.items() if n not in gone and n not in {u.name for u in units}}
    names = [model.name for unit in units for model in unit.models]
    plans: list[Plan] = []
    for unit in units:
        own = {unit.name: current.units[unit.name]} if unit.name in current.units.keys() - gone.keys() else {}
        known = Manifest(claimed | own)
        try:
            plans.append(plan(known, repository, unit, new_version=new_version, written=current.files()))
        except RepoBuilderError as error:
            raise error.at(stage="write", model=unit.name) from error.__cause__
        claimed[unit.name] = UnitRecord(unit.key, tuple(m.name for m in unit.models), plans[-1].version, {})
    for record in gone.values():
        for model in record.models:
            if model not in names:
                check_nothing_lost(repository, model, current.files())
    leaving = {m for done in plans for m in done.models} | {m for record in gone.values() for m in record.models}
    check_case(names, "the spec")
    for name in names:
        alike = [other for other in entries(repository) if other.casefold() == name.casefold() and other not in leaving]
        check_case([*alike, name], f"repository {repository.name}")
    return tuple(plans)


def _check_unit(current: Manifest, unit: Unit) -> list[str]:
    check_name(unit.name, "unit")
    names = [check_name(model.name) for model in unit.models]
    if not names or len(set(names)) != len(names):
        raise RepositoryError(f"unit {unit.name!r} has the models {names}", expected="one or more, each name once")
    for name in names:
        owner = current.owner(name)
        if owner not in (None, unit.name):
            raise RepositoryError(
                f"model {name!r} of {unit.name!r} already belongs to {owner!r}",
                expected="a model folder of its own",
                mend=f"give {unit.name!r} another name, or remove {owner!r} first",
            )
    return names


def _files(model: PlannedModel, version: int) -> dict[str, Content]:
    from repo_builder.render import render_config

    files: dict[str, Content] = {CONFIG: render_config(model.config).encode()}
    for path, content in model.model_files.items():
        if check_path(path, model.name) == CONFIG or path.split("/")[0].isdecimal():
            raise RepositoryError(
                f"file {path!r} of model {model.name!r} is the writer's own or lies in a version folder",
                mend="put version files into version_files",
            )
        files[path] = content
    for path, content in (model.version_files or {KEEP: b""}).items():
        files[f"{version}/{check_path(path, model.name)}"] = content
    check_case([*files, *{p for path in files for p in _parents(path)}], f"model {model.name!r}")
    for path, content in files.items():
        if isinstance(content, Path) and not content.is_file():
            raise SourceMissingError(
                f"file {path!r} of model {model.name!r} is to come from {content}, which is no file"
            )
        if set(_parents(path)) & files.keys():
            raise RepositoryError(f"model {model.name!r} has a file and a folder of one name: {path!r}")
    return {f"{model.name}/{path}": content for path, content in files.items()}


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _version_of(path: str) -> int | None:
    part = path.split("/")[1]
    return int(part) if part.isdecimal() and path.count("/") > 1 else None


def _versions(repository: Path, record: UnitRecord | None) -> set[int]:
    """Versions that a build wrote and that are still there; a folder that the user removed is gone."""
    found = set()
    for path in record.files if record else ():
        version = _version_of(path)
        if version is not None and (repository / path.split("/")[0] / str(version)).is_dir():
            found.add(version)
    return found


def _kept_files(record: UnitRecord, kept: set[int]) -> dict[str, FileRecord]:
    """Files of the older versions, and what these share (labels) besides the config, which is written anew."""
    if not kept:
        return {}
    return {
        path: file
        for path, file in record.files.items()
        if (version := _version_of(path)) in kept or (version is None and path.split("/", 1)[1] != CONFIG)
    }
