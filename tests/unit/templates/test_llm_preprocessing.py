"""The preprocessing model: ids, lengths and word lists of the contract, and what it refuses of one request alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import language_tokenizers
import llm_backend_stand_in as stand_in
import numpy as np
import pytest
from language_tokenizers import CHAT, CHATML
from llm_backend_stand_in import Request, strings

from repo_builder.llm import source
from repo_builder.tasks.llm_tokens import LlmTokens, tokens

INPUTS = (
    *("QUERY", "REQUEST_OUTPUT_LEN", "BAD_WORDS_DICT", "STOP_WORDS_DICT", "EMBEDDING_BIAS_WORDS", "MESSAGES"),
    *("EMBEDDING_BIAS_WEIGHTS", "END_ID", "PAD_ID", "PROMPT_TABLE_EXTRA_ID"),
)
OUTPUTS = (
    *("INPUT_ID", "REQUEST_INPUT_LEN", "BAD_WORDS_IDS", "STOP_WORDS_IDS", "EMBEDDING_BIAS", "REQUEST_OUTPUT_LEN"),
    *("OUT_END_ID", "OUT_PAD_ID", "OUT_PROMPT_TABLE_EXTRA_IDS"),
)
QUESTION = "晚上睡不着应该怎么办"


def _folder(kind: str, folder: Path) -> Path:
    if kind == "chatglm":
        return language_tokenizers.chatglm(folder)
    if kind == "llama":
        special = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": CHAT}
        return language_tokenizers.hugging_face(
            folder, language_tokenizers.byte_fallback(), end_ids=[2, 905, 906], **special
        )
    special = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    return language_tokenizers.hugging_face(folder, language_tokenizers.byte_level(), end_ids=[503], **special)


@pytest.fixture(scope="module", params=["qwen", "llama", "chatglm"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, LlmTokens, Any]:
    folder = _folder(request.param, tmp_path_factory.mktemp(request.param))
    found = tokens(folder, source.read(folder))
    limits = {"max_input_len": "60", "max_seq_len": "80"}
    return request.param, found, stand_in.load(found.preprocessing, folder / "served", INPUTS, OUTPUTS, **limits)


def asked(*prompts: Any, new: int = 5, **others: Any) -> Request:
    return Request(QUERY=strings(*prompts), REQUEST_OUTPUT_LEN=np.full((len(prompts), 1), new, np.int32), **others)


def answer(served: Any, request: Request) -> dict[str, Any]:
    [response] = served.execute([request])
    assert not response.has_error(), response.error().message()
    return dict(response.arrays)


def refusal(served: Any, request: Request) -> str:
    """What is said of a request whose call holds a good one too."""
    wrong, good = served.execute([request, asked("good")])
    assert not good.has_error()
    assert wrong.error().code() == stand_in.TritonError.INVALID_ARG
    return str(wrong.error().message())


def words(listed: Any) -> list[list[int]]:
    """The words of one row of a word list."""
    ids, ends = listed.tolist()
    ends = [end for end in ends if end != -1]
    return [ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def test_prompts_become_the_sources_ids_padded_on_the_right(model: tuple[str, LlmTokens, Any]) -> None:
    _, found, served = model
    prompts = [QUESTION, "The fox", "👩‍👩‍👧 é"]
    made = answer(served, asked(*prompts, PAD_ID=np.full((3, 1), 7, np.int32)))
    expected = [found.encode(prompt) for prompt in prompts]
    width = max(map(len, expected))
    assert made["INPUT_ID"].tolist() == [ids + [7] * (width - len(ids)) for ids in expected]
    assert made["REQUEST_INPUT_LEN"].tolist() == [[len(ids)] for ids in expected]
    assert made["REQUEST_OUTPUT_LEN"].tolist() == [[5]] * 3
    assert made["OUT_PAD_ID"].tolist() == [[7]] * 3
    types = {name: str(array.dtype) for name, array in made.items() if str(array.dtype) != "int32"}
    assert types == {"EMBEDDING_BIAS": "float32"}
    assert set(OUTPUTS) - set(made) == {"OUT_PROMPT_TABLE_EXTRA_IDS"}


def test_messages_become_the_prompt_of_the_template(model: tuple[str, LlmTokens, Any]) -> None:
    kind, found, served = model
    messages = [{"role": "user", "content": QUESTION}]
    made = answer(served, asked("", "hi", MESSAGES=strings(json.dumps(messages), "")))
    rendered = found.prompt(messages)
    expected = found.encode(rendered, add_special_tokens=kind == "chatglm")
    assert made["INPUT_ID"][0, : made["REQUEST_INPUT_LEN"][0, 0]].tolist() == expected
    assert made["INPUT_ID"][1, : made["REQUEST_INPUT_LEN"][1, 0]].tolist() == found.encode("hi")
    if kind == "llama":
        assert expected.count(1) == 1
        assert expected[0] == 1


def test_bos_is_never_doubled(model: tuple[str, LlmTokens, Any]) -> None:
    kind, found, served = model
    if kind == "llama":
        made = answer(served, asked("<s><|user|>hi"))
        assert made["INPUT_ID"][0].tolist() == found.encode("<s><|user|>hi", add_special_tokens=False)
        assert made["INPUT_ID"][0].tolist().count(1) == 1
    else:
        assert "bos_text" not in found.chat


def test_stop_and_bad_words_are_ids_that_spell_them(model: tuple[str, LlmTokens, Any]) -> None:
    kind, found, served = model
    listed = [["fox", "。停", "\n\n"], [" END", "", ""]]
    made = answer(served, asked("a", "b", STOP_WORDS_DICT=strings(*listed), BAD_WORDS_DICT=strings(["x"], ["👩"])))
    further = [[905], [906]] if kind == "llama" else []
    for row, texts in enumerate(listed):
        given = words(made["STOP_WORDS_IDS"][row])
        assert given[len(given) - len(further) :] == further
        spelled = [found.decode([*found.encode("a"), *ids])[1:] for ids in given[: len(given) - len(further)]]
        assert spelled == [text for text in texts if text]
    assert made["STOP_WORDS_IDS"].shape[:2] == (2, 2)
    assert [len(words(row)) for row in made["BAD_WORDS_IDS"]] == [1, 1]
    assert made["BAD_WORDS_IDS"].dtype == np.int32


def test_word_lists_have_the_contracts_form(model: tuple[str, LlmTokens, Any]) -> None:
    kind, _, served = model
    made = answer(served, asked("a"))
    assert made["BAD_WORDS_IDS"].shape == (1, 2, 0)
    if kind == "llama":
        assert made["STOP_WORDS_IDS"].tolist() == [[[905, 906], [1, 2]]]
        own_end = answer(served, asked("a", END_ID=np.array([[9]], np.int32)))
        assert own_end["STOP_WORDS_IDS"].shape == (1, 2, 0)
        assert own_end["OUT_END_ID"].tolist() == [[9]]
    else:
        assert made["STOP_WORDS_IDS"].shape == (1, 2, 0)
    assert made["OUT_END_ID"].tolist() == [[503 if kind == "qwen" else 2]]
    one = answer(served, asked("a", BAD_WORDS_DICT=strings(["ab", "c"])))["BAD_WORDS_IDS"][0]
    ids = [token for word in words(one) for token in word]
    assert one[0].tolist() == ids
    assert one[1].tolist() == [len(words(one)[0]), len(ids), *[-1] * (len(ids) - 2)]


def test_special_tokens_are_stop_words_too(model: tuple[str, LlmTokens, Any]) -> None:
    kind, _, served = model
    word, expected = {"qwen": ("<|im_end|>", 503), "llama": ("</s>", 2), "chatglm": ("</s>", 2)}[kind]
    made = answer(served, asked("a", STOP_WORDS_DICT=strings(word)))
    assert words(made["STOP_WORDS_IDS"][0])[0] == [expected]


def test_biased_words(model: tuple[str, LlmTokens, Any]) -> None:
    _, _, served = model
    weights = np.array([[1.5, -2.0]], np.float32)
    given = {"EMBEDDING_BIAS_WORDS": strings(["x", "x"]), "EMBEDDING_BIAS_WEIGHTS": weights}
    bias = answer(served, asked("a", **given))["EMBEDDING_BIAS"]
    assert bias.shape == (1, 920)
    assert bias[bias != 0].tolist() == [-0.5]
    assert answer(served, asked("a", "b"))["EMBEDDING_BIAS"].shape == (2, 0)
    assert refusal(served, asked("a", EMBEDDING_BIAS_WEIGHTS=weights)) == (
        "biased words have shape None, their weights [1, 2], expected the same"
    )


def test_ids_of_a_prompt_table(model: tuple[str, LlmTokens, Any]) -> None:
    _, _, served = model
    made = answer(served, asked("ab", PROMPT_TABLE_EXTRA_ID=np.array([[4]], np.uint64)))
    assert made["OUT_PROMPT_TABLE_EXTRA_IDS"].tolist() == [[0] * made["INPUT_ID"].shape[1]]
    assert made["OUT_PROMPT_TABLE_EXTRA_IDS"].dtype == np.uint64


@pytest.mark.parametrize(
    ("request_of", "told"),
    [
        (lambda: asked(""), "prompt 0 is empty, expected a text or messages"),
        (lambda: asked("a", ""), "prompt 1 is empty, expected a text or messages"),
        (lambda: asked("a", MESSAGES=strings("[]")), "there are a prompt and messages, expected one of the two"),
        (lambda: asked("", MESSAGES=strings("{")), "the messages are not JSON: Expecting property name"),
        (lambda: asked("", MESSAGES=strings("[]")), "there are no messages, expected one or more"),
        (lambda: asked("", MESSAGES=strings('[{"role": "user"}]')), "message 0 (user) has no content"),
        (lambda: asked(b"a\xff"), "prompt 0 is not UTF-8: invalid start byte at byte 1 (0xff)"),
        (lambda: asked("a", new=0), "0 new tokens are asked for, expected 1 or more"),
        (
            lambda: asked("a", STOP_WORDS_DICT=strings(b"\xe6")),
            "the stop word is not UTF-8: unexpected end of data at byte 0 (0xe6)",
        ),
        (
            lambda: asked("a", "b", STOP_WORDS_DICT=strings(["x", "y"])),
            "input 'STOP_WORDS_DICT' has shape [1, 2], expected [2, n]",
        ),
        (lambda: asked("a", END_ID=np.array([2], np.int32)), "input 'END_ID' has shape [1], expected [1, 1]"),
    ],
)
def test_what_is_refused(model: tuple[str, LlmTokens, Any], request_of: Any, told: str) -> None:
    _, _, served = model
    assert refusal(served, request_of()).startswith(told)


def test_prompts_too_long_are_refused_with_their_numbers(model: tuple[str, LlmTokens, Any]) -> None:
    _, found, served = model
    text = "qz" * 60
    length = len(found.encode(text))
    assert refusal(served, asked(text)) == f"the prompt has {length} tokens, expected at most 60 (max_input_len)"
    length = len(found.encode("qz"))
    assert refusal(served, asked("qz", new=80)) == (
        f"the prompt has {length} tokens and 80 new ones are asked for, together {length + 80}, "
        "expected at most 80 (max_seq_len)"
    )
    assert "INPUT_ID" in answer(served, asked("qz", new=80 - length))


def test_words_that_tokens_cannot_spell_are_named(tmp_path: Path) -> None:
    described = json.loads(language_tokenizers.byte_level())
    described["normalizer"] = {"type": "NFKC"}
    folder = language_tokenizers.hugging_face(tmp_path, json.dumps(described), end_ids=[1])
    part = tokens(folder, source.read(folder)).preprocessing
    served = stand_in.load(part, folder / "served", INPUTS, OUTPUTS)
    said = "the bad word 'ﬁn' cannot be written in tokens: they spell 'fin'"
    assert refusal(served, asked("a", BAD_WORDS_DICT=strings(["ok", "ﬁn"]))) == said
    told = "this model has no chat template, expected a prompt in place of messages"
    assert refusal(served, asked("", MESSAGES=strings('[{"role": "user", "content": "x"}]'))) == told


def test_a_template_that_refuses_is_told_to_the_client_alone(tmp_path: Path) -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    folder = language_tokenizers.hugging_face(
        tmp_path, language_tokenizers.byte_level(), end_ids=[1], chat_template=template
    )
    part = tokens(folder, source.read(folder)).preprocessing
    served = stand_in.load(part, folder / "served", INPUTS, OUTPUTS)
    said = refusal(served, asked("", MESSAGES=strings('[{"role": "user", "content": "x"}]')))
    assert said == "the chat template refused the messages: roles must alternate"


def test_a_prefix_space_is_no_part_of_a_word(tmp_path: Path) -> None:
    for name, described in (
        ("gpt2", language_tokenizers.byte_level(prefix_space=True)),
        ("metaspace", language_tokenizers.byte_fallback("metaspace")),
    ):
        folder = language_tokenizers.hugging_face(tmp_path / name, described, end_ids=[2])
        found = tokens(folder, source.read(folder))
        served = stand_in.load(found.preprocessing, folder / "served", INPUTS, OUTPUTS)
        listed = words(answer(served, asked("a", STOP_WORDS_DICT=strings([QUESTION, " x"])))["STOP_WORDS_IDS"][0])
        before = found.encode("a", add_special_tokens=False)
        space = len(found.decode(before))
        assert [found.decode([*before, *ids])[space:] for ids in listed] == [QUESTION, " x"]
