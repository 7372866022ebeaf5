"""Models built at once, each in a process of its own: a crash or a lack of memory takes one model, not the build."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repo_builder.errors import ConversionError, RepoBuilderError
from repo_builder.pipeline import unit
from repo_builder.releases import Release, release
from repo_builder.repository.plan import Unit

if TYPE_CHECKING:
    from repo_builder.pipeline import Step

Progress = Callable[[str, str], None]
_queue: Any = None


def make_all(
    steps: Sequence[Step],
    target: Release,
    work: Path,
    jobs: int,
    progress: Progress,
    failed: dict[str, RepoBuilderError],
) -> list[Unit]:
    """The units of all steps that succeed, in the order of ``steps``; errors go into ``failed`` by model."""

    def one(step: Step) -> Unit | None:
        name = step.model.public_name
        folder = work / name
        folder.mkdir(parents=True)
        try:
            if jobs < 2 or len(steps) < 2:
                return unit.make(step.model, step.source, target, folder, progress)
            return _in_process(step, target, folder, progress)
        except RepoBuilderError as error:
            failed[name] = error
            return None

    with ThreadPoolExecutor(max(1, jobs)) as pool:
        return [made for made in pool.map(one, steps) if made is not None]


def _in_process(step: Step, target: Release, folder: Path, progress: Progress) -> Unit:
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    listener = threading.Thread(target=_listen, args=(queue, progress), daemon=True)
    listener.start()
    try:
        with ProcessPoolExecutor(1, mp_context=context, initializer=_start, initargs=(queue,)) as pool:
            return pool.submit(_make, step.model.model_dump_json(), step.source, target.name, folder).result()
    except BrokenProcessPool as error:
        raise ConversionError(
            "the process that built the model ended without a word (out of memory, or a crash in a library)",
            mend="build it alone with --jobs 1 and look at the system's log",
            model=step.model.public_name,
        ) from error
    finally:
        queue.put(None)
        listener.join(5)


def _listen(queue: Any, progress: Progress) -> None:
    while (message := queue.get()) is not None:
        progress(*message)


def _start(queue: Any) -> None:
    global _queue
    _queue = queue


def _make(model: str, source: Any, target: str, folder: Path) -> Unit:
    from repo_builder.spec import ModelSpec

    return unit.make(
        ModelSpec.model_validate_json(model), source, release(target), folder, lambda *said: _queue.put(said)
    )
