"""Random histories of builds against a plain picture of what should be in the repository."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from repository_units import ensemble, listing, plain

from repo_builder.repository import manifest, write
from repo_builder.repository.plan import Unit

NAMES = ("a", "b", "mini")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
Picture = dict[str, dict[int, bytes]]
"""Unit -> version -> weights."""


def _unit(name: str, weights: bytes) -> Unit:
    make = ensemble if name == "mini" else plain
    return make(name, weights, key=weights.hex())


def _expected(picture: Picture) -> dict[str, object]:
    found: dict[str, object] = {"hand": "/", "hand/1": "/", "hand/1/model.plan": b"mine"}
    for name, versions in picture.items():
        for model in _unit(name, b"").models:
            found |= {model.name: "/", f"{model.name}/config.pbtxt": ...}
            found |= {f"{model.name}/{path}": content for path, content in model.model_files.items()}
            for version, weights in versions.items():
                files = dict(model.version_files) or {".keep": b""}
                if "model.onnx" in files:
                    files["model.onnx"] = weights
                found[f"{model.name}/{version}"] = "/"
                for path, content in files.items():
                    for folder in list(Path(path).parents)[:-1]:
                        found[f"{model.name}/{version}/{folder.as_posix()}"] = "/"
                    found[f"{model.name}/{version}/{path}"] = content
    return found


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["build", "build", "new-version", "remove", "drop-folder", "abandon", "two"]),
        st.sampled_from(NAMES),
        st.binary(min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=9,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_histories(steps: list[tuple[str, str, bytes]]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        repository = Path(folder) / "models"
        (repository / "hand" / "1").mkdir(parents=True)
        (repository / "hand/1/model.plan").write_bytes(b"mine")
        picture: Picture = {}
        for step in steps:
            _do(repository, picture, *step)
            _compare(repository, picture)


def _do(repository: Path, picture: Picture, what: str, name: str, weights: bytes) -> None:
    if what == "drop-folder":
        for model in _unit(name, b"").models if name in picture else ():
            write.tree.remove(repository / model.name)
        picture.pop(name, None)
        return
    names = NAMES if what == "two" else (name,)
    with write.transaction(repository) as t:
        units = [] if what == "remove" else [_unit(one, weights) for one in names]
        t.stage(units, new_version=what == "new-version", remove=[name] if what == "remove" else [])
        if what == "abandon":
            return
        t.commit()
    if what == "remove":
        picture.pop(name, None)
        return
    for one in names:
        versions = picture.setdefault(one, {})
        newest = max(versions, default=0)
        versions[newest + 1 if what == "new-version" else max(newest, 1)] = weights


def _compare(repository: Path, picture: Picture) -> None:
    found, expected = listing(repository), _expected(picture)
    assert found.keys() == expected.keys()
    assert {k: v for k, v in found.items() if expected[k] is not ...} == {
        k: v for k, v in expected.items() if v is not ...
    }
    for name in NAMES:
        weights = picture[name][max(picture[name])] if name in picture else b"?"
        assert manifest.unchanged(repository, name, weights.hex()) == (name in picture)
    beside = listing(repository.parent / "models.build")
    assert not [path for path in beside if path.startswith("staging")]
    if "manifest.json" in beside:
        units = json.loads(beside["manifest.json"])["units"]
        assert set(picture) <= set(units)
