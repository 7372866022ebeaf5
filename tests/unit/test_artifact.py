from __future__ import annotations

import hashlib

import pytest

from repo_builder.artifact import Artifact, file_digest, files_digest, tree_files
from repo_builder.errors import SourceMissingError


def test_file_digest_is_sha256(tmp_path):
    content = b"x" * (3 << 20) + b"y"
    (tmp_path / "f").write_bytes(content)
    assert file_digest(tmp_path / "f") == hashlib.sha256(content).hexdigest()


def test_digest_covers_names_and_content_but_not_the_place(tmp_path):
    for folder, first, second in (("a", b"1", b"2"), ("b", b"1", b"2"), ("c", b"2", b"1"), ("d", b"12", b"")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one").write_bytes(first)
        (tmp_path / folder / "two").write_bytes(second)
    digests = {f: files_digest(tmp_path / f, ["one", "two"]) for f in "abcd"}
    assert digests["a"] == digests["b"] == files_digest(tmp_path / "a", ["two", "one"])
    assert len(set(digests.values())) == 3
    assert files_digest(tmp_path / "a", ["one"]) not in digests.values()


def test_artifact_of_a_file_and_of_a_folder(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"1")
    by_file = Artifact(tmp_path / "m.onnx", "onnx", files=("m.onnx",))
    by_folder = Artifact(tmp_path, "huggingface", files=("m.onnx",))
    assert by_file.folder == by_folder.folder == tmp_path
    assert by_file.digest() == by_folder.digest() == files_digest(tmp_path, ["m.onnx"])


def test_tree_files_sorted_without_caches_and_hidden_folders(tmp_path):
    for name in ("b/c", "a", "b/__pycache__/x.pyc", ".git/config", "b/.hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert tree_files(tmp_path) == ("a", "b/.hidden", "b/c")


def test_tree_files_of_no_folder(tmp_path):
    with pytest.raises(SourceMissingError, match=r"there is no folder .*nope"):
        tree_files(tmp_path / "nope")
