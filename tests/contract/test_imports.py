"""What is imported when: everything with the base dependencies alone, and no framework before it is needed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import models
import pytest
from cli_process import ROOT, Ended, environment, run

from repo_builder import toolchain
from repo_builder.cli.commands import app

FRAMEWORKS = {
    *("torch", "transformers", "sentence_transformers", "tokenizers", "safetensors", "huggingface_hub"),
    *("tensorflow", "tensorrt", "tensorrt_llm", "onnxscript", "vllm", "jax"),
}
SLOW = {"numpy", "onnx", "onnxruntime", "tritonclient", "grpc", "google.protobuf", "jinja2", "yaml"}
"""Of the base dependencies those that ``--help`` needs not; typer and rich it needs, and newer typer needs pydantic."""
COMMANDS = sorted(command.name or command.callback.__name__ for command in app.registered_commands)

IMPORT_ALL = """
import importlib, json, pkgutil, sys, repo_builder
found, wrong = [], {}
def skip(name):
    return name.startswith(("repo_builder.templates", "repo_builder.server.backends", "repo_builder.server.stand_ins"))
for module in pkgutil.walk_packages(repo_builder.__path__, "repo_builder."):
    if skip(module.name):
        continue
    found.append(module.name)
    try:
        importlib.import_module(module.name)
    except Exception as error:
        wrong[module.name] = repr(error)
print(json.dumps({"found": found, "wrong": wrong, "modules": sorted(sys.modules)}))
"""
TELL_MODULES = """
import atexit, json, sys
def tell():
    with open("modules.json", "w") as file:
        json.dump(sorted(sys.modules), file)
