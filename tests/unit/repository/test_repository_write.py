from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from repository_units import config, ensemble, listing, plain

from repo_builder import proof as proofs
from repo_builder.errors import RepositoryError
from repo_builder.planned import PlannedModel
from repo_builder.repository import manifest, tree, write
from repo_builder.repository.plan import Unit


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "models"


def _build(repository: Path, *units: Unit, new_version: bool = False, remove: tuple[str, ...] = ()) -> None:
    with write.transaction(repository) as t:
        t.stage(units, new_version=new_version, remove=remove)
        t.commit({unit.name: {"unit": unit.name} for unit in units})


def test_whole_tree(repository: Path, tmp_path: Path) -> None:
    _build(repository, ensemble("mini", b"w"))
    found = listing(repository)
    assert {path for path, content in found.items() if content != "/"} == {
        "mini/1/.keep",
        "mini/config.pbtxt",
        "mini_model/1/model.onnx",
        "mini_model/config.pbtxt",
        "mini_tokenizer/1/lib/t.so",
        "mini_tokenizer/1/model.py",
        "mini_tokenizer/config.pbtxt",
    }
    assert set(listing(tmp_path / "models.build")) == {
        "lock", "manifest.json", "proof", "proof/mini.npz", "report", "report/mini.json",
    }  # fmt: skip
    stored = proofs.load(tmp_path / "models.build/proof/mini.npz")
    assert stored.model == "mini"


