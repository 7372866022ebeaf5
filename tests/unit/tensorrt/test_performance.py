"""The numbers of a performance summary, and what a plan's worker decides without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from repo_builder.tensorrt import performance
from repo_builder.tensorrt.performance import Statistics, of_answer, percentile, table

WORKER = Path(performance.__file__).parent / "worker"


@pytest.fixture(scope="module")
def execution() -> Any:
    """The worker's module, whose plain functions need neither TensorRT nor a GPU."""
    names = ("execution", "buffers", "cuda", "runtime")
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(WORKER))
    try:
        import execution as module

        assert isinstance(module, ModuleType)
        assert Path(str(module.__file__)).parent == WORKER
        yield module
    finally:
        sys.path.remove(str(WORKER))
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(before)


@pytest.mark.parametrize(
    ("count", "percent", "expected"),
    [(10, 90, 9), (10, 95, 10), (10, 99, 10), (100, 90, 90), (100, 95, 95), (100, 99, 99), (1, 99, 1), (1000, 99, 990)],
)
def test_a_percentile_is_a_sample_that_was_measured(count: int, percent: int, expected: float) -> None:
    assert percentile([float(number) for number in range(1, count + 1)], percent) == expected


def test_percentiles_of_all_and_none_are_the_ends() -> None:
    assert percentile([1.0, 2.0, 3.0], 100) == 3.0
    assert percentile([1.0, 2.0, 3.0], 0) == 1.0


def test_statistics_do_not_need_sorted_samples() -> None:
    found = Statistics.of([4.0, 1.0, 3.0, 2.0])
    assert (found.min, found.mean, found.median, found.max) == (1.0, 2.5, 2.5, 4.0)
    assert Statistics.of([3.0, 1.0, 2.0]).median == 2.0


def answer(**changes: Any) -> dict[str, Any]:
    run = {
        "profile": 0,
        "batch": 8,
        "shapes": {"X": [8, 4]},
        "values": {},
        "cuda_graph": False,
        "cuda_graph_error": None,
        "iterations": 4,
        "seconds": 0.5,
        "bytes": {"h2d": 128, "d2h": 3 << 20},
        "milliseconds": {
            "h2d": [0.5, 0.25, 0.25, 0.5],
            "compute": [1.0, 2.0, 4.0, 3.0],
            "d2h": [0.25, 0.5, 0.25, 0.25],
            "enqueue": [0.125, 0.25, 0.125, 0.125],
        },
    }
    device = {"name": "NVIDIA H100", "compute_capability": "9.0", "memory_bytes": 1, "cuda": "13.0"}
    return {
        "module": "tensorrt",
        "version": "8.6.1",
        "device": device,
        "plan_bytes": 2048,
        "runs": [{**run, **changes}],
        "skipped": [{"profile": 1, "batch": 8, "why": "input 'X' is [8, 4], the profile goes from [16, 4] to [32, 4]"}],
    }


def test_latency_is_the_sum_of_an_iterations_phases() -> None:
    (run,) = of_answer("model.plan", answer()).runs
    assert (run.latency.min, run.latency.mean, run.latency.median, run.latency.max) == (1.75, 3.1875, 3.25, 4.5)
    assert run.compute == Statistics(1.0, 2.5, 2.5, 4.0, 4.0, 4.0, 4.0)
    assert (run.queries_per_second, run.samples_per_second) == (8.0, 64.0)


def test_a_plan_without_a_batch_has_no_samples_per_second() -> None:
    (run,) = of_answer("model.plan", answer(batch=None)).runs
    assert run.samples_per_second is None
    assert "samples/s" not in table(of_answer("model.plan", answer(batch=None)))


def test_the_table_holds_every_number() -> None:
    expected = [
        "model.plan (2.0 KiB), TensorRT 8.6.1, NVIDIA H100 (compute capability 9.0, CUDA 13.0)",
        "",
        "profile 0, batch 8: 8.0 queries/s, 64.0 samples/s (4 iterations, 0.5 s)",
        "  inputs: X 8x4; 128 bytes in, 3.0 MiB out",
        "  ms                min     mean   median      p90      p95      p99      max",
        "  latency         1.750    3.188    3.250    4.500    4.500    4.500    4.500",
        "  enqueue         0.125    0.156    0.125    0.250    0.250    0.250    0.250",
        "  H2D             0.250    0.375    0.375    0.500    0.500    0.500    0.500",
        "  GPU compute     1.000    2.500    2.500    4.000    4.000    4.000    4.000",
        "  D2H             0.250    0.312    0.250    0.500    0.500    0.500    0.500",
        "",
        "skipped: profile 1, batch 8: input 'X' is [8, 4], the profile goes from [16, 4] to [32, 4]",
    ]
    assert table(of_answer("model.plan", answer())).splitlines() == expected


