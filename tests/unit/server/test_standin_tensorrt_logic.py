"""The tensorrt stand-in's logic over doubles of TensorRT and the driver: the tests of ``tests/gpu`` without a GPU."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gpu import test_plans as gpu
from tests.integration.standins import refusals
from tests.unit.server import tensorrt_double

ROWS = {"min": [1, 64], "opt": [4, 64], "max": [8, 64]}
MORE = {"min": [4, 64], "opt": [32, 64], "max": [32, 64]}
PLANS: dict[str, dict[str, Any]] = {
    "dense": {
        "op": "dense",
        "inputs": {"X": ["FLOAT", [-1, 64]]},
        "outputs": {"Y": ["FLOAT", [-1, 32]]},
        "profiles": [{"X": ROWS}, {"X": MORE}],
    },
    "unknown_size": {
        "op": "nonzero",
        "inputs": {"X": ["FLOAT", [-1, 4]]},
        "outputs": {"WHERE": ["INT32", [2, -1]]},
        "profiles": [{"X": {"min": [1, 4], "opt": [4, 4], "max": [8, 4]}}],
    },
    "shape_tensor": {
        "op": "reshape",
        "inputs": {"X": ["FLOAT", [-1]], "SIZE": ["INT32", [2]]},
        "outputs": {"Y": ["FLOAT", [-1, -1]]},
        "shape_tensors": ["SIZE"],
        "profiles": [
            {
                "X": {"min": [1], "opt": [8], "max": [64]},
                "SIZE": {"min": [1, 1], "opt": [2, 4], "max": [8, 8]},
            }
        ],
    },
}


@pytest.fixture(autouse=True)
def doubles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU tests' plans as JSON, and the doubles under the stand-in."""
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_double.module())
    monkeypatch.setattr(gpu, "folder", lambda: tmp_path)
    for name, plan in PLANS.items():
        path = tmp_path / f"{name}.plan"
        path.write_text(json.dumps(plan), encoding="utf-8")
        monkeypatch.setattr(gpu, name, functools.partial(lambda path: path, path))
    real = gpu.backend_double.stand_in

    def stand_in(folder: Path) -> Any:
        module = real(folder)
        for part, double in tensorrt_double.CUDA.items():
            setattr(sys.modules["tensorrt_stand_in.cuda"], part, double)
        return module

    monkeypatch.setattr(gpu.backend_double, "stand_in", stand_in)
    gpu.backend_double.Logger.said.clear()


@pytest.mark.parametrize("name", [name for name in vars(gpu) if name.startswith("test_the_stand_in_")])
def test_as_on_a_gpu(name: str) -> None:
    vars(gpu)[name]()


def load(name: str = "dense", **config: Any) -> Any:
    module, given = gpu.served(vars(gpu)[name](), "model", **config)
    return gpu.backend_double.load(module, given)


def test_it_says_what_serves() -> None:
    load(max_batch_size=8, input=[gpu.X], output=[gpu.Y])
    assert gpu.backend_double.Logger.said == [
        "model 'm_0_0' is served by the tensorrt stand-in of repo_builder: TensorRT 8.6.1 on GPU 0, compute capability "
        "9.0, optimization profiles default[0]"
    ]


def test_requests_of_other_shapes_do_not_spoil_each_others_answers() -> None:
    model = load("unknown_size", input=[{**gpu.X, "dims": [-1, 4]}], output=[])
    given = [gpu.inputs(count, 4) for count in (2, 3)]
    first, second = gpu.answers(model, *(gpu.Request(["WHERE"], X=one) for one in given))
    assert (first["WHERE"].shape, second["WHERE"].shape) == ((2, 8), (2, 12))


def test_a_request_that_no_profile_holds_fails_alone() -> None:
    model = load(max_batch_size=8, input=[gpu.X], output=[gpu.Y])
    good, bad = gpu.Request(["Y"], X=gpu.inputs(2)), gpu.Request(["Y"], X=gpu.inputs(9))
    found, error, again = gpu.answers(model, good, bad, good)
    gpu.close(found["Y"], gpu.expected(gpu.inputs(2)))
    gpu.close(again["Y"], gpu.expected(gpu.inputs(2)))
    details = refusals("tensorrt")["dimension"][1].format(axis=0, low=1, high=8, found=9)
    words = {"name": "X", "instance": "m_0_0", "details": details}
    assert str(error) == refusals("tensorrt")["request_shape"][1].format(**words)


def test_every_input_of_the_plan_must_be_configured() -> None:
    module, config = gpu.served(gpu.shape_tensor(), "partial", input=[{**gpu.X, "dims": [-1]}])
    said = gpu.backend_double.refused(module, config)
    assert said == refusals("tensorrt")["missing_config"][1].format(side="input", name="SIZE", instance="m_0_0")


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("ragged", {"input": [{**gpu.X, "allow_ragged_batch": True}]}, "does not serve batch_input"),
        ("sequence", {"sequence_batching": {}}, "does not serve sequence batching"),
    ],
)
def test_it_says_what_it_does_not_serve(name: str, changes: dict[str, Any], words: str) -> None:
    module, config = gpu.served(
        gpu.dense(), name, **{"max_batch_size": 8, "input": [gpu.X], "output": [gpu.Y], **changes}
    )
    assert words in gpu.backend_double.refused(module, config)


def test_values_outside_a_profile_are_refused() -> None:
    size = {"name": "SIZE", "data_type": "TYPE_INT32", "dims": [2], "is_shape_tensor": True}
    model = load("shape_tensor", input=[{**gpu.X, "dims": [-1]}, size], output=[{**gpu.Y, "dims": [-1, -1]}])
    given = np.arange(12, dtype=np.float32)
    (error,) = gpu.answers(model, gpu.Request(["Y"], X=given, SIZE=np.array([12, 1], np.int32)))
    assert str(error) == refusals("tensorrt")["value"][1].format(index=0, low=1, high=8, found=12)


def test_outputs_that_nobody_asked_for_are_not_copied() -> None:
    model = load(max_batch_size=8, input=[gpu.X], output=[gpu.Y])
    assert gpu.answers(model, gpu.Request([], X=gpu.inputs(2))) == [{}]


def test_the_servers_command_line_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = gpu.backend_double.stand_in(tmp_path)
    words = ["/opt/bin/tritonserver", "--backend-config=tensorrt,plugins=/a.so;/b.so", "--backend-config=python,x=1"]
    words += ["--backend-config", "tensorrt,version-compatible=true"]
    (tmp_path / "cmdline").write_text("\0".join(words) + "\0", encoding="utf-8")
    (tmp_path / "stat").write_text("7 (a (b) c) S 1 7", encoding="utf-8")
    opened = open
    replaced = {"cmdline": tmp_path / "cmdline", "stat": tmp_path / "stat"}
    plan = sys.modules[module.Plan.__module__]
    monkeypatch.setattr(plan, "open", lambda path, **how: opened(replaced[Path(path).name], **how), raising=False)
    assert plan.server_options() == {"plugins": "/a.so;/b.so", "version-compatible": "true"}
