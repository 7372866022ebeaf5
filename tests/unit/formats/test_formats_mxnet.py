"""MXNet's files, looked at without MXNet: pairs, headers of every age, what is truncated, misfitting or hostile."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repo_builder import formats
from repo_builder.errors import (
    RepoBuilderError,
    SignatureError,
    SourceCorruptError,
    SourceMissingError,
    UnsafeSourceError,
)
from repo_builder.formats import mxnet, mxnet_params
from repo_builder.tensors import TensorSpec

WEIGHTS = {"arg:fc_weight": (5, 6), "arg:fc_bias": (5,)}
DATA = TensorSpec("data", "FP32", ("batch", 6))


def graph(**attrs: str) -> dict[str, Any]:
    """data -> FullyConnected -> SoftmaxOutput with a label."""
    free = [{"op": "null", "name": name, "inputs": []} for name in ("fc_weight", "fc_bias", "softmax_label")]
    data = {"op": "null", "name": "data", "inputs": [], "attrs": attrs}
    layer = {"op": "FullyConnected", "name": "fc", "inputs": [[0, 0, 0], [1, 0, 0], [2, 0, 0]]}
    layer["attrs"] = {"num_hidden": "5"}
    loss = {"op": "SoftmaxOutput", "name": "softmax", "inputs": [[4, 0, 0], [3, 0, 0]]}
    return {"nodes": [data, *free, layer, loss], "arg_nodes": [0, 1, 2, 3], "heads": [[5, 0, 0]]}


def array(shape: tuple[int, ...], age: str = "V2", number: int = 0) -> bytes:
    values = np.zeros(shape, np.float32).tobytes()
    if age == "legacy":
        return struct.pack(f"<I{len(shape)}I3i", len(shape), *shape, 1, 0, number) + values
    head = {"V1": struct.pack("<I", 0xF993FAC8), "V2": struct.pack("<Ii", 0xF993FAC9, 0)}
    head["V3"] = struct.pack("<Ii", 0xF993FACA, 0)
    return head[age] + struct.pack(f"<i{len(shape)}q3i", len(shape), *shape, 1, 0, number) + values


def params(weights: dict[str, tuple[int, ...]], age: str = "V2") -> bytes:
    names = b"".join(struct.pack("<Q", len(name)) + name.encode() for name in weights)
    arrays = b"".join(array(shape, age) for shape in weights.values())
    return struct.pack("<QQQ", 0x112, 0, len(weights)) + arrays + struct.pack("<Q", len(weights)) + names


def save(folder: Path, symbol: dict[str, Any] | None = None, weights: bytes | None = None, name: str = "net") -> Path:
    (folder / f"{name}-symbol.json").write_text(json.dumps(symbol or graph()))
    (folder / f"{name}-0003.params").write_bytes(params(WEIGHTS) if weights is None else weights)
    return folder / f"{name}-symbol.json"


def test_a_pair_is_found_by_either_file_and_by_its_folder(tmp_path: Path) -> None:
    symbol = save(tmp_path)
    for path in (symbol, tmp_path / "net-0003.params", tmp_path):
        assert formats.detect(str(path)) == ("mxnet", path)
        found = mxnet.describe(path, [DATA])
        assert (found.path, found.files) == (symbol, ("net-symbol.json", "net-0003.params"))
        assert found.inputs == (DATA,)
        assert found.facts["parameters"] == 35
        assert found.facts["layers"] == 2
        assert found.facts["options"]["labels"] == ["softmax_label"]


def test_of_several_epochs_the_last_counts_and_another_may_be_named(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / "net-0012.params").write_bytes(params(WEIGHTS))
    (tmp_path / "other-0099.params").write_bytes(params(WEIGHTS))
    assert mxnet.describe(tmp_path).facts["params"] == "net-0012.params"
    assert mxnet.describe(tmp_path / "net-0003.params").facts["params"] == "net-0003.params"


@pytest.mark.parametrize(
    ("attrs", "told"),
    [
        ({"__shape__": "(0, 6)"}, "data FP32[batch, 6]"),
        ({"__shape__": "(2, 6)", "__dtype__": "2"}, "data FP16[2, 6]"),
        ({"__shape__": "(0, 0)"}, "data FP32[batch, data_dim1]"),
    ],
)
def test_shapes_that_the_symbol_tells_are_taken(tmp_path: Path, attrs: dict[str, str], told: str) -> None:
    assert [str(spec) for spec in mxnet.describe(save(tmp_path, graph(**attrs))).inputs] == [told]


def test_a_shape_that_nobody_tells_is_asked_for(tmp_path: Path) -> None:
    found = mxnet.describe(save(tmp_path))
    assert found.inputs == ()
    with pytest.raises(SignatureError, match="does not tell the shape of its input 'data'"):
        mxnet.opened(found)
    with pytest.raises(SignatureError, match=r"names 'dta', which net-symbol.json does not have \(did you mean 'data'"):
        mxnet.describe(tmp_path, [TensorSpec("dta", "FP32", (1,))])


@pytest.mark.parametrize("age", ["legacy", "V1", "V2", "V3"])
def test_headers_of_every_age_are_read_and_truncated_ones_refused(tmp_path: Path, age: str) -> None:
    path = tmp_path / "net-0000.params"
    path.write_bytes(params(WEIGHTS, age))
    assert mxnet_params.read(path) == {"fc_weight": (5, 6), "fc_bias": (5,)}
    whole = path.read_bytes()
    for length in range(1, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(SourceCorruptError, match="is truncated or no MXNet file of weights"):
            mxnet_params.read(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(SourceCorruptError, match="bytes are left at its end"):
        mxnet_params.read(path)


def _list(*parts: bytes, count: int = 1) -> bytes:
    return struct.pack("<QQQ", 0x112, 0, count) + b"".join(parts)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"PK\3\4" + bytes(60), "does not begin as a list of NDArrays does"),
        (_list(count=1 << 62), "it announces"),
        (_list(struct.pack("<Iii", 0xF993FAC9, 0, 1 << 30)), "an array of 1073741824 axes"),
        (_list(struct.pack("<Iii2q3i", 0xF993FAC9, 0, 2, 1 << 62, 1 << 62, 1, 0, 0)), "bytes are missing at the end"),
        (_list(struct.pack("<Iiiq3i", 0xF993FAC9, 0, 1, -4, 1, 0, 0)), r"of type 0 and shape \[-4\]"),
        (_list(struct.pack("<Ii", 0xF993FAC9, 1)), "a sparse array"),
        (_list(array((1,)), struct.pack("<QQ", 1, 1 << 60)), "a name of 1152921504606846976 bytes"),
        (_list(array((1,)), struct.pack("<Q", 0)), "1 arrays and 0 names"),
        (_list(array((1,), number=99)), "of type 99"),
    ],
)
def test_hostile_weights_are_refused_before_anything_is_allocated(tmp_path: Path, content: bytes, text: str) -> None:
    with pytest.raises(SourceCorruptError, match=text):
        mxnet.describe(save(tmp_path, weights=content))


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ({"arg:fc_weight": (5, 6)}, r"has no values for 'fc_bias' of layer 'fc' \(FullyConnected\)"),
        ({**WEIGHTS, "arg:fc_weight": (4, 6)}, r"has 'fc_weight' of shape \[4, 6\], and layer 'fc' has 5 outputs"),
        ({}, "has no values for 'fc_weight'"),
    ],
)
def test_weights_of_another_net_are_refused(tmp_path: Path, weights: dict[str, tuple[int, ...]], text: str) -> None:
    with pytest.raises(SourceCorruptError, match="net-0003.params does not fit net-symbol.json: it " + text):
        mxnet.describe(save(tmp_path, weights=params(weights)))


def _with(place: int, **told: Any) -> dict[str, Any]:
    made = graph()
    made["nodes"][place].update(told)
    return made


@pytest.mark.parametrize(
    ("symbol", "error", "text"),
    [
        ({"nodes": []}, SourceCorruptError, "has no nodes"),
        ({"nodes": graph()["nodes"][:3], "heads": [[0, 0, 0]]}, SourceCorruptError, "has no layers"),
        ({**graph(), "heads": [[6, 0, 0]]}, SourceCorruptError, "has no outputs"),
        (_with(4, inputs=[[5, 0, 0]]), SourceCorruptError, "takes what does not stand before it"),
        (_with(4, inputs=[[-1, 0, 0]]), SourceCorruptError, "takes what does not stand before it"),
        (_with(0, attrs={"__shape__": "__import__('os').system('true')"}), SourceCorruptError, "no shape or dtype"),
        (_with(0, attrs={"__shape__": "(99999999999,)"}), SourceCorruptError, "no shape or dtype"),
        (_with(0, attrs={"__shape__": "{[]: 1}"}), SourceCorruptError, "no shape or dtype"),
        (_with(0, attrs=["__shape__"]), SourceCorruptError, r"node \(number 0\) whose attributes are no object"),
        (_with(4, attr="num_hidden"), SourceCorruptError, r"node \(number 4\) whose attributes are no object"),
        (_with(4, attrs={"num_hidden": "²"}), SourceCorruptError, "layer 'fc' has ² outputs"),
        (_with(4, attrs={"num_hidden": "9" * 5000}), SourceCorruptError, "layer 'fc' has 999"),
        (
            _with(4, op="_Native", attrs={"info": "0x7f"}),
            UnsafeSourceError,
            r"_Native \(layer 'fc'\): it calls an address",
        ),
        (_with(4, op="Custom", attrs={"op_type": "evil"}), UnsafeSourceError, "Custom .*: it calls Python code"),
        (_with(4, subgraphs=[{"nodes": [{"op": "_NDArray", "name": "deep"}]}]), UnsafeSourceError, "layer 'deep'"),
    ],
)
def test_symbols_that_are_broken_or_hostile_are_refused(
    tmp_path: Path, symbol: dict[str, Any], error: type[RepoBuilderError], text: str
) -> None:
    with pytest.raises(error, match=text):
        mxnet.describe(save(tmp_path, symbol))


def test_a_truncated_symbol_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(SourceCorruptError, match="is not JSON"):
        mxnet.describe(path)


def test_a_number_of_too_many_digits_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path)
    path.write_text(path.read_text().replace('"heads": [[5,', f'"heads": [[{"5" * 5000},'))
    with pytest.raises(SourceCorruptError, match=r"is not JSON|has no outputs"):
        mxnet.describe(path)


def test_half_a_pair_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    symbol = save(tmp_path)
    (tmp_path / "net-0003.params").rename(tmp_path / "elsewhere.params")
    with pytest.raises(SourceMissingError, match="has no weights") as caught:
        mxnet.describe(symbol)
    assert "net-0000.params beside it, where there is elsewhere.params" in caught.value.expected
    with pytest.raises(SourceMissingError, match=r"holds weights alone: there is no elsewhere-symbol\.json"):
        mxnet.describe(tmp_path / "elsewhere.params")
    save(tmp_path, name="second")
    with pytest.raises(SourceMissingError, match=r"holds several symbols: net-symbol\.json, second-symbol\.json"):
        mxnet.describe(tmp_path)
