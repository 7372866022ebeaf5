"""config.json files of language models, as their publishers write them (what the tests do not need is left out)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "torch_dtype": "bfloat16",
    "eos_token_id": 2,
}
CHATGLM2: dict[str, Any] = {
    "_name_or_path": "THUDM/chatglm2-6b",
    "architectures": ["ChatGLMModel"],
    "model_type": "chatglm",
    "padded_vocab_size": 65024,
    "seq_length": 32768,
    "num_attention_heads": 32,
    "multi_query_group_num": 2,
    "num_layers": 28,
    "torch_dtype": "float16",
    "eos_token_id": 2,
}


def folder(where: Path, config: dict[str, Any], name: str = "model") -> Path:
    """A folder with that config.json; no weights."""
    path = where / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return path
