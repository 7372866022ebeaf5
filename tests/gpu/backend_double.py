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

PACKAGE = Path(__file__).parents[2] / "repo_builder"
STAND_IN = PACKAGE / "server" / "backends" / "tensorrt"


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
    """The stand-in's module, as in a process of its own, for a model whose version folder is this one."""
    utilities = types.ModuleType("triton_python_backend_utils")
    for part in (Tensor, TritonError, TritonModelException, InferenceResponse, Logger):
        setattr(utilities, part.__name__, part)
    utilities.get_model_dir = lambda: str(folder)  # type: ignore[attr-defined]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("model", "tensorrt_stand_in")]:
        del sys.modules[name]
    before = sys.modules.get("triton_python_backend_utils")
    sys.modules["triton_python_backend_utils"] = utilities
    sys.path.append(str(STAND_IN))
    try:
        for name in ("allocator", "cuda", "profile_values"):
            share(f"tensorrt_stand_in.{name}", PACKAGE / "tensorrt" / "worker" / f"{name}.py")
        module = importlib.import_module("model")
    finally:
        sys.path.remove(str(STAND_IN))
        del sys.modules["model"], sys.modules["triton_python_backend_utils"]
        if before is not None:
            sys.modules["triton_python_backend_utils"] = before
    return module


def share(name: str, path: Path) -> None:
    """A file that the backend directory has in the stand-in's package, as its module."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    package, _, part = name.rpartition(".")
    setattr(importlib.import_module(package), part, sys.modules[name])


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
