"""The three nets of MTCNN over the weights that lie beside this file (``pnet.pt``, ``rnet.pt``, ``onet.pt``).

Package facenet-pytorch 2.6.0 (MIT) carries these weights; its layers' names are kept, so that they load strictly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

CONVOLUTIONS: dict[str, list[tuple[int, int, int]]] = {
    "pnet": [(10, 3, 2), (16, 3, 0), (32, 3, 0)],
    "rnet": [(28, 3, 3), (48, 3, 3), (64, 2, 0)],
    "onet": [(32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, 0)],
}
"""Of each convolution: filters, kernel, and the window of the pooling after it (stride 2; 0 for none)."""
DENSE = {"rnet": (576, 128), "onet": (1152, 256)}
SIZES = {"pnet": 24, "rnet": 24, "onet": 48}


class Net(nn.Module):
    """Images ``[batch, 3, size, size]`` -> regressions (boxes; of O-Net also points) and the faces' probabilities."""

    def __init__(self, name: str):
        super().__init__()
        self.windows = [window for _, _, window in CONVOLUTIONS[name]]
        width = 3
        for number, (filters, kernel, _) in enumerate(CONVOLUTIONS[name], start=1):
            self.add_module(f"conv{number}", nn.Conv2d(width, filters, kernel))
            self.add_module(f"prelu{number}", nn.PReLU(filters))
            width = filters
        last = len(self.windows) + 1
        self.dense = f"dense{last}" if name in DENSE else ""
        if self.dense:
            inside, width = DENSE[name]
            self.add_module(self.dense, nn.Linear(inside, width))
            self.add_module(f"prelu{last}", nn.PReLU(width))
            last += 1
        kind = "dense" if self.dense else "conv"
        sizes = (2, 4, 10) if name == "onet" else (2, 4)
        self.heads = [f"{kind}{last}_{i}" for i in range(1, len(sizes) + 1)]
        for head, size in zip(self.heads, sizes, strict=True):
            self.add_module(head, nn.Linear(width, size) if self.dense else nn.Conv2d(width, size, 1))

    def forward(self, image):
        layers: dict[str, Any] = dict(self.named_children())
        h = image
        for number, window in enumerate(self.windows, start=1):
            h = layers[f"prelu{number}"](layers[f"conv{number}"](h))
            h = nn.functional.max_pool2d(h, window, 2, ceil_mode=True) if window else h
        if self.dense:
            h = h.permute(0, 3, 2, 1).flatten(1)
            h = layers[f"prelu{len(self.windows) + 1}"](layers[self.dense](h))
        faces, *others = (layers[head](h) for head in self.heads)
        return (*others, faces.softmax(1))


def net(name: str) -> Any:
    found = Net(name)
    found.load_state_dict(torch.load(Path(__file__).with_name(f"{name}.pt"), weights_only=True))
    return found.eval()


def example(name: str) -> torch.Tensor:
    return torch.randn(2, 3, SIZES[name], SIZES[name], generator=torch.Generator().manual_seed(3))


def _factory(name: str) -> Any:
    return net(name), (example(name),), {"image": {0: torch.export.Dim("batch")}}


def pnet() -> Any:
    return _factory("pnet")


def rnet() -> Any:
    return _factory("rnet")


def onet() -> Any:
    return _factory("onet")
