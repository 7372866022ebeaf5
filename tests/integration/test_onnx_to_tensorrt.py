"""The TensorRT edge on a CPU: TensorRT-RTX stands in for the builder, up to the plan that only a GPU can open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from repo_builder import pipeline, releases
from repo_builder.artifact import Artifact
from repo_builder.convert import kept_nodes, onnx_to_tensorrt
from repo_builder.convert.cases import CheckedCase
from repo_builder.convert.profiles import profiles
from repo_builder.errors import ConversionError, SpecError, TargetError, TensorRTError, TensorRTMissingError
from repo_builder.formats import batch
from repo_builder.formats import onnx as onnx_format
from repo_builder.spec import TensorRTOptions
from repo_builder.tensorrt import calls, installation, versions


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    random = np.random.default_rng(0)
    weights = random.standard_normal((64, 8)).astype(np.float32)
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"], name="product"), helper.make_node("Tanh", ["h"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor("w", TensorProto.FLOAT, [64, 8], weights.tobytes(), raw=True)],
    )
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return batch.prove_batch(onnx_format.describe(path), onnx_format.run)


@pytest.fixture(scope="module")
def rtx() -> onnx_to_tensorrt.Builder:
    found = installation.parser()
    if not found.is_rtx:
        pytest.skip("TensorRT and a GPU are here: tests/gpu builds with them")
    return onnx_to_tensorrt.Builder(found, versions.abilities(found.module, found.version))


def convert(graph: Artifact, rtx: onnx_to_tensorrt.Builder, folder: Path, precision: str, **options: Any) -> Artifact:
    x = np.random.default_rng(1).standard_normal((4, 64)).astype(np.float32)
    case = CheckedCase({}, {"x": x}, (onnx_format.run(graph, {"x": x})["y"],))
    return onnx_to_tensorrt.convert(
        graph,
        folder / "model.plan",
        builder=rtx,
        precision=precision,
        options=TensorRTOptions(**options),
        profiles=profiles(graph.inputs, {}, (), 16, graph.batch),
        cases=[case],
    )


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16"])
def test_a_plan_that_no_gpu_here_can_open_is_no_result(
    graph: Artifact, rtx: onnx_to_tensorrt.Builder, tmp_path: Path, precision: str
) -> None:
    with pytest.raises(ConversionError, match=r"the plan was built and cannot be opened here: .*CUDA") as caught:
        convert(graph, rtx, tmp_path, precision)
    assert caught.value.mend == "build on that machine"
    assert (tmp_path / "model.plan").stat().st_size > 1000


def test_a_graph_in_another_precision_than_asked_fails_the_truth_check(
    graph: Artifact, rtx: onnx_to_tensorrt.Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fp32 graph is built where fp16 was asked for: what a converter that ignores a flag makes."""
    from repo_builder.convert import onnx_precision

    real = onnx_precision.convert
    monkeypatch.setattr(onnx_precision, "convert", lambda s, o, _p, **k: real(s, o, "fp32", **k))
    with pytest.raises(ConversionError, match=r"the plan is not what was asked \(fp16\): no layer computes in FP16"):
        convert(graph, rtx, tmp_path, "fp16")


def test_options_that_this_tensorrt_lacks_are_refused(
    graph: Artifact, rtx: onnx_to_tensorrt.Builder, tmp_path: Path
) -> None:
    with pytest.raises(TensorRTError, match=r"TensorRT-RTX .* has no hardware-compatible plans"):
        convert(graph, rtx, tmp_path, "fp32", hardware_compatible=True)


def test_without_a_gpu_the_build_says_what_is_missing_before_it_starts(graph: Artifact, tmp_path: Path) -> None:
    if installation.find() is not None:
        pytest.skip("TensorRT is here")
    result = pipeline.build(str(graph.path), tmp_path / "repository", name="m", engine="tensorrt", precision="fp16")
    with pytest.raises(TensorRTMissingError, match="TensorRT is not installed here"):
        result.raise_failed()
    assert not (tmp_path / "repository").exists()


def test_a_target_that_does_not_load_the_plan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = installation.Gpu("NVIDIA H100", "9.0", "580", 1 << 30)
    found = installation.Installation(Path("python"), "tensorrt", "8.6.1", gpu)
    monkeypatch.setattr(installation, "builder", lambda: found)
    with pytest.raises(TargetError, match=r"carries TensorRT 10\.16") as caught:
        onnx_to_tensorrt.builder(releases.release("26.03"), "fp16", TensorRTOptions())
    assert "build in the target's own container" in str(caught.value)
    with pytest.raises(TensorRTError, match="has no precision bf16"):
        onnx_to_tensorrt.builder(releases.newest(), "bf16", TensorRTOptions())
    compatible = TensorRTOptions(version_compatible=True)
    assert onnx_to_tensorrt.builder(releases.release("26.03"), "fp16", compatible).able.max_opset == 17


