"""Plans on a real GPU: built, run, timed, and served by the stand-in, against numpy.

Needs an NVIDIA GPU, its driver and TensorRT (8.6 to 11) with numpy; ``pytest -m gpu tests/gpu``, or without pytest
``python tests/gpu/test_plans.py``.
"""

from __future__ import annotations

import ctypes
import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import backend_double
import by_hand
from backend_double import Request

try:
    import pytest

    pytestmark = pytest.mark.gpu
except ImportError:
    pass

WORKER = Path(__file__).parents[2] / "repo_builder" / "tensorrt" / "worker"
WEIGHTS = np.random.default_rng(1).standard_normal((64, 32)).astype(np.float32)
X = {"name": "X", "data_type": "TYPE_FP32", "dims": [64]}
Y = {"name": "Y", "data_type": "TYPE_FP32", "dims": [32]}


@functools.lru_cache(None)
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="plans-"))


def fresh(name: str) -> Path:
    made = folder() / name
    made.mkdir(exist_ok=True)
    return made


def old(trt: Any) -> bool:
    """TensorRT 8: batches must be explicit, shape tensors are INT32."""
    return not hasattr(trt.ICudaEngine, "get_tensor_profile_values")


def network() -> tuple[Any, Any, Any, Any]:
    import tensorrt as trt

    builder = trt.Builder(trt.Logger(trt.Logger.WARNING))
    made = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH) if old(trt) else 0)
    config = builder.create_builder_config()
    if hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
    return trt, builder, made, config


def write(builder: Any, made: Any, config: Any, name: str) -> Path:
    plan = builder.build_serialized_network(made, config)
    assert plan is not None, f"TensorRT did not build {name}"
    path = folder() / f"{name}.plan"
    path.write_bytes(bytes(plan))
    return path


@functools.lru_cache(None)
def dense() -> Path:
    """Y = relu(X WEIGHTS), X [-1, 64]: profiles of batches 1 to 8 (best at 4) and 4 to 32 (best at 32)."""
    return build_dense("dense")


def build_dense(name: str, *flags: str) -> Path:
    trt, builder, made, config = network()
    for flag in flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    found = made.add_input("X", trt.float32, (-1, 64))
    weights = made.add_constant((64, 32), trt.Weights(WEIGHTS)).get_output(0)
    plain = trt.MatrixOperation.NONE
    product = made.add_matrix_multiply(found, plain, weights, plain).get_output(0)
    result = made.add_activation(product, trt.ActivationType.RELU).get_output(0)
    result.name = "Y"
    made.mark_output(result)
    for low, best, high in ((1, 4, 8), (4, 32, 32)):
        profile = builder.create_optimization_profile()
        profile.set_shape("X", (low, 64), (best, 64), (high, 64))
        config.add_optimization_profile(profile)
    return write(builder, made, config, name)


@functools.lru_cache(None)
def unknown_size() -> Path:
    """WHERE = indices of what is not zero in X [-1, 4]: an output whose size only the data tells."""
    trt, builder, made, config = network()
    found = made.add_input("X", trt.float32, (-1, 4))
    result = made.add_non_zero(found).get_output(0)
    result.name = "WHERE"
    made.mark_output(result)
    profile = builder.create_optimization_profile()
    profile.set_shape("X", (1, 4), (4, 4), (8, 4))
    config.add_optimization_profile(profile)
    return write(builder, made, config, "unknown_size")


@functools.lru_cache(None)
def shape_tensor() -> Path:
    """Y = X [-1] in the shape that the values of SIZE [2] say."""
    trt, builder, made, config = network()
    found = made.add_input("X", trt.float32, (-1,))
    size = made.add_input("SIZE", trt.int32 if old(trt) else trt.int64, (2,))
    layer = made.add_shuffle(found)
    layer.set_input(1, size)
    doubled = made.add_elementwise(layer.get_output(0), layer.get_output(0), trt.ElementWiseOperation.SUM)
    result = doubled.get_output(0)
    result.name = "Y"
    made.mark_output(result)
    profile = builder.create_optimization_profile()
    profile.set_shape("X", (1,), (8,), (64,))
    profile.set_shape_input("SIZE", (1, 1), (2, 4), (8, 8))
    config.add_optimization_profile(profile)
    return write(builder, made, config, "shape_tensor")


def inputs(count: int, width: int = 64) -> Any:
    return np.random.default_rng(count).standard_normal((count, width)).astype(np.float32)


