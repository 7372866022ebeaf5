"""A stand-in for ``triton_python_backend_utils``: what the models around a language model's engine use of it.

Models call each other through ``MODELS``: name -> a function of (inputs, request id, decoupled) that gives responses.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.tasks.llm_tokens import Part

MODELS: dict[str, Callable[..., Any]] = {}


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        assert isinstance(array, np.ndarray)
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._array


class TritonError:
    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class InferenceResponse:
    def __init__(self, output_tensors: Any = (), error: TritonError | None = None) -> None:
        self._tensors, self._error = list(output_tensors), error
        self.arrays = {tensor.name(): tensor.as_numpy() for tensor in self._tensors}

    def output_tensors(self) -> list[Tensor]:
        return self._tensors

    def has_error(self) -> bool:
        return self._error is not None

    def error(self) -> TritonError | None:
        return self._error


class Responses:
    """What a decoupled call gives; ``cancel`` as of Triton 25.04."""

    def __init__(self, found: Iterator[InferenceResponse]) -> None:
        self.found, self.cancelled = found, False

    def __iter__(self) -> Responses:
        return self

    def __next__(self) -> InferenceResponse:
        return next(self.found)

    def cancel(self) -> None:
        self.cancelled = True


class InferenceRequest:
    def __init__(
        self, model_name: str, request_id: str, requested_output_names: Any, inputs: Any, preferred_memory: Any
    ) -> None:
        self.model, self.id, self.outputs, self.memory = (
            model_name,
            request_id,
            requested_output_names,
            preferred_memory,
        )
        self.inputs = {tensor.name(): tensor.as_numpy() for tensor in inputs}

    def exec(self, decoupled: bool = False) -> Any:
        found = MODELS[self.model](self.inputs, self.id, decoupled)
        return Responses(iter(found)) if decoupled else found


class Sender:
    """Of a decoupled model's responses."""

    def __init__(self) -> None:
        self.sent: list[InferenceResponse] = []
        self.final, self.gone, self.asked_after_final = False, False, False

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        assert not self.final
        if response is not None:
            self.sent.append(response)
        self.final = self.final or flags == 1

    def is_cancelled(self) -> bool:
        self.asked_after_final = self.asked_after_final or self.final
        return self.gone


class Request:
    def __init__(self, **arrays: Any) -> None:
        self.arrays, self.sender = arrays, Sender()

    def get_response_sender(self) -> Sender:
        return self.sender

    def is_cancelled(self) -> bool:
        return self.sender.gone


def get_input_tensor_by_name(request: Request, name: str) -> Tensor | None:
    return Tensor(name, request.arrays[name]) if name in request.arrays else None


def strings(*rows: Any) -> Any:
    """[rows, columns] of bytes; a row is one text or a list of texts."""
    listed = [row if isinstance(row, list) else [row] for row in rows]
    raw = [[text.encode() if isinstance(text, str) else text for text in row] for row in listed]
    return np.array(raw, dtype=object).reshape(len(rows), -1)


def load(part: Part, folder: Path, inputs: Any, outputs: Any, *, decoupled: bool = False, **parameters: str) -> Any:
    """The initialized model of a part; what it imports from beside it is its own."""
    for name, content in part.files.items():
        if not name.startswith("vendor/"):
            target = folder / "1" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    config: Mapping[str, Any] = {
        "input": [{"name": name} for name in inputs],
        "output": [{"name": name} for name in outputs],
        "parameters": {key: {"string_value": value} for key, value in {**part.parameters, **parameters}.items()},
    }
    module: Any = types.ModuleType("triton_python_backend_utils")
    for known in (Tensor, TritonError, InferenceResponse, InferenceRequest, get_input_tensor_by_name):
        setattr(module, known.__name__, known)
    module.PreferredMemory = lambda kind, device: (kind, device)
    module.TRITONSERVER_MEMORY_CPU, module.TRITONSERVER_RESPONSE_COMPLETE_FINAL = "CPU", 1
    module.using_decoupled_model_transaction_policy = lambda _: decoupled
    beside = {Path(name).stem for name in part.files if "/" not in name and name.endswith(".py")} - {"model"}
    path, written, before = list(sys.path), sys.dont_write_bytecode, dict(sys.modules)
    sys.modules["triton_python_backend_utils"] = module
    try:
        spec = importlib.util.spec_from_file_location("served_model", folder / "1" / "model.py")
        assert spec is not None
        assert spec.loader is not None
        served = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(served)
        model = served.TritonPythonModel()
        model.initialize({"model_config": json.dumps(config), "model_repository": str(folder), "model_version": "1"})
        return model
    finally:
        sys.path[:], sys.dont_write_bytecode = path, written
        for name in (*beside, "triton_python_backend_utils"):
            sys.modules.pop(name, None)
            if name in before:
                sys.modules[name] = before[name]
