"""Tiny encoder-decoder models with random weights whose answers vary over texts: T5, BART, Marian."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import tiny_tokenizers, tiny_transformers


def save(architecture: str, folder: Path, *, generation: Mapping[str, Any] | None = None, **config: Any) -> Path:
    """``t5``, ``bart`` or ``marian`` (which needs sentencepiece) with all their files.

    Args:
        generation: fields of generation_config.json, laid over those that transformers writes.
        config: fields of config.json.
    """
    if architecture == "marian":
        _marian(folder, config)
    else:
        tiny_transformers.save(architecture, "seq2seq-lm", folder, **config)
    _end_early(folder)
    path = folder / "generation_config.json"
    fields = {**json.loads(path.read_text(encoding="utf-8")), **(generation or {})}
    path.write_text(json.dumps(fields, indent=1), encoding="utf-8")
    return folder


def _end_early(folder: Path) -> None:
    """Make the end token likely enough that answers end at different lengths."""
    import torch
    from transformers import AutoModelForSeq2SeqLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForSeq2SeqLM.from_pretrained(folder)
    with torch.no_grad():
        model.get_output_embeddings().weight[model.generation_config.eos_token_id] *= 3
    model.save_pretrained(folder)


def _marian(folder: Path, config: Mapping[str, Any]) -> None:
    import torch
    from transformers import MarianConfig, MarianMTModel

    vocabulary = marian_tokenizer(folder)
    sizes: dict[str, Any] = {
        **{"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 48},
        **{"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48},
        "vocab_size": len(vocabulary),
        "pad_token_id": vocabulary["<pad>"],
        "decoder_start_token_id": vocabulary["<pad>"],
        "init_std": 0.5,
        **config,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MarianMTModel(MarianConfig(**sizes)).eval()
    model.generation_config.bad_words_ids = [[vocabulary["<pad>"]]]
    model.generation_config.forced_eos_token_id = vocabulary["</s>"]
    model.generation_config.max_length = 40
    model.save_pretrained(folder)


def marian_tokenizer(folder: Path, **training: Any) -> dict[str, int]:
    """source.spm, target.spm, vocab.json and tokenizer_config.json as Marian's checkpoints have them; the vocabulary.

    Both sides share the vocabulary, in another order than their sentencepiece models, and it lacks some pieces.
    ``training`` goes to sentencepiece's trainer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pieces = {
        side: _sentencepiece(folder / f"{side}.spm", size, training)
        for side, size in (("source", 700), ("target", 500))
    }
    shared = sorted({*pieces["source"], *pieces["target"]} - {"<unk>", "<s>", "</s>"})
    kept = [piece for number, piece in enumerate(shared) if number % 40]
    words = ["</s>", "<unk>", ">>fra<<", ">>deu<<", *kept, "<pad>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    config = {
        "tokenizer_class": "MarianTokenizer",
        "model_max_length": tiny_tokenizers.MAX_LENGTH,
        "separate_vocabs": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return vocabulary


def _sentencepiece(path: Path, size: int, training: Mapping[str, Any]) -> list[str]:
    import io

    import sentencepiece

    texts = [part for text in tiny_tokenizers.TEXTS for part in text.splitlines() if part.strip()]
    made = io.BytesIO()
    options = {"model_type": "unigram", "character_coverage": 0.98, "hard_vocab_limit": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=made, vocab_size=size, **{**options, **training}
    )
    path.write_bytes(made.getvalue())
    processor = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())
    return [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