def test_same_units_same_bytes(tmp_path: Path) -> None:
    for place, mask in (("one", 0o022), ("two", 0o077)):
        before = os.umask(mask)
        try:
            _build(tmp_path / place / "models", ensemble("mini", b"w"), plain("a", b"x"))
        finally:
            os.umask(before)
    assert listing(tmp_path / "one") == listing(tmp_path / "two")
    for place in ("one", "two"):
        for path in [tmp_path / place / "models", *(tmp_path / place / "models").rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path


def test_staged_tree_is_whole_and_the_repository_untouched(repository: Path) -> None:
    _build(repository, plain("a", b"old"), plain("b", b"b"))
    before = listing(repository)
    with write.transaction(repository) as t:
        staged = t.stage([plain("a", b"new")])
        assert listing(staged) == before | {"a/1/model.onnx": b"new"}
        assert listing(repository) == before
        t.discard()
        assert not staged.exists()
        with pytest.raises(RuntimeError, match="before stage"):
            t.commit()
    assert listing(repository) == before


def test_staging_again_starts_afresh(repository: Path) -> None:
    with write.transaction(repository) as t:
        t.stage([plain("a", b"a"), plain("b", b"b")])
        t.stage([plain("b", b"b")])
        t.commit()
    assert sorted(manifest.load(repository).units) == ["b"]
    assert not (repository / "a").exists()


def test_an_exception_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    def stage_and_fail() -> None:
        with write.transaction(repository) as t:
            t.stage([plain("a", b"a")])
            raise KeyError

    with pytest.raises(KeyError):
        stage_and_fail()
    assert not repository.exists()
    assert not (tmp_path / "models.build").exists()


def test_an_os_error_of_the_caller_stays_its_own(repository: Path) -> None:
    with pytest.raises(PermissionError, match="mine"), write.transaction(repository):
        raise PermissionError(13, "mine")


def test_unchanged_models_are_linked_and_changed_ones_are_new_files(repository: Path) -> None:
    _build(repository, plain("a", b"old"), plain("b", b"b"))
    (repository / "hand" / "1").mkdir(parents=True)
    (repository / "hand/1/model.plan").write_bytes(b"mine")
    (repository / "README").write_text("mine")
    inodes = {name: (repository / name).stat().st_ino for name in ("a/1/model.onnx", "b/1/model.onnx", "README")}
    hand = (repository / "hand/1/model.plan").stat()
    with open(repository / "a/1/model.onnx", "rb") as still_open:
        _build(repository, plain("a", b"new"), new_version=True)
        assert (repository / "a/1/model.onnx").stat().st_ino == inodes["a/1/model.onnx"]
        _build(repository, plain("a", b"newer"))
        assert still_open.read() == b"old"
    assert (repository / "b/1/model.onnx").stat().st_ino == inodes["b/1/model.onnx"]
    assert (repository / "README").stat().st_ino == inodes["README"]
    assert (repository / "hand/1/model.plan").stat().st_ino == hand.st_ino
    assert (repository / "b/1/model.onnx").stat().st_nlink == 1, "the old tree is gone"
    assert (repository / "a/1/model.onnx").read_bytes() == b"old"
    assert (repository / "a/2/model.onnx").read_bytes() == b"newer"


def test_folders_that_stay_keep_their_times_so_that_polling_reloads_nothing(repository: Path) -> None:
    _build(repository, plain("a", b"a"), plain("b", b"b"))
    for path in (repository / "b/1", repository / "b"):
        os.utime(path, ns=(10**18, 10**18))
    _build(repository, plain("a", b"new"))
    assert [(repository / p).stat().st_mtime_ns for p in ("b", "b/1")] == [10**18] * 2


def test_source_file_is_copied_not_linked_and_stays_as_it_is(repository: Path, tmp_path: Path) -> None:
    source = tmp_path / "weights.bin"
    source.write_bytes(os.urandom(3_000_000))
    source.chmod(0o600)
    (tmp_path / "link.bin").symlink_to(source)
    program = tmp_path / "stub"
    program.write_bytes(b"\x7fELF")
    program.chmod(0o700)
    model = PlannedModel(
        config("a"), {"model.onnx": tmp_path / "link.bin", "stub": program, "empty": Path("/dev/null")}
    )
    with pytest.raises(Exception, match="which is no file"):
        _build(repository, Unit("a", "k", (model,)))
    model = PlannedModel(config("a"), {"model.onnx": tmp_path / "link.bin", "stub": program})
    _build(repository, Unit("a", "k", (model,)))
    written = repository / "a/1/model.onnx"
    assert not written.is_symlink()
    assert written.read_bytes() == source.read_bytes()
    assert written.stat().st_ino != source.stat().st_ino
    assert stat.S_IMODE(source.stat().st_mode) == 0o600
    assert stat.S_IMODE(written.stat().st_mode) == 0o644
    assert stat.S_IMODE((repository / "a/1/stub").stat().st_mode) == 0o755


def test_what_a_server_leaves_in_the_staged_tree_is_not_committed(repository: Path) -> None:
    (repository / "hand" / "1").mkdir(parents=True)
    (repository / "hand/1/model.py").write_text("mine")
    with write.transaction(repository) as t:
        staged = t.stage([ensemble("mini", b"w")])
        for folder in ("mini_tokenizer/1/__pycache__", "mini_tokenizer/1/lib/__pycache__", "hand/1/__pycache__"):
            (staged / folder).mkdir()
            (staged / folder / "model.pyc").write_bytes(b"cache")
        t.commit()
    assert not [path for path in listing(repository) if "pycache" in path]
    assert (repository / "hand/1/model.py").read_text() == "mine"


def test_foreign_folders_changed_while_a_proof_ran_are_followed(repository: Path) -> None:
    for name in ("changed", "gone", "emptied"):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1/model.plan").write_bytes(b"1")
    with write.transaction(repository) as t:
        t.stage([plain("a", b"a")])
        (repository / "changed/1/model.plan").unlink()
        (repository / "changed/1/model.plan").write_bytes(b"22")
        (repository / "changed/2").mkdir()
        tree.remove(repository / "gone")
        (repository / "added").mkdir()
        t.commit()
    assert {k: v for k, v in listing(repository).items() if k.split("/")[0] != "a"} == {
        "added": "/",
        "changed": "/",
        "changed/1": "/",
        "changed/1/model.plan": b"22",
        "changed/2": "/",
        "emptied": "/",
        "emptied/1": "/",
        "emptied/1/model.plan": b"1",
    }


def test_own_folder_changed_while_a_proof_ran(repository: Path) -> None:
    _build(repository, plain("a", b"a"))
    with write.transaction(repository) as t:
        t.stage([plain("a", b"b")])
        (repository / "a/1/__pycache__").mkdir()
        (repository / "a/notes").write_text("mine")
        with pytest.raises(RepositoryError, match="a in models changed while the build ran") as caught:
            t.commit()
    assert caught.value.mend == "build again"
    assert (repository / "a/1/model.onnx").read_bytes() == b"a"
    assert (repository / "a/notes").read_text() == "mine"


def test_links_and_modes_of_foreign_folders_stay(repository: Path, tmp_path: Path) -> None:
    (repository / "hand").mkdir(parents=True)
    (repository / "hand/store").symlink_to("../../elsewhere")
    (repository / "linked").symlink_to(tmp_path)
    (repository / "hand").chmod(0o555)
    repository.chmod(0o770)
    _build(repository, plain("a", b"a"))
    assert (repository / "hand/store").readlink() == Path("../../elsewhere")
    assert (repository / "linked").readlink() == tmp_path
    assert stat.S_IMODE((repository / "hand").stat().st_mode) == 0o555
    assert stat.S_IMODE(repository.stat().st_mode) == 0o770
    assert not (tmp_path / "models.build/staging").exists()


def test_removing_a_unit_takes_its_models_proof_and_report(repository: Path, tmp_path: Path) -> None:
    _build(repository, ensemble("mini", b"w"), plain("a", b"a", proven=True))
    _build(repository, remove=("mini", "never-built"))
    assert sorted(path.name for path in repository.iterdir()) == ["a"]
    beside = listing(tmp_path / "models.build")
    assert {"proof/a.npz", "report/a.json"} <= set(beside)
    assert not {"proof/mini.npz", "report/mini.json"} & set(beside)


def test_a_build_without_a_report_drops_the_old_one(repository: Path, tmp_path: Path) -> None:
    _build(repository, plain("a", b"a", proven=True))
    with write.transaction(repository) as t:
        t.stage([plain("a", b"b")])
        t.commit()
    assert listing(tmp_path / "models.build").keys() == {"lock", "manifest.json", "proof", "report"}


def test_model_that_a_unit_no_longer_has_goes(repository: Path) -> None:
    _build(repository, ensemble("mini", b"w"))
    _build(repository, plain("mini", b"w"))
    assert sorted(path.name for path in repository.iterdir()) == ["mini"]


def test_removed_repository_is_built_anew(repository: Path) -> None:
    _build(repository, ensemble("mini", b"w"), plain("a", b"a", key="ka"))
    tree.remove(repository)
    _build(repository, plain("a", b"a", key="ka"))
    assert sorted(manifest.load(repository).units) == ["a"]
    assert manifest.unchanged(repository, "a", "ka")


def test_symbolic_link_to_a_repository_stays_one(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "models").symlink_to("store/real")
    _build(tmp_path / "models", plain("a", b"a", key="1"))
    _build(tmp_path / "models", plain("a", b"b", key="2"))
    assert (tmp_path / "models").is_symlink()
    assert (tmp_path / "store/real/a/1/model.onnx").read_bytes() == b"b"
    assert manifest.unchanged(tmp_path / "models", "a", "2")
    assert not (tmp_path / "models.build").exists()


@pytest.mark.parametrize(("place", "text"), [("file", "is a file"), ("file/below", "is a file"), ("/", "root")])
def test_places_that_cannot_hold_a_repository(tmp_path: Path, place: str, text: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RepositoryError, match=text), write.transaction(tmp_path / place):
        pass


def test_current_folder_inside_the_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _build(repository, plain("a", b"a"))
    monkeypatch.chdir(repository / "a")
    with pytest.raises(RepositoryError, match="the current folder lies in the repository models") as caught:
        _build(repository, plain("a", b"b"))
    assert "change to the folder above it" in caught.value.mend


def test_without_hard_links_files_are_copied(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-in: a file system that refuses hard links."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    _build(repository, plain("a", b"a", key="ka"))
    (repository / "hand").symlink_to("nowhere")
    before = listing(repository)
    monkeypatch.setattr(os, "link", refuse)
    _build(repository, plain("b", b"b"))
    assert {k: v for k, v in listing(repository).items() if k.split("/")[0] != "b"} == before
    assert manifest.unchanged(repository, "a", "ka")


def test_without_copy_file_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-in: a kernel without copy_file_range."""
    monkeypatch.delattr(os, "copy_file_range")
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    tree.copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"x" * 100_000


def test_exchange_swaps_in_one_step(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(b"")
    assert tree.exchange(tmp_path / "one", tmp_path / "two")
    assert listing(tmp_path) == {"one": "/", "one/two": b"", "two": "/", "two/one": b""}
    with pytest.raises(FileNotFoundError):
        tree.exchange(tmp_path / "one", tmp_path / "three")