def expected(found: Any) -> Any:
    return np.maximum(found.astype(np.float64) @ WEIGHTS, 0).astype(np.float32)


def work(script: str, **request: Any) -> dict[str, Any]:
    asked, answered = folder() / "request.json", folder() / "answer.json"
    asked.write_text(json.dumps(request), encoding="utf-8")
    subprocess.run([sys.executable, "-B", str(WORKER / script), str(asked), str(answered)], check=True)
    return dict(json.loads(answered.read_text(encoding="utf-8")))


def run(plan: Path, profile: int | None = None, **arrays: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    given, made = folder() / "in.npz", folder() / "out.npz"
    np.savez(given, **arrays)
    answer = work("run.py", plan=str(plan), inputs=str(given), outputs=str(made), profile=profile, module="tensorrt")
    if "refused" in answer:
        return answer, {}
    with np.load(made) as found:
        return answer, {name: found[name] for name in found.files}


def close(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def test_runs_every_batch_on_the_profile_that_fits() -> None:
    for count, profile in ((1, 0), (5, 0), (8, 0), (9, 1), (32, 1)):
        answer, found = run(dense(), X=inputs(count))
        assert answer["profile"] == profile
        assert answer["outputs"] == {"Y": {"dtype": "FP32", "shape": [count, 32]}}
        assert answer["device"]["compute_capability"].count(".") == 1
        close(found["Y"], expected(inputs(count)))


def test_runs_the_wanted_profile_and_refuses_what_it_does_not_hold() -> None:
    answer, found = run(dense(), 1, X=inputs(5))
    assert answer["profile"] == 1
    close(found["Y"], expected(inputs(5)))
    answer, _ = run(dense(), X=inputs(33))
    assert "profile 1: input 'X' is [33, 64], the profile goes from [4, 64] to [32, 64]" in answer["refused"]["found"]


def test_runs_outputs_whose_size_the_data_tells() -> None:
    given = np.zeros((3, 4), np.float32)
    given[0, 1] = given[2, 3] = given[1, 0] = 1
    _, found = run(unknown_size(), X=given)
    places = sorted(map(tuple, found["WHERE"].T.tolist()))
    assert places == [(0, 1), (1, 0), (2, 3)]


def test_runs_shape_tensors() -> None:
    given = np.arange(12, dtype=np.float32)
    _, found = run(shape_tensor(), X=given, SIZE=np.array([3, 4]))
    np.testing.assert_array_equal(found["Y"], given.reshape(3, 4) * 2)
    import tensorrt as trt

    if not old(trt):  # 8.6.1 ends with a segmentation fault in infer_shapes (tried)
        answer, _ = run(shape_tensor(), X=given, SIZE=np.array([3, 3]))
        assert answer["refused"]["found"].startswith(("TensorRT cannot infer", "TensorRT could not run"))
    answer, _ = run(shape_tensor(), X=given, SIZE=np.array([12, 1]))
    low, high = ("[1, ?]", "[8, ?]") if old(trt) else ("[1, 1]", "[8, 8]")
    assert f"input 'SIZE' is [12, 1], the profile goes from {low} to {high}" in answer["refused"]["found"]


def test_refuses_what_is_no_plan() -> None:
    bad = folder() / "bad.plan"
    bad.write_bytes(b"no plan at all" * 100)
    answer, _ = run(bad, X=inputs(1))
    assert f"does not open the plan {bad}" in answer["refused"]["found"]


def times(**request: Any) -> dict[str, Any]:
    return work("bench.py", plan=str(dense()), warm_up_ms=50, duration_s=0.3, module="tensorrt", **request)


def test_times_every_profile_and_batch() -> None:
    answer = times(batches=[1, 8, 32])
    assert [(one["profile"], one["batch"]) for one in answer["runs"]] == [(0, 1), (0, 8), (1, 8), (1, 32)]
    assert [(one["profile"], one["batch"]) for one in answer["skipped"]] == [(0, 32), (1, 1)]
    for one in answer["runs"]:
        assert one["iterations"] >= 10
        assert one["bytes"] == {"h2d": one["batch"] * 256, "d2h": one["batch"] * 128}
        for samples in one["milliseconds"].values():
            assert len(samples) == one["iterations"]
            assert min(samples) >= 0
        assert sum(one["milliseconds"]["compute"]) > 0


def test_times_cuda_graphs() -> None:
    for one in times(batches=[8], cuda_graph=True)["runs"]:
        assert one["cuda_graph_error"] is None
        assert one["cuda_graph"]


def test_times_the_optimum_where_no_batch_is_asked() -> None:
    assert [one["batch"] for one in times()["runs"]] == [4, 32]


def served(plan: Path, name: str, **config: Any) -> tuple[Any, Any]:
    version = fresh(name)
    (version / "model.plan").write_bytes(plan.read_bytes())
    module = backend_double.stand_in(version)
    return module, config


def answers(model: Any, *requests: Any) -> list[Any]:
    return [one.error or one.taken() for one in model.execute(list(requests))]


def test_the_stand_in_serves_batches_and_completes_the_config() -> None:
    module, config = served(dense(), "plain")
    model = backend_double.load(module, config)
    assert model.config["max_batch_size"] == 8
    assert model.config["input"][0]["dims"] == [64]
    for _ in range(3):
        given = [inputs(count) for count in (1, 2, 5)]
        for one, found in zip(given, answers(model, *(Request(["Y"], X=one) for one in given))):  # noqa: B905
            close(found["Y"], expected(one))
    model.finalize()


def test_the_stand_in_chooses_profiles_and_records_graphs() -> None:
    module, config = served(dense(), "profiles", max_batch_size=32, input=[X], output=[Y], profiles=["0", "1"])
    model = backend_double.load(module, {**config, "optimization": {"cuda": {"graphs": True}}})
    assert list(model.contexts) == [0, 1]
    for count in (1, 8, 32, 1, 8, 32, 20, 1, 32):
        (found,) = answers(model, Request(["Y"], X=inputs(count)))
        close(found["Y"], expected(inputs(count)))
    assert len(model.execution.graphs) == 4
    assert all(model.execution.graphs.values())
    (error,) = answers(model, Request(["Y"], X=inputs(33)))
    assert "model expected the shape of dimension 0 to be between 1 and 8 but received 33" in str(error)
    model.finalize()


def test_the_stand_in_serves_unknown_sizes_and_shape_tensors() -> None:
    module, config = served(
        unknown_size(),
        "unknown",
        input=[{**X, "dims": [-1, 4]}],
        output=[{"name": "WHERE", "data_type": "TYPE_INT32", "dims": [2, -1]}],
    )
    model = backend_double.load(module, config)
    (found,) = answers(model, Request(["WHERE"], X=np.eye(4, dtype=np.float32)))
    assert sorted(map(tuple, found["WHERE"].T.tolist())) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    model.finalize()


def test_the_stand_in_serves_shape_tensors() -> None:
    import tensorrt as trt

    dtype = np.int32 if old(trt) else np.int64
    module, _ = served(shape_tensor(), "shapes")
    size = {"name": "SIZE", "data_type": f"TYPE_{np.dtype(dtype).name.upper()}", "dims": [2], "is_shape_tensor": True}
    config = {"input": [{**X, "dims": [-1]}, size], "output": [{**Y, "dims": [-1, -1]}]}
    model = backend_double.load(module, config)
    given = np.arange(12, dtype=np.float32)
    for shape in ((3, 4), (4, 3), (2, 6)):
        (found,) = answers(model, Request(["Y"], X=given, SIZE=np.array(shape, dtype)))
        np.testing.assert_array_equal(found["Y"], given.reshape(shape) * 2)
    model.finalize()


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "autofill_batch": ({"max_batch_size": 64}, {"model": "m", "asked": 64, "limit": 8}),
    "autofill_profile": ({"max_batch_size": 8, "profiles": ["7"]}, {"model": "m", "profile": 7, "count": 2}),
    "autofill_contradiction": ({"max_batch_size": 8, "output": [{**Y, "dims": [-1, 32]}]}, {"model": "m"}),
    "autofill_shape_tensor": ({"max_batch_size": 8, "input": [{**X, "is_shape_tensor": True}]}, {"name": "X"}),
    "input_name": ({"max_batch_size": 8, "input": [{**X, "name": "x"}]}, {"name": "x", "allowed": "X"}),
    "output_name": ({"max_batch_size": 8, "output": [{**Y, "name": "y"}]}, {"name": "y", "allowed": "Y"}),
    "unsupported": (
        {"max_batch_size": 8, "input": [{**X, "data_type": "TYPE_FP64"}]},
        {"datatype": "TYPE_FP64", "side": "input", "name": "X", "model": "m"},
    ),
    "datatype": (
        {"max_batch_size": 8, "input": [{**X, "data_type": "TYPE_FP16"}]},
        {"found": "FP32", "expected": "FP16", "side": "input", "name": "X", "instance": "m_0_0"},
    ),
    "dims_batching": (
        {"max_batch_size": 8, "input": [{**X, "dims": [65]}]},
        {"model": "m", "name": "X", "rank": 2, "shape": "[-1,64]", "count": 2, "dims": "[-1,65]"},
    ),
    "dims": (
        {"input": [{**X, "dims": [-1, 65]}], "output": [{**Y, "dims": [-1, 32]}]},
        {"model": "m", "name": "X", "rank": 2, "shape": "[-1,64]", "count": 2, "dims": "[-1,65]"},
    ),
    "nonlinear_marked": (
        {"max_batch_size": 8, "input": [{**X, "is_non_linear_format_io": True}]},
        {"side": "input", "name": "X", "model": "m"},
    ),
    "kind": ({"max_batch_size": 8}, {"model": "m"}),
}


def test_the_stand_in_refuses_in_the_words_of_the_compiled_backend() -> None:
    for key, (changes, words) in REFUSED.items():
        module, config = served(dense(), "refused", **{"input": [X], "output": [Y], **changes})
        said = backend_double.refused(module, config, "CPU" if key == "kind" else "GPU")
        assert said == module.REFUSALS[key][1].format(**words), key


def test_the_stand_in_refuses_missing_and_broken_plans() -> None:
    version = fresh("missing")
    module = backend_double.stand_in(version)
    config: dict[str, Any] = {"max_batch_size": 8, "input": [X], "output": [Y]}
    path = version / "model.plan"
    assert backend_double.refused(module, dict(config)) == module.REFUSALS["autofill_file"][1].format(path=path)
    path.write_bytes(b"no plan at all" * 100)
    assert backend_double.refused(module, dict(config)) == module.REFUSALS["autofill_file"][1].format(path=path)


def test_the_stand_in_takes_the_plan_of_this_gpu() -> None:
    module, _ = served(dense(), "capability")
    version = fresh("capability")
    (version / "model.plan").rename(version / "mine.plan")
    capability = module.Gpu("m", 0).capability
    names = {"cc_model_filenames": {capability: "mine.plan", "1.0": "other.plan"}}
    model = backend_double.load(module, {"max_batch_size": 8, "input": [X], "output": [Y], **names})
    (found,) = answers(model, Request(["Y"], X=inputs(2)))
    close(found["Y"], expected(inputs(2)))
    model.finalize()


def lean() -> bool:
    """Whether TensorRT's lean runtime is here, which the builder puts into version-compatible plans."""
    import tensorrt as trt

    try:
        ctypes.CDLL("libnvinfer_lean.so.{}".format(trt.__version__.partition(".")[0]))
    except OSError:
        return False
    return True


def test_a_version_compatible_plan_runs_where_its_own_code_is_allowed() -> None:
    if not lean():
        skip("libnvinfer_lean is not here: the wheel tensorrt-lean has it")
    plan = build_dense("compatible", "VERSION_COMPATIBLE")
    request = {"plan": str(plan), "module": "tensorrt"}
    assert "does not open the plan" in work("inspect_plan.py", **request)["refused"]["found"]
    told = work("inspect_plan.py", **request, allow_host_code=True)["inspection"]
    assert [one["name"] for one in (*told["inputs"], *told["outputs"])] == ["X", "Y"]
    assert len(told["profiles"]) == 2
    given, made = folder() / "in.npz", folder() / "out.npz"
    np.savez(given, X=inputs(5))
    answer = work("run.py", **request, inputs=str(given), outputs=str(made), version_compatible=True)
    assert "refused" not in answer
    with np.load(made) as found:
        close(found["Y"], expected(inputs(5)))
    for allowed in (False, True):
        module, config = served(plan, "compatible", max_batch_size=8, input=[X], output=[Y])
        options = {"version-compatible": "true"} if allowed else {}
        sys.modules[module.Plan.__module__].server_options = lambda options=options: options  # type: ignore[attr-defined]
        if not allowed:
            said = backend_double.refused(module, config)
            assert said == module.REFUSALS["autofill_file"][1].format(path=fresh("compatible") / "model.plan")
            continue
        model = backend_double.load(module, config)
        (answered,) = answers(model, Request(["Y"], X=inputs(3)))
        close(answered["Y"], expected(inputs(3)))
        model.finalize()


def skip(why: str) -> None:
    """Under pytest its own skip."""
    raise pytest.skip.Exception(why) if "pytest" in globals() else by_hand.Skipped(why)


if __name__ == "__main__":
    sys.exit(by_hand.run(globals()))
