"""``onnx_precision.convert``: every precision to a file and its loss, what is kept back, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import precision_samples as graphs
import pytest
from onnx import TensorProto, numpy_helper

from repo_builder.convert import precision_loss, precision_search
from repo_builder.convert.onnx_precision import convert
from repo_builder.errors import ConversionError, SpecError, TargetError
from repo_builder.formats import onnx as onnx_format


def run(source, precision, **options):
    artifact = onnx_format.describe(source)
    out = source.with_name(f"{precision}.onnx")
    given = options.pop("cases", None) or graphs.cases(source)
    made, loss = convert(artifact, out, precision, cases=given, **{"max_opset": 22, **options})
    json.dumps(loss.facts(), allow_nan=False)
    assert {p.name for p in source.parent.iterdir()} >= {made.path.name}
    assert not [p for p in source.parent.iterdir() if p.name.startswith(".")]
    return made, loss


def operators(path):
    return Counter(n.op_type for n in onnx.load(str(path)).graph.node)


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_fp32_and_tf32_leave_the_file_alone(tmp_path, precision):
    source = graphs.dense(tmp_path / "m.onnx")
    made, loss = run(source, precision)
    assert made.path == source
    assert loss.outputs == {}
    assert loss.kept == ()


@pytest.mark.parametrize(("precision", "limit"), [("fp16", 2e-3), ("bf16", 2e-2), ("int8", 5e-2), ("fp8", 2e-1)])
@pytest.mark.parametrize("make", [graphs.dense, graphs.convolutions], ids=lambda make: make.__name__)
def test_every_precision(tmp_path, make, precision, limit):
    source = make(tmp_path / "m.onnx")
    made, loss = run(source, precision)
    before = onnx_format.describe(source)
    assert (made.inputs, made.outputs) == (before.inputs, before.outputs)
    assert 0 < loss.worst < limit
    assert all(o.cosine > 0.99 and o.max_abs_error > 0 for o in loss.outputs.values())
    assert loss.share == 1.0
    assert loss.cases == 3
    assert made.provenance["precision"] == loss.facts()
    onnx_format.check(made.path)


def test_half_inputs_and_outputs(tmp_path):
    made, _ = run(graphs.convolutions(tmp_path / "m.onnx"), "fp16", keep_io_types=False)
    assert [t.dtype for t in (*made.inputs, *made.outputs)] == ["FP16", "FP16"]
    assert operators(made.path)["Cast"] == 0


def test_int8_for_tensorrt_8_is_symmetric_per_channel_and_at_opset_17(tmp_path):
    made, loss = run(graphs.convolutions(tmp_path / "m.onnx"), "int8", max_opset=17)
    assert made.facts["opset"] == 17
    model = onnx.load(str(made.path))
    weights = {t.name: t for t in model.graph.initializer}
    makers = {name: n for n in model.graph.node for name in n.output}
    q = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    assert all(not numpy_helper.to_array(weights[n.input[2]]).any() for n in q)
    assert {weights[n.input[2]].data_type for n in q} == {TensorProto.INT8}
    assert {weights[n.input[1]].data_type for n in q} == {TensorProto.FLOAT}
    for conv in (n for n in model.graph.node if n.op_type == "Conv"):
        scale = weights[makers[conv.input[1]].input[1]]
        assert list(scale.dims) == [8]
        assert makers[conv.input[0]].op_type == "DequantizeLinear"
        assert conv.input[2] in weights
    assert "the other nodes are in fp32" in loss.notes
    assert operators(made.path)["Cast"] == 0


def test_int8_for_newer_versions_has_half_precision_around_it(tmp_path):
    made, loss = run(graphs.convolutions(tmp_path / "m.onnx"), "int8")
    assert made.facts["opset"] == 19
    scales = {n.input[1] for n in onnx.load(str(made.path)).graph.node if n.op_type == "QuantizeLinear"}
    kinds = {t.name: t.data_type for t in onnx.load(str(made.path)).graph.initializer}
    assert {kinds[name] for name in scales} == {TensorProto.FLOAT16}
    assert "the other nodes are in fp16" in loss.notes


def test_int8_leaves_products_of_two_activations(tmp_path):
    made, loss = run(graphs.attention(tmp_path / "m.onnx"), "int8", max_opset=17)
    assert operators(made.path)["QuantizeLinear"] == 3
    assert loss.share == 1.0


def test_few_samples_are_said(tmp_path):
    _, loss = run(graphs.dense(tmp_path / "m.onnx"), "int8")
    assert "9 rows are few: give 32 or more of real inputs as samples" in loss.notes


def test_fp8_is_e4m3_with_448_as_its_largest(tmp_path):
    source = graphs.dense(tmp_path / "m.onnx")
    x = np.random.default_rng(0).standard_normal((40, 64)).astype(np.float32)
    x[0, 0] = 44.8
    made, loss = run(source, "fp8", rest="fp32", cases=graphs.cases(source, {"x": x}))
    weights = {t.name: t for t in onnx.load(str(made.path)).graph.initializer}
    q = [n for n in onnx.load(str(made.path)).graph.node if n.op_type == "QuantizeLinear"]
    assert {weights[n.input[2]].data_type for n in q} == {TensorProto.FLOAT8E4M3FN}
    scale = next(numpy_helper.to_array(weights[n.input[1]]) for n in q if n.input[0] == "x")
    assert scale == pytest.approx(0.1, rel=0.01)
    assert not any("few" in note for note in loss.notes)


def test_fp8_is_refused_where_the_parser_ends_below_opset_19(tmp_path):
    with pytest.raises(TargetError) as caught:
        run(graphs.dense(tmp_path / "m.onnx"), "fp8", max_opset=17)
    assert "fp8 needs opset 19, the target reads 17 at most" in str(caught.value)
    assert "TensorRT 8.6 has no working fp8" in str(caught.value)


def test_bf16_convolutions_need_opset_22(tmp_path):
    source = graphs.convolutions(tmp_path / "m.onnx")
    made, loss = run(source, "bf16", max_opset=22)
    assert (made.facts["opset"], loss.share) == (22, 1.0)
    made, loss = run(source, "bf16", max_opset=20)
    assert made.facts["opset"] == 17
    assert {(k.operator, k.why) for k in loss.stays} == {
        ("Conv", "float32 only in ONNX"),
        ("GlobalAveragePool", "float32 only in ONNX"),
    }
    assert loss.kept == ()
    assert loss.share == 5 / 8


def test_an_overflow_names_its_node(tmp_path):
    with pytest.raises(ConversionError) as caught:
        run(graphs.overflowing(tmp_path / "m.onnx"), "fp16")
    assert "in fp16 2 of 2 values of output y are inf, where the source's are finite" in str(caught.value)
    assert "it starts at node 'n2_ReduceSum'" in str(caught.value)
    assert 'keep_fp32: "measure"' in str(caught.value)
    _, loss = run(graphs.overflowing(tmp_path / "m.onnx"), "bf16")
    assert loss.worst < 2e-2


def test_measure_finds_the_nodes_that_overflow_and_no_others(tmp_path):
    _, loss = run(graphs.overflowing(tmp_path / "m.onnx"), "fp16", keep_fp32="measure")
    assert set(loss.kept) == {"n1_Mul", "n2_ReduceSum", "n3_Sqrt"}
    assert {(k.why, k.without) for k in loss.stays} == {("measured", None)}
    assert loss.worst < 5e-3


def test_measure_keeps_nothing_where_nothing_is_lost(tmp_path):
    assert run(graphs.convolutions(tmp_path / "m.onnx"), "fp16", keep_fp32="measure")[1].stays == ()


def test_measure_of_int8_gives_back_what_it_can(tmp_path):
    source = graphs.dense(tmp_path / "m.onnx")
    model = onnx.load(str(source))
    weights = {t.name: t for t in model.graph.initializer}
    wide = numpy_helper.to_array(weights["w2"]).copy()
    wide[0] *= 3000
    weights["w2"].CopyFrom(numpy_helper.from_array(wide, "w2"))
    onnx.save(model, str(source))
    plain = run(source, "int8", max_opset=17)[1]
    _, loss = run(source, "int8", max_opset=17, keep_fp32="measure", limit=plain.worst * 0.5)
    assert len(loss.stays) == 1
    assert loss.worst <= plain.worst * 0.5 < loss.stays[0].without
    assert loss.share == 0.5


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        (["Softmax"], {"n5_Softmax"}),
        (["n5_Softmax", "n1_*"], {"n5_Softmax", "n1_Add"}),
        (["MatMul"], {"n0_MatMul", "n3_MatMul"}),
    ],
)
def test_kept_by_name_operator_or_pattern(tmp_path, patterns, kept):
    _, loss = run(graphs.dense(tmp_path / "m.onnx"), "fp16", keep_fp32=patterns)
    assert set(loss.kept) == kept
    assert {k.why for k in loss.stays} == {"asked"}
    assert loss.share == (6 - len(kept)) / 6


def test_int8_keeps_nodes_out_of_quantisation_and_in_float32(tmp_path):
    made, loss = run(graphs.dense(tmp_path / "m.onnx"), "int8", keep_fp32=["n3_MatMul"])
    assert (loss.kept, loss.share) == (("n3_MatMul",), 0.5)
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(made.path))).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    assert kinds["h4"] == TensorProto.FLOAT


def test_an_unknown_layer_names_the_nearest(tmp_path):
    with pytest.raises(SpecError) as caught:
        run(graphs.dense(tmp_path / "m.onnx"), "fp16", keep_fp32=["n5_Softmx"])
    assert "keep_fp32 names 'n5_Softmx', which no node bears (did you mean 'n5_Softmax'?)" in str(caught.value)


def test_a_pattern_that_keeps_no_float_is_refused(tmp_path):
    source = graphs.types_that_stay(tmp_path / "m.onnx")
    shape = next(n.name for n in onnx.load(str(source)).graph.node if n.op_type == "Shape")
    for pattern in ("Shape", shape):
        with pytest.raises(SpecError, match=f"keep_fp32 names '{pattern}', which computes nothing in floating point"):
            run(source, "fp16", keep_fp32=[pattern])
    _, loss = run(source, "fp16", keep_fp32=["Resize"])
    assert "Resize" in {kept.operator for kept in loss.stays}


def test_what_waits_for_a_newer_opset_is_said(tmp_path):
    source = graphs.convolutions(tmp_path / "m.onnx")
    _, loss = run(source, "bf16", max_opset=20)
    assert any("(Conv, GlobalAveragePool) are in float32: the file is at opset 17" in note for note in loss.notes)
    assert not any("opset" in note for note in run(source, "bf16", max_opset=22)[1].notes)
    assert not any("opset" in note for note in run(source, "fp16", max_opset=20)[1].notes)


def test_an_unknown_precision(tmp_path):
    with pytest.raises(SpecError, match=r"unknown precision 'fp61' \(did you mean 'fp16'\?\)"):
        run(graphs.dense(tmp_path / "m.onnx"), "fp61")


def test_nothing_to_quantise(tmp_path):
    source = graphs.text(tmp_path / "m.onnx", "agraph (float[batch, 4] x) => (float[batch, 4] y) { y = Relu(x) }")
    with pytest.raises(ConversionError, match="int8 was asked for, and the graph has nothing to quantise"):
        run(source, "int8")


def test_no_cases(tmp_path):
    artifact = onnx_format.describe(graphs.dense(tmp_path / "m.onnx"))
    with pytest.raises(ConversionError, match="fp16 was asked for without a set of inputs"):
        convert(artifact, tmp_path / "o.onnx", "fp16", cases=[], max_opset=17)


def test_the_loss_is_over_all_cases_and_entries_that_are_no_floats_are_counted(tmp_path):
    source = graphs.types_that_stay(tmp_path / "m.onnx")
    cases = graphs.cases(source)
    spoilt = replace(cases[1], outputs=(cases[1].outputs[0] + 1, cases[1].outputs[1] + 1))
    losses = precision_loss.measure(source, [cases[0], spoilt, cases[2]])
    assert losses["y"].max_abs_error == pytest.approx(1)
    assert losses["places"].differing == pytest.approx(1 / 3, abs=0.1)
    with pytest.raises(ConversionError, match="output y has the shape"):
        precision_loss.measure(source, [replace(cases[0], outputs=cases[1].outputs)])


def test_what_onnxruntime_hides_is_seen(tmp_path):
    """ONNX Runtime's CPU kernels compute an fp16 graph in float32 and see no overflow; the rounded graph does."""
    source = graphs.overflowing(tmp_path / "m.onnx")
    case = graphs.cases(source, count=1)[0]
    from repo_builder.convert import onnx_graph, onnx_half, onnx_typed

    model = onnx_typed.load(source)
    onnx_half.halve(model, TensorProto.FLOAT16)
    onnx_graph.save(model, tmp_path / "half.onnx")
    answers = precision_loss.Answers(tmp_path / "half.onnx")(case)
    assert np.isinf(answers["y"]).all()
    assert np.isfinite(answers["z"]).all()