def test_preflight_and_bench_say_what_they_take(graph: Artifact, tmp_path: Path) -> None:
    told = pipeline.preflight(str(graph.path))
    assert told["supported"]
    assert told["unsupported"] == []
    (tmp_path / "model.plan").write_bytes(b"ftrt" + bytes(60))
    with pytest.raises(SpecError, match="is of format tensorrt_plan"):
        pipeline.preflight(str(tmp_path / "model.plan"))
    with pytest.raises(SpecError, match="is of format onnx"):
        pipeline.bench(str(graph.path))


def test_bf16_inputs_and_outputs_are_refused_before_anything_is_converted() -> None:
    with pytest.raises(SpecError, match="inputs and outputs would be BF16") as caught:
        onnx_to_tensorrt.builder(releases.newest(), "bf16", TensorRTOptions(keep_io_types=False))
    assert "leave keep_io_types out" in str(caught.value)


@pytest.mark.parametrize(
    ("module", "version", "opset"),
    [("tensorrt", "8.6.1", 17), ("tensorrt", "10.3.0", 20), ("tensorrt", "10.16.0", 22), ("tensorrt_rtx", "1.7.1", 22)],
)
def test_a_file_is_written_at_an_opset_that_the_parser_is_told_to_read(module: str, version: str, opset: int) -> None:
    found = installation.Installation(Path("python"), module, version, None)  # type: ignore[arg-type]
    assert onnx_to_tensorrt.Builder(found, versions.abilities(module, version)).opset == opset


def convolution(path: Path) -> Artifact:
    """Opset 17, where ONNX has no Conv in bf16."""
    random = np.random.default_rng(0)
    weights = random.standard_normal((8, 3, 3, 3)).astype(np.float32)
    made = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["h"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["h"], ["r"], name="relu"),
            helper.make_node("GlobalAveragePool", ["r"], ["y"], name="pool"),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8, 1, 1])],
        [helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.tobytes(), raw=True)],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return batch.prove_batch(onnx_format.describe(path), onnx_format.run)


def test_bf16_convolutions_compute_in_bf16(rtx: onnx_to_tensorrt.Builder, tmp_path: Path) -> None:
    """Built for real; the truth check of the network comes before the plan would be opened."""
    source = convolution(tmp_path / "m.onnx")
    x = np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype(np.float32)
    case = CheckedCase({}, {"x": x}, (onnx_format.run(source, {"x": x})["y"],))
    with pytest.raises(ConversionError, match="cannot be opened here"):
        onnx_to_tensorrt.convert(
            source,
            tmp_path / "model.plan",
            builder=rtx,
            precision="bf16",
            options=TensorRTOptions(),
            profiles=profiles(source.inputs, {}, (), 4, source.batch),
            cases=[case],
        )
    written = onnx_format.describe(tmp_path / "precision.onnx")
    assert written.facts["opset"] == 22
    onnx_format.check(written.path)
    inferred = onnx.shape_inference.infer_shapes(onnx.load(str(written.path)), strict_mode=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    conv = next(node for node in inferred.node if node.op_type == "Conv")
    assert kinds[conv.output[0]] == TensorProto.BFLOAT16
    told = calls.call(rtx.installed, "parse.py", {"onnx": str(written.path), "plugins": []})
    assert told["network"]["compute"] == {"BF16": 1}


def test_layers_that_tensorrt_does_not_make_cannot_be_kept(graph: Artifact) -> None:
    """``missing`` as TensorRT 8.6 tells it of weakly typed networks, which only a GPU machine builds."""
    tanh = next(n.name for n in onnx.load(str(graph.path)).graph.node if n.op_type == "Tanh")
    kept_nodes.check_layers(["product", "MatMul"], graph.path, [tanh])
    with pytest.raises(SpecError, match=r"keep_fp32 names 'produc\*', of which TensorRT makes no layer"):
        kept_nodes.check_layers(["produc*"], graph.path, ["product"])


def test_a_plan_must_run_at_the_ends_of_its_profiles(
    graph: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ONNX Runtime stands in for the plan, which overflows in batches of more than eight."""
    from repo_builder.formats import tensorrt_plan

    ran = []

    def run(plan: Artifact, inputs: Any) -> Any:
        answer = onnx_format.run(graph, inputs)
        ran.append(inputs["x"].shape)
        return {"y": answer["y"] + (np.inf if len(inputs["x"]) > 8 else 0)}

    monkeypatch.setattr(tensorrt_plan, "run", run)
    ends = [{"x": np.ones((rows, 64), np.float32)} for rows in (1, 8, 16)]
    onnx_to_tensorrt._touched(graph, graph, ends[:2])
    with pytest.raises(ConversionError, match=r"output y: NaN or infinity for x\[16, 64\]"):
        onnx_to_tensorrt._touched(graph, graph, ends)
    assert ran == [(1, 64), (8, 64), (1, 64), (8, 64), (16, 64)]
