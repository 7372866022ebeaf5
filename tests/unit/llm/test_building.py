"""Building an engine, with FAKE programs on the PATH: TensorRT-LLM itself is not here, so no engine is real."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from repo_builder import releases
from repo_builder.errors import ConversionError, MissingDependencyError, TargetError
from repo_builder.formats import tensorrt_llm_engine
from repo_builder.llm import build_commands, building, settings, source
from repo_builder.llm.build_commands import Recipe
from repo_builder.spec import ModelSpec
from tests.unit.formats.test_tensorrt_llm_engine import MODERN, changed
from tests.unit.llm.llm_folders import LLAMA, folder

SINGLE = changed(MODERN, "pretrained_config.mapping", {"world_size": 1, "tp_size": 1, "pp_size": 1})
FAKE_BUILD = """#!{python}
import json, pathlib, sys
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
out = pathlib.Path(args["--output_dir"])
out.mkdir(parents=True)
print("fake trtllm-build of", pathlib.Path(args["--checkpoint_dir"], "weights").read_text(), flush=True)
(out / "config.json").write_text({config!r})
{body}
"""
FAKE_CONVERT = """import pathlib, sys
args = dict(zip(sys.argv[1::2], sys.argv[2::2]))
out = pathlib.Path(args["--output_dir"])
out.mkdir(parents=True)
(out / "weights").write_text(pathlib.Path(args["--model_dir"]).name)
print("fake convert_checkpoint.py", args["--dtype"])
{body}
"""
WHOLE = '(out / "rank0.engine").write_bytes(b"fake engine")'


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake TensorRT-LLM 1.2.1: a Python that knows a fake distribution, fake programs, fake examples."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    known = tmp_path / "site" / "tensorrt_llm-1.2.1.dist-info"
    known.mkdir(parents=True)
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorrt_llm\nVersion: 1.2.1\n")
    python = bin_folder / "python3"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "site"} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(building.EXAMPLES_VARIABLE, str(tmp_path / "examples"))
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path / "cache"))
    install(tmp_path)
    return tmp_path


def install(where: Path, convert: str = "", build: str = WHOLE, config: str | None = None) -> None:
    script = where / "examples/models/core/llama/convert_checkpoint.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(FAKE_CONVERT.format(body=convert))
    program = where / "bin" / "trtllm-build"
    program.write_text(
        FAKE_BUILD.format(python=sys.executable, body=build, config=json.dumps(SINGLE) if config is None else config)
    )
    program.chmod(0o755)


def recipe(where: Path) -> Recipe:
    path = folder(where, LLAMA, "a model's folder")
    model = ModelSpec.model_validate({"source": str(path), "engine": "tensorrt-llm"})
    language = source.read(path)
    return build_commands.recipe(model, language, settings.planned(model, language, releases.release("26.07")))


def build(where: Path, version: str = "1.2.1") -> tuple[Path, list[str]]:
    said: list[str] = []
    (where / "work").mkdir(exist_ok=True)
    made = building.build(recipe(where), where / "work", where / "a model's folder", version, said.append)
    return made, said


def test_the_fakes_build_a_whole_folder(fakes: Path) -> None:
    assert building.installed()
    made, said = build(fakes)
    assert tensorrt_llm_engine.describe(made).files == ("config.json", "rank0.engine")
    assert [p.name for p in (fakes / "work").iterdir()] == ["engine"]
    assert said[0] == "convert_checkpoint (1 of 2)"
    assert said[2] == "trtllm-build (2 of 2)"
    log = Path(said[3].rpartition(" ")[2])
    assert log.read_text() == "fake trtllm-build of a model's folder\n"


def test_without_trtllm_build_nothing_is_installed(fakes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fakes / "bin" / "trtllm-build").unlink()
    monkeypatch.setenv("PATH", str(fakes / "bin"))
    assert not building.installed()
    with pytest.raises(MissingDependencyError, match="is not installed: no trtllm-build"):
        building.installation("1.2.1")


def test_another_version_is_refused(fakes: Path) -> None:
    with pytest.raises(
        TargetError, match=r"TensorRT-LLM 1\.2\.1 is installed here, and the target has 0\.19\.0"
    ) as error:
        build(fakes, "0.19.0")
    assert "--target that has the version installed here" in error.value.mend
    (fakes / "site/tensorrt_llm-1.2.1.dist-info/METADATA").unlink()
    (fakes / "site/tensorrt_llm-1.2.1.dist-info").rmdir()
    with pytest.raises(MissingDependencyError, match="has tensorrt_llm"):
        build(fakes)


def test_examples_that_are_missing_are_told(fakes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(building.EXAMPLES_VARIABLE, str(fakes / "nowhere"))
    with pytest.raises(MissingDependencyError, match="there are no examples of TensorRT-LLM in") as error:
        build(fakes)
    assert error.value.mend.startswith("set TENSORRT_LLM_EXAMPLES to that folder of version 1.2.1")


@pytest.mark.parametrize(
    ("convert", "program", "found"),
    [
        ("raise MemoryError('no room')", WHOLE, "convert_checkpoint ended with exit code 1; its last lines:"),
        ("", "import os; os.kill(os.getpid(), 9)", "trtllm-build was killed by SIGKILL, as a lack of memory does"),
        ("", "sys.exit(3)", "trtllm-build ended with exit code 3"),
        ("", "", "trtllm-build ended well, but left no whole engine"),
        ("", '(out / "rank0.engine").touch()', "rank0.engine is empty"),
    ],
)
def test_a_step_that_fails_leaves_nothing_but_its_log(fakes: Path, convert: str, program: str, found: str) -> None:
    install(fakes, convert, program)
    with pytest.raises(ConversionError) as error:
        build(fakes)
    assert found in error.value.found
    assert list((fakes / "work").iterdir()) == []
    log = Path(error.value.mend.removeprefix("read "))
    assert log.is_file()
    if "exit code 1" in found:
        assert "MemoryError: no room" in error.value.found
    else:
        assert "fake trtllm-build of" in log.read_text()


def test_a_torn_config_is_no_engine(fakes: Path) -> None:
    install(fakes, config="{")
    with pytest.raises(ConversionError, match="left no whole engine") as error:
        build(fakes)
    assert "is not JSON" in error.value.found


def test_progress_tells_the_last_message_now_and_then(fakes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "_TELLS_S", 0.1)
    install(fakes, "import time; print('layer 7 of 32', flush=True); time.sleep(0.7)")
    _, said = build(fakes)
    assert any(line.startswith("convert_checkpoint, ") and line.endswith(": layer 7 of 32") for line in said)
