"""Isolated environments: the checks, the making, two makers, a killed maker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from repo_builder import toolchain
from repo_builder.errors import ToolchainError

HERE = toolchain.this_interpreter()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only source, with one tiny wheel in it."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    info = "tiny_thing-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_thing.py", "VALUE = 7\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", f"tiny_thing.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def value(python: Path) -> str:
    program = "import tiny_thing, sys; print(tiny_thing.VALUE, sys.prefix)"
    return subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=True).stdout


def test_makes_an_environment_once(cache: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    steps: list[str] = []
    python = toolchain.ensure("tiny", ["tiny-thing==1.0"], progress=steps.append)
    assert value(python) == f"7 {python.parent.parent}\n"
    assert python.is_relative_to(cache / "environments")
    assert not (tmp_path / "elsewhere").exists()
    assert len(steps) == 2
    assert steps[1] == "installing tiny-thing==1.0"
    assert toolchain.ensure("tiny", ["tiny-thing==1.0"], progress=steps.append) == python
    assert len(steps) == 2


def test_the_name_the_python_and_the_requirements_are_the_key(cache: Path) -> None:
    other = replace(HERE, version=(3, 12, 99))
    made = {
        toolchain.folder("tiny", ["a==1", "b==2"], [], HERE),
        toolchain.folder("other", ["a==1", "b==2"], [], HERE),
        toolchain.folder("tiny", ["a==1"], ["b==2"], HERE),
        toolchain.folder("tiny", ["a==1", "b==3"], [], HERE),
        toolchain.folder("tiny", ["a==1", "b==2"], [], other),
    }
    assert len(made) == 5
    assert toolchain.folder("tiny", ["b==2", "a==1"], [], HERE) in made


def test_two_makers_make_one(cache: Path, index: Path) -> None:
    program = (
        "import sys; from repo_builder import toolchain\n"
        "print(toolchain.ensure('tiny', ['tiny-thing==1.0'], progress=lambda s: print(s, file=sys.stderr)))\n"
    )

    def one(_number: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(one, range(2)))
    assert done[0].stdout == done[1].stdout
    assert value(Path(done[0].stdout.strip())).startswith("7 ")
    assert sum("making the environment" in maker.stderr for maker in done) == 1


def test_what_a_killed_maker_left_is_made_again(cache: Path, index: Path) -> None:
    program = "from repo_builder import toolchain\ntoolchain.ensure('tiny', ['tiny-thing==1.0'])\n"
    maker = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    end = time.monotonic() + 60
    while not list(cache.glob("environments/tiny-*/bin/python")) and time.monotonic() < end:
        time.sleep(0.01)
    os.killpg(maker.pid, signal.SIGKILL)
    maker.wait()
    (partial,) = cache.glob("environments/tiny-*/bin/python")
    assert not (partial.parent.parent / "complete.json").exists()
    steps: list[str] = []
    assert toolchain.ensure("tiny", ["tiny-thing==1.0"], progress=steps.append) == partial
    assert value(partial).startswith("7 ")
    assert steps
    partial.unlink()
    assert value(toolchain.ensure("tiny", ["tiny-thing==1.0"])).startswith("7 ")


def test_what_a_killed_maker_started_holds_its_lock_until_it_ends(cache: Path, index: Path) -> None:
    program = "from repo_builder import toolchain\ntoolchain.ensure('tiny', ['tiny-thing==1.0'])\n"
    maker = subprocess.Popen([sys.executable, "-c", program])
    end = time.monotonic() + 60
    while not list(cache.glob("environments/tiny-*/bin/python")) and time.monotonic() < end:
        time.sleep(0.01)
    maker.kill()
    maker.wait()
    steps: list[str] = []
    python = toolchain.ensure("tiny", ["tiny-thing==1.0"], progress=steps.append)
    assert steps[0] == f"waiting for another process that makes {python.parent.parent.name}"
    assert value(python).startswith("7 ")


def test_a_failing_pip_is_quoted(cache: Path, index: Path) -> None:
    with pytest.raises(ToolchainError) as failure:
        toolchain.ensure("tiny", ["no-such-thing==3.1"])
    said = str(failure.value)
    assert "pip could not install no-such-thing==3.1 (exit code 1)" in said
    assert "No matching distribution found for no-such-thing==3.1" in said
    (log,) = cache.glob("environments/tiny-*.log")
    assert f"read {log}" in said
    assert "No matching distribution" in log.read_text(encoding="utf-8")
    assert failure.value.exit_code == 40


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path / "file"))
    with pytest.raises(ToolchainError, match="cannot be written: Not a directory") as failure:
        toolchain.ensure("tiny", [])
    assert "set REPO_BUILDER_CACHE to a folder of your own" in str(failure.value)


def test_no_venv(cache: Path) -> None:
    python = replace(HERE, missing=("ensurepip",))
    with pytest.raises(ToolchainError, match="lacks the module ensurepip") as failure:
        toolchain.ensure("tiny", [], interpreter=python)
    assert f"apt install python{HERE.short}-venv" in str(failure.value)
    assert not cache.exists()


def test_no_libpython(tmp_path: Path) -> None:
    python = replace(HERE, version=(3, 11, 2), libraries=(tmp_path / "a", tmp_path / "b"))
    with pytest.raises(ToolchainError, match=r"comes without libpython3\.11\.so\.1\.0") as failure:
        toolchain.libpython(python)
    assert f"looked in {tmp_path / 'a'}, {tmp_path / 'b'}" in str(failure.value)
    assert "apt install libpython3.11" in str(failure.value)
    assert "--enable-shared" in str(failure.value)


def test_finds_libpython(tmp_path: Path) -> None:
    python = replace(HERE, version=(3, 11, 2), libraries=(tmp_path / "absent", tmp_path))
    (tmp_path / "libpython3.11.so.1.0").touch()
    assert toolchain.libpython(python) == tmp_path / "libpython3.11.so.1.0"


def test_the_folders_of_libpython() -> None:
    assert HERE.libraries[0].is_dir()
    assert HERE.executable.is_file()
    assert HERE.missing == ()
    assert HERE.glibc >= (2, 17)


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 13, 0)])
def test_a_python_outside_the_range(version: tuple[int, int, int]) -> None:
    with pytest.raises(ToolchainError, match=rf"Python 3\.{version[1]} .* cannot carry it: no wheels") as failure:
        toolchain.check_version(replace(HERE, version=version), (3, 10), (3, 12), "no wheels")
    assert "expected: Python 3.10 to 3.12" in str(failure.value)
    assert "python3.12 -m venv" in str(failure.value)


@pytest.mark.parametrize("version", [(3, 10, 0), (3, 12, 99)])
def test_a_python_inside_the_range(version: tuple[int, int, int]) -> None:
    toolchain.check_version(replace(HERE, version=version), (3, 10), (3, 12), "no wheels")


def test_an_old_system() -> None:
    with pytest.raises(ToolchainError, match=r"this system has glibc 2\.31, too old for the server"):
        toolchain.check_glibc(replace(HERE, glibc=(2, 31)), (2, 35), "the server")
    with pytest.raises(ToolchainError, match="this system has no glibc"):
        toolchain.check_glibc(replace(HERE, glibc=(0, 0)), (2, 35), "the server")
    toolchain.check_glibc(replace(HERE, glibc=(2, 35)), (2, 35), "the server")


def test_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path))
    assert toolchain.cache_root() == tmp_path
    monkeypatch.delenv("REPO_BUILDER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert toolchain.cache_root() == tmp_path / "repo_builder"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert toolchain.cache_root() == tmp_path / ".cache" / "repo_builder"
    for unset in (lambda: monkeypatch.delenv("HOME"), lambda: monkeypatch.setenv("HOME", "")):
        unset()
        assert toolchain.cache_root() == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".cache" / "repo_builder"


def test_takes_the_indexes_of_the_environment_that_runs_us(
    cache: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "pip.conf").write_text("[global]\ntimeout = 77\n", encoding="utf-8")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "ours"))
    python = toolchain.ensure("tiny", ["tiny-thing==1.0"], interpreter=HERE)
    asked = [str(python), "-m", "pip", "config", "list"]
    assert "global.timeout='77'" in subprocess.run(asked, capture_output=True, text=True, check=True).stdout
