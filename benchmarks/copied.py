"""The layout that people copy: AutoTokenizer in a Python model, no batching, one instance of everything.

The ONNX file is the one of the repository that it is compared with, and so is the server.
"""

from __future__ import annotations

import os
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

from repo_builder import model_config, render, toolchain

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json")
TOKENS = ("input_ids", "token_type_ids", "attention_mask")
ONE_INSTANCE = [{"count": 1, "kind": "KIND_CPU"}]


def write(folder: Path, model: Path, encoder: Path) -> Path:
    """The repository, with an ensemble ``minilm``: TEXT [texts] to EMBEDDING [texts, 384].

    Args:
        model: the Hugging Face folder.
        encoder: the ONNX file.
    """
    tokens = [{"name": name, "data_type": "TYPE_INT64", "dims": [-1, -1]} for name in TOKENS]
    text = [{"name": "TEXT", "data_type": "TYPE_STRING", "dims": [-1]}]
    inner = [{"name": "sentence_embedding", "data_type": "TYPE_FP32", "dims": [-1, 384]}]
    same = {name: name for name in TOKENS}
    steps = [
        {"model_name": "tokenizer", "model_version": -1, "input_map": {"TEXT": "TEXT"}, "output_map": same},
        {
            "model_name": "encoder",
            "model_version": -1,
            "input_map": same,
            "output_map": {"sentence_embedding": "EMBEDDING"},
        },
    ]
    packages = {"packages": {"string_value": str(_packages())}}
    _config(folder, "tokenizer", backend="python", input=text, output=tokens, parameters=packages)
    _config(folder, "encoder", platform="onnxruntime_onnx", backend="onnxruntime", input=tokens, output=inner)
    shown = [{**inner[0], "name": "EMBEDDING"}]
    _config(folder, "minilm", platform="ensemble", input=text, output=shown, ensemble_scheduling={"step": steps})
    version = folder / "tokenizer" / "1"
    shutil.copyfile(Path(__file__).parent / "copied_layout" / "model.py", version / "model.py")
    for name in TOKENIZER_FILES:
        shutil.copyfile(model / name, version / name)
    os.link(encoder, folder / "encoder" / "1" / "model.onnx")
    return folder


def _config(folder: Path, name: str, **fields: Any) -> None:
    if name != "minilm":
        fields["instance_group"] = ONE_INSTANCE
    (folder / name / "1").mkdir(parents=True)
    config = model_config.build({"name": name, "max_batch_size": 0, **fields})
    (folder / name / "config.pbtxt").write_text(render.render_config(config), encoding="utf-8")


def _packages() -> Path:
    """The site-packages of an environment with transformers and the server's numpy."""
    wanted = [f"{name}=={metadata.version(name)}" for name in ("transformers", "tokenizers")]
    python = toolchain.ensure("transformers", [*wanted, "numpy==1.26.4"])
    found: Path = next((python.parent.parent / "lib").glob("python3.*/site-packages"))
    return found
