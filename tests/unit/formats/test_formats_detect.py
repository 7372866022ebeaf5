"""What the user named: found, refused or taken, with the words that mend it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from repo_builder import formats
from repo_builder.errors import PathEscapeError, SourceCorruptError, SourceMissingError, SpecError
from repo_builder.formats import source_file
from tests import models


def test_each_source_is_told_by_its_name(tmp_path: Path) -> None:
    for name in ("m.onnx", "m.pt", "m.pt2", "M.ONNX"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "config.json").write_text("{}")
    expected = {"m.onnx": "onnx", "M.ONNX": "onnx", "m.pt": "torchscript", "m.pt2": "exported_program"}
    expected |= {"hf": "huggingface", "m.py:make": "factory"}
    assert {name: formats.detect(str(tmp_path / name))[0] for name in expected} == expected
    assert formats.detect("dir/m.py:make") == ("factory", Path("dir/m.py:make"))


def test_every_listed_format_offers_the_contract() -> None:
    for name in formats.FORMATS:
        module = formats.get(name)
        assert name == module.NAME
        assert module.TAKES
        assert callable(module.matches)
        assert callable(module.describe)
        assert callable(module.run)


def test_an_unknown_format_suggests_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"no format 'onx' \(did you mean 'onnx'\?\)"):
        formats.get("onx")


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(SourceMissingError) as caught:
        formats.detect(str(tmp_path / "modle.onnx"))
    assert "did you mean 'model.onnx'?" in str(caught.value)
    with pytest.raises(SourceMissingError, match="expected: a folder"):
        formats.detect(str(tmp_path / "nowhere" / "model.onnx"))


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("m.onnx", b"", "is empty (0 bytes)"),
        ("m.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "run `git lfs pull`"),
        ("m.pt", b"\n<!DOCTYPE html><html>", "is a web page (HTML)"),
        ("m.xyz", b"x", "no format takes"),
        ("m.safetensors", b"x", "name the folder that holds it"),
        ("m.py", b"x", "name the factory too: module.py:factory"),
        ("m.pth", b"x", "torch.export.save"),
    ],
)
def test_files_that_are_no_models(tmp_path: Path, name: str, content: bytes, text: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceCorruptError) as caught:
        formats.detect(str(tmp_path / name))
    assert text in str(caught.value)


def test_an_unknown_suffix_lists_what_is_taken(tmp_path: Path) -> None:
    (tmp_path / "m.xyz").write_bytes(b"x")
    with pytest.raises(SourceCorruptError) as caught:
        formats.detect(str(tmp_path / "m.xyz"))
    for name in formats.FORMATS:
        assert formats.get(name).TAKES in caught.value.expected


def test_a_folder_without_config_names_the_models_in_it(tmp_path: Path) -> None:
    models.linear_onnx(tmp_path / "model.onnx")
    with pytest.raises(SourceMissingError) as caught:
        formats.detect(str(tmp_path))
    assert "holds no config.json" in str(caught.value)
    assert f"name the file: {tmp_path / 'model.onnx'}" in str(caught.value)


def test_an_adapter_is_told_from_a_model(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(SourceMissingError, match="merge the adapter into its base model"):
        formats.detect(str(tmp_path))


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "C:\\x", "..\\x", "a\0b"])
def test_paths_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(PathEscapeError, match="lies outside"):
        source_file.inside(tmp_path, name, owner="model.onnx")


def test_a_link_that_leaves_the_folder_is_refused_but_a_hub_snapshot_is_not(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "w").symlink_to(tmp_path / "secret")
    with pytest.raises(PathEscapeError, match="a link to"):
        source_file.inside(tmp_path / "m", "w", owner="model.onnx")
    snapshot = tmp_path / "models--a--b" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    (tmp_path / "models--a--b" / "blobs" / "1234").write_bytes(b"x")
    (snapshot / "w").symlink_to("../../blobs/1234")
    (snapshot / "out").symlink_to(tmp_path / "secret")
    assert source_file.inside(snapshot, "w", owner="config.json") == snapshot / "w"
    with pytest.raises(PathEscapeError):
        source_file.inside(snapshot, "out", owner="config.json")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'{"a": "\xff"}', "is not UTF-8 (byte 7)"),
        (b"[1]", "holds a JSON list"),
        (b'{"a":', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"", "is empty"),
    ],
)
def test_json_that_is_none(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(SourceCorruptError) as caught:
        source_file.read_json(tmp_path / "config.json")
    assert text in str(caught.value)


def _detect_offline(source: str, cache: Path) -> subprocess.CompletedProcess[str]:
    code = f"from repo_builder import formats; print(formats.detect({source!r}))"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_a_hub_id_comes_from_the_cache_or_says_that_the_hub_is_out_of_reach(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    repository = tmp_path / "models--org--tiny"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    for name in ("config.json", "model.safetensors"):
        (snapshot / name).write_text("{}")
    found = _detect_offline("org/tiny", tmp_path)
    assert found.stdout.strip() == f"('huggingface', {snapshot!r})", found.stderr
    lost = _detect_offline("org/other", tmp_path)
    assert lost.returncode != 0
    assert (
        "SourceMissingError: there is no path 'org/other' here, and the Hugging Face hub did not give it" in lost.stderr
    )
    assert "hf download org/other --local-dir FOLDER" in lost.stderr
