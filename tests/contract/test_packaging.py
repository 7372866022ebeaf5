"""What is shipped: wheel and sdist hold what they need and nothing else, and what is installed from them works."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import models
import pytest
from cli_process import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from repo_builder import toolchain
from repo_builder.errors import ToolchainError

PACKAGE = ROOT / "repo_builder"
NEEDED = (
    "templates/config.pbtxt.j2",
    "templates/tokenizer/model.py",
    "releases/releases.json",
    "llm/contracts/tensorrt_llm.json",
    "templates/generate/model.py",
    "tasks/sample_texts.json",
    "tasks/oracles/question_answering.py",
    "server/supervisor.py",
    "server/backends/onnxruntime/model.py",
    "server/backends/pytorch/model.py",
    "server/backends/tensorrtllm/model.py",
    "server/backends/vllm/model.py",
    "server/stand_ins/tensorrt_llm/__init__.py",
    "server/backends/tensorrt/tensorrt_stand_in/plan.py",
    "py.typed",
)


def clean() -> dict[str, str]:
    """The environment without anything of this checkout, and without other installations' settings."""
    return {
        k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k not in ("VIRTUAL_ENV", "PIP_TARGET")
    }


def call(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=clean(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dists(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``repo_builder-*.tar.gz``, the wheel made from it, and in ``direct`` one made from the checkout."""
    try:
        python = toolchain.ensure("packaging", ["build>=1.2", "hatchling>=1.27"])
    except ToolchainError as error:
        pytest.skip(f"no package index here: {error.found.splitlines()[-1]}")
    folder = tmp_path_factory.mktemp("dists")
    call(python, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    call(python, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder / "direct", ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dists: Path) -> Path:
    [path] = dists.glob("*.whl")
    return path


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def tracked() -> set[str]:
    """Files of the package, with the templates as the files they are."""
    return {
        f"repo_builder/{path}"
        for folder, prefix in ((PACKAGE, ""), (ROOT / "templates", "templates/"))
        for found in folder.rglob("*")
        if found.is_file() and "__pycache__" not in found.parts
        for path in [prefix + found.relative_to(folder).as_posix()]
    }


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    found = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert {f"repo_builder/{name}" for name in NEEDED} <= found
    assert found == tracked()


def test_templates_come_as_files_not_as_the_link(wheel: Path) -> None:
    for path in ("config.pbtxt.j2", "tokenizer/model.py"):
        assert contents(wheel)[f"repo_builder/templates/{path}"] == (ROOT / "templates" / path).read_bytes()
    assert (PACKAGE / "templates").is_symlink()
    assert (PACKAGE / "templates").readlink() == Path("../templates")


def test_wheels_from_sdist_and_checkout_are_equal(dists: Path, wheel: Path) -> None:
    [direct] = (dists / "direct").glob("*.whl")
    assert contents(wheel) == contents(direct)
    assert wheel.read_bytes() == direct.read_bytes(), "reproducible"


def test_the_sdist_holds_sources_tests_and_no_build_output(dists: Path) -> None:
    [path] = dists.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        members = {m.name.partition("/")[2]: m for m in archive.getmembers()}
    for name in ("LICENSE", "README.md", "pyproject.toml", "constraints.txt", "tests/models.py"):
        assert members[name].isfile(), name
    for name in NEEDED:
        assert members[f"repo_builder/{name}"].isfile(), "the link's target comes in its place"
    unwanted = re.compile(r"(^|/)(\.git|\.venv|build|__pycache__|\.[a-z]+_cache)/|\.pyc$|^model_repository\.build/")
    assert [name for name in members if unwanted.search(name)] == []
    assert path.stat().st_size < 2_000_000


def test_metadata(wheel: Path) -> None:
    files = contents(wheel)
    [name] = [n for n in files if n.endswith(".dist-info/METADATA")]
    found = email.message_from_bytes(files[name])
    assert found["Name"] == "repo-builder"
    assert found["License-Expression"] == "Apache-2.0"
    assert found["Requires-Python"] == ">=3.10"
    assert files[name.replace("METADATA", "licenses/LICENSE")] == (ROOT / "LICENSE").read_bytes()
    classifiers = found.get_all("Classifier")
    for version in ("3.10", "3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {version}" in classifiers
    assert not any("License" in c for c in classifiers), "the expression replaces the classifier (PEP 639)"
    assert found["Description-Content-Type"] == "text/markdown"
    assert "repo-builder" in found.get_payload()
    entry = files[name.replace("METADATA", "entry_points.txt")].decode()
    assert entry.split() == ["[console_scripts]", "repo-builder", "=", "repo_builder.cli:main"]


def test_version_is_that_of_the_project(wheel: Path) -> None:
    assert (
        wheel.name.split("-")[1]
        == re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)[0]
    )


def test_requirements_and_extras_fit_what_the_tests_run_with(wheel: Path) -> None:
    """Every name is that of a real distribution, and the versions that are tested here are allowed."""
    files = contents(wheel)
    found = email.message_from_bytes(next(v for k, v in files.items() if k.endswith(".dist-info/METADATA")))
    requirements = [Requirement(line) for line in found.get_all("Requires-Dist")]
    assert {"torch", "huggingface", "dev"} <= set(found.get_all("Provides-Extra"))
    base = {canonicalize_name(r.name) for r in requirements if r.marker is None}
    assert {"numpy", "protobuf", "grpcio", "tritonclient", "onnx", "onnxruntime", "typer", "pydantic"} <= base
    assert not base & {"torch", "transformers", "tokenizers"}
    missing = []
    for requirement in requirements:
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(requirement.name)
            continue
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}, found {version}"
    assert not set(missing) & base
    assert set(missing) <= {"types-PyYAML", "pytest-xdist"}, "the tests' environment has the rest"


def test_constraints_pin_what_the_project_asks_for(wheel: Path) -> None:
    files = contents(wheel)
    found = email.message_from_bytes(next(v for k, v in files.items() if k.endswith(".dist-info/METADATA")))
    asked = {canonicalize_name(Requirement(line).name): Requirement(line) for line in found.get_all("Requires-Dist")}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pinned = Requirement(line)
            [spec] = pinned.specifier
            assert canonicalize_name(pinned.name) in asked, f"{pinned.name} is pinned, but nothing asks for it"
            assert asked[canonicalize_name(pinned.name)].specifier.contains(spec.version), pinned


def works(python: Path, place: Path) -> None:
    """The installed program, away from the checkout: version, help, schema, a build and its files."""
    program = python.with_name("repo-builder")
    where = call(python, "-c", "import repo_builder; print(repo_builder.__file__)", cwd=place)
    assert Path(where.strip()).is_relative_to(python.parent.parent)
    assert re.fullmatch(r"repo-builder \d+\.\d+\.\d+\n", call(program, "--version", cwd=place))
    assert call(program, "--help", cwd=place).startswith("Usage: repo-builder")
    assert call(program, "build", "--schema", cwd=place).startswith("{")
    models.linear_onnx(place / "tiny.onnx")
    said = call(program, "build", "tiny.onnx", "--no-verify", cwd=place)
    assert said.startswith("tiny: not proven\n")
    assert (place / "model_repository" / "tiny" / "1" / "model.onnx").read_bytes() == (place / "tiny.onnx").read_bytes()
    config = (place / "model_repository" / "tiny" / "config.pbtxt").read_text(encoding="utf-8")
    assert 'backend: "onnxruntime"' in config
    assert call(program, "build", "tiny.onnx", "--no-verify", cwd=place).startswith("tiny: not proven (unchanged")
    assert 'name": "tiny"' in call(program, "inspect", "model_repository", "--json", cwd=place)


def test_the_installed_wheel_works(wheel: Path, tmp_path: Path) -> None:
    """Installed alone into a new environment; its dependencies come from one with the base dependencies alone."""
    from test_imports import base_requirements

    base = toolchain.ensure("base", base_requirements())
    call(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    call(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    [site] = (tmp_path / "env" / "lib").glob("python*/site-packages")
    [dependencies] = (base.parent.parent / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(f"{dependencies}\n", encoding="utf-8")
    works(python, tmp_path)


def interpreter(version: str) -> str | None:
    """A Python of that version that runs: on the PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [
        shutil.which(f"python{version}"),
        *sorted(map(str, pyenv.glob(f"versions/{version}.*/bin/python{version}"))),
    ]
    for python in filter(None, found):
        asked = [python, "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.stdout == f"{version}\n":
            return python
    return None


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_every_python_installs_and_runs_it(wheel: Path, tmp_path: Path, version: str) -> None:
    """The wheel with its dependencies, as pip resolves them, on every Python that the classifiers name."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version} with venv here")
    try:
        call(python, "-m", "venv", tmp_path / "env", cwd=tmp_path)
        own = tmp_path / "env" / "bin" / "python"
        call(own, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
        call(own, "-m", "pip", "check", cwd=tmp_path)
        works(own, tmp_path)
    finally:
        shutil.rmtree(tmp_path / "env", ignore_errors=True)
