"""Tokenizer models of several families under a server whose Python has numpy and nothing else, of every Python that a
stub is there for; and the repository is left as it was."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ServerFactory

from repo_builder import client, toolchain
from repo_builder.repository.plan import Unit
from repo_builder.repository.write import transaction
from repo_builder.server import embedded
from repo_builder.tasks import tokenizer
from repo_builder.tensors import TensorSpec
from tests import tiny_tokenizers

pytestmark = pytest.mark.server

FAMILIES = ("bert", "roberta", "modernbert", "llama", "xlm-roberta", "t5")
WITH_PAIRS = ("bert", "roberta")
PAIRS = tokenizer.Layout("pairs", {"PAIRS": 2})
HERE = toolchain.this_interpreter()
STUBS = [
    pytest.param(version, marks=[] if version == HERE.short else [pytest.mark.slow])
    for version in ("3.10", "3.11", "3.12")
]
TRITONS_OWN = re.compile(r"[^/]+/1/__pycache__/model\.cpython-\d+\.pyc")
"""What Triton's stub itself leaves beside every model.py that it imports, whatever the environment says."""
ASK = """
import json, sys, sysconfig
print(json.dumps([getattr(sys, "_base_executable", sys.executable), sys.version_info[:3], sys.base_prefix,
                  sysconfig.get_config_var("LIBDIR")]))
"""


def interpreter(version: str) -> toolchain.Interpreter:
    """The ``pythonX.Y`` of this machine; the test is skipped where there is none with its shared library."""
    if version == HERE.short:
        return HERE
    ran = None
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for found in (shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")):
        if found and (ran is None or ran.returncode):
            ran = subprocess.run([found, "-I", "-c", ASK], capture_output=True, text=True, check=False)
    if ran is None or ran.returncode:
        pytest.skip(f"there is no python{version}")
    executable, numbers, prefix, folder = json.loads(ran.stdout)
    python = replace(
        HERE, executable=Path(executable), version=tuple(numbers), prefix=Path(prefix), libraries=(Path(folder),)
    )
    if not (Path(folder) / f"libpython{version}.so.1.0").is_file():
        pytest.skip(f"python{version} comes without its shared library")
    return python


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {family: tmp_path_factory.mktemp(family) for family in FAMILIES}
    for family, folder in folders.items():
        tiny_tokenizers.make(family).save_pretrained(folder)
    return folders


@pytest.fixture(scope="module")
def repository(sources: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    inputs = [TensorSpec(name, "INT64", ("batch", "tokens")) for name in tokenizer.OUTPUTS]
    models = []
    for family, folder in sources.items():
        settings = tokenizer.settings(folder)
        layouts = {family: tokenizer.TEXT_LAYOUT, **({f"{family}_pairs": PAIRS} if family in WITH_PAIRS else {})}
        for name, layout in layouts.items():
            extra = ("offsets", "word_ids")
            models.append(
                tokenizer.model(name, folder, inputs, settings, max_batch_size=64, layout=layout, extra=extra)
            )
    path = tmp_path_factory.mktemp("hermetic") / "repository"
    with transaction(path) as change:
        change.stage([Unit("tokenizers", "key", tuple(models))])
        change.commit()
    return path


def contents(repository: Path) -> dict[str, str]:
    """File -> digest, without what Triton itself writes."""
    files = {str(path.relative_to(repository)): path for path in sorted(repository.rglob("*")) if path.is_file()}
    return {name: digest(path.resolve()) for name, path in files.items() if not TRITONS_OWN.fullmatch(name)}


@functools.lru_cache
def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module", params=STUBS)
def python(request: pytest.FixtureRequest) -> toolchain.Interpreter:
    return interpreter(request.param)


@pytest.fixture(scope="module")
def triton(python: toolchain.Interpreter, repository: Path, server_factory: ServerFactory) -> Iterator[client.Client]:
    before = contents(repository)
    server = server_factory(repository, interpreter=python)
    assert server.versions["python"] == ".".join(map(str, python.version))
    with client.connect(server.url) as connected:
        yield connected
    digest.cache_clear()
    assert contents(repository) == before


def test_the_servers_python_has_numpy_and_nothing_else(python: toolchain.Interpreter) -> None:
    executable = embedded.prepare(frozenset({"python"}), interpreter=python).folder / "bin" / "python"
    code = "import importlib.metadata as m; print(sorted({d.metadata['Name'] for d in m.distributions()}))"
    ran = subprocess.run([str(executable), "-I", "-c", code], capture_output=True, text=True, check=True)
    installers = ["pip", "setuptools"] if python.version < (3, 12) else ["pip"]
    assert ran.stdout.strip() == str(["numpy", "nvidia-pytriton", *installers])


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_and_pairs_equal_transformers(family: str, sources: dict[str, Path], triton: client.Client) -> None:
    from transformers import AutoTokenizer

    source = AutoTokenizer.from_pretrained(sources[family])
    texts = list(tiny_tokenizers.TEXTS)
    several = [texts, texts[1:] + texts[:1]]
    options = {"padding": True, "truncation": True, "return_token_type_ids": True, "return_offsets_mapping": True}
    compare(source(texts, **options), triton.infer(family, {"TEXT": texts}))
    if family not in WITH_PAIRS:
        return
    pairs = np.array([[text.encode() for text in pair] for pair in zip(*several, strict=True)], dtype=object)
    compare(source(*several, **options), triton.infer(f"{family}_pairs", {"PAIRS": pairs}))


def compare(expected: Any, answer: Any) -> None:
    for name in tokenizer.OUTPUTS:
        np.testing.assert_array_equal(answer[name], expected[name], err_msg=name)
    np.testing.assert_array_equal(answer["offsets"], expected["offset_mapping"])
    words = [[-1 if i is None else i for i in expected.word_ids(row)] for row in range(len(expected["input_ids"]))]
    np.testing.assert_array_equal(answer["word_ids"], words)
