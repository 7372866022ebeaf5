"""Factories of JAX, told from PyTorch's without running them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from repo_builder import formats
from repo_builder.errors import SpecError
from repo_builder.formats import jax

FACTORY = "def net():\n    return None\n"


def written(folder: Path, text: str, name: str = "net.py") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize(
    ("imports", "format_"),
    [
        ("import jax.numpy as jnp\n", "jax"),
        ("from flax import nnx\n", "jax"),
        ("def other():\n    import jax\n", "jax"),
        ("import torch\n", "factory"),
        ("import jax, torch\n", "factory"),
        ("from . import jax\n", "factory"),
        ("# import jax\n", "factory"),
        ("import jax\nthis is no Python\n", "factory"),
        ("import jaxtyping\n", "factory"),
    ],
)
def test_the_imports_of_its_file_tell_whose_factory_it_is(tmp_path: Path, imports: str, format_: str) -> None:
    file = written(tmp_path, imports + FACTORY)
    assert formats.detect(f"{file}:net") == (format_, Path(f"{file}:net"))


def test_nothing_of_it_runs_until_it_is_opened(tmp_path: Path) -> None:
    file = written(tmp_path, "import jax\nraise SystemExit('ran')\n" + FACTORY)
    artifact = jax.describe(Path(f"{file}:net"))
    assert (artifact.path, artifact.format, artifact.inputs, artifact.files) == (file, "jax", (), ("net.py",))
    assert artifact.facts["factory"] == "net"


def test_weights_beside_it_that_its_text_names_belong_to_the_model(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    written(tmp_path / "checkpoint", "1", "d")
    written(tmp_path, "2", "weights.npz")
    written(tmp_path, "3", "other.npz")
    outside = written(tmp_path.parent, "4", "outside.npz")
    text = f"import jax\nnames = 'weights.npz', 'checkpoint', 'net.py', '../outside.npz', '{outside}', '', 'no.npz'\n"
    path = Path(f"{written(tmp_path, text + FACTORY)}:net")
    told = jax.describe(path).facts
    assert told["reads"] == ["checkpoint", "weights.npz"]
    written(tmp_path, "5", "other.npz")
    assert jax.describe(path).facts["weights_sha256"] == told["weights_sha256"]
    written(tmp_path / "checkpoint", "6", "d")
    assert jax.describe(path).facts["weights_sha256"] != told["weights_sha256"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is there from 3.11 on, as JAX 0.10 is")
def test_packages_that_it_needs_stand_in_its_script_block(tmp_path: Path) -> None:
    block = '# /// script\n# dependencies = [\n#   "orbax-checkpoint",\n#   "einops==0.8.1",  # shapes\n# ]\n# ///\n'
    assert jax.requirements(written(tmp_path, block + FACTORY)) == ("orbax-checkpoint", "einops==0.8.1")
    assert jax.requirements(written(tmp_path, FACTORY)) == ()
    for content, found in [
        ('dependencies = "einops"', "are 'einops'"),
        ('dependencies = ["--index-url=x"]', "--index-url=x"),
        ("dependencies = [", "is no TOML"),
    ]:
        with pytest.raises(SpecError) as caught:
            jax.requirements(written(tmp_path, f"# /// script\n# {content}\n# ///\n"))
        assert found in caught.value.found
