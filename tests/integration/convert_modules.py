"""Tiny PyTorch modules, each with one trait on which exporters trip."""

from __future__ import annotations

import torch
from torch import nn


class Branch(nn.Module):
    """Data-dependent control flow: both branches must be in the file."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x + 1
        return x * -100.0


class While(nn.Module):
    """A loop whose count is an input."""

    def forward(self, x: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        i = torch.zeros((), dtype=torch.int64)
        while bool(i < n):
            x = x * 2 + 1
            i = i + 1
        return x


class For(nn.Module):
    """A loop over a dynamic axis, which tracing unrolls without a warning."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x[:, 0]
        for i in range(x.size(1)):
            y = y * 0.5 + x[:, i]
        return y


class BakedBatch(nn.Module):
    """The batch size as a Python number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = int(x.shape[0])
        return x.reshape(size, -1).sum(1).reshape(size)


class OneBatch(nn.Module):
    """Takes one batch size only, whatever its inputs claim."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 4) + 1


class Nested(nn.Module):
    """A dict with a tuple in it."""

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        return {"z": x + 1, "a": x.sum(1), "m": (x * 2, x > 0)}


class Clash(nn.Module):
    """An input called like a parameter, an unused input, and outputs that are inputs, weights and one another."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(3.0))

    def forward(
        self,
        weight: torch.Tensor,
        unused: torch.Tensor,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        y = weight + self.weight
        return y, weight, y, self.weight


class Lookup(nn.Module):
    """Integer inputs, padding that a mask hides."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 8)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        kept = mask.unsqueeze(-1).float()
        return (self.embedding(ids) * kept).sum(1) / kept.sum(1).clamp(min=1e-9)


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)


class Positions(nn.Module):
    """The indices of positive values: an output as long as the data says."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nonzero(x > 0)


class Star(nn.Module):
    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return tensors[0] - tensors[1]


class NumpyInside(nn.Module):
    """No exporter carries it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * float(x.numpy().max())


class MatrixExp(nn.Module):
    """An operator that ONNX lacks; the TorchScript exporter prints its graph from C++ then."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.matrix_exp(x)
