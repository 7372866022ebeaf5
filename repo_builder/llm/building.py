"""Building an engine where TensorRT-LLM is installed: each step a process of its own, its messages in a log."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from repo_builder import child
from repo_builder.errors import ConversionError, MissingDependencyError, RepoBuilderError, TargetError
from repo_builder.formats import tensorrt_llm_engine
from repo_builder.llm import settings
from repo_builder.llm.build_commands import BUILD, CHECKPOINT, ENGINE, EXAMPLES, MODEL, PYTHON, Recipe, Step

EXAMPLES_VARIABLE = "TENSORRT_LLM_EXAMPLES"
"""Names the ``examples`` folder of TensorRT-LLM's sources, where it is not the one of Triton's containers."""
CONTAINER_EXAMPLES = "/app/examples"
_VERSION = "import importlib.metadata as m; print(m.version('tensorrt_llm'))"
_VERSION_S, _TELLS_S = 60.0, 15.0


@dataclass(frozen=True)
class Installation:
    """TensorRT-LLM on this machine: paths of the programs, its version, the folder of its examples."""

    python: str
    build: str
    version: str
    examples: Path


def installed() -> bool:
    """Whether ``trtllm-build`` is on the PATH."""
    return shutil.which(BUILD) is not None


def installation(version: str) -> Installation:
    """What is installed, which must be ``version``.

    Raises:
        MissingDependencyError: no Python here has tensorrt_llm, or its examples are not where they should be.
        TargetError: it is another version.
    """
    build = shutil.which(BUILD)
    found = next(((python, has) for python in _pythons(build) if (has := _version(python))), None) if build else None
    if build is None or found is None:
        raise MissingDependencyError(
            f"TensorRT-LLM is not installed: no {f'Python beside {build} has tensorrt_llm' if build else BUILD}",
            expected=f"tensorrt_llm {version}, with {BUILD} on the PATH",
            mend="run this in the container that build_engine.sh names",
        )
    python, has = found
    if not settings.same_version(has, version):
        raise TargetError(
            f"TensorRT-LLM {has} is installed here, and the target has {version}",
            expected=f"{version}: an engine loads only in the version that built it",
            mend="build in the target's container, or choose the --target that has the version installed here",
        )
    examples = Path(os.environ.get(EXAMPLES_VARIABLE) or CONTAINER_EXAMPLES)
    if not (examples / "models").is_dir():
        raise MissingDependencyError(
            f"there are no examples of TensorRT-LLM in {examples}",
            expected="the folder examples of its sources, which has the conversion scripts",
            mend=f"set {EXAMPLES_VARIABLE} to that folder of version {version}",
        )
    return Installation(python, build, has, examples)


def build(recipe: Recipe, work: Path, folder: Path, version: str, progress: Callable[[str], None]) -> Path:
    """Run the steps; the engine's folder, which stands there only when it is whole.

    Args:
        recipe: from :func:`~repo_builder.llm.build_commands.recipe`.
        work: a folder for what is made; ``engine`` in it is the result.
        folder: the Hugging Face folder.
        version: of TensorRT-LLM, which must be installed.
        progress: told of every step, of its last message now and then, and of its log.

    Raises:
        MissingDependencyError, TargetError: see :func:`installation`.
        ConversionError: a step failed or was killed, or left no whole engine; the log is kept and named.
    """
    tools = installation(version)
    made, checkpoint, done = work / "engine.part", work / "checkpoint", work / "engine"
    places = {
        MODEL: str(folder.resolve()),
        CHECKPOINT: str(checkpoint),
        ENGINE: str(made),
        EXAMPLES: str(tools.examples),
    }
    for place in (made, checkpoint, done):
        shutil.rmtree(place, ignore_errors=True)
    try:
        for number, step in enumerate(recipe.steps, 1):
            argv = list(step.filled(places))
            argv[0] = {PYTHON: tools.python, BUILD: tools.build}.get(argv[0], argv[0])
            progress(f"{step.name} ({number} of {len(recipe.steps)})")
            log = _run(step, argv, progress)
        try:
            tensorrt_llm_engine.describe(made)
        except RepoBuilderError as error:
            raise ConversionError(
                f"{recipe.steps[-1].name} ended well, but left no whole engine: {error.found}",
                expected=error.expected or "config.json and an engine for every rank",
                mend=f"read {log}",
            ) from error
        made.replace(done)
    finally:
        shutil.rmtree(checkpoint, ignore_errors=True)
        shutil.rmtree(made, ignore_errors=True)
    return done


def _run(step: Step, argv: list[str], progress: Callable[[str], None]) -> Path:
    """The log of a step that ended well."""
    log = child.new_log(step.name)
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", child.LAUNCHER, str(os.getpid()), *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    keeper = threading.Thread(target=child.keep, args=(process.stdout, log), daemon=True)
    keeper.start()
    started = time.monotonic()
    try:
        while True:
            try:
                code = process.wait(_TELLS_S)
                break
            except subprocess.TimeoutExpired:
                said = child.tail(log).rpartition("\n")[2].strip()
                progress(f"{step.name}, {time.monotonic() - started:.0f} s: {said}")
    except KeyboardInterrupt:
        child.end(process, keeper)
        raise KeyboardInterrupt(f"{step.name} was interrupted; its messages are in {log}") from None
    except BaseException:
        child.end(process, keeper)
        raise
    keeper.join(1.0)
    if keeper.is_alive():
        child.end(process, keeper)
    if code:
        last = child.tail(log)
        raise ConversionError(
            f"{step.name} {child.ended(code, None)}" + (f"; its last lines:\n    {last}" if last else ""),
            expected="every step to end well",
            mend=f"read {log}",
        )
    progress(f"{step.name} took {time.monotonic() - started:.0f} s; its messages are in {log}")
    return log


def _pythons(build: str) -> list[str]:
    """Where tensorrt_llm may be: the Python beside trtllm-build, then that of the PATH, then this one."""
    beside = [str(Path(build).resolve().parent / PYTHON), str(Path(build).parent / PYTHON)]
    candidates = [*beside, shutil.which(PYTHON) or "", sys.executable]
    return list(dict.fromkeys(python for python in candidates if python and shutil.which(python)))


def _version(python: str) -> str:
    """Of tensorrt_llm in that Python, told without importing it; empty where it has none."""
    try:
        asked = subprocess.run(
            [python, "-c", _VERSION], capture_output=True, text=True, timeout=_VERSION_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip() if asked.returncode == 0 else ""
