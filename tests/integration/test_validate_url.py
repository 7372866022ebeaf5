"""A proof by a server of the user's says what that server is, as the server tells it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from repo_builder import pipeline
from tests import models

pytestmark = pytest.mark.server


def test_a_server_that_is_not_the_targets_and_has_a_stand_in_is_named_so(
    tmp_path: Path, server_factory: Callable[..., Any]
) -> None:
    out = tmp_path / "repository"
    pipeline.build(models.linear_onnx(tmp_path / "linear.onnx"), out, target="26.07", verify=False).raise_failed()
    running = server_factory(out, onnxruntime="1.19.2", models=["linear"])
    report = pipeline.validate(out, server=running.url).reports["linear"]
    assert report["server"]["kind"] == "url"
    assert report["backends"] == {"linear": "onnxruntime (Python stand-in)"}
    assert report["limits"] == [
        "served by Triton 24.10 (2.51.0), not by the target image 26.07",
        "Python stand-ins served for the compiled backends onnxruntime",
    ]
    report = pipeline.validate(out, server=running.url, target="24.10").reports["linear"]
    assert report["limits"] == ["Python stand-ins served for the compiled backends onnxruntime"]
