"""Tiny transformers models with random weights: every architecture with every head, as transformers saves them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import tiny_tokenizers

HEADS: dict[str, str] = {
    "base": "AutoModel",
    "sequence-classification": "AutoModelForSequenceClassification",
    "nli": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "masked-lm": "AutoModelForMaskedLM",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
}
"""The transformers class that picks the model of each head."""

CAUSAL_LM = "causal-lm"
"""The head of a decoder that generates; ``heads`` does not name it, since encoders have it too."""

_LABELS: dict[str, tuple[str, ...]] = {
    "sequence-classification": ("negative", "neutral", "positive"),
    "nli": ("contradiction", "neutral", "entailment"),
    "token-classification": ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
}
_DIMS = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": tiny_tokenizers.MAX_LENGTH,
}
_OFFSET = {"max_position_embeddings": tiny_tokenizers.MAX_LENGTH + 2}
_SPECIAL = ("pad", "bos", "eos", "cls", "sep")
_DEFAULTED = ("bos_token_id", "eos_token_id")
"""Fields whose defaults in transformers lie beyond a tiny vocabulary."""


@dataclass(frozen=True)
class Architecture:
    """A family of models.

    Attributes:
        config: name of the transformers config class.
        tokenizer: a key of ``tiny_tokenizers.FAMILIES``.
        options: fields of the config, laid over the tiny dimensions.
        dims: the tiny dimensions under the names that this config has for them.
        gain: by how much a random matrix lengthens a vector; less than 1 where nothing normalises between layers.
    """

    config: str
    tokenizer: str
    options: Mapping[str, Any] = field(default_factory=dict)
    dims: Mapping[str, Any] = field(default_factory=lambda: _DIMS)
    gain: float = 1.2


_DECODER = {"num_key_value_heads": 2}
_SEQ2SEQ = {
    "d_model": 32,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "max_position_embeddings": tiny_tokenizers.MAX_LENGTH,
}
_DEBERTA = {"relative_attention": True, "position_biased_input": False, "type_vocab_size": 0}

ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture("BertConfig", "bert"),
    "minilm": Architecture("BertConfig", "bert", {"num_attention_heads": 8, "num_hidden_layers": 3}),
    "roberta": Architecture("RobertaConfig", "roberta", {**_OFFSET, "type_vocab_size": 1}),
    "distilbert": Architecture(
        "DistilBertConfig",
        "bert-no-types",
        dims={
            **{"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4},
            "max_position_embeddings": tiny_tokenizers.MAX_LENGTH,
        },
    ),
    "mpnet": Architecture("MPNetConfig", "mpnet", _OFFSET),
    "deberta": Architecture("DebertaConfig", "deberta", {**_DEBERTA, "pos_att_type": ["c2p", "p2c"]}),
    "deberta-v2": Architecture(
        "DebertaV2Config",
        "deberta-v2",
        {
            **_DEBERTA,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
        },
    ),
    "xlm-roberta": Architecture("XLMRobertaConfig", "xlm-roberta", {**_OFFSET, "type_vocab_size": 1}),
    "albert": Architecture("AlbertConfig", "albert", {"embedding_size": 16}),
    "electra": Architecture("ElectraConfig", "bert", {"embedding_size": 16}),
    "camembert": Architecture("CamembertConfig", "camembert", {**_OFFSET, "type_vocab_size": 1}, gain=1.0),
    "modernbert": Architecture(
        "ModernBertConfig",
        "modernbert",
        {"local_attention": 8, "global_attn_every_n_layers": 2, "classifier_pooling": "mean"},
    ),
    "ernie": Architecture("ErnieConfig", "bert"),
    "megatron-bert": Architecture("MegatronBertConfig", "bert-cased"),
    "roformer": Architecture("RoFormerConfig", "bert", {"embedding_size": 32}),
    "nomic-bert": Architecture("NomicBertConfig", "bert", gain=1.0),
    "gte": Architecture("GteConfig", "xlm-roberta", gain=1.0),
    "jina-embeddings-v3": Architecture("JinaEmbeddingsV3Config", "xlm-roberta", {"type_vocab_size": 1}),
    "eurobert": Architecture("EuroBertConfig", "modernbert"),
    "data2vec-text": Architecture("Data2VecTextConfig", "roberta", {**_OFFSET, "type_vocab_size": 1}),
    "roberta-prelayernorm": Architecture("RobertaPreLayerNormConfig", "roberta", {**_OFFSET, "type_vocab_size": 1}),
    "xmod": Architecture(
        "XmodConfig",
        "xlm-roberta",
        {**_OFFSET, "type_vocab_size": 1, "languages": ["en_XX"], "default_language": "en_XX"},
    ),
    "rembert": Architecture("RemBertConfig", "rembert", {"input_embedding_size": 16, "output_embedding_size": 24}),
    "mobilebert": Architecture(
        "MobileBertConfig",
        "bert",
        {"embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2},
        gain=0.8,
    ),
    "squeezebert": Architecture("SqueezeBertConfig", "bert", {"embedding_size": 32}),
    "convbert": Architecture("ConvBertConfig", "bert", {"embedding_size": 32}),
    "big-bird": Architecture("BigBirdConfig", "big-bird"),
    "longformer": Architecture("LongformerConfig", "roberta", {**_OFFSET, "attention_window": [16, 16]}),
    "fnet": Architecture("FNetConfig", "albert"),
    "xlnet": Architecture("XLNetConfig", "xlnet", dims={"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}),
    "gpt2": Architecture(
        "GPT2Config",
        "gpt2",
        dims={"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": tiny_tokenizers.MAX_LENGTH},
    ),
    "llama": Architecture("LlamaConfig", "llama", _DECODER),
    "qwen2": Architecture("Qwen2Config", "qwen2", _DECODER),
    "qwen3": Architecture("Qwen3Config", "qwen2", {**_DECODER, "head_dim": 8}),
    "bart": Architecture("BartConfig", "roberta", dims=_SEQ2SEQ),
    "t5": Architecture("T5Config", "t5", dims={"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}),
}


def heads(architecture: str) -> tuple[str, ...]:
    """The heads that transformers has for the architecture; the base of T5 answers only with a decoder's input."""
    import transformers

    config = getattr(transformers, ARCHITECTURES[architecture].config)
    found = tuple(head for head, auto in HEADS.items() if config in getattr(transformers, auto)._model_mapping)
    return tuple(head for head in found if (architecture, head) != ("t5", "base"))


