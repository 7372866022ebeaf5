"""A double of ``triton_python_backend_utils``, with which the tensorrt stand-in runs without a server.

Standard library and numpy alone: it runs wherever TensorRT does.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

STAND_IN = Path(__file__).parents[2] / "repo_builder" / "server" / "backends" / "tensorrt" / "model.py"


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._array


class TritonError(Exception):
    pass


class TritonModelException(Exception):
    pass


class InferenceResponse:
    """``arrays`` are copies, as the server takes them when ``execute`` returns, unless it was told to wait."""

    def __init__(self, tensors: list[Tensor], error: TritonError | None = None) -> None:
        self.tensors, self.error = tensors, error

    def taken(self) -> dict[str, Any]:
        return {tensor.name(): tensor.as_numpy().copy() for tensor in self.tensors}


class Logger:
    said: list[str] = []  # noqa: RUF012 (one log for all, as the server's)

    @classmethod
    def log_info(cls, text: str) -> None:
        cls.said.append(text)

    log_warn = log_error = log_info


class Request:
    def __init__(self, outputs: list[str], **arrays: Any) -> None:
        self._outputs, self._arrays = outputs, arrays

    def inputs(self) -> list[Tensor]:
        return [Tensor(name, array) for name, array in self._arrays.items()]

    def requested_output_names(self) -> list[str]:
        return self._outputs


class Config:
    """The config as ``auto_complete_config`` gets it."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    def as_dict(self) -> dict[str, Any]:
        return self.fields

    def set_max_batch_size(self, size: int) -> None:
        self.fields["max_batch_size"] = size

    def set_dynamic_batching(self) -> None:
        self.fields["dynamic_batching"] = {}


def stand_in(folder: Path) -> Any:
    """The stand-in's module, for a model whose version folder is this one."""
    utilities = types.ModuleType("triton_python_backend_utils")
    for part in (Tensor, TritonError, TritonModelException, InferenceResponse, Logger):
        setattr(utilities, part.__name__, part)
    utilities.get_model_dir = lambda: str(folder)  # type: ignore[attr-defined]
    spec = importlib.util.spec_from_file_location("tensorrt_stand_in", STAND_IN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get("triton_python_backend_utils")
    sys.modules["triton_python_backend_utils"] = utilities
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules["triton_python_backend_utils"]
        if before is not None:
            sys.modules["triton_python_backend_utils"] = before
    return module


def load(module: Any, config: dict[str, Any], kind: str = "GPU") -> Any:
    """A model's only instance, completed and initialized as the server does it."""
    groups = [{"name": "m_0", "kind": f"KIND_{kind}", "gpus": [0], "profile": config.pop("profiles", [])}]
    complete = Config({"name": "m", "max_batch_size": 0, "input": [], "output": [], "instance_group": groups, **config})
    module.TritonPythonModel.auto_complete_config(complete)
    model = module.TritonPythonModel()
    model.initialize(
        {
            "model_config": json.dumps(complete.fields),
            "model_instance_name": "m_0_0",
            "model_instance_kind": kind,
            "model_instance_device_id": "0",
        }
    )
    return model


def refused(module: Any, config: dict[str, Any], kind: str = "GPU") -> str:
    """Why a model is not loaded."""
    try:
        load(module, config, kind)
    except TritonModelException as error:
        return str(error)
    raise AssertionError("it was loaded")
