"""What a plan needs of its server reaches the real tritonserver, and the stand-in reads it there."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from repo_builder import server
from repo_builder.server import needs
from tests.gpu import backend_double
from tests.integration.test_server import write

pytestmark = pytest.mark.server


def test_the_server_takes_the_options_and_the_stand_in_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan is no plan, and there is no TensorRT: it does not load, which leaves the other model served."""
    repository = write(tmp_path / "models")
    version = repository / "plan" / "1"
    version.mkdir(parents=True)
    for name in ("libone.so", "libtwo.so", "model.plan"):
        (version / name).write_bytes(name.encode())
    config = 'backend: "tensorrt"\n'
    for key, value in ((needs.VERSION_COMPATIBLE, "true"), (needs.PLUGINS, "libone.so;libtwo.so")):
        config += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    (version.parent / "config.pbtxt").write_text(config, encoding="utf-8")
    monkeypatch.setattr(needs, "backends", lambda *_asked: frozenset({"python"}))
    expected = {"version-compatible": "true", "plugins": f"{version}/libone.so;{version}/libtwo.so"}
    with server.start(repository, strict=False) as running:
        module: Any = backend_double.stand_in(version)
        monkeypatch.setattr(os, "getppid", lambda: running.pid)
        assert sys.modules[module.Plan.__module__].server_options() == expected
        assert "| echo " in running.log()
    with server.start(repository, models=["echo"]) as running:
        monkeypatch.setattr(os, "getppid", lambda: running.pid)
        assert sys.modules[module.Plan.__module__].server_options() == {}
