"""The three ways from PyTorch to an ONNX file: dynamo (torch.export), script and trace (both TorchScript)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repo_builder.formats.torch_program import TorchProgram, flatten

# torch.onnx: the TorchScript exporter ends at opset 20; the dynamo exporter's functions are written for opset 18.
TORCHSCRIPT_MAX_OPSET = 20
DYNAMO_MIN_OPSET = 18
INPUT_PREFIX = "__repo_builder_input_"
"""Names under which inputs are exported, so that no parameter or inner value can bear the same name."""


@dataclass(frozen=True)
class Exporter:
    """One way to export.

    Attributes:
        name: as the report calls it.
        export: writes ``path`` from a program and example tensors at about the wanted opset (the caller verifies).
        symbolic: the exporter reasons about shapes, so an output dim that it calls dynamic is dynamic.
    """

    name: str
    export: Callable[[TorchProgram, tuple[Any, ...], Path, int], None]
    symbolic: bool


def exporters(kind: str) -> tuple[Exporter, ...]:
    """The chain for one kind of program, best first."""
    dynamo = Exporter("dynamo", _dynamo, True)
    script = Exporter("script", _script, False)
    trace = Exporter("trace", _trace, False)
    return {"eager": (dynamo, script, trace), "script": (script,), "exported": (dynamo,)}[kind]


def input_names(program: TorchProgram) -> list[str]:
    return [f"{INPUT_PREFIX}{i}" for i in range(len(program.inputs))]


def _dynamo(program: TorchProgram, examples: tuple[Any, ...], path: Path, opset: int) -> None:
    import torch

    def write(dynamic_shapes: Any) -> None:
        torch.onnx.export(
            program.module,
            examples,
            str(path),
            input_names=input_names(program),
            dynamo=True,
            opset_version=max(opset, DYNAMO_MIN_OPSET),
            dynamic_shapes=dynamic_shapes,
            external_data=_parameter_bytes(program.module) > 1 << 30,
            verbose=False,
        )

    if program.kind == "exported":
        write(None)
        return
    dims = {name: torch.export.Dim(alias) for name, alias in _dim_aliases(program).items()}
    try:
        write(_dynamic_shapes(program, lambda name: dims[name]))
    except Exception as error:
        if not dims or "onstraint" not in _text(error):
            raise
        write(_dynamic_shapes(program, lambda _: torch.export.Dim.DYNAMIC))


def _script(program: TorchProgram, examples: tuple[Any, ...], path: Path, opset: int) -> None:
    import torch

    module = program.module if program.kind == "script" else torch.jit.script(program.module)
    _torchscript(module, program, examples, path, opset)


def _trace(program: TorchProgram, examples: tuple[Any, ...], path: Path, opset: int) -> None:
    import torch

    with torch.no_grad():
        result = program.module(*examples)
    plain = isinstance(result, torch.Tensor) or (isinstance(result, tuple) and type(result) is tuple)
    _torchscript(program.module if plain else _flat(program.module), program, examples, path, opset)


def _torchscript(module: Any, program: TorchProgram, examples: tuple[Any, ...], path: Path, opset: int) -> None:
    import torch

    axes = {
        name: {axis: dim for axis, dim in enumerate(spec.shape) if isinstance(dim, str)}
        for name, spec in zip(input_names(program), program.inputs, strict=True)
    }
    torch.onnx.export(
        module,
        examples,
        str(path),
        input_names=input_names(program),
        dynamic_axes={name: dims for name, dims in axes.items() if dims},
        opset_version=min(opset, TORCHSCRIPT_MAX_OPSET),
        dynamo=False,
        verbose=False,
    )


def _flat(module: Any) -> Any:
    """The module with its result as a flat tuple of tensors; tracing takes no dataclass-like results."""
    import torch

    class Flat(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *args: Any) -> Any:
            return tuple(flatten(self.module(*args)))

    return Flat().eval()


def _dim_aliases(program: TorchProgram) -> dict[str, str]:
    """Every symbolic name of the inputs and the Python identifier under which ``torch.export.Dim`` knows it."""
    names = dict.fromkeys(dim for spec in program.inputs for dim in spec.shape if isinstance(dim, str))
    return {name: f"dim_{name}" if name.isidentifier() else f"dim_{i}" for i, name in enumerate(names)}


def _dynamic_shapes(program: TorchProgram, dim: Callable[[str], Any]) -> Sequence[Any]:
    """``dynamic_shapes`` of ``torch.export`` for positional inputs, in the structure of ``forward``'s parameters."""
    shapes = [
        {axis: dim(size) for axis, size in enumerate(spec.shape) if isinstance(size, str)} for spec in program.inputs
    ]
    parameters = list(inspect.signature(program.module.forward).parameters.values())
    first = next((i for i, p in enumerate(parameters) if p.kind is p.VAR_POSITIONAL), None)
    return shapes if first is None else [*shapes[:first], tuple(shapes[first:])]


def _parameter_bytes(module: Any) -> int:
    state = module.state_dict() if callable(module.state_dict) else module.state_dict
    return sum(t.numel() * t.element_size() for t in state.values() if hasattr(t, "numel"))


def _text(error: BaseException | None) -> str:
    lines = []
    while error is not None:
        lines.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(lines)
