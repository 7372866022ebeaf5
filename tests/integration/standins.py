"""What the tests of the stand-ins share: their tables, and one server to which models are given one by one."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from repo_builder import server

BACKENDS = Path(server.__file__).parent / "backends"


def refusals(backend: str) -> dict[str, tuple[str, str]]:
    """``REFUSALS`` of a stand-in, read without importing it: key -> (source function, message)."""
    for path in sorted((BACKENDS / backend).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "REFUSALS":
                return dict(ast.literal_eval(node.value))
    raise AssertionError(f"no REFUSALS in the {backend} stand-in")


def refused(client: Any, model: str) -> str:
    """What the server says when it is asked to load the model."""
    from tritonclient.utils import InferenceServerException

    try:
        client.load_model(model)
    except InferenceServerException as error:
        return str(error)
    raise AssertionError(f"{model} was loaded")


def infer(client: Any, model: str, **arrays: Any) -> dict[str, Any]:
    """All outputs of one request."""
    import tritonclient.grpc as grpc
    from tritonclient.utils import np_to_triton_dtype

    inputs = []
    for name, array in arrays.items():
        tensor = grpc.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    result = client.infer(model, inputs)
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}
