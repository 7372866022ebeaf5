"""ONNX files: signatures, facts, external data, and every way in which a file can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from repo_builder.errors import (
    PathEscapeError,
    RepoBuilderError,
    SignatureError,
    SourceCorruptError,
    SourceMissingError,
    UnsafeSourceError,
    UnsupportedDtypeError,
)
from repo_builder.formats import onnx as format_onnx
from repo_builder.tensors import TensorSpec
from tests import models

FLOAT = TensorProto.FLOAT


def _identity(path: Path, dtype: int, shape: list[Any], name: str = "x") -> Path:
    node = helper.make_node("Identity", [name], ["y"])
    onnx.save(models.onnx_model([(name, dtype, shape)], [("y", dtype, shape)], [node]), str(path))
    return path


def test_a_plain_file(tmp_path: Path) -> None:
    artifact = format_onnx.describe(models.linear_onnx(tmp_path / "m.onnx"))
    assert artifact.inputs == (TensorSpec("x", "FP32", ("batch", 4)),)
    assert artifact.outputs == (TensorSpec("y", "FP32", ("batch", 3)),)
    assert artifact.files == ("m.onnx",)
    assert artifact.facts == {
        **{"opset": 17, "opset_ml": 0, "domains": {}, "functions": [], "ir_version": 8, "producer": "", "nodes": 2},
        **{"parameters": 15, "parameter_bytes": 60},
    }
    json.dumps(dict(artifact.facts))


def test_initializers_that_are_listed_as_inputs_are_none(tmp_path: Path) -> None:
    model = onnx.load(str(models.linear_onnx(tmp_path / "m.onnx")))
    model.graph.input.append(helper.make_tensor_value_info("w", FLOAT, [4, 3]))
    onnx.save(model, str(tmp_path / "m.onnx"))
    assert [spec.name for spec in format_onnx.describe(tmp_path / "m.onnx").inputs] == ["x"]


def test_unnamed_dims_get_stable_names_and_odd_names_stay(tmp_path: Path) -> None:
    name = "a/b:0 'q\"\n"
    artifact = format_onnx.describe(_identity(tmp_path / "m.onnx", FLOAT, [None, "2*n", 3], name))
    assert artifact.inputs[0] == TensorSpec(name, "FP32", (f"{name}_dim0", "2*n", 3))
    assert artifact.outputs[0].shape == ("y_dim0", "2*n", 3)
    result = format_onnx.run(artifact, {name: np.ones((1, 2, 3), np.float32)})
    np.testing.assert_array_equal(result["y"], np.ones((1, 2, 3), np.float32))


def test_inputs_of_the_spec_rename_and_fix_symbolic_dims(tmp_path: Path) -> None:
    path = _identity(tmp_path / "m.onnx", FLOAT, ["n", "m"])
    artifact = format_onnx.describe(path, [TensorSpec("x", "FP32", ("batch", 8))])
    assert artifact.inputs[0].shape == artifact.outputs[0].shape == ("batch", 8)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (TensorSpec("xx", "FP32", ("n", "m")), "names 'xx', which m.onnx does not have (did you mean 'x'?)"),
        (TensorSpec("x", "INT64", ("n", "m")), "says x INT64[n, m], but m.onnx says x FP32[n, 4]"),
        (TensorSpec("x", "FP32", ("n",)), "says x FP32[n], but m.onnx says x FP32[n, 4]"),
        (TensorSpec("x", "FP32", ("n", 5)), "says x FP32[n, 5], but m.onnx says x FP32[n, 4]"),
    ],
)
def test_inputs_of_the_spec_that_contradict_the_file(tmp_path: Path, given: TensorSpec, text: str) -> None:
    path = _identity(tmp_path / "m.onnx", FLOAT, ["n", 4])
    with pytest.raises(SignatureError) as caught:
        format_onnx.describe(path, [given])
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(TensorProto.FLOAT8E4M3FN, "FLOAT8E4M3FN"), (TensorProto.COMPLEX64, "COMPLEX64"), (TensorProto.INT4, "INT4")],
)
def test_dtypes_that_triton_lacks(tmp_path: Path, dtype: int, name: str) -> None:
    with pytest.raises(UnsupportedDtypeError, match=f"tensor 'x' has dtype {name}, which Triton does not have"):
        format_onnx.describe(_identity(tmp_path / "m.onnx", dtype, ["n"]))


def test_bf16_is_described_but_has_no_reference(tmp_path: Path) -> None:
    artifact = format_onnx.describe(_identity(tmp_path / "m.onnx", TensorProto.BFLOAT16, ["n"]))
    assert artifact.inputs[0].dtype == "BF16"
    with pytest.raises(UnsupportedDtypeError, match=r"'x' of m.onnx is BF16, which numpy cannot hold"):
        format_onnx.run(artifact, {"x": np.ones(1, np.float32)})


def _typed(kind: str) -> Any:
    tensor = helper.make_tensor_type_proto(FLOAT, [1])
    made = {
        "a sequence": helper.make_sequence_type_proto(tensor),
        "an optional": helper.make_optional_type_proto(tensor),
        "a map": onnx.TypeProto(map_type=onnx.TypeProto.Map(key_type=TensorProto.INT64, value_type=tensor)),
    }
    return made[kind]


@pytest.mark.parametrize("kind", ["a sequence", "an optional", "a map"])
def test_types_that_are_no_tensors(tmp_path: Path, kind: str) -> None:
    model = onnx.load(str(models.linear_onnx(tmp_path / "m.onnx")))
    model.graph.output[0].type.CopyFrom(_typed(kind))
    onnx.save(model, str(tmp_path / "m.onnx"))
    with pytest.raises(SignatureError, match=f"'y' of m.onnx is {kind}"):
        format_onnx.describe(tmp_path / "m.onnx")


def test_an_output_without_a_shape_is_inferred_or_refused(tmp_path: Path) -> None:
    model = onnx.load(str(models.linear_onnx(tmp_path / "m.onnx")))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, str(tmp_path / "m.onnx"))
    assert format_onnx.describe(tmp_path / "m.onnx").outputs[0].shape == ("batch", 3)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(model, str(tmp_path / "m.onnx"))
    with pytest.raises(SignatureError, match=r"'x' of m.onnx has no shape"):
        format_onnx.describe(tmp_path / "m.onnx")


def test_every_truncation_is_refused_or_whole(tmp_path: Path) -> None:
    whole = models.linear_onnx(tmp_path / "m.onnx").read_bytes()
    refused = 0
    for size in range(len(whole)):
        (tmp_path / "m.onnx").write_bytes(whole[:size])
        with pytest.raises(RepoBuilderError) as caught:
            format_onnx.describe(tmp_path / "m.onnx")
        assert isinstance(caught.value, (SourceCorruptError, SignatureError)), size
        refused += 1
    assert refused == len(whole)


@pytest.mark.parametrize("content", [b"hello world", b"\x08\x08", b"PK\x03\x04" + b"\0" * 40])
def test_files_that_are_not_onnx(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(SourceCorruptError, match=r"does not parse as ONNX|parses, but has no graph"):
        format_onnx.describe(tmp_path / "m.onnx")


def test_an_empty_output_is_refused_and_a_giant_one_is_not_allocated(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match=r"axis 1 of the output 'y' in m.onnx has size 0"):
        format_onnx.describe(_identity(tmp_path / "m.onnx", FLOAT, ["n", 0]))
    artifact = format_onnx.describe(_identity(tmp_path / "m.onnx", FLOAT, ["n", 1 << 40]))
    assert artifact.inputs[0].shape == ("n", 1 << 40)


def test_external_data_belongs_to_the_model(tmp_path: Path) -> None:
    artifact = format_onnx.describe(models.linear_onnx(tmp_path / "m.onnx", external=True))
    assert artifact.files == ("m.onnx", "m.onnx.data")
    assert artifact.facts["parameters"] == 15
    inline = format_onnx.describe(models.linear_onnx(tmp_path / "n.onnx"))
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(format_onnx.run(artifact, {"x": x})["y"], format_onnx.run(inline, {"x": x})["y"])
    before = artifact.digest()
    data = tmp_path / "m.onnx.data"
    data.write_bytes(data.read_bytes()[:-1] + b"\1")
    assert format_onnx.describe(tmp_path / "m.onnx").digest() != before


def _relocated(tmp_path: Path, **entries: str) -> Path:
    path = models.linear_onnx(tmp_path / "m.onnx", external=True)
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("entries", "error", "text"),
    [
        ({"location": "../w.data"}, PathEscapeError, "tensor 'w' of m.onnx names the file '../w.data'"),
        ({"location": "/etc/passwd"}, PathEscapeError, "names the file '/etc/passwd'"),
        (
            {"location": "m.onnx.dat"},
            SourceMissingError,
            "which tensor 'w' of m.onnx names (did you mean 'm.onnx.data'",
        ),
        ({"location": ""}, SourceCorruptError, "has external data but names no file"),
        ({"offset": "1000000"}, SourceCorruptError, "m.onnx.data is truncated"),
        ({"offset": "-4"}, SourceCorruptError, "at offset -4"),
        ({"length": "44"}, SourceCorruptError, "declares 44 bytes"),
        ({"length": "many"}, SourceCorruptError, "is no number"),
    ],
)
def test_external_data_that_is_wrong(
    tmp_path: Path, entries: dict[str, str], error: type[RepoBuilderError], text: str
) -> None:
    with pytest.raises(error) as caught:
        format_onnx.describe(_relocated(tmp_path, **entries))
    assert text in str(caught.value)


def test_external_data_that_is_missing_truncated_a_pointer_or_a_link(tmp_path: Path) -> None:
    path = models.linear_onnx(tmp_path / "m.onnx", external=True)
    data = tmp_path / "m.onnx.data"
    whole = data.read_bytes()
    data.write_bytes(whole[:-8])
    with pytest.raises(SourceCorruptError, match="is truncated"):
        format_onnx.describe(path)
    data.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(SourceCorruptError, match="git lfs pull"):
        format_onnx.describe(path)
    data.unlink()
    with pytest.raises(SourceMissingError, match=r"which tensor 'w' of m.onnx names"):
        format_onnx.describe(path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "w").write_bytes(whole)
    (tmp_path / "m").mkdir()
    path.rename(tmp_path / "m" / "m.onnx")
    (tmp_path / "m" / "m.onnx.data").symlink_to(tmp_path / "elsewhere" / "w")
    with pytest.raises(PathEscapeError, match="a link to"):
        format_onnx.describe(tmp_path / "m" / "m.onnx")


def test_external_data_of_a_subgraph_is_found(tmp_path: Path) -> None:
    inner = helper.make_tensor("c", FLOAT, [1], [1.0])
    inner.ClearField("float_data")
    inner.data_location = TensorProto.EXTERNAL
    inner.external_data.add(key="location", value="../c")
    branch = helper.make_graph([], "b", [], [helper.make_tensor_value_info("c", FLOAT, [1])], [inner])
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    model = models.onnx_model([("x", TensorProto.BOOL, [1])], [("y", FLOAT, [1])], [node])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(PathEscapeError, match=r"tensor 'c' of m.onnx names the file '../c'"):
        format_onnx.describe(tmp_path / "m.onnx")


def test_strings_go_in_and_come_out_as_bytes(tmp_path: Path) -> None:
    artifact = format_onnx.describe(_identity(tmp_path / "m.onnx", TensorProto.STRING, ["n"]))
    assert artifact.inputs[0].dtype == "BYTES"
    result = format_onnx.run(artifact, {"x": np.array([b"a\xc3\xa9", ""], dtype=object)})["y"]
    assert result.tolist() == ["aé".encode(), b""]


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({}, "m.onnx got no input 'x'"),
        ({"x": np.ones((1, 4), np.float64)}, "input 'x' of m.onnx came as float64[1, 4]"),
        ({"x": np.ones((1, 5), np.float32)}, "came as float32[1, 5]"),
        ({"x": np.ones((4,), np.float32)}, "expected: x FP32[batch, 4]"),
        ({"x": np.ones((1, 4), np.float32), "xs": np.ones(1)}, "has no input 'xs' (did you mean 'x'?)"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, arrays: dict[str, Any], text: str) -> None:
    artifact = format_onnx.describe(models.linear_onnx(tmp_path / "m.onnx"))
    with pytest.raises(SignatureError) as caught:
        format_onnx.run(artifact, arrays)
    assert text in str(caught.value)


def test_what_onnx_runtime_refuses_comes_in_its_words(tmp_path: Path) -> None:
    model = models.onnx_model(
        [("x", FLOAT, ["n"])], [("y", FLOAT, ["n"])], [helper.make_node("NoSuchOp", ["x"], ["y"])]
    )
    onnx.save(model, str(tmp_path / "m.onnx"))
    artifact = format_onnx.describe(tmp_path / "m.onnx")
    with pytest.raises(SourceCorruptError, match=r"ONNX Runtime .* does not load m.onnx: .*NoSuchOp"):
        format_onnx.run(artifact, {"x": np.ones(1, np.float32)})
    with pytest.raises(SourceCorruptError, match=r"onnx.checker .* refuses m.onnx: .*NoSuchOp"):
        format_onnx.check(tmp_path / "m.onnx")
    reshape = [
        helper.make_node("Constant", [], ["s"], value=helper.make_tensor("s", TensorProto.INT64, [1], [3])),
        helper.make_node("Reshape", ["x", "s"], ["y"]),
    ]
    onnx.save(models.onnx_model([("x", FLOAT, ["n"])], [("y", FLOAT, [3])], reshape), str(tmp_path / "m.onnx"))
    format_onnx.check(tmp_path / "m.onnx")
    with pytest.raises(SignatureError, match=r"ONNX Runtime failed on m.onnx with inputs x \[4\]"):
        format_onnx.run(format_onnx.describe(tmp_path / "m.onnx"), {"x": np.ones(4, np.float32)})


def test_a_changed_file_is_opened_again(tmp_path: Path) -> None:
    x = {"x": np.ones((1, 4), np.float32)}
    first = format_onnx.run(format_onnx.describe(models.linear_onnx(tmp_path / "m.onnx")), x)["y"]
    second = format_onnx.run(format_onnx.describe(models.linear_onnx(tmp_path / "m.onnx", seed=1)), x)["y"]
    assert not np.allclose(first, second)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (b"MatMul", b"M\xffMul\xff", "holds the name b'M\\xffMul\\xff', which is not UTF-8"),
        (b"batch", b"\xfeatch", "holds the name b'\\xfeatch', which is not UTF-8"),
    ],
)
def test_names_that_are_no_text_are_refused(tmp_path: Path, old: bytes, new: bytes, text: str) -> None:
    path = models.linear_onnx(tmp_path / "m.onnx")
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    with pytest.raises(SourceCorruptError) as caught:
        format_onnx.describe(path)
    assert text in str(caught.value)


@pytest.mark.parametrize("version", [1 << 40, -3])
def test_versions_of_operator_sets_that_cannot_be_are_refused(tmp_path: Path, version: int) -> None:
    path = models.linear_onnx(tmp_path / "m.onnx")
    model = onnx.load(str(path))
    model.opset_import[0].version = version
    onnx.save(model, str(path))
    with pytest.raises(SourceCorruptError, match=f"imports version {version} of the operator set 'ai.onnx'"):
        format_onnx.describe(path)


def _points_to(path: Path, location: str) -> Path:
    models.linear_onnx(path, external=True)
    model = onnx.load(str(path), load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_no_address_in_memory(tmp_path: Path) -> None:
    (tmp_path / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
    (tmp_path / "*" / "_ORT_MEM_ADDR_" / "*").write_bytes(b"\0" * 4096)
    with pytest.raises(UnsafeSourceError, match="names an address in memory as its external data"):
        format_onnx.describe(_points_to(tmp_path / "m.onnx", "*/_ORT_MEM_ADDR_/*"))


@pytest.mark.parametrize("location", ["loop", "n" * 5000])
def test_external_data_that_cannot_be_opened(tmp_path: Path, location: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(SourceMissingError):
        format_onnx.describe(_points_to(tmp_path / "m.onnx", location))


def test_a_name_with_a_zero_character_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SignatureError, match="a server would read the name up to its zero character alone"):
        format_onnx.describe(_identity(tmp_path / "m.onnx", FLOAT, ["batch", 4], name="a\0b"))


@pytest.mark.parametrize(("shape", "told"), [(["batch", 5], "5"), (["batch", 4, 1], "4, 1"), ([3, 4], "4")])
def test_an_answer_of_another_shape_than_declared_is_refused(tmp_path: Path, shape: list[Any], told: str) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    path = tmp_path / "m.onnx"
    onnx.save(models.onnx_model([("x", FLOAT, ["batch", 4])], [("y", FLOAT, shape)], [node]), str(path))
    artifact = format_onnx.describe(path)
    with pytest.raises(SignatureError) as caught:
        format_onnx.run(artifact, {"x": np.ones((2, 4), np.float32)})
    assert f"m.onnx declares the output y FP32[{shape[0]}, {told}] and answers the shape [2, 4]" in str(caught.value)


def test_an_opset_that_is_too_old_is_told(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    told = ([("x", FLOAT, ["batch", 4])], [("y", FLOAT, ["batch", 4])])
    onnx.save(models.onnx_model(*told, [node], opset=1, ir_version=3), str(tmp_path / "m.onnx"))
    with pytest.raises(SourceCorruptError) as caught:
        format_onnx.run(format_onnx.describe(tmp_path / "m.onnx"), {"x": np.ones((2, 4), np.float32)})
    assert "m.onnx has opset 1, and ONNX Runtime does not load it" in str(caught.value)
    assert "onnx.version_converter.convert_version(model, 13)" in str(caught.value)
