"""What the GPU benchmark keeps and shows; it needs no GPU for that."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "gpu"
OWN = ("bench", "models", "report", "served", "torch_times")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """``bench.py`` with its neighbours, under names that ``benchmarks/`` has as well."""
    before = {name: sys.modules.pop(name, None) for name in OWN}
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("bench")
    for name in OWN:
        sys.modules.pop(name, None)
        if found := before[name]:
            sys.modules[name] = found


def test_the_time_of_a_build_is_the_builders_own(bench: Any) -> None:
    """A run whose plans are kept from an earlier one takes no time, and builds nothing."""
    made = {
        "build": {"engine": {"seconds": 41.6, "layers": {"by_precision": {"FP16": 9}}}},
        "seconds": 0.2,
        "errors": {"y": {"max_rel_error": 1e-3, "cosine": 0.9999, "pytorch_fp16": 2e-3}},
    }
    assert "| fp16 | 42 | 9 FP16 | 1.0e-03 | 0.999900 |" in bench.report._accuracy({"fp16": made})


@pytest.mark.torch
def test_a_kept_file_keeps_its_weights(bench: Any, tmp_path: Path) -> None:
    """ResNet-50's statistics of BatchNorm are measured anew in every run, on a GPU never the same to the last bit."""
    import torch

    from repo_builder.formats import onnx

    def model(seed: int) -> Any:
        torch.manual_seed(seed)
        return bench.models.Model(torch.nn.Linear(4, 2).eval(), {"x": ("FP32", ("batch", 4))}, ("y",), {})

    first, second = model(0), model(1)
    path = bench._exported("m", first, tmp_path, opset=17)
    assert bench._exported("m", second, tmp_path, opset=17) == path
    arrays = second.arrays(3)
    answer = onnx.run(onnx.describe(path), arrays)
    np.testing.assert_allclose(second.answers(arrays)[0], answer["y"], atol=1e-6)
    assert not np.allclose(model(1).answers(arrays)[0], answer["y"])
