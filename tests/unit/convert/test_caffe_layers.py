"""Every Caffe layer and its variants: the written ONNX file against a reference in numpy, and lies that it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import caffe_nets
import caffe_numpy
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from repo_builder.convert import caffe_to_onnx, onnx_written
from repo_builder.convert.caffe.net import IR_VERSION, OPSET, WRITERS
from repo_builder.convert.cases import CheckedCase, cases
from repo_builder.convert.runner import Accepted, check
from repo_builder.errors import ConversionError
from repo_builder.formats import caffe, caffe_shapes


def _written(text: str, folder: Path, **kinds: bool) -> tuple[Any, Path, list[CheckedCase]]:
    source = caffe.describe(caffe_nets.save(text, folder, **kinds))
    path = folder / "model.onnx"
    caffe_to_onnx.write(source, path)
    checked = [
        case
        for one in caffe_to_onnx.example_sets(source)
        for case in cases(source.inputs, one, lambda inputs: caffe_numpy.run(source.path, inputs))
    ]
    return source, path, checked


def _checked(source: Any, path: Path, checked: list[CheckedCase]) -> Accepted:
    return check(path, source.inputs, source.outputs, checked, opset=OPSET, ir_version=IR_VERSION)


@pytest.mark.parametrize("name", [*caffe_nets.NETS, *caffe_nets.WHOLE])
def test_a_layer_answers_as_caffe_defines_it(name: str, tmp_path: Path) -> None:
    source, path, checked = _written({**caffe_nets.NETS, **caffe_nets.WHOLE}[name], tmp_path)
    assert _checked(source, path, checked).cases == len(checked) >= 9
    if not name.startswith("prior-box"):
        assert {case.sizes["batch"] for case in checked} >= {2, 3}


@pytest.mark.parametrize("kinds", [{"old": True}, {"half": True, "old": True}])
def test_a_net_of_old_layers_answers_as_caffe_defines_it(kinds: dict[str, bool], tmp_path: Path) -> None:
    assert _checked(*_written(caffe_nets.V1, tmp_path, **kinds)).cases >= 9


def test_every_rule_has_a_writer_and_a_test() -> None:
    told = "".join(caffe_nets.NETS.values())
    assert set(caffe_shapes.RULES) == set(WRITERS) == set(caffe_numpy.LAYERS)
    assert [kind for kind in WRITERS if f'type: "{kind}"' not in told] == []


def test_a_net_goes_through_the_care_of_every_onnx_file(tmp_path: Path) -> None:
    source, raw, checked = _written(caffe_nets.WHOLE["mobile"], tmp_path)
    told = {"opset": 20, "ir_version": 9, "provenance": {"exporter": "caffe", "notes": ["told before"]}}
    made = onnx_written.accepted(raw, tmp_path / "out.onnx", source.inputs, source.outputs, checked, **told)
    assert made.path == tmp_path / "out.onnx"
    assert made.provenance["notes"] == ["told before", "simplified by onnxslim: 8 nodes became 5"]
    assert (made.provenance["cases"], made.facts["opset"]) == (len(checked), OPSET)
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == ["model.onnx", "out.onnx"]


def _changed(path: Path, name: str, change: Any) -> None:
    """Change the first constant whose name begins so."""
    model = onnx.load(str(path))
    tensor = next(one for one in model.graph.initializer if one.name.startswith(name))
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(change(numpy_helper.to_array(tensor))), tensor.name))
    onnx.save(model, str(path))


def test_a_wrong_coefficient_is_refused(tmp_path: Path) -> None:
    written = _written(caffe_nets.NETS["eltwise-coefficients"], tmp_path)
    _changed(written[1], "tried/weight", lambda factor: -factor)
    with pytest.raises(ConversionError, match=r"the file answers differently: max abs error .* at output out for data"):
        _checked(*written)


def test_swapped_channels_are_refused(tmp_path: Path) -> None:
    written = _written(caffe_nets.NETS["convolution"], tmp_path)
    _changed(written[1], "tried/weight", lambda weight: weight[:, ::-1])
    with pytest.raises(ConversionError, match="the file answers differently: max abs error"):
        _checked(*written)


def test_a_wrong_opset_stamp_is_refused(tmp_path: Path) -> None:
    written = _written(caffe_nets.NETS["softmax"], tmp_path)
    model = onnx.load(str(written[1]))
    model.opset_import[0].version = 11  # where Softmax works over all axes from its own on
    onnx.save(model, str(written[1]))
    with pytest.raises(ConversionError, match="asked for opset 13, the file has 11"):
        _checked(*written)
    model.opset_import[0].version = 13
    model.graph.node[0].attribute[0].i = 3
    onnx.save(model, str(written[1]))
    with pytest.raises(ConversionError, match="the file answers differently"):
        _checked(*written)


@pytest.mark.parametrize("parameters", ["k: 0", "k: -1", "alpha: 0", "beta: -0.75"])
def test_an_lrn_that_divides_by_nothing_is_refused(parameters: str, tmp_path: Path) -> None:
    text = caffe_nets.net(caffe_nets.layer("LRN", f"lrn_param {{ local_size: 3 {parameters} }}"))
    source = caffe.describe(caffe_nets.save(text, tmp_path))
    with pytest.raises(ConversionError, match=r"layer 'tried' of type 'LRN' \(number 2 of net.prototxt\) has alpha"):
        caffe_to_onnx.write(source, tmp_path / "model.onnx")
