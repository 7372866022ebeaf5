"""Merged repositories in front of the real embedded server, and the verb on the command line.

There is no GPU: plans are opaque bytes with made-up facts, instances are on the CPU, and the backend ``tensorrt`` is a
stand-in of this test that doubles its input and needs no TensorRT. What is real is the server: it parses the configs,
with ``cc_model_filenames`` and with ``--model-config-name``, and serves them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from repo_builder import client, pipeline
from repo_builder.pipeline.merging import merge
from repo_builder.server import embedded, tensorrt_python
from tests import cli_process
from tests import gpu_repositories as gpus

DOUBLE = b"""
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        return config

    def execute(self, requests):
        found = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() * 2 for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", array)]) for array in found]
"""


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpus")
    small = {"max_batch_size": 2}
    one = gpus.build(folder / "h100", "9.0", program=DOUBLE, kind="KIND_CPU")
    other = gpus.build(folder / "t4", "7.5", program=DOUBLE, kind="KIND_CPU", encoder=small, tokenizer=small)
    merge(one, other, folder / "both")
    return folder / "both"


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("backends") / "with_stand_in"
    shutil.copytree(embedded.prepare(frozenset({"python"})).backends, folder, symlinks=True)
    (folder / "tensorrt").mkdir(exist_ok=True)
    (folder / "tensorrt" / "model.py").write_bytes(DOUBLE)
    return f"--backend-directory={folder}"


@pytest.mark.server
@pytest.mark.parametrize(("arguments", "batch"), [((), 2), (("--model-config-name=sm90",), 8)])
def test_the_server_takes_the_config_of_the_gpu(
    merged: Path,
    backends: str,
    server_factory: Any,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    batch: int,
) -> None:
    monkeypatch.setattr(tensorrt_python, "find", lambda: None)
    running = server_factory(merged, extra_args=[backends, *arguments])
    with client.connect(running.url) as connection:
        connection.wait_ready(models=["m", "m_encoder"])
        for model in ("m", "m_encoder"):
            assert connection.config(model).max_batch_size == batch
        config = connection.config("m_encoder")
        assert dict(config.cc_model_filenames) == {"7.5": "model_sm75.plan", "9.0": "model_sm90.plan"}
        assert connection.metadata("m_encoder").platform == "tensorrt_plan"
    result = pipeline.validate(merged, server=running.url)
    assert result.reports["m"]["passed"] is True


def test_the_verb_merges_and_says_what_differs(tmp_path: Path) -> None:
    gpus.build(tmp_path / "a", "9.0")
    gpus.build(tmp_path / "b", "8.6", encoder={"max_batch_size": 4})
    done = cli_process.run("merge", "a", "b", "-o", "c", "--config-name", "9.0=h100", cwd=tmp_path)
    assert done.code == 0, done.text
    assert "8.6, 9.0" in done.out
    assert "--model-config-name, one of sm86 (8.6), h100 (9.0)" in done.out
    again = cli_process.run("merge", "a", "c", "-o", "c", "--config-name", "9.0=h100", "--json", cwd=tmp_path)
    assert json.loads(again.out)["unchanged"] is True
    gpus.build(tmp_path / "d", "8.0", labels=b"others")
    refused = cli_process.run("merge", "a", "d", "-o", "e", cwd=tmp_path)
    assert refused.code == 30
    assert "a and d differ in m_encoder/labels.txt" in refused.err
