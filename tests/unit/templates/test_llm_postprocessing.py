"""The postprocessing model: text of every row and beam, half characters as their bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import language_tokenizers
import llm_backend_stand_in as stand_in
import numpy as np
import pytest
from llm_backend_stand_in import Request

from repo_builder.llm import source
from repo_builder.tasks.llm_tokens import LlmTokens, tokens


@pytest.fixture(scope="module", params=["byte_level", "byte_fallback"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlmTokens]:
    folder = tmp_path_factory.mktemp(request.param)
    language_tokenizers.hugging_face(folder, getattr(language_tokenizers, request.param)(), end_ids=[2])
    return folder, tokens(folder, source.read(folder))


def serve(found: tuple[Path, LlmTokens], **parameters: str) -> Any:
    folder, made = found
    inputs = ("TOKENS_BATCH", "SEQUENCE_LENGTH")
    return stand_in.load(made.postprocessing, folder / "served", inputs, ["OUTPUT"], **parameters)


def texts(served: Any, rows: list[list[list[int]]], fill: int = -1) -> list[bytes]:
    width = max(len(beam) for row in rows for beam in row)
    batch = [[beam + [fill] * (width - len(beam)) for beam in row] for row in rows]
    lengths = np.array([[len(beam) for beam in row] for row in rows], np.int32)
    request = Request(TOKENS_BATCH=np.array(batch, np.int32), SEQUENCE_LENGTH=lengths)
    [response] = served.execute([request])
    assert not response.has_error()
    return list(response.arrays["OUTPUT"])


def test_rows_and_beams_follow_each_other(found: tuple[Path, LlmTokens]) -> None:
    served = serve(found, streaming="false")
    said = ["晚上睡不着", "a fox", "👩‍👩‍👧", "x"]
    ids = [found[1].encode(text) for text in said]
    assert texts(served, [ids[:2], ids[2:]]) == [text.encode() for text in said]
    assert texts(served, [ids[:2], ids[2:]], fill=5) == [text.encode() for text in said]


def test_half_a_character_is_passed_on_as_its_bytes(found: tuple[Path, LlmTokens]) -> None:
    ids = found[1].encode("ab🦕c", add_special_tokens=False)
    served = serve(found)
    parts = [texts(served, [[[token]]])[0] for token in ids]
    assert b"".join(parts).decode().strip() == "ab🦕c"
    assert any(part.decode("utf-8", "replace") == "�" for part in parts)
    broken = texts(serve(found, streaming="false"), [[ids[:-2]]])[0].decode()
    assert broken.startswith("ab�")


def test_special_tokens_are_left_out_unless_asked_for(found: tuple[Path, LlmTokens]) -> None:
    name = "<|user|>"
    ids = found[1].encode(f"a{name}", add_special_tokens=False)
    assert texts(serve(found, streaming="false"), [[ids]]) == [b"a"]
    assert texts(serve(found, streaming="false", skip_special_tokens="false"), [[ids]]) == [f"a{name}".encode()]


def test_nothing_is_an_empty_text(found: tuple[Path, LlmTokens]) -> None:
    request = Request(TOKENS_BATCH=np.zeros((1, 1, 0), np.int32), SEQUENCE_LENGTH=np.zeros((1, 1), np.int32))
    [response] = serve(found).execute([request])
    assert list(response.arrays["OUTPUT"]) == [b""]


def test_wrong_shapes_are_refused_alone(found: tuple[Path, LlmTokens]) -> None:
    wrong = Request(TOKENS_BATCH=np.zeros((1, 2), np.int32), SEQUENCE_LENGTH=np.zeros((1, 1), np.int32))
    good = Request(TOKENS_BATCH=np.zeros((1, 1, 1), np.int32), SEQUENCE_LENGTH=np.zeros((1, 1), np.int32))
    refused, served = serve(found).execute([wrong, good])
    assert refused.error().message().startswith("TOKENS_BATCH has shape [1, 2] and SEQUENCE_LENGTH [1, 1], expected")
    assert list(served.arrays["OUTPUT"]) == [b""]
