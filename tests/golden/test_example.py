"""The committed example is what the code writes today, byte for byte."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from repo_builder import model_config
from repo_builder.tasks import vendored

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "model_repository"


def tree(folder: Path) -> dict[str, bytes]:
    """Every file but the vendored library, which git ignores, and caches."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not {"vendor", "__pycache__"} & set(p.parts)
    }


@pytest.mark.torch
def test_the_example_is_reproduced(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "example.py"))
    source = script["tiny_encoder"](tmp_path / "tiny_encoder")
    script["build"](source, tmp_path / "model_repository", verify=False)
    written, committed = tree(tmp_path / "model_repository"), tree(EXAMPLE)
    assert sorted(written) == sorted(committed), "run `make example`"
    for name, content in written.items():
        assert content == committed[name], f"{name} differs; run `make example`"


def test_the_vendored_library_is_pinned_by_digest() -> None:
    path = EXAMPLE / "tiny_encoder_tokenizer" / "config.pbtxt"
    parameters = model_config.parse(path.read_text(encoding="utf-8"), str(path)).parameters
    library = vendored.library("tokenizers")
    assert parameters["tokenizers_version"].string_value == library.version
    assert parameters["tokenizers_sha256"].string_value == library.digest


def test_the_example_is_small() -> None:
    assert sum(map(len, tree(EXAMPLE).values())) < 100_000
