"""``view``: the flow of a repository as a picture, and a model's graph in netron."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from repo_builder import model_config
from repo_builder.errors import SourceMissingError, UsageError
from repo_builder.pipeline import flow, flow_picture, serving, viewing
from tests import models

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "model_repository"
SVG = "{http://www.w3.org/2000/svg}"


def example() -> flow.Flow:
    (found,) = flow.flows(serving.configs(EXAMPLE))
    return found


def test_the_flow_of_an_ensemble() -> None:
    found = example()
    assert (found.name, found.inputs, found.outputs) == ("tiny_encoder", ("TEXT",), ("EMBEDDING",))
    assert [(node.name, node.engine) for node in found.nodes] == [
        ("tiny_encoder_tokenizer", "python"),
        ("tiny_encoder_encoder", "onnxruntime"),
    ]
    kinds = {tensor.name: tensor.kind for tensor in found.tensors}
    assert kinds["TEXT"] == "BYTES[batch, 1]"
    assert kinds["input_ids"] == "INT64[batch, ?]"
    assert kinds["EMBEDDING"] == "FP32[batch, 16]"
    assert found.nodes[1].reads == ("attention_mask", "input_ids")


def test_no_box_lies_on_another_and_edges_go_right() -> None:
    boxes = flow_picture.layout(example(), 0.0)
    assert len(boxes) == 6
    for one in boxes.values():
        for other in boxes.values():
            apart = one.x + one.width <= other.x or other.x + other.width <= one.x
            apart = apart or one.y + one.height <= other.y or other.y + other.height <= one.y
            assert one is other or apart, (one.key, other.key)
    pairs = flow_picture.edges(example())
    assert len(pairs) == 6
    assert all(boxes[a].x + boxes[a].width < boxes[b].x for a, b in pairs)


def test_svg_and_html(tmp_path: Path) -> None:
    written = viewing.picture(EXAMPLE, svg=tmp_path / "f.svg", html=tmp_path / "f.html")
    assert written == (tmp_path / "f.svg", tmp_path / "f.html")
    root = ElementTree.parse(tmp_path / "f.svg").getroot()
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"TEXT", "BYTES[batch, 1]", "tiny_encoder_tokenizer", "onnxruntime", "FP32[batch, 16]"} <= set(texts)
    assert len(list(root.iter(f"{SVG}rect"))) == 6
    assert len(list(root.iter(f"{SVG}path"))) == 6
    page = (tmp_path / "f.html").read_text(encoding="utf-8")
    assert "<title>model_repository</title>" in page
    assert (tmp_path / "f.svg").read_text(encoding="utf-8") in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", ""), "loads nothing"


def config(text: str) -> Any:
    return model_config.parse(text, "test")


def test_odd_names_and_missing_steps_are_drawn() -> None:
    text = """
    name: "a<b&\\"c" platform: "ensemble" max_batch_size: 0
    input [{ name: "x\\ny" data_type: TYPE_FP32 dims: [ 2, -1 ] }]
    output [{ name: "<script>" data_type: TYPE_INT8 dims: [ 1 ] }]
    ensemble_scheduling { step [{ model_name: "gone" model_version: -1
      input_map { key: "i" value: "x\\ny" } output_map { key: "o" value: "<script>" } }] }
    """
    (found,) = flow.flows({'a<b&"c': config(text)})
    assert found.nodes[0].engine == "not in this repository"
    drawn = flow_picture.svg([found])
    texts = [text.text for text in ElementTree.fromstring(drawn).iter(f"{SVG}text")]
    assert texts == ['a<b&"c', r"x\ny", "FP32[2, ?]", "gone", "not in this repository", "<script>", "INT8[1]"]
    assert "<script>" not in drawn


def test_a_dtype_that_is_none_and_one_name_for_input_and_output() -> None:
    step = 'backend: "python" input [{ name: "t" data_type: TYPE_FP32 dims: [ 3 ] }]'
    step += ' output [{ name: "t" data_type: 99 dims: [ 2 ] }]'
    maps = 'input_map { key: "t" value: "a" } output_map { key: "t" value: "b" }'
    text = f'platform: "ensemble" ensemble_scheduling {{ step [{{ model_name: "s" {maps} }}] }}'
    (found,) = flow.flows({"e": config(text), "s": config(step)})
    assert found.tensors == (flow.Tensor("a", "FP32[3]"), flow.Tensor("b", "99[2]"))


def test_wide_characters_stay_in_their_box() -> None:
    def width(name: str) -> float:
        alone = flow.Flow("f", (flow.Tensor(name, ""),), (flow.Node("m", "e", (name,), ()),), (name,), ())
        return flow_picture.layout(alone, 0.0)[("tensor", name)].width

    assert width("入力") == width("four") > width("ab")


def test_a_model_alone_and_two_flows_below_each_other() -> None:
    alone = 'name: "m" backend: "onnxruntime" max_batch_size: 4 input [{ name: "x" data_type: TYPE_FP32 dims: [ 3 ] }]'
    alone += ' output [{ name: "y" data_type: TYPE_FP32 dims: [ 2 ] }]'
    found = flow.flows({**serving.configs(EXAMPLE), "m": config(alone)})
    assert [one.name for one in found] == ["m", "tiny_encoder"]
    assert found[0].nodes == (flow.Node("m", "onnxruntime", ("x",), ("y",)),)
    root = ElementTree.fromstring(flow_picture.svg(found))
    bottom = float(root.get("height", 0))
    rects = [(float(r.get("y", 0)), float(r.get("height", 0))) for r in root.iter(f"{SVG}rect")]
    assert len(rects) == 9
    assert max(y + height for y, height in rects) < bottom


def test_a_circle_is_drawn_and_ends() -> None:
    nodes = (flow.Node("a", "e", ("t",), ("u",)), flow.Node("b", "e", ("u",), ("t",)))
    tensors = (flow.Tensor("t", ""), flow.Tensor("u", ""))
    ElementTree.fromstring(flow_picture.svg([flow.Flow("f", tensors, nodes, (), ())]))


def test_what_has_no_flow_or_no_graph(tmp_path: Path) -> None:
    source = models.linear_onnx(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=r"m.onnx is no model repository"):
        viewing.picture(source, svg=tmp_path / "f.svg")
    with pytest.raises(UsageError, match="--open goes with the view of a model's graph"):
        viewing.picture(EXAMPLE, svg=tmp_path / "f.svg", browse=True)
    with pytest.raises(UsageError, match="--port goes with the view of a model's graph"):
        viewing.picture(EXAMPLE, html=tmp_path / "f.html", port=8000)
    assert not list(tmp_path.glob("f.*"))
    with pytest.raises(UsageError, match=r"model_repository is a model repository"):
        viewing.model(EXAMPLE)
    with pytest.raises(UsageError, match="is a folder"):
        viewing.model(tmp_path)
    with pytest.raises(SourceMissingError, match="there is no file"):
        viewing.model(tmp_path / "none.onnx")


def test_netron_serves_the_graph_on_this_machine_only(tmp_path: Path) -> None:
    pytest.importorskip("netron")
    source = models.linear_onnx(tmp_path / "m.onnx")
    (tmp_path / "secret").write_text("of nobody's business", encoding="utf-8")
    program = "from repo_builder.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "view", str(source)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{address}/data/m.onnx", timeout=30) as answer:
            assert answer.read() == source.read_bytes()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}/data/secret", timeout=30)
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert b"Netron" in answer.read()
    finally:
        process.terminate()
        process.wait(timeout=30)
