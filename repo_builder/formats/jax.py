"""``module.py:factory`` whose file imports JAX: the user's own Python, run by JAX in an environment of its own."""

from __future__ import annotations

import ast
import hashlib
import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder import toolchain
from repo_builder.artifact import Artifact, file_digest, tree_files
from repo_builder.errors import SpecError
from repo_builder.formats import factory, framework_process, source_file
from repo_builder.formats.framework_process import Framework, Progress
from repo_builder.tensors import TensorSpec

NAME = "jax"
TAKES = "a factory in a Python file that imports jax or flax, and not torch (module.py:factory)"
FRAMEWORK = Framework(
    "jax-0.10.2",
    ("jax==0.10.2", "jaxlib==0.10.2", "flax==0.12.8", "jax2onnx==0.17.1", "onnx==1.23.2", "numpy==2.4.6"),
    "jax_worker.py",
    opset=21,
    variables={"JAX_PLATFORMS": "cpu"},
)
RUNTIME = "JAX 0.10.2 on the CPU, in a process of its own"
_PYTHONS = (3, 11), (3, 14)
# Source: the Python packaging specification "inline script metadata" (PEP 723).
_SCRIPT = re.compile(r"(?m)^# /// script\s*$\s(?P<content>(?:^#(?:| .*)$\s)+)^# ///\s*$")


def matches(path: Path) -> bool:
    """A factory whose file imports ``jax`` or ``flax``, anywhere in it, and not ``torch``."""
    if not factory.matches(path):
        return False
    tree = _tree(factory.split(path)[0])
    roots = {name.partition(".")[0] for node in ast.walk(tree) for name in _imports(node)} if tree else set()
    return bool(roots & {"jax", "flax"}) and "torch" not in roots


def describe(path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
    """The artifact, without a signature, which ``opened`` tells: nothing runs here.

    Facts: ``factory``, ``options`` (for the worker), ``reads`` (files and folders beside the file that its text names),
    ``weights_sha256`` (their digest).

    Raises:
        SourceMissingError, SourceCorruptError: there is no such file.
    """
    file, name = factory.split(path)
    source_file.refuse_stand_ins(file)
    reads = _reads(file)
    facts: dict[str, Any] = {"factory": name, "kind": NAME, "reads": list(reads)}
    if reads:
        facts["weights_sha256"] = _digest(file.parent, reads)
    facts["options"] = {"factory": name, "weights": facts.get("weights_sha256", "")}
    return Artifact(file, NAME, tuple(inputs), files=(file.name,), facts=facts)


def opened(artifact: Artifact, progress: Progress | None = None) -> Artifact:
    """The artifact with the signature that JAX finds by tracing. This runs the user's code.

    Raises:
        SpecError: the file or the factory fails, with file and line of the user's code; or its metadata.
        SignatureError: what it returns cannot be traced.
        ToolchainError, FrameworkError: JAX's environment, or its process.
    """
    toolchain.check_version(toolchain.this_interpreter(), *_PYTHONS, "JAX 0.10.2 has no wheels for it")
    if extra := requirements(artifact.path):
        artifact = replace(artifact, facts={**artifact.facts, "requirements": list(extra)})
    return framework_process.opened(FRAMEWORK, artifact, progress)


def run(artifact: Artifact, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """JAX's own answers by name."""
    return framework_process.of(FRAMEWORK, artifact).run(inputs)


def requirements(file: Path) -> tuple[str, ...]:
    """What the file's inline script metadata names as ``dependencies``.

    Raises:
        SpecError: the block is no TOML, or they are no list of strings.
    """
    found = _SCRIPT.findall(file.read_text(encoding="utf-8"))
    if not found:
        return ()
    tomllib: Any = importlib.import_module("tomllib")  # from Python 3.11 on, as JAX is
    lines = (line[2:] if line.startswith("# ") else line[1:] for line in found[0].splitlines())
    expected = 'dependencies = ["name==1.0"]'
    try:
        told = tomllib.loads("\n".join(lines)).get("dependencies", [])
    except ValueError as error:
        raise SpecError(f"the script block of {file} is no TOML: {error}", expected=expected) from error
    if not isinstance(told, list) or not all(isinstance(one, str) and one[:1].isalnum() for one in told):
        raise SpecError(f"the dependencies of {file} are {told!r}", expected=expected)
    return tuple(told)


def _tree(file: Path) -> ast.Module | None:
    try:
        return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [one.name for one in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []


def _reads(file: Path) -> tuple[str, ...]:
    """Files and folders beside the file that a string in it names: weights, mostly."""
    tree, found = _tree(file), set()
    for node in ast.walk(tree) if tree else ():
        text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
        plain = text and len(text) < 256 and text.isprintable() and not text.startswith("/")
        parts = Path(text).parts if plain else ()
        if parts and ".." not in parts and Path(text) != Path(file.name) and (file.parent / text).exists():
            found.add(text)
    return tuple(sorted(found))


def _digest(folder: Path, names: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        path = folder / name
        files = [(f"{name}/{one}", path / one) for one in tree_files(path)] if path.is_dir() else [(name, path)]
        for called, one in files:
            digest.update(f"{called}\0{file_digest(one)}\0".encode())
    return digest.hexdigest()
