"""Proofs of models that answer in parts, against a double of the client; the real server is in tests/integration."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from repo_builder import proof as stored
from repo_builder import validate
from repo_builder.errors import InferenceError
from repo_builder.proof import Case, Proof

TEXTS = ["天气很好", "plain", "👍🏽!"]


class Streams:
    """A double of the client: every answer in parts of two bytes, or all of it so far in every part."""

    def __init__(self, joined: str, spoil: str = "") -> None:
        self.joined, self.spoil, self.sent = joined, spoil, 0

    def config(self, _model):
        return SimpleNamespace(max_batch_size=8)

    def stream(self, _model, inputs, *, outputs):
        self.sent += 1
        raw = inputs["text_input"].reshape(-1)[0]
        if self.spoil == "error" and raw == TEXTS[1].encode():
            raise InferenceError("the model failed half-way")
        if self.spoil == "text":
            raw = raw.replace(b"p", b"q")
        ends = range(2, len(raw) + 2, 2)
        for end in ends:
            part = raw[:end] if self.joined == "cumulative" else raw[end - 2 : end]
            yield {name: np.array([part], dtype=object) for name in outputs}


def proved(joined: str) -> Proof:
    cases = []
    for text in TEXTS:
        raw = np.array([text.encode()], dtype=object)
        cases.append(Case({"text_input": raw}, {"text_output": raw}))
    return Proof("m", tuple(cases), False, reference="echo", streamed=joined)


@pytest.mark.parametrize("joined", ["deltas", "cumulative"])
def test_parts_make_the_answer(joined: str) -> None:
    client = Streams(joined)
    report = validate.validate(client, proved(joined))
    assert report.passed, report.failures()
    assert report.requests == {"alone": 3, "concurrent": 3}
    assert client.sent == 7  # one to warm up
    assert report.first_response_ms["p50"] >= 0


def test_a_wrong_text_is_shown_where_it_parts() -> None:
    report = validate.validate(Streams("deltas", "text"), proved("deltas"))
    assert not report.passed
    assert "'qlain' served, 'plain' in the source" in report.failures()[0]


def test_parts_that_are_joined_the_wrong_way_fail() -> None:
    assert not validate.validate(Streams("cumulative"), proved("deltas")).passed
    assert not validate.validate(Streams("deltas"), proved("cumulative")).passed


def test_an_error_half_way_is_told() -> None:
    report = validate.validate(Streams("deltas", "error"), proved("deltas"))
    assert not report.passed
    assert "the model failed half-way" in report.refused[0]


def test_a_proof_remembers_how_parts_are_joined(tmp_path: Path) -> None:
    stored.save(proved("cumulative"), tmp_path / "p.npz")
    assert stored.load(tmp_path / "p.npz").streamed == "cumulative"
    stored.save(Proof("m", proved("").cases), tmp_path / "q.npz")
    assert stored.load(tmp_path / "q.npz").streamed == ""
