"""The ensemble of a text task: its models, their instances, and overrides by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizer_families import save

from repo_builder import spec
from repo_builder.artifact import Artifact
from repo_builder.planned import PlannedModel
from repo_builder.tasks import postprocess, text, tokenizer
from repo_builder.tensors import TensorSpec


def planned(folder: Path, **fields: Any) -> dict[str, PlannedModel]:
    source = save("wordpiece", folder / "source")
    (folder / "model.onnx").write_bytes(b"weights")
    tokens = TensorSpec("input_ids", "INT64", ("batch", "sequence"))
    logits = TensorSpec("logits", "FP32", ("batch", 3))
    engine = Artifact(folder / "model.onnx", "onnx", (tokens,), (logits,), "batch", ("model.onnx",))
    model = spec.from_flags(str(source), name="m", **fields).models[0]
    read, answered = [{"name": "input_ids", "data_type": "TYPE_INT64", "dims": [-1]}], {"name": "TOKENS"}
    reader = postprocess.planned(
        *(model, engine, "masks", tokenizer.settings(source), read),
        *([{**answered, "data_type": "TYPE_INT64", "dims": [-1]}], {}),
    )
    made = text.text_ensemble(model, Artifact(source, "huggingface"), engine, {"LOGITS": "logits"}, postprocess=reader)
    return {one.name: one for one in made}


@pytest.mark.parametrize(("cpus", "processes"), [(None, 1), (1, 1), (8, 1), (16, 2), (64, 8)])
def test_a_tokenizer_process_feeds_eight_cores(tmp_path: Path, cpus: int | None, processes: int) -> None:
    models = planned(tmp_path, cpus=cpus)
    assert list(models) == ["m", "m_tokenizer", "m_encoder", "m_postprocess"]
    assert models["m_tokenizer"].config.instance_group[0].count == processes


def test_overrides_are_laid_over_the_step_that_they_name(tmp_path: Path) -> None:
    asked = {"tokenizer": {"instance_group": [{"count": 3, "kind": "KIND_CPU"}]}}
    assert planned(tmp_path, cpus=16, step_configs=asked)["m_tokenizer"].config.instance_group[0].count == 3


@pytest.mark.parametrize("dynamic", [True, False])
def test_without_dynamic_batching_no_model_merges_requests(tmp_path: Path, dynamic: bool) -> None:
    models = planned(tmp_path, batching={"dynamic": dynamic})
    assert list(models) == ["m", "m_tokenizer", "m_encoder", "m_postprocess"]
    for name in ("m_tokenizer", "m_encoder", "m_postprocess"):
        assert models[name].config.HasField("dynamic_batching") is dynamic, name


def test_a_step_may_merge_where_the_others_do_not(tmp_path: Path) -> None:
    asked = {"tokenizer": {"dynamic_batching": {}}}
    models = planned(tmp_path, batching={"dynamic": False}, step_configs=asked)
    merged = [name for name, one in models.items() if one.config.HasField("dynamic_batching")]
    assert merged == ["m_tokenizer"]
