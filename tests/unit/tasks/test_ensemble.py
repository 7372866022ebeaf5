"""The ensemble builder: wiring by names, and every gap refused with both sides named."""

from __future__ import annotations

from typing import Any

import pytest

from repo_builder.errors import SignatureError
from repo_builder.model_config import build
from repo_builder.planned import PlannedModel
from repo_builder.tasks.ensemble import Step, ensemble

TEXT = {"name": "TEXT", "data_type": "TYPE_STRING", "dims": [1]}


def tensor(name: str, kind: str = "TYPE_INT64", dims: tuple[int, ...] = (-1,)) -> dict[str, Any]:
    return {"name": name, "data_type": kind, "dims": list(dims)}


def model(name: str, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> PlannedModel:
    return PlannedModel(build({"name": name, "max_batch_size": 8, "input": inputs, "output": outputs}))


TOKENIZER = model("t", [TEXT], [tensor("input_ids"), tensor("offsets", dims=(-1, 2))])
ENCODER = model("e", [tensor("input_ids")], [tensor("logits", "TYPE_FP32", (3,)), tensor("hidden", "TYPE_FP32")])


def test_tensors_are_wired_by_name_and_unread_ones_are_not_mapped() -> None:
    steps = [Step(TOKENIZER), Step(ENCODER, {"logits": "LOGITS"})]
    config = ensemble("all", [TEXT], steps, ["LOGITS"], 8).config
    assert [(o.name, list(o.dims)) for o in config.output] == [("LOGITS", [3])]
    tokenizer, encoder = config.ensemble_scheduling.step
    assert dict(tokenizer.input_map) == {"TEXT": "TEXT"}
    assert dict(tokenizer.output_map) == {"input_ids": "input_ids"}
    assert dict(encoder.output_map) == {"logits": "LOGITS"}
    assert config.max_batch_size == 8


def test_a_renamed_tensor_feeds_later_steps_under_its_new_name() -> None:
    named = {"input_ids": "IDS"}
    config = ensemble("all", [TEXT], [Step(TOKENIZER, named), Step(ENCODER, named)], ["hidden"], 8).config
    assert dict(config.ensemble_scheduling.step[1].input_map) == {"input_ids": "IDS"}


def test_a_tensor_that_a_step_reads_is_not_handed_out() -> None:
    with pytest.raises(SignatureError, match="input_ids would be handed out and read by another step as well"):
        ensemble("all", [TEXT], [Step(TOKENIZER), Step(ENCODER)], ["input_ids", "hidden"], 8)


def test_a_reshape_of_an_output_is_the_steps_alone() -> None:
    """Seen in tests/integration/test_string_lookup.py: the server refuses to load an ensemble that repeats it."""
    scalar = model("s", [TEXT], [{**tensor("score", "TYPE_FP32", (1,)), "reshape": {"shape": []}}])
    (output,) = ensemble("all", [TEXT], [Step(scalar)], ["score"], 8).config.output
    assert not output.HasField("reshape")
    assert list(output.dims) == [1]


@pytest.mark.parametrize(
    ("steps", "outputs", "words"),
    [
        ([Step(ENCODER)], ["logits"], "step 'e' reads 'input_ids', which nothing before it writes expected: one of"),
        ([Step(TOKENIZER)], ["logits"], "logits are not written expected: outputs of its steps: input_ids, offs"),
        ([Step(TOKENIZER)], ["TEXT"], "the outputs TEXT are not written"),
        ([Step(TOKENIZER), Step(TOKENIZER)], ["offsets"], "'input_ids' is written twice"),
        (
            [Step(TOKENIZER), Step(model("e", [tensor("input_ids", "TYPE_INT32")], [tensor("logits")]))],
            ["logits"],
            "step 'e' reads 'input_ids' as TYPE_INT32[-1], but it is TYPE_INT64[-1]",
        ),
        (
            [Step(TOKENIZER), Step(model("e", [tensor("offsets", dims=(-1, 3))], [tensor("logits")]))],
            ["logits"],
            "step 'e' reads 'offsets' as TYPE_INT64[-1, 3], but it is TYPE_INT64[-1, 2]",
        ),
    ],
)  # fmt: skip
def test_gaps_are_refused(steps: list[Step], outputs: list[str], words: str) -> None:
    with pytest.raises(SignatureError) as refused:
        ensemble("all", [TEXT], steps, outputs, 8)
    assert words in " ".join(str(refused.value).split())
