"""The environments of frameworks: listed, found by name, removed; made ahead of time from a folder of wheels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repo_builder import formats, toolchain
from repo_builder.errors import ToolchainError
from repo_builder.formats import framework_process, keras, savedmodel, tensorflow_framework
from repo_builder.pipeline import toolchains

FRAMEWORK = tensorflow_framework.FRAMEWORK


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def environment(home: Path) -> Path:
    """What a whole environment looks like from outside."""
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").write_text("")
    (home / "complete.json").write_text(json.dumps({"requirements": []}))
    return home


def tensorflow() -> Path:
    return toolchain.folder(FRAMEWORK.name, FRAMEWORK.requirements, (), toolchain.this_interpreter())


def test_frameworks_are_listed_before_they_are_there(cache: Path) -> None:
    rows = {row["name"]: row for row in toolchains.listed()["environments"]}
    assert rows["tensorflow-2.21.0"]["installed"] == "no"
    told = rows["tensorflow-2.21.0"]["formats"].split(", ")
    assert sorted(told) == ["frozen_graph", "keras", "savedmodel", "tf_checkpoint", "tflite"]
    assert rows["trees"]["formats"] == "xgboost, lightgbm, catboost, sklearn"
    environment(tensorflow())
    environment(cache / "environments" / "server-14c8b5b22d83")
    (cache / "environments" / "half-0123456789ab").mkdir()
    rows = {row["name"]: row for row in toolchains.listed()["environments"]}
    assert rows["tensorflow-2.21.0"]["installed"] == "yes"
    assert rows["server-14c8b5b22d83"]["installed"] == "yes"
    assert "half-0123456789ab" not in rows


@pytest.mark.parametrize("name", ["tensorflow", "tensorflow-2.21.0", tensorflow().name])
def test_an_environment_is_found_by_each_of_its_names_and_removed(name: str) -> None:
    home = environment(tensorflow())
    assert toolchains.path(name) == home / "bin" / "python"
    assert toolchains.remove(name) == (home,)
    assert not home.exists()
    with pytest.raises(ToolchainError, match=f"there is no environment '{name}' in ") as caught:
        toolchains.path(name)
    assert caught.value.expected == "one of none: the cache is empty"


def test_of_older_pins_and_the_current_ones_the_path_is_the_current(cache: Path) -> None:
    home = environment(tensorflow())
    older = environment(cache / "environments" / "tensorflow-2.21.0-ffffffffffff")
    assert toolchains.path("tensorflow") == home / "bin" / "python"
    assert set(toolchains.remove("tensorflow")) == {home, older}


def test_half_made_environments_are_removed_and_have_no_path(cache: Path) -> None:
    half = cache / "environments" / "half-0123456789ab"
    (half / "bin").mkdir(parents=True)
    (half.parent / "half-0123456789ab.log").write_text("pip was killed")
    with pytest.raises(ToolchainError, match="there is no environment 'half'"):
        toolchains.path("half")
    assert toolchains.remove("half") == (half,)
    assert [p.name for p in half.parent.iterdir()] == ["half-0123456789ab.lock"]


def test_an_unknown_framework_names_the_known() -> None:
    with pytest.raises(ToolchainError, match="there is no framework ''"):
        toolchains.install("")
    with pytest.raises(ToolchainError, match=r"there is no framework 'tensorflw' \(did you mean 'tensorflow-2.21.0'"):
        toolchains.install("tensorflw")


def test_installing_makes_what_a_build_would_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = framework_process.Framework("nothing-1.0", ("pip",), "tensorflow_worker.py")
    for module in (savedmodel, keras):
        monkeypatch.setattr(module, "FRAMEWORK", empty)
    monkeypatch.setattr(formats, "FORMATS", {name: formats.FORMATS[name] for name in ("savedmodel", "keras")})
    said: list[str] = []
    python = toolchains.install("nothing", said.append)
    assert python.is_file()
    assert python == toolchain.ensure("nothing-1.0", ("pip",))
    assert said[0].startswith("making the environment nothing-1.0-")
