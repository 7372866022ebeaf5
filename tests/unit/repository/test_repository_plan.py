from __future__ import annotations

from pathlib import Path

import pytest
from repository_units import config, ensemble, plain

from repo_builder.errors import PathEscapeError, RepoBuilderError, RepositoryError, SourceMissingError
from repo_builder.planned import PlannedModel
from repo_builder.repository import manifest, write
from repo_builder.repository.manifest import Manifest
from repo_builder.repository.plan import Unit, plan, plan_all


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "models"


def _build(repository: Path, *units: Unit, new_version: bool = False) -> None:
    with write.transaction(repository) as t:
        t.stage(units, new_version=new_version)
        t.commit()


def _refused(repository: Path, *units: Unit, new_version: bool = False, remove: tuple[str, ...] = ()) -> str:
    with pytest.raises(RepositoryError) as caught:
        plan_all(manifest.load(repository), repository, units, new_version=new_version, remove=remove)
    return str(caught.value)


def test_first_plan_writes_version_1(repository: Path) -> None:
    done = plan(Manifest(), repository, ensemble("mini", b"12345"), new_version=True)
    assert done.version == 1
    assert done.keep == {}
    assert done.write["mini/1/.keep"] == b""
    assert done.write["mini_model/1/model.onnx"] == b"12345"
    assert b'name: "mini_model"' in done.write["mini_model/config.pbtxt"]
    assert done.models == ("mini", "mini_model", "mini_tokenizer")
    assert done.new_bytes == sum(len(content) for content in done.write.values())
    assert not repository.exists()


def test_default_replaces_the_newest_version_and_keeps_the_older_ones(repository: Path) -> None:
    _build(repository, plain("a", b"1"))
    _build(repository, plain("a", b"2"), new_version=True)
    done = plan(manifest.load(repository), repository, plain("a", b"3"))
    assert done.version == 2
    assert sorted(done.keep) == ["a/1/model.onnx"]
    assert done.write["a/2/model.onnx"] == b"3"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\\b", ".hidden", " a", "a\n", "a\0", "n" * 201])
def test_names_that_are_no_folder(repository: Path, name: str) -> None:
    with pytest.raises(RepoBuilderError, match=r"model name .* (is a path|cannot be a folder|has \d+ bytes)") as caught:
        plan_all(Manifest(), repository, [Unit("u", "k", (PlannedModel(config(name)),))])
    assert isinstance(caught.value, (PathEscapeError, RepositoryError))
    assert (caught.value.model, caught.value.stage) == ("u", "write")
    with pytest.raises(RepoBuilderError, match="unit name"):
        plan(Manifest(), repository, Unit(name, "k", (PlannedModel(config("m")),)))


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a//x", "./x", "", "a\\x", "a/", "a\0"])
def test_paths_that_leave_the_folder(repository: Path, path: str) -> None:
    for model in (PlannedModel(config("m"), {path: b""}), PlannedModel(config("m"), {"f": b""}, {path: b""})):
        with pytest.raises(PathEscapeError, match="does not stay inside the folder of model 'm'"):
            plan(Manifest(), repository, Unit("m", "k", (model,)))


@pytest.mark.parametrize("path", ["config.pbtxt", "1/labels.txt"])
def test_model_files_that_are_the_writers_own(repository: Path, path: str) -> None:
    unit = Unit("m", "k", (PlannedModel(config("m"), {"f": b""}, {path: b""}),))
    assert "is the writer's own or lies in a version folder" in _refused(repository, unit)


def test_names_that_differ_only_by_case(repository: Path) -> None:
    assert "'Model' and 'model', which differ only by case" in _refused(
        repository, plain("Model", b""), plain("model", b"")
    )
    unit = Unit("m", "k", (PlannedModel(config("m"), {"a/F": b"", "A/g": b""}),))
    assert "which differ only by case" in _refused(repository, unit)
    (repository / "BY_HAND").mkdir(parents=True)
    assert "'BY_HAND' and 'by_hand'" in _refused(repository, plain("by_hand", b""))
    (repository / "by_Hand").mkdir()
    plan_all(Manifest(), repository, [plain("other", b"")])


def test_file_that_is_also_a_folder(repository: Path) -> None:
    unit = Unit("m", "k", (PlannedModel(config("m"), {"a": b"", "a/b": b""}),))
    assert "has a file and a folder of one name: '1/a/b'" in _refused(repository, unit)


def test_source_that_is_not_there(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SourceMissingError, match=r"'1/model\.onnx' of model 'a' is to come from .*gone, which is no file"
    ):
        plan(Manifest(), repository, plain("a", tmp_path / "gone"))


def test_two_units_with_one_model(repository: Path) -> None:
    taken = Unit("other", "k", (PlannedModel(config("mini_model"), {"f": b""}),))
    assert "'mini_model' of 'other' already belongs to 'mini'" in _refused(repository, ensemble("mini", b""), taken)
    _build(repository, ensemble("mini", b""))
    assert "remove 'mini' first" in _refused(repository, taken)
    with write.transaction(repository) as t:
        t.stage([taken], remove=["mini"])
        t.commit()
    assert sorted(path.name for path in repository.iterdir()) == ["mini_model"]
    (repository / "mini_model/1/f").write_bytes(b"edited")
    assert "mini_model/1/f (changed)" in _refused(repository, ensemble("mini", b""), remove=("other",))


@pytest.mark.parametrize("first", ["giver", "taker"])
def test_model_that_moves_between_two_units(repository: Path, first: str) -> None:
    _build(repository, ensemble("giver", b"w"))
    moved = Unit("taker", "k", (PlannedModel(config("giver_model"), {"f": b""}),))
    units = [plain("giver", b"g", key="g"), moved]
    _build(repository, *(units if first == "giver" else reversed(units)))
    assert sorted(path.name for path in repository.iterdir()) == ["giver", "giver_model"]
    assert manifest.unchanged(repository, "giver", "g")
    assert manifest.unchanged(repository, "taker", "k")


