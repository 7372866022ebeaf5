"""What an ONNX file is made of, and who runs its operators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from repo_builder import pipeline
from repo_builder.formats import onnx_kernels, onnx_summary
from tests import models

FLOAT, DOUBLE, INT64, STRING = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.STRING


def file(path: Path, *nodes: Any, inputs: Any = (), outputs: Any = (), **more: Any) -> Path:
    told = [("x", FLOAT, ["batch", 4]), *inputs]
    onnx.save(models.onnx_model(told, [("y", FLOAT, ["batch", 4]), *outputs], list(nodes), **more), str(path))
    return path


def test_a_plain_model(tmp_path: Path) -> None:
    found = onnx_summary.summary(models.linear_onnx(tmp_path / "m.onnx"), batch=8)
    yes = {"ort_cpu": "yes", "ort_cuda": "yes", "tensorrt": "yes"}
    assert found == {
        "opsets": {"ai.onnx": 17},
        "activation_bytes": {"batch": 8, "peak": 8 * (4 + 3) * 4},
        "lists": {"ort_cpu": onnxruntime.__version__, "ort_cuda": "1.24", "tensorrt": "10.1"},
        "operators": [{"operator": "Add", "count": 1, **yes}, {"operator": "MatMul", "count": 1, **yes}],
    }


def test_what_cannot_run_comes_first(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("Relu", ["h"], ["y"]),
        helper.make_node("StringNormalizer", ["s"], ["t"]),
        helper.make_node("Det", ["d"], ["e"]),
        helper.make_node("Nobody", ["x"], ["n"], domain="org.nobody"),
    ]
    inputs = [("s", STRING, [2]), ("d", FLOAT, [2, 2])]
    outputs = [("t", STRING, [2]), ("e", FLOAT, []), ("n", FLOAT, [2])]
    path = file(tmp_path / "m.onnx", *nodes, inputs=inputs, outputs=outputs)
    model = onnx.load(str(path))
    model.opset_import.add(domain="org.nobody", version=1)
    onnx.save(model, str(path))
    found = onnx_summary.summary(path)
    rows = {row["operator"]: row for row in found["operators"]}
    assert list(rows) == ["org.nobody.Nobody", "Det", "StringNormalizer", "Relu"]
    assert rows["org.nobody.Nobody"]["ort_cpu"] == "no: no CPU kernel"
    for operator in ("Det", "StringNormalizer"):
        assert rows[operator]["ort_cpu"] == "yes"
        assert rows[operator]["ort_cuda"] == "no: no CUDA kernel"
        assert rows[operator]["tensorrt"] == "no: the parser does not have it (a plugin of that name would do)"
    assert (rows["Relu"]["count"], rows["Relu"]["ort_cuda"]) == (2, "yes")
    assert found["opsets"] == {"ai.onnx": 17, "org.nobody": 1}


def test_dtypes_decide(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["d", "w"], ["c"]), helper.make_node("Relu", ["x"], ["y"])]
    inputs = [("d", DOUBLE, [1, 1, 4]), ("w", DOUBLE, [1, 1, 3])]
    path = file(tmp_path / "m.onnx", *nodes, inputs=inputs, outputs=[("c", DOUBLE, [1, 1, 2])])
    (conv,) = (row for row in onnx_summary.summary(path)["operators"] if row["operator"] == "Conv")
    assert conv["ort_cpu"] == "no: no CPU kernel of tensor(double)"
    assert conv["ort_cuda"] == "yes"
    with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
        onnxruntime.InferenceSession(str(path))


def test_functions_run_without_a_kernel_of_their_own(tmp_path: Path) -> None:
    path = file(tmp_path / "m.onnx", helper.make_node("MeanVarianceNormalization", ["x"], ["y"], axes=[1]))
    (row,) = onnx_summary.summary(path)["operators"]
    assert row["ort_cuda"] == onnx_kernels.FUNCTION
    onnxruntime.InferenceSession(str(path))


def test_what_it_says_of_the_cpu_is_what_onnx_runtime_does(tmp_path: Path) -> None:
    """Every operator of one input and one output, without attributes, in five dtypes: the session is made or not."""
    compared, refused = 0, 0
    for schema in onnx.defs.get_all_schemas():
        need = [a for a in schema.attributes.values() if a.required]
        if schema.domain or need or (schema.min_input, schema.max_input, schema.min_output) != (1, 1, 1):
            continue
        for kind in (FLOAT, DOUBLE, INT64, TensorProto.UINT8, TensorProto.BFLOAT16):
            name = f"tensor({TensorProto.DataType.Name(kind).lower()})"
            if schema.inputs[0].type_str != schema.outputs[0].type_str or name not in schema.inputs[0].types:
                continue
            node = helper.make_node(schema.name, ["x"], ["y"])
            model = models.onnx_model([("x", kind, [2, 2])], [("y", kind, None)], [node], opset=22, ir_version=10)
            try:
                onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
                loads = True
            except Exception as error:  # noqa: BLE001
                loads = False
                if "NOT_IMPLEMENTED" not in str(error):
                    continue
            said = onnx_kernels.cpu("", schema.name, 22, {schema.inputs[0].type_str: name})
            if said == onnx_kernels.FUNCTION:
                continue
            assert (said == "yes") == loads, (schema.name, name, said)
            compared, refused = compared + 1, refused + (not loads)
    assert compared > 60
    assert refused > 20


def test_versions_choose_the_list() -> None:
    assert [onnx_kernels.known("cuda", v) for v in ("1.16.3", "1.20.1", "1.23.2", "1.27.0", "")] == [
        "1.20",
        "1.20",
        "1.23",
        "1.24",
        "1.24",
    ]
    assert [onnx_kernels.known("tensorrt", v) for v in ("8.6.1", "10.0", "10.16.0.72")] == ["8.6", "8.6", "10.1"]
    half = {"X": "tensor(bfloat16)"}
    assert onnx_kernels.cuda("", "Conv", 22, {"T": "tensor(int8)"}) == "no: no CUDA kernel of tensor(int8)"
    assert onnx_kernels.cuda("", "Conv", 22, half) == "yes", "parameters of another name say nothing"
    assert onnx_kernels.tensorrt("", "Conv", "INT64").startswith("no: not of INT64")
    assert onnx_kernels.tensorrt("", "Add", "FP64") == "yes", "narrowed to FP32"
    assert onnx_kernels.documented_opset("8.6") == 17


def test_unused_inputs_and_wrong_stamps(tmp_path: Path) -> None:
    node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=1)
    path = file(tmp_path / "m.onnx", node, inputs=[("u", INT64, [3])], opset=21, ir_version=10)
    found = onnx_summary.summary(path)
    assert found["unused_inputs"] == ["u"]
    assert "ReduceMean of opset 21 has no attribute 'axes'; all nodes fit opsets 1 to 17" in found["stamp"]
    assert found["lists"]["tensorrt"] == "10.1 (about opset 20 at most)"


def test_types_that_onnx_does_not_know_are_told_by_number(tmp_path: Path) -> None:
    path = file(tmp_path / "m.onnx", helper.make_node("Sin", ["w"], ["y"]))
    model = onnx.load(str(path))
    model.graph.initializer.append(onnx.TensorProto(name="w", data_type=77, dims=[1]))
    onnx.save(model, str(path))
    (row,) = onnx_summary.summary(path)["operators"]
    assert row["ort_cpu"] == "no: no CPU kernel of tensor(type 77)"


def test_memory_of_unknown_sizes_is_left_out(tmp_path: Path) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Relu", ["x"], ["y"])]
    path = file(tmp_path / "m.onnx", *nodes, outputs=[("n", INT64, [2, None])])
    assert "activation_bytes" not in onnx_summary.summary(path)
    other = file(tmp_path / "o.onnx", helper.make_node("Relu", ["x"], ["y"]), inputs=[("z", FLOAT, [1, "length"])])
    assert "activation_bytes" not in onnx_summary.summary(other)


def test_memory_lives_as_long_as_it_is_read(tmp_path: Path) -> None:
    """x (16 bytes) lives until the Add; three tensors at once are the peak, however long the chain."""
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Exp", ["a"], ["b"])]
    nodes += [helper.make_node("Exp", ["b"], ["c"]), helper.make_node("Add", ["c", "x"], ["y"])]
    assert onnx_summary.summary(file(tmp_path / "m.onnx", *nodes))["activation_bytes"] == {"batch": 1, "peak": 48}


def test_inspect_shows_it(tmp_path: Path) -> None:
    found = pipeline.inspect(str(models.linear_onnx(tmp_path / "m.onnx")))
    assert [row["operator"] for row in found["operators"]] == ["Add", "MatMul"]
    assert (found["opsets"], found["ir_version"], found["parameters"]) == ({"ai.onnx": 17}, 8, 15)
    json.dumps(found)


def test_the_lists_name_their_sources() -> None:
    table = onnx_kernels._table()
    listed = {f"{kind} {version}" for kind in ("cuda", "tensorrt") for version in table[kind]}
    assert set(table["sources"]) == listed
    assert all("@" in source and ".md" in source for source in table["sources"].values())
