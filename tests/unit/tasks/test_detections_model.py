"""The objects of templates/detections are those of transformers' image processors, best first and padded."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from repo_builder import spec
from repo_builder.errors import SpecError, UnknownTaskError
from repo_builder.tasks import image_settings, object_detection
from tests import backend_utils_stand_in

LABELS = ["cat", "Hund", "喵"]
ROOT = Path(__file__).parents[3]


def served(folder: Path, **parameters: str) -> Any:
    home = folder / "tiny" / "1"
    home.mkdir(parents=True)
    (home / "model.py").write_bytes((ROOT / "templates" / "detections" / "model.py").read_bytes())
    values = {"labels": json.dumps(LABELS), **parameters}
    config = {"parameters": {key: {"string_value": value} for key, value in values.items()}}
    return backend_utils_stand_in.load(home.parent, config)


def answers(rows: int, boxes: int, classes: int) -> dict[str, Any]:
    random = np.random.default_rng(1)
    return {
        "logits": (random.standard_normal((rows, boxes, classes)) * 3).astype(np.float32),
        "pred_boxes": random.random((rows, boxes, 4)).astype(np.float32),
        "image_sizes": random.integers(1, 400, (rows, 2)).astype(np.int32),
    }


@pytest.mark.torch
@pytest.mark.parametrize("kind", object_detection._SCORING)
@pytest.mark.parametrize("limit", [0.2, 0.9])
def test_objects_equal_those_of_transformers(limit: float, kind: str, tmp_path: Path) -> None:
    import torch
    import transformers

    processor = getattr(transformers, f"{kind}ImageProcessorPil")()
    scoring = object_detection._scoring(processor)
    request = answers(5, 60, 3 + (scoring["scoring"] == "softmax"))
    found = served(tmp_path, threshold=str(limit), **scoring).execute([request])[0].arrays
    outputs = SimpleNamespace(**{name: torch.from_numpy(request[name]) for name in ("logits", "pred_boxes")})
    expected = processor.post_process_object_detection(outputs, limit, torch.from_numpy(request["image_sizes"]))
    counts = [len(one["scores"]) for one in expected]
    assert found["LABELS"].shape == (5, max(counts))
    assert limit < 0.5 or len(set(counts)) > 1
    for row, (one, count) in enumerate(zip(expected, counts, strict=True)):
        order = np.argsort(-one["scores"].numpy(), kind="stable")
        assert [label.decode() for label in found["LABELS"][row, :count]] == [LABELS[i] for i in one["labels"][order]]
        np.testing.assert_allclose(found["SCORES"][row, :count], one["scores"][order], atol=1e-6)
        np.testing.assert_allclose(found["BOXES"][row, :count], one["boxes"][order], atol=1e-3)
        assert set(found["LABELS"][row, count:]) <= {b""}
        assert not found["BOXES"][row, count:].any()


def test_an_image_without_objects_is_a_row_of_padding(tmp_path: Path) -> None:
    found = served(tmp_path, threshold="1").execute([answers(2, 4, 4)])[0].arrays
    assert found["LABELS"].tolist() == [[b""], [b""]]
    assert found["SCORES"].dtype == np.float32
    assert found["BOXES"].shape == (2, 1, 4)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"scoring": "relu"}, "parameter 'scoring' is 'relu', expected one of: softmax, sigmoid"),
        ({"threshold": "half"}, "parameter 'threshold' is 'half', expected a number"),
    ],
)
def test_wrong_parameters_are_refused(parameters: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        served(tmp_path, **parameters)


@pytest.mark.parametrize("asked", ["half", "1.5", "-0.1"])
def test_a_threshold_that_is_none_is_refused_at_the_start(asked: str) -> None:
    fields = {"step_configs": {"postprocess": {"parameters": {"threshold": asked}}}}
    with pytest.raises(SpecError, match=f"step_configs: postprocess: threshold is '{asked}'"):
        object_detection.threshold(spec.from_flags("folder", **fields).models[0])


@pytest.mark.torch
def test_processors_that_serve_no_detector_are_refused() -> None:
    import transformers

    with pytest.raises(UnknownTaskError, match="the image processor is a ViTImageProcessorPil"):
        object_detection._scoring(transformers.ViTImageProcessorPil())
    padding = transformers.DetrImageProcessorPil(pad_size={"height": 9, "width": 9})
    with pytest.raises(UnknownTaskError, match="pads images to a pad_size"):
        image_settings.read(padding)
