"""One call into another Python: a script in a process of its own, a request as JSON in, an answer as JSON out.

The script is started as ``SCRIPT ... REQUEST.json ANSWER.json``, reads the one file and leaves the other. What it and
its libraries print goes to a log; a crash, a lack of memory or a flood of messages there never reaches this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from repo_builder import toolchain
from repo_builder.errors import RepoBuilderError, ToolchainError

LOG_BYTES = 2 * 1024 * 1024
"""A log keeps this much: its first and its last half."""
_SHOWN_LINES, _SHOWN_COLUMNS = 8, 300
_LINGERING_S = 1.0
# The child dies with the process that asked for it (prctl PR_SET_PDEATHSIG of Linux, kept through exec).
LAUNCHER = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def run(
    command: Sequence[str | Path],
    request: Mapping[str, Any],
    *,
    what: str,
    expected: str,
    mend: str,
    error: type[RepoBuilderError] = ToolchainError,
    environment: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> dict[str, Any]:
    """The answer of a script.

    Args:
        command: the interpreter, its options and the script; the paths of the two files are added.
        request: JSON values.
        what: how messages name the process, ``the TensorRT process (build.py)``.
        expected: of the message when there is no answer; mend: what is said there beside the log's path.
        error: the class of that message.
        environment: all of the child's variables (default: ours).
        timeout_s: seconds after which the child and its own children are ended (default: none).

    Raises:
        error: the process does not start, was killed, failed, ran too long, or left no answer; the log is kept.
        KeyboardInterrupt: Ctrl-C, which ends the child too; it names the log.
    """
    executable = shutil.which(str(command[0]))
    if executable is None:
        raise error(f"{what} does not start: {command[0]} does not run", expected="a Python that runs", mend=mend)
    with tempfile.TemporaryDirectory(prefix="repo-builder-call-") as folder:
        asked, answered = Path(folder) / "request.json", Path(folder) / "answer.json"
        asked.write_text(json.dumps(dict(request)), encoding="utf-8")
        log = new_log(Path(str(command[-1])).stem)
        arguments = [executable, *map(str, command[1:]), str(asked), str(answered)]
        try:
            code = _finished(arguments, log, environment, timeout_s)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{what} was interrupted; its messages are in {log}") from None
        answer, lacking = _answer(answered)
        if code or lacking:
            last = tail(log)
            raise error(
                f"{what} {ended(code, timeout_s) or lacking}" + (f"; its last lines:\n    {last}" if last else ""),
                expected=expected,
                mend=f"read {log}; {mend}",
            )
    log.unlink()
    return answer


def new_log(stem: str) -> Path:
    """An empty log in the cache; its name begins with ``stem``."""
    logs = toolchain.cache_root() / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f"{stem}-", suffix=".log", dir=logs)
    except OSError as error:
        raise ToolchainError(
            f"no log can be written to {logs}: {error.strerror}",
            expected="a writable folder for caches, with room",
            mend="set REPO_BUILDER_CACHE to a folder of your own",
        ) from error
    os.close(handle)
    return Path(name)


def _finished(
    arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None, timeout_s: float | None
) -> int | None:
    """The exit code, negative for a signal; None where the time was over."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=None if environment is None else dict(environment),
        start_new_session=True,
    )
    assert process.stdout is not None
    keeper = threading.Thread(target=keep, args=(process.stdout, log), daemon=True)
    keeper.start()
    try:
        code: int | None = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        code = None
    except BaseException:
        end(process, keeper)
        raise
    keeper.join(_LINGERING_S if code is not None else 0)
    if code is None or keeper.is_alive():  # what the child started holds its output still
        end(process, keeper)
    return code


def end(process: subprocess.Popen[bytes], keeper: threading.Thread) -> None:
    """Kill the child with what it started; ``keeper`` runs :func:`keep`."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    keeper.join(_LINGERING_S)


def keep(output: IO[bytes], log: Path) -> None:
    """The output's first and last halves into the log; the first at once, so that it outlives us."""
    half, written, left_out, last = LOG_BYTES // 2, 0, 0, b""
    with output, open(log, "wb", buffering=0) as out, contextlib.suppress(OSError):
        while piece := os.read(output.fileno(), 65536):
            first, piece = piece[: half - written], piece[half - written :]
            out.write(first)
            written += len(first)
            last += piece
            if len(last) > 2 * half:
                left_out += len(last) - half
                last = last[-half:]
        if len(last) > half:
            left_out += len(last) - half
            last = last[-half:]
        out.write((b"\n[... %d bytes left out ...]\n" % left_out if left_out else b"") + last)


def _answer(path: Path) -> tuple[dict[str, Any], str]:
    """The answer, and why there is none."""
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, "ended without an answer"
    except (OSError, ValueError):
        return {}, "left an answer that is not JSON"
    return (answer, "") if isinstance(answer, dict) else ({}, "left an answer that is no JSON object")


def ended(code: int | None, timeout_s: float | None) -> str:
    """In words; empty for exit code 0, and None is a time-out."""
    if code is None:
        return f"did not end within {timeout_s:g} s and was stopped"
    if not code:
        return ""
    number = -code if code < 0 else code - 128  # a shell around the script tells a signal so
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
        if code > 0:
            return f"ended with exit code {code}"
    return f"was killed by {name}{', as a lack of memory does' if number == signal.SIGKILL else ''}"


def tail(log: Path) -> str:
    """The last lines of a log, indented for a message."""
    with open(log, "rb") as handle:
        handle.seek(max(0, log.stat().st_size - 20000))
        lines = handle.read().decode("utf-8", "replace").splitlines()
    return "\n    ".join(line[:_SHOWN_COLUMNS] for line in lines[-_SHOWN_LINES:])