def save(
    architecture: str, head: str, folder: Path, *, tokenizer: Mapping[str, Any] | None = None, **config: Any
) -> Path:
    """Write config.json, model.safetensors and the tokenizer's files; two calls write the same weights.

    Args:
        architecture: a key of ``ARCHITECTURES``.
        head: one of ``heads(architecture)``, or ``CAUSAL_LM``. Labels: three for ``sequence-classification`` and
            ``nli``, PER and LOC entities for ``token-classification``.
        folder: made where it is not there.
        tokenizer: attributes of the tokenizer, such as ``padding_side`` or ``model_max_length``.
        config: fields of config.json, such as ``num_labels=1`` or ``problem_type="multi_label_classification"``.
    """
    import torch
    import transformers
    from transformers.utils import logging

    made = tiny_tokenizers.make(ARCHITECTURES[architecture].tokenizer)
    for name, value in (tokenizer or {}).items():
        setattr(made, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        auto = "AutoModelForCausalLM" if head == CAUSAL_LM else HEADS[head]
        model = getattr(transformers, auto).from_config(_config(architecture, head, made, config))
        _randomize(model, ARCHITECTURES[architecture].gain)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model.eval().save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()
    made.save_pretrained(folder)
    return folder


def _config(architecture: str, head: str, tokenizer: Any, own: Mapping[str, Any]) -> Any:
    import transformers

    known = ARCHITECTURES[architecture]
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id", None) for name in _SPECIAL}
    fields: dict[str, Any] = {
        **known.dims,
        **known.options,
        **{name: number for name, number in ids.items() if number is not None or name in _DEFAULTED},
        "vocab_size": len(tokenizer),
        "attention_dropout": 0.0,
    }
    if known.config in ("BartConfig", "T5Config"):
        fields["decoder_start_token_id"] = tokenizer.pad_token_id
    labels = _LABELS.get(head, ())
    if labels and own.get("num_labels", len(labels)) == len(labels) and "id2label" not in own:
        fields["id2label"] = dict(enumerate(labels))
        fields["label2id"] = {label: i for i, label in enumerate(labels)}
    return getattr(transformers, known.config)(**{**fields, **own})


def _randomize(model: Any, gain: float) -> None:
    """Weights under which answers vary over texts and stay of the order of one."""
    import torch

    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if parameter.ndim < 2:
                parameter.normal_(1.0 if name.endswith("weight") else 0.0, 0.2)
            elif id(parameter) in embeddings:
                parameter.normal_(0.0, 0.5)
            else:
                parameter.normal_(0.0, gain / math.sqrt(math.prod(parameter.shape[1:])))
