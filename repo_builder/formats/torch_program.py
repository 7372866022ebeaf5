"""TorchProgram: a PyTorch model in memory, with its signature. What the torch formats load and converters export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from repo_builder.tensors import TensorSpec


@dataclass(frozen=True)
class TorchProgram:
    """A callable PyTorch model.

    Attributes:
        module: ``torch.nn.Module`` in eval mode (``eager``), ``torch.jit.ScriptModule`` (``script``) or
            ``torch.export.ExportedProgram`` (``exported``).
        kind: which of the three.
        inputs: positional inputs in order: name, dtype, shape with a symbolic name for every dynamic axis.
        outputs: names of the flattened outputs; empty where nobody named them yet.
        examples: one tensor per input, fitting ``inputs``.
    """

    module: Any
    kind: Literal["eager", "script", "exported"]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    examples: tuple[Any, ...]

    def run(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> tuple[np.ndarray[Any, Any], ...]:
        """The flattened outputs for named inputs, computed by PyTorch on the CPU without gradients."""
        import torch

        tensors = [torch.from_numpy(np.array(arrays[spec.name], order="C")) for spec in self.inputs]
        call = self.module.module() if self.kind == "exported" else self.module
        with torch.no_grad():
            return tuple(t.detach().cpu().numpy() for t in flatten(call(*tensors)))


def flatten(result: Any) -> list[Any]:
    """The tensors of a module's result, in order: a tensor, nested tuples and lists, dicts, dataclass-like outputs."""
    import torch

    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, Mapping) or hasattr(result, "to_tuple"):
        result = list(result.values()) if isinstance(result, Mapping) else result.to_tuple()
    if isinstance(result, (list, tuple)):
        return [tensor for item in result for tensor in flatten(item)]
    return []
