"""fp16 and bf16 written into the graph: types, casts, constants, subgraphs, and what must stay float32."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import precision_samples as graphs
import pytest
from onnx import TensorProto, numpy_helper

from repo_builder.convert import half_values, onnx_angles, onnx_graph, onnx_half, onnx_typed
from repo_builder.convert.precision_loss import measure

FP16, BF16, FLOAT = TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.FLOAT
ALL = (graphs.attention, graphs.branches, graphs.loop, graphs.types_that_stay, graphs.dense, graphs.convolutions)


def halved(path, half=FP16, kept=(), keep_io_types=True):
    model = onnx_typed.load(path)
    stays = (*onnx_angles.nodes(model.graph), *kept)
    found = onnx_half.halve(model, half, stays, keep_io_types=keep_io_types)
    out = path.with_name(f"half_{half}_{keep_io_types}.onnx")
    onnx_graph.save(model, out)
    onnx.checker.check_model(str(out), full_check=True)
    return out, found


def types(path):
    inferred = onnx.shape_inference.infer_shapes(onnx.load(str(path)), strict_mode=True)
    return onnx_half.value_types(inferred.graph)


def casts(path):
    model = onnx.load(str(path))
    return sum(n.op_type == "Cast" for graph in onnx_graph.subgraphs(model.graph) for n in graph.node)


@pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)
@pytest.mark.parametrize(("half", "limit"), [(FP16, 1e-2), (BF16, 6e-2)])
@pytest.mark.parametrize("keep_io_types", [True, False])
def test_numbers_stay_near(tmp_path, make, half, limit, keep_io_types):
    source = make(tmp_path / "m.onnx")
    cases = graphs.cases(source)
    path, _ = halved(source, half, keep_io_types=keep_io_types)
    for name, loss in measure(path, cases).items():
        assert loss.differing is None or loss.differing < 0.1, name
        assert 0 <= loss.max_rel_error < limit or loss.differing is not None, name
    assert any(loss.max_abs_error > 0 for loss in measure(path, cases).values())


@pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)
def test_inputs_and_outputs_keep_their_types_or_become_half(tmp_path, make):
    source = make(tmp_path / "m.onnx")
    before = onnx.load(str(source)).graph
    for keep, kind in ((True, FLOAT), (False, FP16)):
        after = onnx.load(str(halved(source, keep_io_types=keep)[0])).graph
        for a, b in zip((*before.input, *before.output), (*after.input, *after.output), strict=True):
            assert a.name == b.name
            wanted = kind if a.type.tensor_type.elem_type == FLOAT else a.type.tensor_type.elem_type
            assert b.type.tensor_type.elem_type == wanted
            assert a.type.tensor_type.shape == b.type.tensor_type.shape


@pytest.mark.parametrize("make", [graphs.attention, graphs.branches, graphs.dense, graphs.convolutions])
def test_no_float32_is_left_inside(tmp_path, make):
    source = make(tmp_path / "m.onnx")
    path, found = halved(source, keep_io_types=False)
    assert found.float32 == ()
    model = onnx.shape_inference.infer_shapes(onnx.load(str(path)), strict_mode=True)
    for graph in onnx_graph.subgraphs(model.graph):
        assert FLOAT not in onnx_half.value_types(graph).values()
    assert casts(path) == casts(source)


def test_casts_stand_at_the_edges_alone(tmp_path):
    path, _ = halved(graphs.convolutions(tmp_path / "m.onnx"))
    model = onnx.load(str(path))
    assert [n.op_type for n in model.graph.node if n.op_type == "Cast"] == ["Cast", "Cast"]
    assert model.graph.node[0].input[0] == "image"
    assert model.graph.node[-1].output[0] == "logits"


def test_a_mask_of_the_lowest_float_stays_finite_even_for_a_row_that_is_all_padding(tmp_path):
    source = graphs.attention(tmp_path / "m.onnx")
    hidden = np.random.default_rng(0).standard_normal((2, 5, 8)).astype(np.float32) * 3
    mask = np.array([[1, 1, 1, 0, 0], [0, 0, 0, 0, 0]])
    cases = graphs.cases(source, {"hidden": hidden, "mask": mask})
    path, _ = halved(source)
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(path)).graph.initializer}
    assert weights["lowest_fp16"] == -32752.0
    answer = onnxruntime.InferenceSession(str(path)).run(None, cases[0].inputs)[0]
    assert np.isfinite(answer).all()
    assert np.abs(answer[0] - cases[0].outputs[0][0]).max() < 0.05
    assert measure(path, cases)["out"].max_abs_error < 5


def test_what_onnx_defines_in_float32_stays_so(tmp_path):
    path, found = halved(graphs.types_that_stay(tmp_path / "m.onnx"))
    model = onnx.load(str(path))
    kinds = types(path)
    by_name = {n.name: n for n in model.graph.node}
    assert kinds[by_name["n0_Resize"].input[2]] == FLOAT
    assert kinds[by_name["n0_Resize"].output[0]] == FP16
    assert found.float32 == ("n1_Range",)
    assert kinds["wide"] == TensorProto.DOUBLE
    assert kinds["ramp"] == FP16
    assert kinds[by_name["n7_ConstantOfShape"].output[0]] == FP16
    assert kinds["places"] == TensorProto.INT64
    unit = Counter(t.data_type for t in model.graph.initializer if t.name.startswith("unit"))
    assert unit == {FLOAT: 1, FP16: 1}


def test_kept_nodes_compute_in_float32_and_only_they(tmp_path):
    source = graphs.dense(tmp_path / "m.onnx")
    path, found = halved(source, kept=["n5_Softmax", "n3_MatMul"])
    kinds = types(path)
    by_name = {n.name: n for n in onnx.load(str(path)).graph.node}
    assert set(found.float32) == {"n5_Softmax", "n3_MatMul"}
    assert all(kinds[name] == FLOAT for name in (*by_name["n3_MatMul"].input, *by_name["n5_Softmax"].input))
    assert kinds[by_name["n4_Add"].input[0]] == FP16


def test_a_kept_branch_keeps_all_that_is_in_it(tmp_path):
    path, found = halved(graphs.branches(tmp_path / "m.onnx"), kept=["n3_If"])
    inner = list(onnx_graph.subgraphs(onnx.load(str(path)).graph))[1:]
    assert all(n.op_type != "Cast" for graph in inner for n in graph.node)
    assert {"n3_If", "n0_MatMul"} & set(found.float32) == {"n3_If"}


def test_positions_keep_their_digits_on_the_way_to_a_sine(tmp_path):
    source = graphs.text(
        tmp_path / "m.onnx",
        """agraph (float[batch, length, 4] x, int64[length] position) => (float[batch, length, 4] y) {
            as_float = Cast <to = 1> (position)
            angle = Mul(as_float, frequency)
            axis = Constant <value_ints = [1]> ()
            column = Unsqueeze(angle, axis)
            sine = Sin(column)
            y = Mul(x, sine)
        }""",
        frequency=np.float32(0.37),
    )
    x = np.ones((1, 64, 4), np.float32)
    cases = graphs.cases(source, {"x": x, "position": np.arange(4000, 4064)})
    model = onnx_typed.load(source)
    assert onnx_angles.nodes(model.graph) == ("n4_Sin", "n3_Unsqueeze", "n1_Mul", "n0_Cast")
    path, found = halved(source)
    assert set(found.half) == {"n5_Mul"}
    assert measure(path, cases)["y"].max_abs_error < 1e-3
    plain = onnx_typed.load(source)
    onnx_half.halve(plain, FP16)
    onnx_graph.save(plain, tmp_path / "plain.onnx")
    assert measure(tmp_path / "plain.onnx", cases)["y"].max_abs_error > 0.5


def test_a_source_that_is_half_already_is_left_as_it_is(tmp_path):
    path, _ = halved(graphs.convolutions(tmp_path / "m.onnx"), keep_io_types=False)
    model = onnx_typed.load(path)
    found = onnx_half.halve(model, FP16, keep_io_types=False)
    assert found == onnx_half.Halved((), ())
    onnx_graph.save(model, tmp_path / "again.onnx")
    before, after = onnx.load(str(path)).graph, onnx.load(str(tmp_path / "again.onnx")).graph
    assert [n.SerializeToString() for n in before.node] == [n.SerializeToString() for n in after.node]
    assert {t.name for t in before.initializer} == {t.name for t in after.initializer}


def test_an_output_that_is_a_weight_and_one_that_two_nodes_read(tmp_path):
    source = graphs.text(
        tmp_path / "m.onnx",
        """agraph (float[batch, 4] x) => (float[4] w, float[batch, 4] h, float[batch, 4] y) {
            h = Add(x, w)
            y = Mul(h, w)
        }""",
        w=np.array([1, 2, 3, 4], np.float32),
    )
    for keep in (True, False):
        path, _ = halved(source, keep_io_types=keep)
        losses = measure(path, graphs.cases(source))
        assert losses["w"].max_abs_error == 0
        assert losses["y"].max_rel_error < 2e-3


@pytest.mark.parametrize(("half", "dtype"), [(FP16, np.float16), (BF16, None)])
def test_constants_are_rounded_to_the_nearest_and_stay_finite_and_not_zero(half, dtype):
    values = np.array([0, 1, 1 / 3, -2.7, 1e-12, -1e-40, 1e9, -3.4028235e38, np.inf, np.nan], np.float32)
    made = half_values.tensor(numpy_helper.from_array(values, "v"), half, "w")
    got = numpy_helper.to_array(made).astype(np.float32)
    assert made.name == "w"
    assert got[:2].tolist() == [0, 1]
    assert got[2] == pytest.approx(1 / 3, rel=5e-4 if half == FP16 else 4e-3)
    assert got[4] > 0
    assert got[5] < 0
    assert np.isfinite(got[:8]).all()
    assert np.isposinf(got[8])
    assert np.isnan(got[9])
    assert got[7] == -half_values.LARGEST[half] / 2
    if dtype:
        assert got[3] == np.float32(np.float16(-2.7))
    else:
        ties = half_values.bits(np.array([0x3F808000, 0x3F818000], np.uint32).view(np.float32), half)
        assert ties.tolist() == [0x3F80, 0x3F82]


def test_every_node_gets_a_name_of_its_own(tmp_path):
    model = onnx.load(str(graphs.loop(tmp_path / "m.onnx")))
    model.graph.node.append(onnx.helper.make_node("Relu", ["last"], ["unread"], name="loop"))
    onnx_typed.name_nodes(model)
    names = [n.name for graph in onnx_graph.subgraphs(model.graph) for n in graph.node]
    assert len(set(names)) == len(names)
    assert all(names)


def test_local_functions_are_inlined(tmp_path):
    made = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        agraph (float[batch, 4] x) => (float[batch, 4] y) { y = own.twice(x) }
        <domain: "own", opset_import: ["" : 17]> twice (a) => (b) { b = Add(a, a) }"""
    )
    onnx.save(made, str(tmp_path / "m.onnx"))
    path, found = halved(tmp_path / "m.onnx")
    assert len(found.half) == 1
    assert not onnx.load(str(path)).functions


def test_external_weights(tmp_path):
    source = graphs.dense(tmp_path / "m.onnx")
    cases = graphs.cases(source)
    model = onnx.load(str(source))
    onnx.save_model(model, str(tmp_path / "m.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    path, _ = halved(source)
    assert measure(path, cases)["logits"].max_rel_error < 2e-3
