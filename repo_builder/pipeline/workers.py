"""Models built at once, each in a process of its own: a crash or a lack of memory takes one model, not the build."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repo_builder.errors import ConversionError, RepoBuilderError, UsageError
from repo_builder.pipeline import unit
from repo_builder.releases import Release, release
from repo_builder.repository.plan import Unit

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from repo_builder.pipeline import Step

Progress = Callable[[str, str], None]


def check_main() -> None:
    """Refuse to build where a process of another build is only importing the user's script.

    Raises:
        UsageError: the script builds when it is imported; it would wait for the lock that its own build holds.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing itself asks
        raise UsageError(
            "a script that builds several models at once was imported by the processes that it started",
            expected="a script that builds only when it is run",
            mend='put the call of build under `if __name__ == "__main__":`, or build with jobs=1',
        )


def make_all(
    steps: Sequence[Step],
    target: Release,
    work: Path,
    jobs: int,
    progress: Progress,
    failed: dict[str, RepoBuilderError],
) -> list[Unit]:
    """The units of all steps that succeed, in the order of ``steps``; errors go into ``failed`` by model.

    Interrupted, it ends at once and takes its processes along.
    """
    running: set[SpawnProcess] = set()
    alone = jobs < 2 or len(steps) < 2

    def one(step: Step) -> Unit | None:
        name = step.model.public_name
        folder = work / name
        folder.mkdir(parents=True)
        try:
            if alone:
                return unit.make(step.model, step.source, target, folder, progress)
            return _in_process(step, target, folder, progress, running)
        except RepoBuilderError as error:
            failed[name] = error
            return None

    if alone:
        return [made for step in steps if (made := one(step)) is not None]
    with ThreadPoolExecutor(jobs) as pool:
        try:
            return [made for made in pool.map(one, steps) if made is not None]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.terminate()
            raise


def _in_process(step: Step, target: Release, folder: Path, progress: Progress, running: set[SpawnProcess]) -> Unit:
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(
        target=_make, args=(writer, step.model.model_dump_json(), step.source, target.name, folder), daemon=True
    )
    with reader:
        process.start()
        running.add(process)
        writer.close()
        try:
            while message := _received(reader):
                kind, *content = message
                if kind == "said":
                    progress(*content)
                elif kind == "made":
                    made: Unit = content[0]
                    return made
                else:
                    raise content[0]
            process.join()
            raise ConversionError(
                "the process that built the model ended without a word (out of memory, or a crash in a library)",
                expected=f"exit code 0, found {process.exitcode}",
                mend="build it alone with --jobs 1 and look at the system's log",
                model=step.model.public_name,
            )
        finally:
            process.terminate()
            process.join()
            running.discard(process)


def _received(reader: Any) -> Any:
    """The next message of a process; None where it has ended, be it amid a message."""
    try:
        return reader.recv()
    except (EOFError, OSError):
        return None


def _make(writer: Any, model: str, source: Any, target: str, folder: Path) -> None:
    from repo_builder.spec import ModelSpec

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        made = unit.make(
            ModelSpec.model_validate_json(model),
            source,
            release(target),
            folder,
            lambda *said: writer.send(("said", *said)),
        )
        writer.send(("made", made))
    except RepoBuilderError as error:
        writer.send(("failed", error))
