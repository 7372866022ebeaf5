"""Image classification from tiny models to the served proof: many encodings, mixed batches, broken images, labels."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ServerFactory

from repo_builder import client, model_config, pipeline, proof, render, validate
from repo_builder.errors import InferenceError
from repo_builder.repository.layout import Layout
from repo_builder.tasks import sample_images
from tests import spec_builds, tiny_vision

pytestmark = [pytest.mark.server, pytest.mark.torch]
pytest.importorskip("PIL")
MODELS = ("vit", "resnet", "several")
SPEC = "target: 24.10\nmodels:\n" + "".join(f"- {{source: {name}, cpus: 1}}\n" for name in MODELS)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[pipeline.Result, Path]:
    home = tmp_path_factory.mktemp("images")
    for name in MODELS[:-1]:
        tiny_vision.save(name, home / name)
    tiny_vision.save("deit", home / "several", problem_type="multi_label_classification")
    return spec_builds.build(home, SPEC)


@pytest.fixture(scope="module")
def url(built: tuple[pipeline.Result, Path], server_factory: ServerFactory) -> str:
    """The repository, and a copy of one model whose channels are swapped."""
    home = built[1].parent / "planted"
    shutil.copytree(built[1], home)
    for step in ("", "_preprocess", "_encoder"):
        shutil.copytree(built[1] / f"vit{step}", home / f"swapped{step}")
        path = home / f"swapped{step}" / "config.pbtxt"
        config = model_config.parse(path.read_text(encoding="utf-8").replace('"vit', '"swapped'))
        if step == "_preprocess":
            config = model_config.apply_overrides(config, {"parameters": {"channel_order": "bgr"}})
        path.unlink()
        path.write_text(render.render_config(config), encoding="utf-8")
    return str(server_factory(home, onnxruntime="1.19.2").url)


@pytest.fixture(scope="module")
def served(url: str) -> Iterator[client.Client]:
    with client.connect(url) as connection:
        yield connection


def images(*encoded: bytes) -> Any:
    return np.array([[one] for one in encoded], dtype=object)


@pytest.mark.parametrize("name", MODELS)
def test_labels_and_scores_equal_the_pipeline(name: str, built: tuple[pipeline.Result, Path]) -> None:
    result, repository = built
    report = result.reports[name]
    assert report["passed"] is True
    assert report["task"]["name"] == "image-classification"
    assert "pipeline('image-classification') with Pillow" in report["reference"]
    assert set(report["requests"]) == {"alone", "batched", "concurrent", "separately"}
    assert report["outputs"]["SCORES"]["limits"] == {"max_abs_error": 1e-4}
    cases = proof.load(Layout.of(repository).proof(name)).cases
    assert len(cases) == 64
    assert len({case.outputs["LABELS"][0, 0] for case in cases}) > 1, "answers vary"
    assert np.std([case.outputs["LOGITS"][0, 0] for case in cases]) > 0.01
    sums = [case.outputs["SCORES"].sum() for case in cases]
    assert np.allclose(sums, 1, atol=1e-5) is (name != "several")


def test_images_of_many_sizes_and_encodings_make_one_batch(
    built: tuple[pipeline.Result, Path], served: client.Client
) -> None:
    cases = proof.load(Layout.of(built[1]).proof("vit")).cases[:16]
    answer = served.infer("vit", {"IMAGE": images(*(case.inputs["IMAGE"][0, 0] for case in cases))})
    for row, case in enumerate(cases):
        np.testing.assert_allclose(answer["LOGITS"][row], case.outputs["LOGITS"][0], atol=1e-4)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (b"", "input 'IMAGE': image 0 is no image that is taken here \\(0 bytes\\)"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no image that is taken here"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image that is taken here"),
        ("truncated", "image 0 cannot be decoded: "),
        ("bomb", "image 0 has 20000 x 20000 pixels, more than 89478485 in all"),
    ],
)
def test_a_broken_image_is_refused_alone(broken: Any, message: str, served: client.Client) -> None:
    from PIL import Image

    good = sample_images.built_in()[0]
    if broken == "truncated":
        broken = sample_images.built_in()[6][:-40]
    if broken == "bomb":
        buffer = io.BytesIO()
        Image.new("1", (20000, 20000)).save(buffer, "PNG")
        broken = buffer.getvalue()
    expected = served.infer("vit", {"IMAGE": images(good)})["LABELS"]
    with ThreadPoolExecutor(8) as pool:
        running = [
            pool.submit(served.infer, "vit", {"IMAGE": images(broken if number == 3 else good)}) for number in range(8)
        ]
    with pytest.raises(InferenceError, match=message):
        running.pop(3).result()
    for one in running:
        np.testing.assert_array_equal(one.result()["LABELS"], expected)


def test_tritons_classification_extension_answers_with_labels(built: tuple[pipeline.Result, Path], url: str) -> None:
    import tritonclient.grpc as triton

    case = proof.load(Layout.of(built[1]).proof("vit")).cases[0]
    entry = triton.InferInput("IMAGE", [1, 1], "BYTES")
    entry.set_data_from_numpy(case.inputs["IMAGE"])
    with triton.InferenceServerClient(url) as connection:
        answer = connection.infer("vit", [entry], outputs=[triton.InferRequestedOutput("LOGITS", class_count=2)])
    found = [text.decode().split(":") for text in answer.as_numpy("LOGITS")[0]]
    assert [label for _, _, label in found] == [label.decode() for label in case.outputs["LABELS"][0, :2]]
    assert [int(index) for _, index, _ in found] == [tiny_vision.LABELS.index(label) for _, _, label in found]


def test_swapped_channels_are_refused(built: tuple[pipeline.Result, Path], served: client.Client) -> None:
    import dataclasses

    stored = proof.load(Layout.of(built[1]).proof("vit"))
    report = validate.validate(served, dataclasses.replace(stored, model="swapped"))
    assert not report.passed
    assert not report.outputs["LOGITS"]["passed"]
    assert validate.validate(served, stored).passed
