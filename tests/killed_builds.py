"""Run one change of a repository again and again, each time killed at another file operation; print what was found.

``python killed_builds.py SCENARIO exchange|rename FOLDER``. Every run is a process of its own (a fork) that sends
itself SIGKILL at its k-th file operation, which an audit hook of the interpreter counts. ``rename`` is a stand-in for a
kernel that cannot exchange two folders.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from repository_units import ensemble, listing, plain

from repo_builder.repository import manifest, tree, write

Change = Callable[[Path], None]
COUNTED = ("open", "os.", "shutil.", "fcntl.", "repo_builder.")


def build(*units: object, new_version: bool = False, remove: tuple[str, ...] = ()) -> Change:
    def change(repository: Path) -> None:
        with write.transaction(repository) as t:
            t.stage(units, new_version=new_version, remove=remove)
            t.commit({unit.name: {"passed": True} for unit in units})

    return change


def foreign(repository: Path) -> None:
    folder = repository / "by_hand" / "1"
    folder.mkdir(parents=True)
    (folder / "model.plan").write_bytes(b"mine")


OLD, NEW = ensemble("mini", b"old weights", key="1"), ensemble("mini", b"new weights", key="2", value=2.0)
OTHER = plain("other", b"other", proven=True)
SCENARIOS: dict[str, tuple[list[Change], Change]] = {
    "first": ([], build(NEW)),
    "beside-foreign": ([foreign], build(NEW)),
    "replace": ([foreign, build(OLD, OTHER)], build(NEW)),
    "new-version": ([build(OLD, OTHER)], build(NEW, new_version=True)),
    "replace-newest": ([build(OLD), build(OLD, new_version=True)], build(NEW)),
    "remove": ([build(OLD, OTHER)], build(remove=("mini",))),
    "facts-only": ([build(OLD)], build(ensemble("mini", b"old weights", key="2"))),
}


def child(change: Change, repository: Path, kill_at: int, report: int = -1) -> int:
    """The wait status of a process that makes the change and kills itself at the given operation."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    seen = 0

    def hook(event: str, _: object) -> None:
        nonlocal seen
        if event.startswith(COUNTED):
            seen += 1
            if seen == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    status = 1
    try:
        sys.addaudithook(hook)
        change(repository)
        if report >= 0:
            os.write(report, str(seen).encode())
        status = 0
    finally:
        if status:
            traceback.print_exc()
        os._exit(status)


def state(repository: Path) -> tuple[dict[str, object], dict[str, object]]:
    """All that a user of the repository can see: the tree, and the manifest and the proofs beside it."""
    beside = listing(repository.parent / f"{repository.name}.build")
    return listing(repository), {k: v for k, v in beside.items() if v != "/" and k != "lock" and "report" not in k}


def main(name: str, how: str, folder: Path) -> None:
    if how == "rename":
        tree.exchange = lambda *_: False
    before, change = SCENARIOS[name]
    for step in (*before, change):
        step(folder / "warm" / "models")  # imports what a change imports, so that every run counts alike
    base, whole, run = (folder / part for part in ("base", "whole", "run"))
    for place in (base, whole):
        place.mkdir()
        for step in before:
            step(place / "models")
    reader, writer = os.pipe()
    status = child(change, whole / "models", 0, writer)
    operations = int(os.read(reader, 32))
    old, new = state(base / "models"), state(whole / "models")
    found = {
        "old": 0,
        "new": 0,
        "missing": 0,
        "operations": operations,
        "start": 0,
        "wrong": [f"whole: {status}"] * (status != 0),
    }
    found["start"] = start = (
        1 if how == "exchange" else operations // 2
    )  # staging is the same; its kills are found with "exchange"
    for kill_at in range(start, operations + 1):
        shutil.copytree(base, run, symlinks=True)
        status = child(change, run / "models", kill_at)
        now = listing(run / "models")
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
            found["wrong"].append(f"{kill_at}: ended with status {status}")
        if now == new[0]:
            found["new"] += 1
        elif now == old[0]:
            found["old"] += 1
        elif how == "rename" and not now:
            found["missing"] += 1
            write.recover(run / "models")
            if listing(run / "models") != old[0]:
                found["wrong"].append(f"{kill_at}: the old repository did not come back")
        else:
            found["wrong"].append(f"{kill_at}: neither old nor new: {sorted(now)}")
        change_again(change, run, kill_at, old, new, found)
        shutil.rmtree(run)
    print(json.dumps(found))


def change_again(
    change: Change,
    run: Path,
    kill_at: int,
    old: tuple[object, ...],
    new: tuple[object, ...],
    found: dict[str, list[str]],
) -> None:
    """The recovery settles on the old or the new state, manifest and proofs included; the next build finishes.

    The recovery is first killed as well, at an operation that moves with the first one.
    """
    repository = run / "models"
    if (run / "models.build/staging/manifest.json").exists() or kill_at % 5 == 0:
        child(write.recover, repository, kill_at % 37 + 1)
    write.recover(repository)
    if state(repository) not in (old, new):
        found["wrong"].append(f"{kill_at}: the manifest or the proofs do not fit the repository")
    if state(repository) != new:
        change(repository)
    if state(repository) != new:
        found["wrong"].append(f"{kill_at}: the next build ended otherwise")
    known = manifest.load(repository).units
    if not all(manifest.unchanged(repository, unit, record.key) for unit, record in known.items()):
        found["wrong"].append(f"{kill_at}: the next build has still something to do")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
