"""The options of its server that the tensorrt stand-in honours, over the doubles."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import test_plans as gpu
from tests.unit.server import tensorrt_double
from tests.unit.server.test_standin_tensorrt_logic import doubles  # noqa: F401 (applies to this module too)


@pytest.mark.parametrize("options", [{}, {"version-compatible": "true", "plugins": "/a.so;/none.so;/b.so"}])
def test_libraries_are_loaded_and_code_allowed_before_a_plan_is_opened(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    done: list[Any] = []

    class Runtime(tensorrt_double.Runtime):
        engine_host_code_allowed = False

        def deserialize_cuda_engine(self, content: bytes) -> Any:
            done.append(self.engine_host_code_allowed)
            return super().deserialize_cuda_engine(content)

    def library(path: str) -> None:
        done.append(path)
        if "none" in path:
            raise OSError(f"{path}: cannot open shared object file")

    monkeypatch.setattr(sys.modules["tensorrt"], "Runtime", Runtime)
    module, _ = gpu.served(Path(gpu.dense()), "options")
    plan = sys.modules[module.Plan.__module__]
    monkeypatch.setattr(plan, "server_options", lambda: options)
    monkeypatch.setattr(plan.ctypes, "CDLL", library)
    gpu.backend_double.Logger.said.clear()
    module.Plan(gpu.dense(), "m")
    if not options:
        assert done == [False]
        return
    assert done == ["/a.so", "/none.so", "/b.so", True]
    said = "unable to load plugin library: /none.so: cannot open shared object file"
    assert said in gpu.backend_double.Logger.said
