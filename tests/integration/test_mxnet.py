"""MXNet's models, made and answered by MXNet itself, served and proved by the real server."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repo_builder import formats, pipeline, toolchain
from repo_builder.artifact import Artifact
from repo_builder.convert import framework_to_onnx
from repo_builder.errors import ConversionError, SignatureError
from repo_builder.formats import framework_process, mxnet
from repo_builder.tensors import TensorSpec

pytestmark = pytest.mark.slow

Make = Callable[..., Path]
_TARGET = {"opset": 20, "ir_version": 9}
_FREE = TensorSpec("data", "FP32", ("batch", 3, "height", "width"))
_FIXED = TensorSpec("data", "FP32", ("batch", 3, 16, 16))


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """``make(kind)``: the folder of a model that MXNet wrote, once per kind."""
    python = toolchain.ensure(mxnet.FRAMEWORK.name, mxnet.FRAMEWORK.requirements)
    script = Path(__file__).parents[1] / "mxnet_models.py"
    root = tmp_path_factory.mktemp("mxnet")

    def made(kind: str, *more: Any) -> Path:
        folder = root / kind
        if not folder.exists():
            folder.mkdir()
            command = [python, script, kind, folder / "net", *more]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-2000:]
        return folder

    yield made
    framework_process.close_all()


def converted(source: Path, inputs: list[TensorSpec], out: Path) -> Artifact:
    return framework_to_onnx.convert(formats.opened(mxnet.describe(source, inputs)), out / "model.onnx", **_TARGET)


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs"),
    [
        ("conv_bn", [_FREE], ["softmax FP32[batch, 5]"]),
        ("old", [_FREE], ["softmax FP32[batch, 5]"]),
        ("pooling", [_FREE], []),
        ("activations", [_FREE], []),
        ("prelu", [_FIXED], ["rows FP32[batch, 6]"]),
        ("deconvolution", [_FIXED], ["biased FP32[batch, 2, 34, 34]"]),
        ("norms", [_FIXED], []),
        ("reductions", [_FIXED], []),
        ("shapes", [_FIXED], []),
        (
            "labels",
            [_FIXED],
            ["linear FP32[batch, 2]", "logistic FP32[batch, 3, 16, 16]", "each FP32[batch, 2, 16, 16]"],
        ),
        ("embedding", [TensorSpec("data", "FP32", ("batch", "length"))], ["f FP32[batch, length, 3]"]),
        (
            "lstm",
            [TensorSpec("data", "FP32", ("time", "batch", 3))],
            ["r FP32[time, batch, 4]", "r_state FP32[1, batch, 4]", "r_statecell FP32[1, batch, 4]"],
        ),
        ("arithmetic", [TensorSpec(name, "FP32", ("rows", 6)) for name in ("data", "other")], []),
    ],
)
def test_a_family_of_operators_answers_as_mxnet_does(
    make: Make, tmp_path: Path, kind: str, inputs: list[TensorSpec], outputs: list[str]
) -> None:
    made = converted(make(kind), inputs, tmp_path)
    assert list(made.inputs) == inputs
    assert [str(spec) for spec in made.outputs] == (outputs or [str(spec) for spec in made.outputs])
    assert made.provenance["cases"] >= 7
    assert made.provenance["mxnet"] == "1.9.1"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("unknown", r"MXNet's exporter does not know the operator Correlation \(layer corr\)"),
        ("ambiguous", "whole is a SoftmaxOutput over several axes, which MXNet's builds answer differently"),
    ],
)
def test_a_layer_that_does_not_convert_is_named(make: Make, tmp_path: Path, kind: str, text: str) -> None:
    with pytest.raises(ConversionError, match=text):
        converted(make(kind), [_FIXED], tmp_path)
    assert not (tmp_path / "model.onnx").exists()


def test_a_layer_that_is_written_wrongly_is_refused(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter as it is writes gamma where the layer ignores it."""
    workers = tmp_path / "workers"
    workers.mkdir()
    for name in ("mxnet_worker.py", "mxnet_exporter.py"):
        text = (Path(mxnet.__file__).parent / "framework" / name).read_text()
        assert name != "mxnet_exporter.py" or '"BatchNorm": _batch_norm, ' in text
        text = text.replace('"BatchNorm": _batch_norm, ', "")
        text = text.replace("import loop\n", f"import sys\n\nsys.path.insert(0, {str(workers)!r})\n\nimport loop\n", 1)
        (workers / name).write_text(text)
    own = framework_process.Framework(
        mxnet.FRAMEWORK.name, mxnet.FRAMEWORK.requirements, workers / "mxnet_worker.py", opset=13
    )
    monkeypatch.setattr(mxnet, "FRAMEWORK", own)
    with pytest.raises(ConversionError, match="the file answers differently: max abs error"):
        converted(make("conv_bn"), [_FREE], tmp_path)


