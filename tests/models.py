"""Builders of tiny models for the tests. Everything is seeded; each writes into the folder that it is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def onnx_model(
    inputs: list[tuple[str, int, list[int | str | None]]],
    outputs: list[tuple[str, int, list[int | str | None]]],
    nodes: list[Any],
    initializers: list[Any] | None = None,
    opset: int = 17,
    ir_version: int = 8,
) -> Any:
    """A ModelProto; tensors are (name, ``TensorProto`` dtype, shape with None for an unnamed dynamic dim)."""
    from onnx import helper

    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(*t) for t in inputs],
        [helper.make_tensor_value_info(*t) for t in outputs],
        initializers or [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def linear_onnx(path: Path, batch: int | str | None = "batch", *, external: bool = False, seed: int = 0) -> Path:
    """``y = x @ w + b``: x FP32 [batch, 4], y FP32 [batch, 3]. ``external`` puts w into ``<name>.data``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(seed)
    w, b = (random.standard_normal(shape).astype(np.float32) for shape in ((4, 3), (3,)))
    model = onnx_model(
        [("x", TensorProto.FLOAT, [batch, 4])],
        [("y", TensorProto.FLOAT, [batch, 3])],
        [helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["y"])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")],
    )
    options: dict[str, Any] = {}
    if external:
        options = {"save_as_external_data": True, "location": f"{path.name}.data", "size_threshold": 0}
    onnx.save(model, str(path), **options)
    return path


def noisy_onnx(path: Path) -> Path:
    """``y = x + noise``, fresh noise at every call: x and y FP32 [batch, 4]. No two answers are equal."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx_model(
        [("x", TensorProto.FLOAT, ["batch", 4])],
        [("y", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_node("RandomNormalLike", ["x"], ["noise"]), helper.make_node("Add", ["x", "noise"], ["y"])],
    )
    onnx.save(model, str(path))
    return path


class _Torch:
    """The torch modules, made on first use: torch stays out of tests that do not need it."""

    @staticmethod
    def linear(seed: int = 0) -> Any:
        """``forward(x)``: x [batch, 4] -> tanh(linear(x)) [batch, 3]."""
        import torch

        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh()).eval()

    @staticmethod
    def two_inputs() -> Any:
        """``forward(x, y)``: x, y [batch, width] -> (x + y, their sum over width [batch])."""
        import torch

        class TwoInputs(torch.nn.Module):
            def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                return x + y, (x + y).sum(1)

        return TwoInputs().eval()


torch_modules = _Torch()


def torchscript(path: Path, module: Any | None = None) -> Path:
    """A scripted module (default: ``torch_modules.linear()``)."""
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module or torch_modules.linear()), str(path))
    return path


def exported_program(path: Path, module: Any | None = None, examples: Any = None, dynamic_shapes: Any = ...) -> Path:
    """A ``torch.export`` program (default: linear with a dynamic dim ``batch``)."""
    import torch

    if dynamic_shapes is ...:
        dynamic_shapes = ({0: torch.export.Dim("batch")},)
    examples = examples or (torch.ones(2, 4),)
    program = torch.export.export(module or torch_modules.linear(), examples, dynamic_shapes=dynamic_shapes)
    torch.export.save(program, str(path))
    return path


FACTORY = """\
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x):
        return torch.tanh(self.linear(x))


def factory():
    return Net(), (torch.ones(2, 4),), {"x": {0: torch.export.Dim("batch")}}
"""


def factory_module(path: Path, text: str = FACTORY) -> Path:
    """A Python file with ``factory``."""
    path.write_text(text, encoding="utf-8")
    return path


_WORDS = (
    *("the", "cat", "sat", "on", "mat", "and", "saw", "one", "dog", "run", "home", "in", "rain", "with", "no", "hat"),
    *("while", "it", "slept", "all", "day", "long"),
)


def bert_folder(folder: Path, *, sentence: bool = True, seed: int = 0, **config: Any) -> Path:
    """A tiny random BERT with a WordPiece tokenizer.json; ``sentence`` adds mean pooling and normalisation."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, *"abcdefghijklmnopqrstuvwxyz", "##s", "##ed", "."]
    vocab = list(dict.fromkeys(vocab))
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocab)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    fast = BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=32)
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 40,
    }
    model = BertModel(BertConfig(vocab_size=len(vocab), pad_token_id=0, **(sizes | config)))
    model.eval().save_pretrained(folder)
    if sentence:
        _sentence_files(folder, model.config.hidden_size)
    return folder


def _sentence_files(folder: Path, width: int) -> None:
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    pooling = {"word_embedding_dimension": width, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling").mkdir(exist_ok=True)
    for name, value in (
        ("modules.json", modules),
        ("sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False}),
        ("1_Pooling/config.json", pooling),
    ):
        (folder / name).write_text(json.dumps(value, indent=1), encoding="utf-8")


def plan_repository(repository: Path) -> Path:
    """The model ``m`` of a version-compatible plan with two plugin libraries, as its files and its config say; all of
    them are made-up bytes under the header of a plan of 8.6.1."""
    version = repository / "m" / "1"
    version.mkdir(parents=True)
    for name in ("libone.so", "libtwo.so"):
        (version / name).write_bytes(name.encode())
    (version / "model.plan").write_bytes(b"ftrt" + bytes(20) + bytes((8, 6, 1, 6)) + bytes(60))
    (version.parent / "config.pbtxt").write_text(
        'name: "m" backend: "tensorrt" platform: "tensorrt_plan"\n'
        'parameters { key: "backend-config.tensorrt.version-compatible" value { string_value: "true" } }\n'
        'parameters { key: "backend-config.tensorrt.plugins" value { string_value: "libone.so;libtwo.so" } }\n',
        encoding="utf-8",
    )
    return repository
