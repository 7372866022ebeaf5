"""Files of XGBoost, LightGBM and CatBoost, looked at without them; pickles are not opened."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from repo_builder import formats, pipeline, spec
from repo_builder.cli.commands import app
from repo_builder.errors import SourceCorruptError, SourceMissingError, UnsafeSourceError
from repo_builder.formats import sklearn

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


@pytest.fixture
def evil(tmp_path: Path) -> Callable[[str], Path]:
    """``evil(suffix)``: a pickle that writes the file PWNED when it is opened."""

    class Evil:
        def __reduce__(self) -> object:
            return (Path.touch, (tmp_path / "PWNED",))

    def made(suffix: str) -> Path:
        path = tmp_path / f"model{suffix}"
        path.write_bytes(pickle.dumps(Evil()))
        pickle.loads(path.read_bytes())
        (tmp_path / "PWNED").unlink()  # it would have
        return path

    return made


def _names_the_flag(error: UnsafeSourceError) -> None:
    assert "is a pickle: opening it runs whatever code is in it, so it was not opened" in str(error)
    assert "--trust-pickle, or trust_pickle: true in the spec" in error.mend


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".joblib"])
def test_a_pickle_is_not_opened(tmp_path: Path, suffix: str, evil: Callable[[str], Path]) -> None:
    path = evil(suffix)
    assert formats.detect(str(path)) == ("sklearn", path)
    with pytest.raises(UnsafeSourceError) as caught:
        sklearn.describe(path)
    _names_the_flag(caught.value)
    with pytest.raises(UnsafeSourceError) as caught:
        pipeline.inspect(str(path))
    _names_the_flag(caught.value)
    with pytest.raises(UnsafeSourceError) as caught:
        pipeline.build(path, tmp_path / "repository").raise_failed()
    _names_the_flag(caught.value)
    assert not (tmp_path / "PWNED").exists()


def test_with_the_flag_it_is_still_not_opened_where_nobody_asks_for_its_tensors(
    tmp_path: Path, evil: Callable[[str], Path]
) -> None:
    found = sklearn.describe(evil(".pkl"), trust_pickle=True)
    assert (found.files, found.inputs) == (("model.pkl",), ())
    (tmp_path / "spec.yaml").write_text("models:\n  - source: model.pkl\n    trust_pickle: true\n")
    assert pipeline.inspect(str(tmp_path / "spec.yaml"))["models"][0]["format"] == "sklearn"
    plan = pipeline.build(found.path, tmp_path / "repository", trust_pickle=True, dry_run=True)
    plan.raise_failed()
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("suffix", [".skops", ".joblib", ".pkl", ".pickle"])
def test_the_served_name_is_the_files_without_its_suffix(suffix: str) -> None:
    assert spec.from_flags(f"models/risk-2{suffix}").models[0].public_name == "risk-2"


def test_a_pickle_that_calls_itself_skops_is_not_opened(tmp_path: Path, evil: Callable[[str], Path]) -> None:
    with pytest.raises(SourceCorruptError, match="is no zip archive, or truncated"):
        sklearn.describe(evil(".skops"))
    assert not (tmp_path / "PWNED").exists()


def test_the_command_line_has_the_flag(evil: Callable[[str], Path], tmp_path: Path) -> None:
    asked = CliRunner().invoke(app, ["build", str(evil(".pkl")), "--dry-run", "-o", str(tmp_path / "r")])
    assert isinstance(asked.exception, UnsafeSourceError)
    asked = CliRunner().invoke(
        app, ["build", str(evil(".pkl")), "--dry-run", "--trust-pickle", "-o", str(tmp_path / "r")]
    )
    assert asked.exit_code == 0, asked.output
    assert not (tmp_path / "PWNED").exists()