@pytest.mark.parametrize("budget", [3, 10, 100])
def test_the_search_keeps_its_limit_and_its_budget(budget):
    nodes = {f"n{i}": "ABC"[i % 3] for i in range(30)}
    costs = {"n4": 5.0, "n13": 3.0, "n22": 0.5}
    tried = []

    def attempt(kept):
        tried.append(kept)
        return sum(cost for name, cost in costs.items() if name not in kept)

    found = precision_search.search(nodes, attempt, 1.0, budget=budget)
    assert len(tried) <= budget
    assert {"n4", "n13"} <= set(found)
    if budget == 100:
        assert found == {"n4": 5.0, "n13": 3.0}


def test_a_limit_that_nothing_keeps():
    with pytest.raises(
        ConversionError, match=r"with all of them in float32 the relative error is 0\.3, more than 0\.1"
    ):
        precision_search.search({"a": "A", "b": "B"}, lambda kept: 0.5 - 0.1 * len(kept), 0.1)


def test_a_residual_connection_does_not_pass_through_the_quantiser(tmp_path):
    source = graphs.text(
        tmp_path / "m.onnx",
        """agraph (float[batch, 8] x) => (float[batch, 8] y) {
            h = MatMul(x, w)
            y = Add(h, x)
        }""",
        w=np.eye(8, dtype=np.float32),
    )
    made, _ = run(source, "int8", max_opset=17)
    add = next(n for n in onnx.load(str(made.path)).graph.node if n.op_type == "Add")
    assert list(add.input) == ["h", "x"]
    made, _ = run(graphs.convolutions(tmp_path / "c.onnx"), "int8", max_opset=17)
    add = next(n for n in onnx.load(str(made.path)).graph.node if n.op_type == "Add")
    assert [name.endswith("DequantizeLinear_Output") for name in add.input] == [False, True]