def test_inputs_that_the_net_does_not_take_are_refused(make: Make) -> None:
    with pytest.raises(SignatureError, match="the symbol does not take its weights and inputs"):
        formats.opened(mxnet.describe(make("prelu"), [TensorSpec("data", "FP32", ("batch", 5, 16, 16))]))
    with pytest.raises(SignatureError, match="does not tell the shape of its input 'data'") as caught:
        formats.opened(mxnet.describe(make("prelu")))
    assert "{name: data, dtype: FP32, shape: [batch, 3, 224, 224]}" in caught.value.mend


@pytest.mark.server
@pytest.mark.torch
def test_onet_is_served_and_equals_torch(make: Make, tmp_path: Path) -> None:
    """Package facenet-pytorch 2.6.0 (MIT) carries O-Net: 3 x 48 x 48 -> boxes, points, faces."""
    import torch
    from torch.nn import functional

    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "facenet-pytorch==2.6.0"]
    subprocess.run([*command, "--dest", tmp_path], check=True)
    with zipfile.ZipFile(next(tmp_path.glob("facenet_pytorch-*.whl"))) as archive:
        raw = archive.read("facenet_pytorch/data/onet.pt")
    weights = torch.load(io.BytesIO(raw), weights_only=True)
    np.savez(tmp_path / "onet.npz", **{name: tensor.numpy() for name, tensor in weights.items()})

    def torch_onet(image: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        h = torch.from_numpy(image)
        for number, window in ((1, 3), (2, 3), (3, 2), (4, 0)):
            h = functional.conv2d(h, weights[f"conv{number}.weight"], weights[f"conv{number}.bias"])
            h = functional.prelu(h, weights[f"prelu{number}.weight"])
            h = functional.max_pool2d(h, window, 2, ceil_mode=True) if window else h
        h = functional.linear(
            h.permute(0, 3, 2, 1).reshape(len(h), -1), weights["dense5.weight"], weights["dense5.bias"]
        )
        h = functional.prelu(h, weights["prelu5.weight"])
        made = [functional.linear(h, weights[f"dense6_{i}.weight"], weights[f"dense6_{i}.bias"]) for i in (2, 3, 1)]
        return [made[0].numpy(), made[1].numpy(), made[2].softmax(1).numpy()]

    source = make("onet", tmp_path / "onet.npz")
    inputs = (TensorSpec("data", "FP32", ("batch", 3, 48, 48)),)
    out = tmp_path / "repository"
    told = [{"name": "data", "dtype": "FP32", "shape": ["batch", 3, 48, 48]}]
    result = pipeline.build(source, out, name="onet", inputs=told, cpus=1)
    result.raise_failed()
    report = result.reports["onet"]
    assert report["reference"] == "the mxnet file itself, in MXNet 1.9.1 on the CPU, in a process of its own"
    assert set(report["outputs"]) == {"dense6_2", "dense6_3", "faces"}
    assert all(one["max_abs_error"] < 1e-5 for one in report["outputs"].values())
    images = np.random.default_rng(4).uniform(-1, 1, (3, 3, 48, 48)).astype(np.float32)
    served = formats.get("onnx").describe(out / "onet" / "1" / "model.onnx")
    ours = formats.get("onnx").run(served, {"data": images})
    own = mxnet.run(formats.opened(mxnet.describe(source, inputs)), {"data": images})
    for name, wanted in zip(("dense6_2", "dense6_3", "faces"), torch_onet(images), strict=True):
        np.testing.assert_allclose(ours[name], wanted, atol=2e-6)
        np.testing.assert_allclose(own[name], wanted, atol=2e-6)
