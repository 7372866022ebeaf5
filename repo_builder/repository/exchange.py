"""The step that makes a staged repository the current one, and what the next build does after it was killed.

What a killed build leaves in ``R.build/staging``:

1. no ``manifest.json``: nothing has happened to ``R``; staging is removed.
2. a ``manifest.json``: the exchange has begun. If ``R`` holds what that manifest describes, its manifest and proofs are
   taken over; if not, staging is removed and the old repository stays.

Where the kernel or the file system cannot exchange two folders in one step, the old one is renamed to ``staging/old``
and the new one into place; killed between the two, ``R`` is missing until :func:`recover` puts the old one back.
"""

from __future__ import annotations

from repo_builder.repository import manifest as manifests
from repo_builder.repository import tree
from repo_builder.repository.layout import Layout
from repo_builder.repository.manifest import Manifest


def swap(layout: Layout) -> None:
    """Put the staged repository in place; an old one then lies in the staging tree."""
    if not layout.repository.exists():
        layout.staged_repository.rename(layout.repository)
    elif not tree.exchange(layout.staged_repository, layout.repository):
        layout.repository.rename(layout.set_aside)
        layout.staged_repository.rename(layout.repository)


def adopt(layout: Layout, new: Manifest) -> None:
    """Take over proofs, reports and, last, the manifest of a repository that is in place; may be repeated."""
    for kind in ("proof", "report"):
        for name in tree.entries(layout.staging / kind):
            (layout.staging / kind / name).replace(layout.build / kind / name)
    for name in tree.entries(layout.build / "proof"):
        unit = new.units.get(name.removesuffix(".npz"))
        if unit is None or unit.proof is None:
            tree.remove(layout.build / "proof" / name)
    for name in tree.entries(layout.build / "report"):
        if name.removesuffix(".json") not in new.units:
            tree.remove(layout.build / "report" / name)
    layout.staged_manifest.replace(layout.manifest)
    tree.flush(layout.build)


def recover(layout: Layout) -> None:
    """Finish or undo what the staging tree tells of, and remove it.

    Raises:
        RepositoryError: a manifest cannot be read.
    """
    if not layout.staging.exists():
        return
    if not layout.repository.exists() and layout.set_aside.exists():
        layout.set_aside.rename(layout.repository)
    if layout.staged_manifest.exists():
        new = manifests.read(layout.staged_manifest)
        if manifests.holds(layout.repository, new, manifests.read(layout.manifest)):
            adopt(layout, new)
    tree.remove(layout.staging)
