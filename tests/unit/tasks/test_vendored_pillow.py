"""Pillow as it travels: it decodes in a Python that has numpy alone, with the modules of every server's Python."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from repo_builder import toolchain
from repo_builder.errors import MissingDependencyError, ToolchainError
from repo_builder.tasks import vendored_pillow

pytest.importorskip("PIL")
DECODE = """
import io, sys
sys.path.insert(0, sys.argv[1])
from PIL import Image, ImageOps
assert Image.__file__.startswith(sys.argv[1])
Image.init()
for name in "JPEG PNG WEBP GIF BMP TIFF".split():
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, name)
    image = Image.open(io.BytesIO(buffer.getvalue()), formats=[name])
    assert ImageOps.exif_transpose(image).convert("RGB").resize((9, 7), 3).size == (9, 7)
    print(name)
"""


def test_the_files_decode_every_format_alone(tmp_path: Path) -> None:
    library = vendored_pillow.library()
    for name, file in library.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, tmp_path / name)
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", DECODE, tmp_path], capture_output=True, text=True, check=False
    )
    assert ran.stdout.split() == ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"], ran.stderr
    assert library.version == metadata.version("pillow")
    assert len(library.digest) == 64
    own = f"cpython-{sys.version_info[0]}{sys.version_info[1]}"
    for python in ("cpython-310", "cpython-312", own):
        assert sum(f"_imaging.{python}-" in name for name in library.files) == 1
    assert any(name.endswith("licenses/LICENSE") for name in library.files)
    assert not any("freetype" in name or ".." in name for name in library.files)
    assert vendored_pillow.library().digest == library.digest


def test_a_wheel_that_cannot_be_fetched_says_what_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    assert toolchain.cache_root() == tmp_path
    with pytest.raises(ToolchainError, match=r"there is no Pillow .* for Python 3\.1") as found:
        vendored_pillow.library()
    assert "Pillow 12 is the last with wheels for Python 3.10" in str(found.value)
    assert list((tmp_path / "wheels").iterdir()) == []


def test_without_pillow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(vendored_pillow.metadata, "distribution", absent)
    with pytest.raises(MissingDependencyError, match="Pillow, which travels with the repository, is not installed"):
        vendored_pillow.library()


def test_a_python_without_pip_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path))
    monkeypatch.setattr(vendored_pillow.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ToolchainError, match="has no pip, which fetches Pillow") as found:
        vendored_pillow.library()
    assert "python -m ensurepip, or uv pip install pip" in str(found.value)


def test_an_index_that_does_not_answer_ends_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/simple")
        monkeypatch.setattr(vendored_pillow, "_WAIT_S", 0.5)
        with pytest.raises(ToolchainError, match=r"pip had not fetched it after 0\.5 s"):
            vendored_pillow.library()