def test_removing_and_building_a_unit_starts_over(repository: Path) -> None:
    _build(repository, ensemble("mini", b"1"))
    _build(repository, ensemble("mini", b"2"), new_version=True)
    with write.transaction(repository) as t:
        t.stage([plain("mini", b"3", key="3")], remove=["mini"])
        t.commit()
    assert sorted(p.as_posix() for p in repository.glob("*/*")) == [
        f"{repository}/mini/1",
        f"{repository}/mini/config.pbtxt",
        f"{repository}/mini/labels.txt",
    ]
    assert manifest.unchanged(repository, "mini", "3")


def test_unit_without_models(repository: Path) -> None:
    assert "expected: one or more, each name once" in _refused(repository, Unit("u", "k", ()))


def test_folder_that_no_build_wrote(repository: Path) -> None:
    (repository / "a" / "1").mkdir(parents=True)
    (repository / "a/1/model.plan").write_bytes(b"mine")
    text = _refused(repository, plain("a", b"x"))
    assert text.startswith("a: write: models holds what no build wrote so: a/1/model.plan (unknown)")
    assert f"remove the folder {repository}/a, and build again" in text


@pytest.mark.parametrize("kind", ["file", "link", "dangling"])
def test_thing_that_is_no_folder(repository: Path, tmp_path: Path, kind: str) -> None:
    repository.mkdir()
    if kind == "file":
        (repository / "a").write_bytes(b"")
    else:
        (repository / "a").symlink_to(tmp_path if kind == "link" else tmp_path / "gone")
    assert "a (not a folder)" in _refused(repository, plain("a", b"x"))


def test_edited_files_are_named(repository: Path) -> None:
    _build(repository, plain("a", b"x"))
    (repository / "a/config.pbtxt").write_text('name: "a"')
    (repository / "a/notes.txt").write_text("mine")
    (repository / "a/labels.txt").unlink()
    (repository / "a/1/__pycache__").mkdir()
    (repository / "a/1/__pycache__/model.pyc").write_bytes(b"")
    text = _refused(repository, plain("a", b"y"))
    assert "a/config.pbtxt (changed), a/notes.txt (unknown)" in text
    assert "labels" not in text, "what is gone cannot be lost"
    assert "pycache" not in text
    assert "(changed)" in _refused(repository, remove=("a",))
    assert "(changed)" in _refused(repository, plain("a", b"y"), new_version=True)


def test_long_lists_are_cut(repository: Path) -> None:
    (repository / "a").mkdir(parents=True)
    for number in range(13):
        (repository / f"a/{number:02}").write_bytes(b"")
    assert "a/09 (unknown) and 3 more" in _refused(repository, plain("a", b"y"))


def test_equal_folder_is_taken_over_without_a_manifest(repository: Path, tmp_path: Path) -> None:
    _build(repository, ensemble("mini", b"x", key="k"))
    (tmp_path / "models.build/manifest.json").unlink()
    _build(repository, ensemble("mini", b"x", key="k"))
    assert manifest.unchanged(repository, "mini", "k")
    (tmp_path / "models.build/manifest.json").unlink()
    assert "mini_model/1/model.onnx (unknown)" in _refused(repository, ensemble("mini", b"z"))


def test_kept_version_must_be_whole(repository: Path) -> None:
    _build(repository, ensemble("mini", b"1"))
    (repository / "mini_tokenizer/1/model.py").unlink()
    assert "mini_tokenizer/1/model.py (missing)" in _refused(repository, ensemble("mini", b"2"), new_version=True)


def test_removed_version_folders_are_forgotten(repository: Path) -> None:
    _build(repository, plain("a", b"1"))
    _build(repository, plain("a", b"2", key="2"), new_version=True)
    write.tree.remove(repository / "a/1")
    _build(repository, plain("a", b"3", width=9, key="3"))
    assert sorted(manifest.load(repository).units["a"].files) == ["a/2/model.onnx", "a/config.pbtxt", "a/labels.txt"]
    assert manifest.unchanged(repository, "a", "3")


@pytest.mark.parametrize("new_version", [True, False])
def test_other_signature_beside_an_old_version(repository: Path, new_version: bool) -> None:
    _build(repository, plain("a", b"1"))
    if not new_version:
        _build(repository, plain("a", b"2"), new_version=True)
    text = _refused(repository, plain("a", b"3", width=5), new_version=new_version)
    assert "now has input 'x' TYPE_FP32 [5], while version 1 stays" in text
    assert "expected: input 'x' TYPE_FP32 [4], because all versions share one config.pbtxt" in text
    assert "remove the version folders 1 of a" in text


def test_without_batching_is_another_signature(repository: Path) -> None:
    _build(repository, plain("a", b"1"))
    model = PlannedModel(config("a", batch=0), {"model.onnx": b"2"})
    assert "now has no batching" in _refused(repository, Unit("a", "k", (model,)), new_version=True)
    model = PlannedModel(config("a", batch=16), {"model.onnx": b"2"})
    assert plan(manifest.load(repository), repository, Unit("a", "k", (model,)), new_version=True).version == 2


def test_other_models_beside_an_old_version(repository: Path) -> None:
    _build(repository, ensemble("mini", b"1"))
    text = _refused(repository, plain("mini", b"2"), new_version=True)
    assert "'mini' now has the models ['mini'], while version 1 stays" in text
    assert "mini_tokenizer" in text
    assert plan(manifest.load(repository), repository, plain("mini", b"2")).version == 1
