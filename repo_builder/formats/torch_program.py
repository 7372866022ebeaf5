"""TorchProgram: a PyTorch model in memory, with its signature. What the torch formats load and converters export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from repo_builder.errors import RepoBuilderError, SignatureError, UnsupportedDtypeError
from repo_builder.formats import signature
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
        tables: for an integer output (by name) the strings that it is an index into, which torch cannot hold: ``run``
            gives the strings as bytes, and a converter puts the table into the file.
        ranked: integer output -> the float output that it is in descending order of, so that a check lets neighbours
            change places where only rounding parts them.
    """

    module: Any
    kind: Literal["eager", "script", "exported"]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    examples: tuple[Any, ...]
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ranked: Mapping[str, str] = field(default_factory=dict)

    def run(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> tuple[np.ndarray[Any, Any], ...]:
        """The flattened outputs for named inputs, computed by PyTorch on the CPU without gradients."""
        import torch

        tensors = [torch.from_numpy(np.array(arrays[spec.name], order="C")) for spec in self.inputs]
        call = self.module.module() if self.kind == "exported" else self.module
        with torch.no_grad():
            arrays_out = [_array(tensor) for tensor in flatten(call(*tensors))]
        if not self.tables:
            return tuple(arrays_out)
        return tuple(self._looked_up(name, a) for name, a in zip(self.outputs, arrays_out, strict=True))

    def _looked_up(self, name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if name not in self.tables:
            return array
        strings: np.ndarray[Any, Any] = np.array([s.encode() for s in self.tables[name]], dtype=object)
        found: np.ndarray[Any, Any] = strings[array]
        return found

    def run_named(self, arrays: Mapping[str, np.ndarray[Any, Any]], owner: str) -> dict[str, np.ndarray[Any, Any]]:
        """The outputs by name.

        Args:
            arrays: one per input, checked against ``inputs``.
            owner: the file, for messages.

        Raises:
            SignatureError: the arrays do not fit, or the model fails on them.
            UnsupportedDtypeError: BF16, which numpy cannot hold, or a dtype that Triton lacks.
        """
        signature.refuse_bf16(self.inputs, owner)
        signature.check_arrays(self.inputs, arrays, owner)
        try:
            results = self.run(arrays)
        except RepoBuilderError:
            raise
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            came = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in arrays.items())
            raise SignatureError(
                f"{owner} fails on inputs {came}: {lines[-1]}",
                expected="; ".join(map(str, self.inputs)) or "no inputs",
                mend="correct dtypes and shapes of the inputs; a dim that cannot change must be a number",
            ) from error
        return dict(zip(self.outputs or output_names(len(results)), results, strict=True))


def output_names(count: int) -> tuple[str, ...]:
    """Names for outputs that nobody named: ``output``, or ``output_0``, ``output_1``, ..."""
    return ("output",) if count == 1 else tuple(f"output_{i}" for i in range(count))


def _array(tensor: Any) -> np.ndarray[Any, Any]:
    try:
        array: np.ndarray[Any, Any] = tensor.detach().cpu().numpy()
    except TypeError as error:
        raise UnsupportedDtypeError(
            f"an output is {tensor.dtype}, which numpy cannot hold",
            expected="outputs of a dtype that Triton and numpy have",
            mend="cast it to float32 inside the model",
        ) from error
    return array


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
