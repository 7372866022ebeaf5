"""Isolated Python environments, made on first use and kept in a cache."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import pwd
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from repo_builder.errors import ToolchainError

Progress = Callable[[str], None]

_MARKER = "complete.json"
_LOG_LINES = 12


@dataclass(frozen=True)
class Interpreter:
    """What an environment needs to know of the Python that it is made with.

    Attributes:
        executable: the base interpreter, never a virtual environment's.
        version: major, minor and micro.
        prefix: the base installation.
        libraries: folders in which its ``libpythonX.Y.so`` may lie, the likeliest first.
        missing: modules that a virtual environment needs and that this installation lacks.
        glibc: major and minor of the C library; (0, 0) where it is not glibc.
    """

    executable: Path
    version: tuple[int, int, int]
    prefix: Path
    libraries: tuple[Path, ...]
    missing: tuple[str, ...]
    glibc: tuple[int, int]

    @property
    def short(self) -> str:
        return f"{self.version[0]}.{self.version[1]}"


def this_interpreter() -> Interpreter:
    """The base interpreter that runs this process."""
    prefix = Path(sys.base_prefix)
    return Interpreter(
        executable=Path(getattr(sys, "_base_executable", None) or sys.executable),
        version=sys.version_info[:3],
        prefix=prefix,
        libraries=_library_folders(prefix),
        missing=tuple(name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None),
        glibc=_glibc(),
    )


def cache_root() -> Path:
    """``$REPO_BUILDER_CACHE``, else ``$XDG_CACHE_HOME/repo_builder``, else ``~/.cache/repo_builder``."""
    if chosen := os.environ.get("REPO_BUILDER_CACHE"):
        return Path(chosen).absolute()
    if (xdg := os.environ.get("XDG_CACHE_HOME", "")) and Path(xdg).is_absolute():
        return Path(xdg) / "repo_builder"
    home = os.environ.get("HOME")
    if not home:
        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError as error:
            raise ToolchainError(
                f"user {os.getuid()} has no home folder to keep environments in",
                expected="a writable folder for caches",
                mend="set REPO_BUILDER_CACHE to a folder of your own",
            ) from error
    return Path(home) / ".cache" / "repo_builder"


def ensure(
    name: str,
    requirements: Sequence[str],
    *,
    alone: Sequence[str] = (),
    interpreter: Interpreter | None = None,
    progress: Progress | None = None,
) -> Path:
    """The ``python`` of an environment that holds ``requirements``; made when it is not there yet.

    The environment is built where it stays and counts as whole only once its marker is written, under a file lock:
    of two makers one waits for the other, and what a killed maker left is thrown away.

    Args:
        name: a short name, part of the folder's name.
        requirements: pinned requirements, installed with what they depend on.
        alone: pinned requirements that are installed without what they depend on.
        interpreter: the Python to make it with (default: the one that runs us).
        progress: called with one line per step.

    Raises:
        ToolchainError: no venv, no network, no wheel, no room.
    """
    python = interpreter or this_interpreter()
    check_venv(python)
    home = folder(name, requirements, alone, python)
    executable = home / "bin" / "python"
    if _whole(home):
        return executable
    tell = progress or (lambda _line: None)
    with _locked(home.with_name(home.name + ".lock"), tell) as lock:
        if not _whole(home):
            _make(home, python, requirements, alone, lock, tell)
    return executable


def folder(name: str, requirements: Sequence[str], alone: Sequence[str], python: Interpreter) -> Path:
    """Where the environment lies or would lie; its name ends in a digest of all arguments."""
    key = json.dumps([name, python.version, str(python.prefix), sorted(requirements), sorted(alone)])
    return cache_root() / "environments" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def installed() -> tuple[Path, ...]:
    """The folders of all whole environments in the cache, sorted."""
    return tuple(sorted(marker.parent for marker in (cache_root() / "environments").glob(f"*/{_MARKER}")))


def begun() -> tuple[Path, ...]:
    """The folders of all environments in the cache, whole or not, sorted."""
    return tuple(sorted(home for home in (cache_root() / "environments").glob("*") if home.is_dir()))


def remove(home: Path) -> None:
    """Delete an environment of the cache, its marker first; waits for one who makes it just now."""
    with _locked(home.with_name(home.name + ".lock")):
        (home / _MARKER).unlink(missing_ok=True)
        shutil.rmtree(home, ignore_errors=True)
        home.with_name(home.name + ".log").unlink(missing_ok=True)


def check_venv(python: Interpreter) -> None:
    """Refuse a Python that cannot make virtual environments.

    Raises:
        ToolchainError: ``venv`` or ``ensurepip`` is missing.
    """
    if python.missing:
        raise ToolchainError(
            f"Python {python.short} ({python.executable}) lacks the module {' and '.join(python.missing)}",
            expected="a Python that can make virtual environments",
            mend=f"on Debian or Ubuntu: apt install python{python.short}-venv",
        )


def check_version(python: Interpreter, lowest: tuple[int, int], highest: tuple[int, int], why: str) -> None:
    """Refuse a Python outside ``lowest`` to ``highest`` (major, minor); ``why`` says what has no wheels.

    Raises:
        ToolchainError: the version is outside.
    """
    if not lowest <= python.version[:2] <= highest:
        low, high = (".".join(map(str, pair)) for pair in (lowest, highest))
        raise ToolchainError(
            f"Python {python.short} ({python.executable}) cannot carry it: {why}",
            expected=f"Python {low} to {high}",
            mend=f"run repo-builder with one of these, for example python{high} -m venv .venv, and install it there",
        )


def check_glibc(python: Interpreter, lowest: tuple[int, int], what: str) -> None:
    """Refuse a C library older than ``lowest``.

    Raises:
        ToolchainError: older, or not glibc at all.
    """
    if python.glibc < lowest:
        found = "glibc " + ".".join(map(str, python.glibc)) if python.glibc != (0, 0) else "no glibc"
        raise ToolchainError(
            f"this system has {found}, too old for {what}",
            expected="glibc " + ".".join(map(str, lowest)) + " or newer (Ubuntu 22.04, Debian 12)",
            mend="use a newer system or a container, or prove with --server docker or a server's URL",
        )


def libpython(python: Interpreter) -> Path:
    """The shared library of ``python``.

    Raises:
        ToolchainError: this installation has none.
    """
    name = f"libpython{python.short}.so.1.0"
    for folder in python.libraries:
        if (folder / name).is_file():
            return folder / name
    looked = ", ".join(map(str, python.libraries)) or "no folder at all"
    raise ToolchainError(
        f"Python {python.short} ({python.executable}) comes without {name} (looked in {looked})",
        expected="a Python with its shared library",
        mend=f"on Debian or Ubuntu: apt install libpython{python.short}; "
        "a Python of your own: build it with --enable-shared",
    )


def _library_folders(prefix: Path) -> tuple[Path, ...]:
    lib, multiarch = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("MULTIARCH")
    folders = [Path(lib)] if lib else []
    folders += [prefix / "lib", prefix / "lib64"]
    if multiarch:
        folders += [folder / multiarch for folder in list(folders)]
    if prefix == Path("/usr"):
        folders.append(Path("/lib") / (multiarch or ""))
    return tuple(dict.fromkeys(folders))


def _glibc() -> tuple[int, int]:
    name, version = platform.libc_ver()
    parts = version.split(".")
    return (int(parts[0]), int(parts[1])) if name == "glibc" and len(parts) > 1 else (0, 0)


def _whole(home: Path) -> bool:
    return (home / _MARKER).is_file() and (home / "bin" / "python").exists()


def _make(
    home: Path, python: Interpreter, requirements: Sequence[str], alone: Sequence[str], lock: int, progress: Progress
) -> None:
    log = home.with_name(home.name + ".log")
    shutil.rmtree(home, ignore_errors=True)
    log.unlink(missing_ok=True)
    progress(f"making the environment {home.name}")
    _run([python.executable, "-I", "-m", "venv", home], log, lock, f"the environment {home.name} could not be made")
    ours = Path(sys.prefix) / "pip.conf"
    if ours.is_file():  # the indexes of the environment that runs us, PyTorch's CPU wheels say, hold there too
        shutil.copy(ours, home / "pip.conf")
    pip: list[str | Path] = [home / "bin" / "python", "-I", "-m", "pip", "install", "--no-input"]
    pip += ["--disable-pip-version-check", "--only-binary=:all:"]
    for option, wanted in (("--no-deps", alone), ("--upgrade-strategy=only-if-needed", requirements)):
        if wanted:
            progress(f"installing {', '.join(wanted)}")
            _run([*pip, option, *wanted], log, lock, f"pip could not install {', '.join(wanted)}")
    marker = {"python": list(python.version), "requirements": sorted([*requirements, *alone])}
    partial = home / f"{_MARKER}.partial"
    partial.write_text(json.dumps(marker, indent=1), encoding="utf-8")
    partial.replace(home / _MARKER)


def _run(command: Sequence[str | Path], log: Path, lock: int, failed: str) -> None:
    """Run one step; it holds the lock too, so that nobody clears away what it still writes when we are killed."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PIP_TARGET", "PIP_PREFIX", "PIP_USER")}
    try:
        with open(log, "ab") as out:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(lock,),
                check=False,
            )
    except OSError as error:
        raise ToolchainError(f"{failed}: {error}", expected=f"a writable cache under {cache_root()}") from error
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        tail = "\n    ".join(lines[-_LOG_LINES:])
        raise ToolchainError(
            f"{failed} (exit code {done.returncode}); its last lines:\n    {tail}",
            expected="a reachable package index and room on the disk",
            mend=f"read {log}; behind a proxy or a mirror set PIP_INDEX_URL or PIP_PROXY, then run it again",
        )


@contextlib.contextmanager
def _locked(path: Path, progress: Progress | None = None) -> Iterator[int]:
    """Holds the lock; gives its file descriptor."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path, "a", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise ToolchainError(
            f"the cache {path.parent} cannot be written: {error.strerror}",
            expected="a writable folder for environments",
            mend="set REPO_BUILDER_CACHE to a folder of your own",
        ) from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if progress:
                progress(f"waiting for another process that makes {path.stem}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle.fileno()
