"""A language model's tokens as files and parameters, against transformers and sentencepiece."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import language_tokenizers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from language_tokenizers import CHAT, EMOJI
from tokenizer_families import TEXTS
from tokenizers import Tokenizer

from repo_builder.errors import SourceCorruptError, SourceMissingError, SpecError, UnsafeSourceError
from repo_builder.llm import source
from repo_builder.tasks import llm_sentencepiece, vendored
from repo_builder.tasks.llm_tokens import LlmTokens, tokens

QUESTION = "晚上睡不着应该怎么办"


def made(folder: Path) -> LlmTokens:
    return tokens(folder, source.read(folder))


def carried(found: LlmTokens) -> Any:
    """The tokenizer.json that travels."""
    content = found.preprocessing.files["tokenizer.json"]
    return Tokenizer.from_str(content.decode() if isinstance(content, bytes) else content.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def chatglm(tmp_path_factory: pytest.TempPathFactory) -> tuple[LlmTokens, Any]:
    """ChatGLM2's tokens, and sentencepiece itself."""
    from sentencepiece import SentencePieceProcessor

    folder = language_tokenizers.chatglm(tmp_path_factory.mktemp("chatglm2"))
    return made(folder), SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def test_a_llama_folder(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = language_tokenizers.hugging_face(
        tmp_path,
        language_tokenizers.byte_fallback(),
        end_ids=[2, 905],
        bos_token="<s>",
        eos_token="</s>",
        chat_template=CHAT,
    )
    found, own = made(folder), AutoTokenizer.from_pretrained(str(folder))
    for text in [*TEXTS[::9], *EMOJI]:
        assert found.encode(text) == own.encode(text) == carried(found).encode(text).ids
        assert found.encode(text, add_special_tokens=False) == own.encode(text, add_special_tokens=False)
        assert found.decode(found.encode(text)) == text
    assert found.chat == {
        "bos_text": "<s>",
        "chat_template": CHAT,
        "chat_special_tokens": '{"bos_token": "<s>", "eos_token": "</s>"}',
    }
    messages = [{"role": "user", "content": QUESTION}]
    assert found.prompt(messages) == own.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    parameters = found.preprocessing.parameters
    assert {name: parameters[name] for name in ("end_id", "further_end_ids", "pad_id", "vocab_size")} == {
        "end_id": "2",
        "further_end_ids": "[905]",
        "pad_id": "2",
        "vocab_size": "920",
    }
    assert "split_special_tokens" not in parameters
    assert found.notes == ()


def test_files_and_libraries_of_each_model(tmp_path: Path) -> None:
    folder = language_tokenizers.hugging_face(tmp_path, language_tokenizers.byte_level(), end_ids=[1])
    found = made(folder)
    own = {"model.py", "tokenizer.json", "tokenizer_file.py", "streamed_text.py"}
    more = {
        "preprocessing": {"word_lists.py", "chat_template.py"},
        "postprocessing": set(),
        "bls": {"answers.py", "engine_call.py"},
    }
    for role, names in more.items():
        part = getattr(found, role)
        assert {name for name in part.files if not name.startswith("vendor/")} == own | names
        packages = {
            name.split("/")[1] for name in part.files if name.startswith("vendor/") and ".dist-info" not in name
        }
        libraries = {"tokenizers", "jinja2", "markupsafe"} if role == "preprocessing" else {"tokenizers"}
        assert packages == libraries
        assert {f"{name}_sha256" for name in libraries} <= set(part.parameters)
    compiled = [name for name in found.preprocessing.files if name.endswith(".so")]
    assert [name.split("/")[1] for name in compiled] == ["tokenizers"]
    assert found.chat == {}
    with pytest.raises(SpecError, match="the model has no chat template"):
        found.prompt([{"role": "user", "content": "x"}])


def test_a_template_that_refuses_is_told(tmp_path: Path) -> None:
    folder = language_tokenizers.hugging_face(
        tmp_path, language_tokenizers.byte_level(), end_ids=[1], chat_template="{{ raise_exception('no system') }}"
    )
    with pytest.raises(SpecError, match="the chat template refused the messages: no system"):
        made(folder).prompt([{"role": "system", "content": "x"}])


def test_folders_without_a_tokenizer_or_with_code_are_refused(tmp_path: Path) -> None:
    folder = language_tokenizers.hugging_face(tmp_path / "a", language_tokenizers.byte_level(), end_ids=[1])
    (folder / "tokenizer.json").unlink()
    with pytest.raises(SourceMissingError, match="there is no tokenizer"):
        made(folder)
    other = language_tokenizers.chatglm(tmp_path / "b")
    config = json.loads((other / "tokenizer_config.json").read_text(encoding="utf-8"))
    (other / "tokenizer_config.json").write_text(json.dumps({**config, "tokenizer_class": "Other"}), encoding="utf-8")
    with pytest.raises((UnsafeSourceError, SourceCorruptError)):
        made(other)


def test_a_tokenizer_that_does_not_stream_is_refused(tmp_path: Path) -> None:
    described = json.loads(language_tokenizers.byte_fallback())
    described["decoder"]["decoders"].append({"type": "Replace", "pattern": {"String": "k b"}, "content": "k-b"})
    folder = language_tokenizers.hugging_face(tmp_path, json.dumps(described), end_ids=[2])
    with pytest.raises(SourceCorruptError) as told:
        made(folder)
    assert "does not stream" in str(told.value)
    assert "--engine vllm" in told.value.mend


@pytest.mark.parametrize("text", [QUESTION, *TEXTS, *EMOJI, *llm_sentencepiece.SAMPLES, "\n", " ", "▁", "a\0b"])
def test_chatglm_splits_as_sentencepiece_does(chatglm: tuple[LlmTokens, Any], text: str) -> None:
    found, processor = chatglm
    ids = processor.encode(text)
    size = processor.vocab_size()
    assert found.encode(text, add_special_tokens=False) == ids
    assert found.encode(text) == [size + 1, size + 3, *ids]
    assert found.decode(found.encode(text)) == processor.decode(ids)


def test_chatglm_splits_any_text_as_sentencepiece_does(chatglm: tuple[LlmTokens, Any]) -> None:
    found, processor = chatglm

    @settings(max_examples=60, deadline=None)
    @given(
        text=st.lists(st.one_of(st.text(max_size=4), st.sampled_from([*TEXTS, *EMOJI, "  ", "<s>", "sop"]))).map(
            "".join
        )
    )
    def check(text: str) -> None:
        assert found.encode(text, add_special_tokens=False) == processor.encode(text)

    check()


def test_chatglm_question_goes_through_unharmed(chatglm: tuple[LlmTokens, Any]) -> None:
    found, processor = chatglm
    prompt = found.prompt([{"role": "user", "content": QUESTION}])
    assert prompt == f"[Round 1]\n\n问：{QUESTION}\n\n答："
    size = processor.vocab_size()
    assert found.encode(prompt) == [size + 1, size + 3, *processor.encode(prompt)]
    talk = [*({"role": role, "content": text} for role, text in (("user", "一"), ("assistant", "二"), ("user", "三")))]
    assert found.prompt(talk) == "[Round 1]\n\n问：一\n\n答：二\n\n[Round 2]\n\n问：三\n\n答："
    with pytest.raises(SpecError, match="ChatGLM2 knows the roles user and assistant"):
        found.prompt([{"role": "system", "content": "x"}])


def test_chatglm_parameters(chatglm: tuple[LlmTokens, Any]) -> None:
    found, _ = chatglm
    parameters = found.preprocessing.parameters
    assert parameters["split_special_tokens"] == parameters["chat_adds_special_tokens"] == "true"
    assert (parameters["end_id"], parameters["pad_id"]) == ("2", "0")
    assert set(found.chat) == {"chat_template", "chat_special_tokens"}
    assert [note.split(":")[0] for note in found.notes] == ["tokenizer.json", "the chat template"]
    assert found.decode([found.encode("a")[0], 2, *found.encode("好", add_special_tokens=False)]) == "好"


def test_chatglm3_reads_the_names_of_roles(tmp_path: Path) -> None:
    from sentencepiece import SentencePieceProcessor

    folder = language_tokenizers.chatglm(tmp_path, roles=True)
    found, processor = made(folder), SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    size = processor.vocab_size()
    prompt = found.prompt([{"role": "user", "content": "你好 sophisticated"}])
    assert prompt == "<|user|>\n 你好 sophisticated<|assistant|>"
    # build_chat_input: [gMASK] sop, the role, its newline, what was asked, the assistant
    asked = [*processor.encode("\n"), *processor.encode("你好 sophisticated")]
    assert found.encode(prompt) == [size + 1, size + 3, size + 6, *asked, size + 7]


@pytest.mark.parametrize(
    "options",
    [
        {"remove_extra_whitespaces": True},
        {"add_dummy_prefix": False},
        {"normalization_rule_name": "nfkc"},
        {"user_defined_symbols": "<n>,<|tab|>"},
    ],
)
def test_other_kinds_of_sentencepiece_models(tmp_path: Path, options: dict[str, Any]) -> None:
    from sentencepiece import SentencePieceProcessor

    model = language_tokenizers.sentencepiece_model(**options)
    found = made(language_tokenizers.chatglm(tmp_path, model=model))
    processor = SentencePieceProcessor(model_proto=model)
    for text in [*TEXTS[::4], *EMOJI, "a<n>b <|tab|><n>", "  two  "]:
        assert found.encode(text, add_special_tokens=False) == processor.encode(text), text


def test_what_is_not_carried_exactly_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceCorruptError, match=r"tokenizer\.model is no sentencepiece model"):
        made(language_tokenizers.chatglm(tmp_path / "a", model=b"\x00nonsense"))
    unigram = language_tokenizers.sentencepiece_model("unigram")
    with pytest.raises(SourceCorruptError, match="sentencepiece's model type 1"):
        made(language_tokenizers.chatglm(tmp_path / "b", model=unigram))
    wide = language_tokenizers.sentencepiece_model(treat_whitespace_as_suffix=True)
    with pytest.raises(SourceCorruptError, match="not of the kind that the fast library splits"):
        made(language_tokenizers.chatglm(tmp_path / "c", model=wide))


def test_libraries_of_pure_python_travel() -> None:
    found = vendored.library("jinja2")
    assert "jinja2/sandbox.py" in found.files
    escaping = vendored.library("markupsafe", python_only=True)
    assert "markupsafe/_native.py" in escaping.files
    assert not [name for name in escaping.files if name.endswith(".so")]
