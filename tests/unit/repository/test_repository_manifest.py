from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from repository_units import ensemble, plain

from repo_builder.errors import RepositoryError
from repo_builder.repository import manifest, write


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    with write.transaction(tmp_path / "models") as t:
        t.stage([ensemble("mini", b"weights", key="k"), plain("a", b"x", key="ka")])
        t.commit({"mini": {"passed": True}})
    return tmp_path / "models"


def test_manifest_tells_what_was_written(repository: Path) -> None:
    record = manifest.load(repository).units["mini"]
    assert record.models == ("mini", "mini_model", "mini_tokenizer")
    assert (record.key, record.version, record.facts) == ("k", 1, {"task": "sentence-embedding"})
    assert sorted(record.files) == [
        "mini/1/.keep",
        "mini/config.pbtxt",
        "mini_model/1/model.onnx",
        "mini_model/config.pbtxt",
        "mini_tokenizer/1/lib/t.so",
        "mini_tokenizer/1/model.py",
        "mini_tokenizer/config.pbtxt",
    ]
    assert record.files["mini_model/1/model.onnx"].size == 7
    assert record.proof is not None


def test_text_names_no_place_and_no_time(repository: Path, tmp_path: Path) -> None:
    text = (tmp_path / "models.build" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert "time" not in text
    assert text == manifest.load(repository).text()


def test_no_manifest_is_an_empty_one(tmp_path: Path) -> None:
    assert manifest.load(tmp_path / "nothing").units == {}
    assert not manifest.unchanged(tmp_path / "nothing", "a", "ka")


@pytest.mark.parametrize(
    "path",
    [
        "models/mini/config.pbtxt",
        "models/mini/1/.keep",
        "models/mini_model/1/model.onnx",
        "models.build/proof/mini.npz",
    ],
)
@pytest.mark.parametrize("how", ["edit", "same size", "remove", "link"])
def test_any_touched_file_is_a_change(repository: Path, tmp_path: Path, path: str, how: str) -> None:
    assert manifest.unchanged(repository, "mini", "k")
    file = tmp_path / path
    content = file.read_bytes()
    file.unlink()
    if how == "edit":
        file.write_bytes(content + b"#")
    elif how == "same size":
        file.write_bytes(bytes(len(content)) or b"#")
    elif how == "link":
        file.symlink_to("elsewhere")
    assert not manifest.unchanged(repository, "mini", "k")
    assert manifest.unchanged(repository, "a", "ka"), "another unit is not concerned"


def test_other_key_is_a_change(repository: Path) -> None:
    assert not manifest.unchanged(repository, "mini", "other")
    assert not manifest.unchanged(repository, "nobody", "k")


def test_interrupted_exchange_is_a_change(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "models.build/staging").mkdir()
    (tmp_path / "models.build/staging/manifest.json").write_text(manifest.load(repository).text())
    assert not manifest.unchanged(repository, "mini", "k")
    write.recover(repository)
    assert manifest.unchanged(repository, "mini", "k")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema": 1}',
        '{"schema": 1, "units": {"a": {}}}',
        '{"schema": 1, "units": {"../a": {}}}',
        '{"schema": 1, "units": {"a": {"key": "", "models": ["a"], "version": 1, "files": {"a/../../x": {"sha256": "",'
        ' "size": 1}}, "proof": null, "facts": {}}}}',
        '{"schema": 1, "units": {"a": {"key": "", "models": ["a"], "version": 1, "files": {"b/x": {"sha256": "",'
        ' "size": 1}}, "proof": null, "facts": {}}}}',
        "\xff",
    ],
)
def test_corrupt_manifest(repository: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "models.build/manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RepositoryError, match=r"manifest\.json is not a manifest") as caught:
        manifest.load(repository)
    assert "restore it, or remove it" in str(caught.value)
    with pytest.raises(RepositoryError), write.transaction(repository):
        pass


def test_manifest_of_a_newer_release(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "models.build/manifest.json").write_text('{"schema": 2, "units": []}')
    with pytest.raises(RepositoryError, match="has schema 2") as caught:
        manifest.load(repository)
    assert "or a newer one" in caught.value.mend


def test_unchanged_imports_no_grpc(repository: Path) -> None:
    script = """
import sys
from repo_builder.repository import manifest, write
assert manifest.unchanged(sys.argv[1], "mini", "k")
print(sorted({"tritonclient", "grpc", "google.protobuf", "onnx", "onnxruntime", "jinja2"} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", script, str(repository)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
