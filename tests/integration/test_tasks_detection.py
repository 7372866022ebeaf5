"""Object detection from a tiny model to the served proof: batches of images of several sizes, broken ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ServerFactory

from repo_builder import client, pipeline, proof
from repo_builder.errors import InferenceError
from repo_builder.repository.layout import Layout
from tests import spec_builds, tiny_vision

pytestmark = [pytest.mark.server, pytest.mark.torch]
pytest.importorskip("PIL")
SPEC = """
target: 24.10
models:
- source: {}
  cpus: 1
  step_configs: {{postprocess: {{parameters: {{threshold: '{}'}}}}}}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[pipeline.Result, Path]:
    home = tmp_path_factory.mktemp("detection")
    tiny_vision.save_detector("yolos", home / "yolos")
    return spec_builds.build(home, SPEC.format("yolos", "0.3"))


@pytest.fixture(scope="module")
def served(built: tuple[pipeline.Result, Path], server_factory: ServerFactory) -> Iterator[client.Client]:
    with client.connect(str(server_factory(built[1], onnxruntime="1.19.2").url)) as connection:
        yield connection


def images(*encoded: bytes) -> Any:
    return np.array([[one] for one in encoded], dtype=object)


def check(report: dict[str, Any], cases: tuple[proof.Case, ...]) -> None:
    assert report["passed"] is True
    assert report["task"]["name"] == "object-detection"
    assert {"alone", "concurrent", "separately"} <= set(report["requests"])
    assert len(cases) > 40
    counts = {case.outputs["LABELS"].shape[1] for case in cases}
    assert len(counts) > 1, "images of several numbers of objects"
    assert max(case.outputs["BOXES"].max() for case in cases) > 100, "pixels of the original image"


def test_objects_equal_the_pipelines(built: tuple[pipeline.Result, Path]) -> None:
    result, repository = built
    report = result.reports["yolos"]
    cases = proof.load(Layout.of(repository).proof("yolos")).cases
    check(report, cases)
    assert "batched" in report["requests"]
    assert len({label for case in cases for label in case.outputs["LABELS"].reshape(-1)}) > 3, "labels vary"
    assert "pipeline('object-detection') with Pillow" in report["reference"]
    assert report["reference"].endswith("scores above 0.3")
    assert report["outputs"]["SCORES"]["limits"] == {"max_abs_error": 1e-4}


def test_images_of_many_sizes_make_one_batch(built: tuple[pipeline.Result, Path], served: client.Client) -> None:
    cases = proof.load(Layout.of(built[1]).proof("yolos")).cases[:12]
    answer = served.infer("yolos", {"IMAGE": images(*(case.inputs["IMAGE"][0, 0] for case in cases))})
    for row, case in enumerate(cases):
        count = np.count_nonzero(case.outputs["LABELS"])
        assert np.count_nonzero(answer["LABELS"][row]) == count
        np.testing.assert_allclose(answer["BOXES"][row, :count], case.outputs["BOXES"][0, :count], atol=1e-2)


def test_a_broken_image_is_refused(served: client.Client) -> None:
    with pytest.raises(InferenceError, match="input 'IMAGE': image 0 is no image that is taken here"):
        served.infer("yolos", {"IMAGE": images(b"none")})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "threshold", "size"),
    [
        ("rt_detr", "0.9", {"height": 64, "width": 64}),
        ("detr", "0.3", {"shortest_edge": 64, "longest_edge": 160}),
        ("yolos", "0.3", {"shortest_edge": 64, "longest_edge": 160}),
    ],
)
def test_other_detectors_are_served_too(architecture: str, threshold: str, size: Any, tmp_path: Path) -> None:
    """Of those that keep an image's ratio height and width are free."""
    tiny_vision.save_detector(architecture, tmp_path / "tiny", size=size)
    result, repository = spec_builds.build(tmp_path, SPEC.format("tiny", threshold))
    assert ("batched" in result.reports["tiny"]["requests"]) is ("height" in size)
    check(result.reports["tiny"], proof.load(Layout.of(repository).proof("tiny")).cases)
