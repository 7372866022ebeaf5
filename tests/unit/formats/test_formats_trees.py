"""Files of XGBoost, LightGBM and CatBoost, looked at without them; pickles are not opened."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from repo_builder import formats
from repo_builder.errors import SourceCorruptError, SourceMissingError

_LIGHT = b"tree\nversion=v4\ntree_sizes=10 12\n\nTree=0\nx\nTree=1\ny\n\nend of trees\n"
_FOREST = json.dumps({"learner": {"gradient_booster": {}}, "version": [3, 2, 0]}).encode()


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("m.json", _FOREST, "xgboost"),
        ("m.ubj", b"{L\0\0\0\0\0\0\0\x07learner{}}", "xgboost"),
        ("m.txt", _LIGHT, "lightgbm"),
        ("m.cbm", b"CBM1\4\0\0\0abcd", "catboost"),
    ],
)
def test_each_file_is_told_and_described(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert formats.detect(str(path)) == (kind, path)
    found = formats.get(kind).describe(path)
    assert (found.format, found.files, found.inputs) == (kind, (name,), ())


@pytest.mark.parametrize(
    ("name", "kind", "content", "text"),
    [
        ("m.json", "xgboost", b'{"learner": {}}', "holds no learner with a gradient_booster"),
        ("m.json", "xgboost", _FOREST[:-4], "is not JSON"),
        ("m.ubj", "xgboost", b"{learner", "is truncated"),
        ("m.ubj", "xgboost", b"\x80\x04pickle}", "is no UBJSON of a learner"),
        ("m.txt", "lightgbm", _LIGHT.replace(b"Tree=1", b"")[:-3], "is truncated: 1 of 2 trees are there"),
        ("m.txt", "lightgbm", _LIGHT[:60], "is truncated"),
        ("m.cbm", "catboost", b"CBM1\4\0\0\0ab", "is truncated: 10 of 12 bytes are there"),
        ("m.cbm", "catboost", b"CBM1\4", "does not begin as a model does"),
    ],
)
def test_truncated_and_foreign_files_are_refused(
    tmp_path: Path, name: str, kind: str, content: bytes, text: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceCorruptError, match=text):
        formats.get(kind).describe(path)


@pytest.mark.parametrize("name", ["other.json", "notes.txt"])
def test_other_json_and_text_is_nobodys(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"nodes": []}')
    with pytest.raises(SourceCorruptError, match="no format takes"):
        formats.detect(str(tmp_path / name))


@pytest.mark.parametrize("name", ["m.json", "m.txt"])
def test_files_that_cannot_be_read_match_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("/proc/self/mem")  # a file whose first byte cannot be read, by root either
    with pytest.raises(OSError, match="Input/output error"):
        (tmp_path / name).read_bytes()
    assert not any(formats.get(kind).matches(tmp_path / name) for kind in ("xgboost", "lightgbm", "catboost"))
    with pytest.raises(SourceMissingError, match="cannot be read"):
        formats.detect(str(tmp_path / name))
    with pytest.raises(SourceMissingError, match=r"holds no config\.json"):
        formats.detect(str(tmp_path))


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".joblib", ".skops"])
def test_a_pickle_is_not_opened(tmp_path: Path, suffix: str) -> None:
    class Evil:
        def __reduce__(self) -> object:
            return (Path.touch, (tmp_path / "PWNED",))

    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(SourceCorruptError, match="no format takes") as caught:
        formats.detect(str(path))
    assert "opening a pickle runs the code in it, so it is not opened" in caught.value.mend
    assert not (tmp_path / "PWNED").exists()
