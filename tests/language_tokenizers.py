"""Tiny tokenizers as language models have them, trained here on the sample texts."""

from __future__ import annotations

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

from tokenizer_families import TEXTS

EMOJI = ["👩‍👩‍👧‍👦 🇨🇳🇩🇪 👍🏽 ❤️ 𠮷野家", "晚上睡不着应该怎么办", "问：你好\n\n答：你好！[Round 1]\n\n"]
CHAT = "{{ bos_token }}{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}<|assistant|>"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@cache
def sentencepiece_model(kind: str = "bpe", **options: Any) -> bytes:
    """A model with byte fallback that splits digits, keeps spaces as they are and normalizes nothing."""
    import sentencepiece

    made = io.BytesIO()
    given = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "character_coverage": 0.98}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in [*TEXTS, *EMOJI] for line in text.splitlines() if line]),
        model_writer=made,
        model_type=kind,
        vocab_size=900,
        byte_fallback=True,
        split_digits=True,
        minloglevel=2,
        num_threads=1,
        **{**given, **options},
    )
    return made.getvalue()


def chatglm(folder: Path, *, roles: bool = False, model: bytes | None = None, **config: Any) -> Path:
    """A ChatGLM folder without weights; its tokenizer's code fails whoever runs it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(sentencepiece_model() if model is None else model)
    code = "raise SystemExit('remote code was run')\n" + ("ROLES = ['<|system|>', '<|user|>']\n" if roles else "")
    (folder / "tokenization_chatglm.py").write_text(code, encoding="utf-8")
    mapped = {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]}
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "ChatGLMTokenizer", "auto_map": mapped, **config})
    described = {
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        "padded_vocab_size": 920,
        "seq_length": 128,
    }
    _write(folder / "config.json", {**described, "eos_token_id": 2, "pad_token_id": 0})
    return folder


@cache
def byte_level(prefix_space: bool = False) -> str:
    """tokenizer.json as of GPT-2, Llama 3 and Qwen: byte-level BPE, special tokens behind the vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False))
    special = ("<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>")
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    made.add_tokens([AddedToken("<tool 调用>", normalized=False)])
    return str(made.to_str())


@cache
def byte_fallback(style: str = "normalizer") -> str:
    """tokenizer.json as of Llama 2 (``normalizer``: a space before every text), or of newer ones (``metaspace``)."""
    from tokenizers import AddedToken, Tokenizer, pre_tokenizers, processors
    from transformers.utils import sentencepiece_model_pb2_new

    from repo_builder.tasks import llm_sentencepiece

    proto = sentencepiece_model_pb2_new.ModelProto()
    proto.ParseFromString(sentencepiece_model())
    made: Any = Tokenizer.from_str(llm_sentencepiece._tokenizer(proto, llm_sentencepiece.SPECIAL).to_str())
    if style == "metaspace":
        described = json.loads(made.to_str())
        described["normalizer"] = None
        made = Tokenizer.from_str(json.dumps(described))
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.add_special_tokens([AddedToken(token, normalized=False) for token in ("<|user|>", "<|assistant|>")])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return str(made.to_str())


def hugging_face(folder: Path, tokenizer: str, *, end_ids: list[int], **config: Any) -> Path:
    """A folder as transformers saves it, without weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    _write(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **config})
    described = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 920}
    _write(folder / "config.json", {**described, "max_position_embeddings": 128, "eos_token_id": end_ids})
    return folder


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
