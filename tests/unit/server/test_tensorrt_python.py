"""The Python that serves plans, over a named double of the package ``tensorrt`` in a folder of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from repo_builder import toolchain
from repo_builder.errors import TensorRTMissingError
from repo_builder.server import tensorrt_python
from repo_builder.server.tensorrt_python import TensorRTPython
from repo_builder.tensorrt import installation
from repo_builder.tensorrt.installation import Gpu, Installation


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python that has the double, as the builder that this machine has; ``other`` lies where our packages do."""
    site = tmp_path / "site"
    (site / "tensorrt").mkdir(parents=True)
    (site / "tensorrt" / "__init__.py").write_text("import sys\nassert 'repo_builder' not in sys.modules\n")
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nexport PYTHONPATH={site} LD_LIBRARY_PATH=/opt/libs\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    found = Installation(wrapper, "tensorrt", "8.6.1", Gpu("a GPU", "9.0", "1", 1))
    monkeypatch.setattr(installation, "builder", lambda: found)
    return wrapper


def test_the_python_of_the_builder_is_asked(python: Path, tmp_path: Path) -> None:
    found = tensorrt_python.find()
    ours = toolchain.this_interpreter()
    assert found == TensorRTPython(ours, str(tmp_path / "site"), "/opt/libs", "8.6.1")


def test_a_python_that_cannot_is_said(python: Path, tmp_path: Path) -> None:
    (tmp_path / "site" / "tensorrt" / "__init__.py").write_text("raise OSError('libnvinfer.so.8 is missing')\n")
    with pytest.raises(TensorRTMissingError) as caught:
        tensorrt_python.find()
    assert caught.value.found == f"{python} cannot serve plans: OSError: libnvinfer.so.8 is missing"


def test_without_tensorrt_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(installation.VARIABLE, raising=False)
    if installation.find() is not None:
        pytest.skip("this Python has TensorRT")
    with pytest.raises(TensorRTMissingError, match="TensorRT is not installed here"):
        tensorrt_python.find()


def test_two_tensorrts_of_one_python_have_two_environments(python: Path, tmp_path: Path) -> None:
    first = tensorrt_python.find()
    (tmp_path / "site").rename(tmp_path / "second")
    python.write_text(python.read_text().replace(str(tmp_path / "site"), str(tmp_path / "second")))
    second = tensorrt_python.find()
    assert first.interpreter == second.interpreter
    assert first.environment != second.environment
    assert first.environment.startswith("server-tensorrt-")


def test_an_environment_is_shown_the_site_whole(python: Path, tmp_path: Path) -> None:
    folder = tmp_path / "environment" / "lib" / "python3.11" / "site-packages"
    folder.mkdir(parents=True)
    found = tensorrt_python.find()
    found.show_to(tmp_path / "environment")
    [path] = folder.iterdir()
    assert path.name == "repo_builder_tensorrt.pth"
    assert path.read_text() == f"{tmp_path / 'site'}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    before = path.stat().st_ino
    found.show_to(tmp_path / "environment")
    assert path.stat().st_ino == before
    path.write_text("another\n")
    found.show_to(tmp_path / "environment")
    assert (path.read_text(), os.listdir(folder)) == (f"{tmp_path / 'site'}\n", [path.name])  # noqa: PTH208
