"""A stand-in for ``triton_python_backend_utils``: what the tokenizer's model.py uses of it, and no more.

As a script, ``PYTHON backend_utils_stand_in.py REPOSITORY CONFIG.json`` reads hexadecimal texts from standard input,
one request per line, and prints outputs and the path of the tokenizers library as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._array


class TritonError(Exception):
    INTERNAL = 1
    INVALID_ARG = 3

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class TritonModelException(Exception):
    pass


class InferenceResponse:
    def __init__(self, output_tensors: list[Tensor] | None = None, error: TritonError | None = None) -> None:
        self.arrays = {tensor.name(): tensor.as_numpy() for tensor in output_tensors or []}
        self.error = error


def get_input_tensor_by_name(request: dict[str, Any], name: str) -> Tensor:
    return Tensor(name, request[name])


def load(repository: Path, config: dict[str, Any]) -> Any:
    """The initialized TritonPythonModel of version 1 in a model's folder."""
    module = types.ModuleType("triton_python_backend_utils")
    for part in (Tensor, TritonError, TritonModelException, InferenceResponse, get_input_tensor_by_name):
        setattr(module, part.__name__, part)
    spec = importlib.util.spec_from_file_location("served_model", repository / "1" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    served = importlib.util.module_from_spec(spec)
    before = sys.modules.get("triton_python_backend_utils")
    sys.modules["triton_python_backend_utils"] = module
    try:
        spec.loader.exec_module(served)
    finally:
        del sys.modules["triton_python_backend_utils"]
        if before is not None:
            sys.modules["triton_python_backend_utils"] = before
    model = served.TritonPythonModel()
    model.initialize({"model_config": json.dumps(config), "model_repository": str(repository), "model_version": "1"})
    return model


def write(planned: Any, folder: Path) -> tuple[Path, dict[str, Any]]:
    """A planned model as a model folder, and its config as the backend passes it."""
    from google.protobuf.json_format import MessageToDict

    for name, content in planned.version_files.items():
        target = folder / "1" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            target.symlink_to(content)
    return folder, MessageToDict(planned.config, preserving_proto_field_name=True)


def request(texts: list[Any]) -> dict[str, Any]:
    """A request of texts as str or bytes, shape [batch, 1]."""
    raw = [text.encode() if isinstance(text, str) else text for text in texts]
    return {"TEXT": np.array(raw, dtype=object).reshape(-1, 1)}


def _main() -> None:
    model = load(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
    requests = [request([bytes.fromhex(text) for text in line.split(",")]) for line in sys.stdin.read().splitlines()]
    answers = [
        str(response.error) if response.error else {name: array.tolist() for name, array in response.arrays.items()}
        for response in model.execute(requests)
    ]
    print(json.dumps({"answers": answers, "library": sys.modules["tokenizers"].__file__}))


if __name__ == "__main__":
    _main()