atexit.register(tell)
from repo_builder.cli import main
main()
"""


def section(name: str) -> list[str]:
    """A list of strings of pyproject.toml."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r'"([^"]+)"', text.split(f"\n{name} = [\n", 1)[1].split("\n]", 1)[0])


def base_requirements() -> list[str]:
    names = {re.split(r"[\[<>=]", requirement)[0] for requirement in section("dependencies")}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [*section("dependencies"), *(line for line in lines if line.split("==")[0] in names)]


@pytest.fixture(scope="module")
def base() -> Path:
    """The Python of an environment with the base dependencies alone, kept in the cache."""
    return toolchain.ensure("base", base_requirements())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    models.linear_onnx(folder / "model.onnx")
    return folder


def script(text: str, *arguments: str, cwd: Path, python: str | Path) -> Ended:
    done = subprocess.run(
        [str(python), "-c", text, *arguments], cwd=cwd, env=environment(), capture_output=True, text=True, check=False
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def top(modules: list[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules} | set(modules)


def test_the_base_environment_has_no_framework(base: Path, place: Path) -> None:
    text = f"import importlib.util as u; print([n for n in {sorted(FRAMEWORKS)} if u.find_spec(n)])"
    assert script(text, cwd=place, python=base).out == "[]\n"


def test_every_module_imports_with_the_base_dependencies_alone(base: Path, place: Path) -> None:
    ended = script(IMPORT_ALL, cwd=place, python=base)
    assert ended.code == 0, ended.text
    found = json.loads(ended.out)
    assert found["wrong"] == {}
    data = {"backends", "framework", "oracles", "stand_ins", "templates", "worker"}
    files = {p for p in (ROOT / "repo_builder").rglob("*.py") if not data & set(p.parts)}
    assert len(found["found"]) + 1 == len(files), "every file of the package was imported"


def test_no_module_imports_a_framework_when_it_is_imported(place: Path) -> None:
    found = json.loads(script(IMPORT_ALL, cwd=place, python=sys.executable).out)
    assert found["wrong"] == {}
    assert top(found["modules"]) & FRAMEWORKS == set()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=" ".join
)
def test_help_imports_nothing_slow(base: Path, tmp_path: Path, arguments: list[str]) -> None:
    ended = script(TELL_MODULES, *arguments, cwd=tmp_path, python=base)
    assert (ended.code, ended.err) == (0, ""), ended.text
    assert ended.out.startswith(("Usage: repo-builder", "repo-builder "))
    modules = json.loads((tmp_path / "modules.json").read_text(encoding="utf-8"))
    assert top(modules) & (FRAMEWORKS | SLOW) == set()


def test_importing_the_package_imports_nothing_slow(place: Path) -> None:
    ended = script(
        "import sys, json, repo_builder; print(json.dumps(sorted(sys.modules)))", cwd=place, python=sys.executable
    )
    assert top(json.loads(ended.out)) & (FRAMEWORKS | SLOW) == set()


def test_importing_the_client_imports_numpy_alone(place: Path) -> None:
    ended = script(
        "import sys, json; from repo_builder import client; print(json.dumps(sorted(sys.modules)))",
        cwd=place,
        python=sys.executable,
    )
    assert top(json.loads(ended.out)) & (FRAMEWORKS | SLOW) == {"numpy"}


def test_onnx_needs_no_extra(base: Path, place: Path) -> None:
    """Schema, inspect, dry run, build and a build with nothing to do, without any framework there."""
    schema = run("build", "--schema", cwd=place, python=base)
    assert json.loads(schema.out)["title"] == "repo_builder spec"
    inspected = run("inspect", "model.onnx", "--json", cwd=place, python=base)
    assert json.loads(inspected.out)["inputs"] == [{"name": "x", "dtype": "FP32", "shape": ["batch", 4]}]
    dry = run("build", "model.onnx", "--name", "m", "--dry-run", cwd=place, python=base)
    assert dry.code == 0, dry.text
    assert dry.out.startswith("m: onnx -> onnx, task tensors (onnx files carry no task), target ")
    assert not (place / "model_repository").exists()
    for _ in ("build", "nothing to do"):
        built = run("build", "model.onnx", "--name", "m", "--no-verify", cwd=place, python=base)
        assert built.code == 0, built.text
    assert built.out.startswith("m: not proven (unchanged, not built again)")
    assert (place / "model_repository" / "m" / "1" / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("source", "content", "package"),
    [("f.py:factory", models.FACTORY, "torch"), ("m.pt2", None, "torch")],
    ids=["factory", "pt2"],
)
def test_a_missing_extra_says_what_to_install(
    base: Path, tmp_path: Path, source: str, content: str | None, package: str
) -> None:
    if content is None:
        pytest.importorskip("torch")
        models.exported_program(tmp_path / source)
    else:
        (tmp_path / "f.py").write_text(content, encoding="utf-8")
    ended = run("build", source, "--no-verify", cwd=tmp_path, python=base)
    assert ended.code == 20, ended.text
    assert package in ended.err
    assert "pip install 'repo-builder[torch]'" in ended.err
    assert not (tmp_path / "model_repository").exists()


def test_a_build_with_nothing_to_do_imports_no_framework(tmp_path: Path) -> None:
    """Here the frameworks are installed, and the source is one of theirs."""
    pytest.importorskip("tokenizers")
    models.bert_folder(tmp_path / "bert")
    models.linear_onnx(tmp_path / "model.onnx")
    (tmp_path / "s.yaml").write_text(
        "models: [{source: bert, batching: {max_batch_size: 4}}, {source: model.onnx, name: m}]\n", encoding="utf-8"
    )
    assert run("build", "s.yaml", "--no-verify", cwd=tmp_path).code == 0
    ended = script(TELL_MODULES, "build", "s.yaml", "--no-verify", cwd=tmp_path, python=sys.executable)
    assert ended.code == 0, ended.text
    assert ended.out.count("(unchanged, not built again)") == 2
    modules = json.loads((tmp_path / "modules.json").read_text(encoding="utf-8"))
    assert top(modules) & FRAMEWORKS == set()
