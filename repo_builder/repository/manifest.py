"""What a build wrote, so that the next one knows what it owns and whether there is anything to do.

``R.build/manifest.json`` holds digests and names only: no clock, no host, no absolute path. The same units give the
same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repo_builder.artifact import file_digest
from repo_builder.errors import RepoBuilderError, RepositoryError
from repo_builder.repository.layout import Layout
from repo_builder.repository.names import check_name, check_path

SCHEMA = 1


@dataclass(frozen=True)
class FileRecord:
    """sha256 and size in bytes of one file."""

    sha256: str
    size: int

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        return cls(file_digest(path), path.stat().st_size)

    def matches(self, path: Path) -> bool:
        """Whether a regular file of this content is there; the size is compared before anything is read."""
        if path.is_symlink() or not path.is_file() or path.stat().st_size != self.size:
            return False
        return file_digest(path) == self.sha256


@dataclass(frozen=True)
class UnitRecord:
    """What one unit (one model of the spec, as the user named it) put into the repository.

    Attributes:
        key: digest of what the unit was made from, as the caller computed it.
        models: folders of the repository that the unit owns.
        version: the newest version that a build wrote.
        files: every file, by path relative to the repository; ``config.pbtxt`` included.
        proof: sha256 of ``proof/<unit>.npz``, None when the unit has no proof.
        facts: what the caller wants to remember; JSON values.
    """

    key: str
    models: tuple[str, ...]
    version: int
    files: Mapping[str, FileRecord]
    proof: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """All units of a repository, by name."""

    units: Mapping[str, UnitRecord] = field(default_factory=dict)

    def owner(self, model: str) -> str | None:
        """The unit that owns a model folder."""
        return next((name for name, unit in self.units.items() if model in unit.models), None)

    def files(self) -> dict[str, FileRecord]:
        return {path: file for unit in self.units.values() for path, file in unit.files.items()}

    def text(self) -> str:
        """The JSON text, the same for equal manifests."""
        units = {
            name: {
                "key": unit.key,
                "models": sorted(unit.models),
                "version": unit.version,
                "files": {path: {"sha256": r.sha256, "size": r.size} for path, r in unit.files.items()},
                "proof": unit.proof,
                "facts": dict(unit.facts),
            }
            for name, unit in self.units.items()
        }
        return json.dumps({"schema": SCHEMA, "units": units}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def load(repository: Path | str) -> Manifest:
    """The manifest beside a repository; an empty one when there is none.

    Raises:
        RepositoryError: it cannot be read as a manifest, or a newer release wrote it.
    """
    return read(Layout.of(repository).manifest)


def read(path: Path) -> Manifest:
    """The manifest in a file; an empty one when there is no file. Raises as :func:`load`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        schema = data["schema"]
        if schema == SCHEMA:
            return Manifest({check_name(name, "unit"): _unit(value) for name, value in data["units"].items()})
    except FileNotFoundError:
        return Manifest()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RepoBuilderError) as error:
        raise RepositoryError(
            f"{path} is not a manifest ({type(error).__name__}: {error})",
            expected="the file that a build wrote",
            mend="restore it, or remove it: the next build then takes over every model that it would write just so, "
            "and names the others",
        ) from error
    raise RepositoryError(
        f"{path} has schema {schema!r}",
        expected=f"schema {SCHEMA}",
        mend="use the release of repo-builder that wrote it, or a newer one",
    )


def _unit(value: Mapping[str, Any]) -> UnitRecord:
    models = tuple(check_name(str(name)) for name in value["models"])
    files = {str(p): FileRecord(str(r["sha256"]), int(r["size"])) for p, r in value["files"].items()}
    for path in files:
        if check_path(path, "manifest").split("/")[0] not in models:
            raise ValueError(f"{path!r} belongs to none of its models")
    proof = value["proof"]
    facts = dict(value["facts"])
    return UnitRecord(
        str(value["key"]), models, int(value["version"]), files, None if proof is None else str(proof), facts
    )


def unchanged(repository: Path | str, unit: str, key: str) -> bool:
    """Whether a unit was built from the same key and every file that it owns is still as written.

    False as well after a build that was interrupted while it exchanged the trees: ``writer.recover`` settles that.

    Raises:
        RepositoryError: the manifest cannot be read.
    """
    layout = Layout.of(repository)
    record = read(layout.manifest).units.get(unit)
    if record is None or record.key != key or layout.staged_manifest.exists():
        return False
    proof = layout.proof(unit)
    if record.proof is not None and not (proof.is_file() and file_digest(proof) == record.proof):
        return False
    return all(file.matches(layout.repository / path) for path, file in record.files.items())


def holds(repository: Path, new: Manifest, old: Manifest) -> bool:
    """Whether the tree at ``repository`` is the one that ``new`` describes, after one that ``old`` described."""
    files, before = new.files(), old.files()
    if any((repository / path).exists() for path in before.keys() - files.keys()):
        return False
    return all(file.matches(repository / path) for path, file in files.items())