def test_the_table_says_why_there_is_no_cuda_graph() -> None:
    shown = table(of_answer("model.plan", answer(cuda_graph_error="cuStreamEndCapture failed")))
    assert "  no CUDA graph: cuStreamEndCapture failed" in shown
    assert "profile 0, batch 8, CUDA graph: " in table(of_answer("model.plan", answer(cuda_graph=True)))


def test_a_performance_is_json() -> None:
    found = of_answer("model.plan", answer())
    again = json.loads(json.dumps(found.as_json()))
    assert again["runs"][0]["latency"]["p99"] == 4.5
    assert again["skipped"][0]["profile"] == 1


PROFILES = [
    {"X": {"min": [1, 1], "opt": [1, 32], "max": [8, 64]}},
    {"X": {"min": [1, 1], "opt": [32, 128], "max": [32, 512]}},
]


@pytest.mark.parametrize(("shape", "expected"), [([1, 16], 0), ([8, 64], 0), ([4, 100], 1), ([32, 512], 1)])
def test_the_profile_whose_optimum_is_nearest_runs(execution: Any, shape: list[int], expected: int) -> None:
    assert execution.choose_profile(PROFILES, {"X": shape}) == expected


def test_the_wanted_profile_runs_where_it_fits(execution: Any) -> None:
    assert execution.choose_profile(PROFILES, {"X": [1, 16]}, 1) == 1
    with pytest.raises(execution.Refused) as refusal:
        execution.choose_profile(PROFILES, {"X": [9, 16]}, 0)
    assert str(refusal.value) == (
        "no optimization profile of the plan fits: profile 0: input 'X' is [9, 16], the profile goes from [1, 1] to "
        "[8, 64]"
    )
    with pytest.raises(execution.Refused, match="there is no profile 2: the plan has 2"):
        execution.choose_profile(PROFILES, {"X": [1, 16]}, 2)


def test_every_profile_says_why_it_does_not_fit(execution: Any) -> None:
    with pytest.raises(execution.Refused) as refusal:
        execution.choose_profile(PROFILES, {"X": [33, 16]})
    assert "profile 0: input 'X' is [33, 16]" in str(refusal.value)
    assert "profile 1: input 'X' is [33, 16], the profile goes from [1, 1] to [32, 512]" in str(refusal.value)


@pytest.mark.parametrize(
    ("asked", "why"),
    [({}, "input 'X' is missing"), ({"X": [1]}, "input 'X' has 1 dimensions, the profile 2"), ({"X": [8, 64]}, "")],
)
def test_why_shapes_do_not_fit(execution: Any, asked: dict[str, list[int]], why: str) -> None:
    assert execution.fits(PROFILES[0], asked) == why


class Input:
    """As much of a plan's tensor as a conversion reads."""

    def __init__(self, name: str, dtype: str, numpy_dtype: Any) -> None:
        self.name, self.dtype, self.numpy_dtype = name, dtype, np.dtype(numpy_dtype)


def test_integers_are_narrowed_where_every_value_survives(execution: Any) -> None:
    ids = Input("input_ids", "INT32", np.int32)
    found = execution.converted(ids, np.array([[1, 2]], np.int64))
    assert found.dtype == np.int32
    assert found.tolist() == [[1, 2]]
    with pytest.raises(execution.Refused, match="input 'input_ids' has values that INT32 does not hold"):
        execution.converted(ids, np.array([[1 << 40]], np.int64))
    with pytest.raises(execution.Refused, match="input 'input_ids' is float32, the plan takes INT32"):
        execution.converted(ids, np.array([[1.0]], np.float32))


def test_scalars_stay_scalars(execution: Any) -> None:
    assert execution.converted(Input("x", "FP32", np.float32), np.float32(2)).shape == ()


@pytest.mark.parametrize("script", ["run.py", "bench.py"])
def test_without_a_driver_a_worker_says_so(script: str, tmp_path: Path) -> None:
    try:
        import ctypes

        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pass
    else:
        pytest.skip("there is an NVIDIA driver here")
    asked, answered = tmp_path / "request.json", tmp_path / "answer.json"
    asked.write_text(json.dumps({"plan": "none.plan", "inputs": "none.npz", "outputs": "out.npz"}), encoding="utf-8")
    subprocess.run([sys.executable, "-B", WORKER / script, asked, answered], check=True)
    refused = json.loads(answered.read_text(encoding="utf-8"))["refused"]
    assert refused["found"].startswith("there is no NVIDIA driver: libcuda.so.1 was not loaded (")
    assert refused["expected"] == "a machine with an NVIDIA GPU and its driver"
