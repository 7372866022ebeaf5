"""The models of the GPU benchmark as PyTorch modules, with inputs: ResNet-50 and BERT-base, seeded random weights, and
MiniLM with its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

SEQUENCE = 128
VOCABULARY = 30522


@dataclass(frozen=True)
class Model:
    """A module and what it takes.

    Attributes:
        inputs: name -> (Triton's dtype, shape with named dynamic axes).
        outputs: names, in order.
        ranges: of the axes: smallest, usual, largest size.
    """

    module: Any
    inputs: dict[str, tuple[str, tuple[Any, ...]]]
    outputs: tuple[str, ...]
    ranges: dict[str, tuple[int, int, int]]

    def arrays(self, batch: int, seed: int = 0, padded: bool = True) -> dict[str, Any]:
        """Random inputs of a batch; where ``padded``, the last third of every second row of token ids is padding."""
        made: dict[str, Any] = {}
        random = np.random.default_rng(seed)
        for name, (dtype, shape) in self.inputs.items():
            sizes = [{"batch": batch, "sequence": SEQUENCE}.get(size, size) for size in shape]
            if dtype == "FP32":
                made[name] = random.standard_normal(sizes).astype(np.float32)
            elif name == "attention_mask":
                made[name] = np.ones(sizes, np.int64)
                made[name][1::2, 2 * SEQUENCE // 3 :] = 1 - padded
            else:
                made[name] = random.integers(1, VOCABULARY, sizes)
        return made

    def answers(self, arrays: dict[str, Any], half: bool = False) -> list[Any]:
        """The module's outputs in float32 on the CPU, or in float16 on the GPU."""
        module = self.module.cuda().half() if half else self.module.cpu().float()
        inputs = [torch.from_numpy(array) for array in arrays.values()]
        if half:
            inputs = [t.cuda().half() if t.is_floating_point() else t.cuda() for t in inputs]
        with torch.no_grad():
            found = module(*inputs)
        found = found if isinstance(found, tuple) else (found,)
        return [tensor.float().cpu().numpy() for tensor in found]


def resnet50() -> Model:
    """torchvision's ResNet-50, made calm as a trained one is: BatchNorm has the statistics of random images, and the
    last one of a block starts at 0.2, so that no block drowns what came before it."""
    import torchvision

    torch.manual_seed(0)
    module = torchvision.models.resnet50(weights=None).train()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
        if isinstance(layer, torchvision.models.resnet.Bottleneck):
            torch.nn.init.constant_(layer.bn3.weight, 0.2)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module.to(device)
    with torch.no_grad():
        for _ in range(4):
            module(torch.randn(16, 3, 224, 224, device=device))
    return Model(
        module.cpu().eval(),
        {"image": ("FP32", ("batch", 3, 224, 224))},
        ("logits",),
        {"batch": (1, 32, 32)},
    )


def bert_base() -> Model:
    """transformers' BertModel of bert-base-uncased's config; the mean over the tokens and the pooled output."""
    from transformers import BertConfig, BertModel

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = BertModel(BertConfig(), add_pooling_layer=True)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            found = self.bert(input_ids=input_ids, attention_mask=attention_mask)
            mask = attention_mask.unsqueeze(-1).to(found.last_hidden_state.dtype)
            return (found.last_hidden_state * mask).sum(1) / mask.sum(1), found.pooler_output

    torch.manual_seed(0)
    ids = ("INT64", ("batch", "sequence"))
    return Model(
        Encoder().eval(),
        {"input_ids": ids, "attention_mask": ids},
        ("embedding", "pooled"),
        {"batch": (1, 32, 32), "sequence": (1, SEQUENCE, SEQUENCE)},
    )


def minilm(folder: str) -> Model:
    """The encoder of all-MiniLM-L6-v2 as its plan computes it: mean over the tokens, length 1."""
    from transformers import AutoModel

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = AutoModel.from_pretrained(folder)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(tokens.dtype)
            return torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1), dim=-1)

    ids = ("INT64", ("batch", "sequence"))
    return Model(Encoder().eval(), {"input_ids": ids, "attention_mask": ids}, ("embedding",), {})


MODELS = {"resnet50": resnet50, "bert_base": bert_base}
