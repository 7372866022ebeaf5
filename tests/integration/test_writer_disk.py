"""What the writer says and leaves when the disk, the mount or the permissions refuse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from repository_units import ensemble, listing, plain

from repo_builder import pipeline
from repo_builder.errors import DiskFullError, RepositoryError
from repo_builder.repository import manifest, write

TESTS = Path(__file__).parent.parent


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small tmpfs needs root and mount(8)")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"this machine permits no tmpfs mount: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _build(repository: Path, *units: object) -> None:
    with write.transaction(repository) as t:
        t.stage(units)
        t.commit()


@pytest.mark.torch
def test_full_disk_while_converting_is_no_exporters_fault(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "made.py").write_text(
        "import torch\n\n\ndef big():\n    return torch.nn.Linear(600, 600), (torch.ones(2, 600),), None\n",
        encoding="utf-8",
    )
    result = pipeline.build(f"{tmp_path / 'made.py'}:big", small_disk / "models", verify=False)
    assert isinstance(result.failed["big"], DiskFullError), result.failed["big"]
    assert "the disk is full at" in str(result.failed["big"])
    assert not (small_disk / "models").exists()


def test_full_disk_while_staging(small_disk: Path, tmp_path: Path) -> None:
    repository = small_disk / "models"
    _build(repository, ensemble("mini", b"x" * 300_000, key="1"))
    before, beside = listing(small_disk / "models"), listing(small_disk / "models.build")
    big = tmp_path / "big.onnx"
    big.write_bytes(os.urandom(900_000))
    with pytest.raises(DiskFullError) as caught, write.transaction(repository) as t:
        t.stage([ensemble("mini", big, key="2")])
    text = str(caught.value)
    needed = int(text.split(" bytes of new files")[0].split()[-1].replace(",", ""))
    free = int(text.split(" bytes free")[0].split()[-1].replace(",", ""))
    assert 900_000 < needed < 905_000
    assert 600_000 < free < 900_000, "the staging tree is gone before the free space is told"
    assert "the disk is full" in text
    assert "free some space" in text
    assert caught.value.exit_code == 32
    assert listing(repository) == before
    assert listing(small_disk / "models.build") == beside
    assert manifest.unchanged(repository, "mini", "1")
    _build(repository, ensemble("mini", b"y" * 300_000, key="2"))
    assert manifest.unchanged(repository, "mini", "2")


def test_full_disk_while_committing(small_disk: Path) -> None:
    repository = small_disk / "models"
    _build(repository, plain("a", b"x" * 1000, key="1"))
    before = listing(repository)
    with write.transaction(repository) as t:
        t.stage([plain("a", b"y" * 500_000, key="2")])
        with pytest.raises(DiskFullError, match="the disk is full"):
            t.commit({"a": {"log": "z" * 900_000}})
    assert listing(repository) == before
    assert manifest.unchanged(repository, "a", "1")
    assert not (small_disk / "models.build" / "staging").exists()


def test_disk_that_fills_at_every_size(small_disk: Path) -> None:
    """However little room is left, the old or the new repository is whole and the manifest tells which."""
    repository = small_disk / "models"
    old, new = ensemble("mini", b"o" * 50_000, key="1"), ensemble("mini", b"n" * 50_000, key="2")
    _build(repository, old)
    filler, ended = small_disk / "filler", set()
    for pages in range(0, 40, 3):
        free = shutil.disk_usage(small_disk).free
        filler.write_bytes(b"f" * max(free - pages * 4096, 0))
        try:
            _build(repository, new)
            ended.add("new")
            assert manifest.unchanged(repository, "mini", "2")
        except DiskFullError:
            ended.add("old")
            assert manifest.unchanged(repository, "mini", "1")
        finally:
            filler.unlink()
        assert not (small_disk / "models.build" / "staging").exists()
        _build(repository, old)
    assert ended == {"old", "new"}


def test_read_only_disk(small_disk: Path) -> None:
    _build(small_disk / "models", plain("a", b"x"))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RepositoryError, match=r"the file system is read-only") as caught:
        _build(small_disk / "models", plain("a", b"y"))
    assert "build into a folder that can be written" in str(caught.value)


def test_mount_point_is_refused(small_disk: Path) -> None:
    with pytest.raises(RepositoryError, match="is a mount point") as caught:
        _build(small_disk, plain("a", b"x"))
    assert str(small_disk / "models") in caught.value.mend


def test_bind_mount_is_refused_and_stays_whole(small_disk: Path) -> None:
    repository = small_disk / "models"
    _build(repository, plain("a", b"x", key="1"))
    bound = subprocess.run(["mount", "--bind", str(repository), str(repository)], capture_output=True, text=True)
    if bound.returncode:
        pytest.skip(f"this machine permits no bind mount: {bound.stderr.strip()}")
    try:
        with pytest.raises(RepositoryError, match="mount point"):
            _build(repository, plain("a", b"y", key="2"))
        assert manifest.unchanged(repository, "a", "1")
    finally:
        subprocess.run(["umount", str(repository)], check=True)


def test_sources_and_old_models_on_another_file_system_are_copied(small_disk: Path, tmp_path: Path) -> None:
    source = small_disk / "weights.onnx"
    source.write_bytes(b"w" * 100_000)
    _build(tmp_path / "models", plain("a", source))
    assert (tmp_path / "models/a/1/model.onnx").read_bytes() == b"w" * 100_000


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_folder_without_permission(mode: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become a user without rights")
    script = """
        import os, sys
        from pathlib import Path
        from repo_builder.repository import exchange, plan, write
        from repo_builder.errors import RepositoryError
        os.setuid(65534)
        try:
            with write.transaction(Path(sys.argv[1]) / "models"):
                pass
        except RepositoryError as error:
            print(error)
    """
    with tempfile.TemporaryDirectory() as closed:
        Path(closed).chmod(mode)
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), closed],
            env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
            capture_output=True,
            text=True,
            cwd="/",
        )
    assert done.stdout.startswith(f"{os.path.realpath(closed)}/models.build: no permission (Permission denied)"), done
    assert "take a folder of your own" in done.stdout
