"""The only writer of repositories: write beside, then exchange.

A transaction makes the whole new repository in ``R.build/staging``, may serve it for the proof, and then exchanges it
with ``R`` in one step (``exchange.py`` says what a killed build leaves). Before the exchange every new file and every
staged folder is flushed (fsync), after it the folder that holds ``R``: after a power failure too the disk holds the old
or the new repository.

Unchanged models are hard-linked, and no file is ever opened for writing twice, so nothing is written through a link.
A process that has ``R`` itself open (a shell that stands in it, a container that mounts it) keeps seeing the old,
emptied folder: mount the folder above it.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from repo_builder import proof as proofs
from repo_builder.artifact import file_digest
from repo_builder.errors import RepositoryError
from repo_builder.repository import exchange, tree
from repo_builder.repository import manifest as manifests
from repo_builder.repository.disk import explained
from repo_builder.repository.layout import Layout
from repo_builder.repository.lock import locked
from repo_builder.repository.manifest import FileRecord, Manifest, UnitRecord
from repo_builder.repository.plan import Plan, Unit, plan_all

WAIT_S = 300.0
"""Seconds that a second build waits for the first."""


@contextlib.contextmanager
def transaction(repository: Path | str, *, wait_s: float = WAIT_S) -> Iterator[Transaction]:
    """Hold the repository for one change; what was staged and not committed is removed at the end.

    Raises:
        RepositoryError: the place cannot hold a repository, or the manifest beside it cannot be read.
        RepositoryLockedError: another build held it for longer than ``wait_s`` seconds.
    """
    layout = Layout.of(repository)
    _check_not_inside(layout)
    with contextlib.ExitStack() as held:
        with explained(layout):
            held.enter_context(_held(layout, wait_s))
            exchange.recover(layout)
        change = Transaction(layout, manifests.read(layout.manifest))
        try:
            yield change
        finally:
            exchange.recover(layout)


def recover(repository: Path | str, *, wait_s: float = WAIT_S) -> None:
    """Finish or undo what a killed build left. Raises as :func:`transaction`."""
    layout = Layout.of(repository)
    if layout.staging.exists():
        with explained(layout), _held(layout, wait_s):
            exchange.recover(layout)


class Transaction:
    """One change of a repository; made by :func:`transaction`."""

    def __init__(self, layout: Layout, current: Manifest) -> None:
        self.layout = layout
        self.current = current
        self._new: Manifest | None = None
        self._units: tuple[str, ...] = ()
        self._before: dict[str, object] = {}

    def stage(self, units: Sequence[Unit], *, new_version: bool = False, remove: Sequence[str] = ()) -> Path:
        """Write the whole new repository beside the old one and return its folder, ready to be served.

        Staging again starts afresh (without a unit that failed its proof, say).

        Args:
            units: what is written; units of the manifest that are not named stay as they are.
            new_version: append a version to every unit instead of replacing its newest one.
            remove: units whose models go.

        Raises:
            RepositoryError, PathEscapeError, SourceMissingError: as ``plan.plan``.
            DiskFullError: the new files do not fit; nothing stays of them.
        """
        self.discard()
        layout = self.layout
        plans = plan_all(self.current, layout.repository, units, new_version=new_version, remove=remove)
        gone = [name for name in remove if name in self.current.units]
        touched = {m for p in plans for m in p.models} | {m for n in gone for m in self.current.units[n].models}
        with explained(layout, sum(p.new_bytes for p in plans)), _undone(layout):
            self._before = {m: tree.signature(layout.repository / m, caches=False) for m in touched}
            _make_root(layout)
            for name in tree.entries(layout.repository):
                if name not in touched:
                    tree.link_tree(layout.repository / name, layout.staged_repository / name)
            written = {p.unit.name: _write_unit(layout, p) for p in plans}
        untouched = {
            name: unit
            for name, unit in self.current.units.items()
            if name not in gone and any((layout.repository / m).exists() for m in unit.models)
        }
        self._new = Manifest(untouched | written)
        self._units = tuple(written)
        return layout.staged_repository

    def commit(self, reports: Mapping[str, Mapping[str, Any]] | None = None) -> Manifest:
        """Exchange the staged repository with the current one; returns the new manifest.

        Args:
            reports: what was measured, by unit; kept as ``report/<unit>.json``, apart from the manifest.

        Raises:
            RepositoryError: a folder that is replaced was changed since it was staged.
            DiskFullError: the disk is full; the old repository stays.
        """
        if self._new is None:
            raise RuntimeError("commit() before stage()")
        layout, new = self.layout, self._new
        with explained(layout), _undone(layout):
            self._follow_changes(new)
            for kind in ("proof", "report"):
                tree.make_folder(layout.build / kind, layout.build)
            for unit in self._units:
                layout.report(unit).unlink(missing_ok=True)
            for unit, report in (reports or {}).items():
                target = layout.staging / "report" / f"{unit}.json"
                tree.make_folder(target.parent, layout.staging)
                tree.write_file((json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode(), target)
            tree.flush_folders(layout.staging)
            draft = layout.staging / "manifest.draft"
            tree.write_file(new.text().encode(), draft)
            tree.flush(draft)
            draft.rename(layout.staged_manifest)
            tree.flush(layout.staging)
            exchange.swap(layout)
            tree.flush(layout.repository.parent)
            exchange.adopt(layout, new)
            tree.remove(layout.staging)
        self.current, self._new = new, None
        return new

    def discard(self) -> None:
        """Remove what was staged; the repository stays as it is."""
        exchange.recover(self.layout)
        self._new = None

    def _follow_changes(self, new: Manifest) -> None:
        """Take over what others changed in folders that stay, and drop what a server left in the staged ones."""
        now, staged = self.layout.repository, self.layout.staged_repository
        changed = [m for m, before in self._before.items() if tree.signature(now / m, caches=False) != before]
        if changed:
            raise RepositoryError(
                f"{', '.join(sorted(changed))} in {now.name} changed while the build ran",
                expected="one writer at a time",
                mend="build again",
            )
        stay = (set(tree.entries(now)) | set(tree.entries(staged))) - self._before.keys()
        for name in sorted(stay):
            if tree.signature(now / name) != tree.signature(staged / name):
                tree.remove(staged / name)
                if os.path.lexists(now / name):
                    tree.link_tree(now / name, staged / name)
        files = new.files()
        for model in sorted({m for unit in self._units for m in new.units[unit].models}):
            _sweep(staged, model, files)


@contextlib.contextmanager
def _undone(layout: Layout) -> Iterator[None]:
    """Settle the staging tree when a step fails, which also gives its room back."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError, RepositoryError):
            exchange.recover(layout)
        raise


