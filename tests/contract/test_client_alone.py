"""The client works where only numpy and tritonclient[grpc] are installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "tests" / "integration" / "client_models"
PROGRAM = """
import json, sys
from importlib.metadata import distributions
from repo_builder import client
with client.connect(sys.argv[1]) as triton:
    triton.wait_ready()
    answer = triton.infer("upper", {"text": ["one", "zwei"]})
installed = {d.metadata["Name"].lower() for d in distributions()}
print(json.dumps({
    "upper": client.text(answer["upper"]), "length": answer["length"].tolist(),
    "extra": sorted(installed & {"pydantic", "typer", "rich", "onnx", "onnxruntime", "jinja2", "repo-builder"}),
    "ours": sorted(m for m in sys.modules if m.startswith("repo_builder.") and ".client" not in m),
}))
"""


@pytest.mark.server
def test_the_client_needs_numpy_and_tritonclient_alone(server_factory: Callable[..., Any], tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    subprocess.run([*pip, "numpy", "tritonclient[grpc]"], check=True)
    shutil.copytree(MODELS / "upper", tmp_path / "models" / "upper")
    server = server_factory(tmp_path / "models")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [python, "-c", PROGRAM, server.url], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "upper": ["ONE", "ZWEI"],
        "length": [[3], [4]],
        "extra": [],
        "ours": ["repo_builder.errors", "repo_builder.tensors"],
    }
