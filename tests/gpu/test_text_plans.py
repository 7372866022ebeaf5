"""Tiny text models as TensorRT plans on a real GPU: built, served by the embedded server, and proved over gRPC.

Needs what ``test_plans.py`` needs, and repo-builder with PyTorch and transformers; TensorRT may be that of the Python
that REPO_BUILDER_TENSORRT_PYTHON names. ``pytest -m gpu tests/gpu``, or ``python tests/gpu/test_text_plans.py``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))
import by_hand

try:
    import pytest

    pytestmark = pytest.mark.gpu
except ImportError:
    pass

BUCKETS = [
    {"sequence": {"min": 12, "opt": 16, "max": 16}},
    {"sequence": {"min": 17, "opt": 32, "max": 48}},
]
"""No bucket begins at one token: shorter texts are padded, longer ones cut, by the tokenizer that is served."""


def built(task: str, head: str, precision: str, *, config: Any = None, **fields: Any) -> tuple[Path, dict[str, Any]]:
    """The repository and its report; the build has served it and compared every sample."""
    from repo_builder import pipeline
    from tests import tiny_transformers

    folder = Path(tempfile.mkdtemp(prefix=f"{task}-"))
    source = tiny_transformers.save("bert", head, folder / "bert", config=config)
    result = pipeline.build(
        str(source),
        folder / "repository",
        name="m",
        task=task,
        engine="tensorrt",
        precision=precision,
        batching={"max_batch_size": 8},
        **fields,
    )
    result.raise_failed()
    report = result.reports["m"]
    assert report["engine"]["format"] == "tensorrt_plan", report["engine"]
    assert report["passed"], json.dumps(report["outputs"], indent=1)
    return folder / "repository", report


def test_text_classification_gives_its_labels() -> None:
    from repo_builder import client, pipeline

    # LOGITS of one text may all lie near zero, where half precision has no small error relative to them: up to 1.8
    # over all texts, off by 4.3e-3 in the emulation on the CPU and by 2.0e-3 in TensorRT 8.6.
    for precision, limit in (("fp32", {}), ("fp16", {"LOGITS": {"max_abs_error": 5e-3}})):
        repository, report = built("text-classification", "sequence-classification", precision, tolerances=limit)
        assert report["outputs"]["LABELS"]["max_abs_error"] == 0.0
        assert sorted(p.name for p in repository.iterdir()) == ["m", "m_encoder", "m_strings", "m_tokenizer"]
        assert (repository / "m_encoder" / "1" / "model.plan").is_file()
        with (
            pipeline.serve(repository, target=None, ports=(0, 0, 0)) as running,
            client.connect(running.url) as connection,
        ):
            answer = connection.infer("m", {"TEXT": ["a cat", "", "the harbour before dawn " * 40]})
            alone = connection.infer("m", {"TEXT": ["a cat"]}, outputs=["LABELS"])
        assert answer["LABELS"].shape == answer["SCORES"].shape
        assert all(len(set(row)) == len(row) for row in answer["LABELS"].tolist())
        assert (np.diff(answer["SCORES"], axis=1) <= 0).all()
        np.testing.assert_array_equal(alone["LABELS"][0], answer["LABELS"][0])


def test_buckets_that_only_the_profiles_name_serve_every_text() -> None:
    _, report = built(
        "text-classification", "sequence-classification", "fp32", tensorrt={"profiles": BUCKETS, "timing_cache": False}
    )
    assert len(report["engine"]["profiles"]) == 2
    assert report["outputs"]["LABELS"]["max_abs_error"] == 0.0


def test_token_classification_finds_its_entities() -> None:
    _, report = built("token-classification", "token-classification", "fp32")
    assert report["outputs"]["ENTITIES"]["max_abs_error"] == 0.0


def test_fill_mask_gives_its_tokens() -> None:
    _, report = built("fill-mask", "masked-lm", "fp32")
    assert report["outputs"]["TOKEN_STRINGS"]["max_abs_error"] == 0.0


def test_reranking_is_calibrated_on_pairs() -> None:
    _, report = built(
        "reranking",
        "sequence-classification",
        "int8",
        config={"num_labels": 1},
        tolerances={"*": {"max_rel_error": 1.0}},
    )
    notes = " ".join(report["engine"]["precision_loss"]["notes"])
    assert "few" not in notes, notes


def test_zero_shot_classification_takes_several_labels() -> None:
    built("zero-shot-classification", "nli", "fp32")


if __name__ == "__main__":
    sys.exit(by_hand.run(globals()))