def _sweep(staged: Path, model: str, files: Mapping[str, FileRecord]) -> None:
    """Remove what the writer did not write: a served Python model leaves caches behind."""
    known = {parent for path in files for parent in Path(path).parents} | {Path(path) for path in files}
    for here, folders, names in os.walk(staged / model):
        for name in [*folders, *names]:
            if (Path(here) / name).relative_to(staged) not in known:
                tree.remove(Path(here) / name)
        folders[:] = [name for name in folders if (Path(here) / name).is_dir()]


def _make_root(layout: Layout) -> None:
    layout.staging.mkdir()
    layout.staged_repository.mkdir()
    mode = layout.repository.stat().st_mode & 0o7777 if layout.repository.is_dir() else tree.FOLDER_MODE
    layout.staged_repository.chmod(mode)


def _write_unit(layout: Layout, plan: Plan) -> UnitRecord:
    staged = layout.staged_repository
    for path in plan.keep:
        tree.make_folder((staged / path).parent, staged)
        tree.link_tree(layout.repository / path, staged / path)
    files = dict(plan.keep)
    for path, content in sorted(plan.write.items()):
        target = staged / path
        tree.make_folder(target.parent, staged)
        tree.write_file(content, target)
        tree.flush(target)
        files[path] = FileRecord.of(target)
    unit, digest = plan.unit, None
    if unit.proof is not None:
        target = layout.staging / "proof" / f"{unit.name}.npz"
        tree.make_folder(target.parent, layout.staging)
        proofs.save(unit.proof, target)
        target.chmod(tree.FILE_MODE)
        tree.flush(target)
        digest = file_digest(target)
    models = tuple(sorted(model.name for model in unit.models))
    return UnitRecord(unit.key, models, plan.version, files, digest, dict(unit.facts))


@contextlib.contextmanager
def _held(layout: Layout, wait_s: float) -> Iterator[None]:
    """The lock, in a folder that is made for it and goes with it when the build leaves nothing else there."""
    with contextlib.ExitStack() as held:
        while True:
            try:
                if not layout.build.is_dir():
                    layout.build.mkdir(parents=True, exist_ok=True)
                    layout.build.chmod(tree.FOLDER_MODE)
                held.enter_context(locked(layout.lock, wait_s))
                break
            except FileNotFoundError:  # the build that was waited for left nothing and removed the folder
                if not layout.build.parent.is_dir():
                    raise
        held.callback(_remove_empty, layout)
        yield


def _remove_empty(layout: Layout) -> None:
    if tree.entries(layout.build) == [layout.lock.name]:
        layout.lock.unlink()
        with contextlib.suppress(OSError):
            layout.build.rmdir()


def _check_not_inside(layout: Layout) -> None:
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return
    if layout.repository == here or layout.repository in here.parents:
        raise RepositoryError(
            f"the current folder lies in the repository {layout.repository.name}, which is exchanged as a whole",
            expected="to be called from outside of it",
            mend="change to the folder above it and build again",
        )
