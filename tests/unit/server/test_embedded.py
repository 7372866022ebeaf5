"""The server's environment: who cannot carry it, and which ONNX Runtime goes into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from repo_builder import toolchain
from repo_builder.errors import ToolchainError
from repo_builder.server import embedded

HERE = toolchain.this_interpreter()
ABSENT = "ERROR: Could not find a version that satisfies the requirement onnxruntime==1.27.0 (from versions: {})"


@pytest.mark.parametrize(
    ("python", "words"),
    [
        (replace(HERE, version=(3, 13, 0)), "Python 3.13 .* needs numpy 1, which has no wheels for it"),
        (replace(HERE, version=(3, 11, 2), glibc=(2, 31)), r"glibc 2\.31, too old for the tritonserver"),
        (replace(HERE, version=(3, 11, 2), missing=("venv", "ensurepip")), "lacks the module venv and ensurepip"),
        (replace(HERE, version=(3, 11, 2), libraries=()), r"without libpython3\.11\.so\.1\.0 \(looked in no folder"),
    ],
)
def test_a_python_that_cannot_carry_it_is_told_before_anything_is_made(
    python: toolchain.Interpreter, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ToolchainError, match=words):
        embedded.prepare(frozenset(), interpreter=python)
    assert not (tmp_path / "cache").exists()


def test_our_onnxruntime_serves_where_there_is_no_wheel_of_the_wanted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "environments").mkdir()
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path))
    tried: list[str | None] = []
    said: list[str] = []

    def made(runtime: str | None) -> Path:
        tried.append(runtime)
        if runtime != embedded.ONNXRUNTIME:
            raise ToolchainError(ABSENT.format("1.22.1, 1.23.2"))
        return tmp_path

    for _ in range(2):
        assert embedded._or_default(made, "1.27.0", HERE, said.append) == tmp_path
    assert tried == ["1.27.0", embedded.ONNXRUNTIME, embedded.ONNXRUNTIME]
    assert said == [f"there is no onnxruntime 1.27.0 for Python {HERE.short}; {embedded.ONNXRUNTIME} serves"] * 2


def test_an_index_that_does_not_answer_is_no_missing_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path))

    def made(_runtime: str | None) -> Path:
        raise ToolchainError(ABSENT.format("none"))

    with pytest.raises(ToolchainError, match="from versions: none"):
        embedded._or_default(made, "1.27.0", HERE, None)


def test_a_path_is_one_word_for_a_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's Python backend puts it into a line for bash as it is."""
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path / "cache"))
    plain, odd = tmp_path / "models", tmp_path / "my $(models)"
    assert embedded._sayable(plain) == plain
    link = embedded._sayable(odd)
    assert link == embedded._sayable(odd)
    assert link.readlink() == odd
    odd.mkdir()
    other = embedded._sayable(tmp_path / "another one")
    assert link.exists()
    odd.rmdir()
    embedded._sayable(tmp_path / "another one")
    assert [path.name for path in link.parent.iterdir()] == [other.name], "links to what is gone go too"
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path / "my cache"))
    with pytest.raises(ToolchainError, match="my cache/repositories is no path that a shell takes as one word"):
        embedded._sayable(odd)
