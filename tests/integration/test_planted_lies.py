"""Conversions that load and lie, planted one by one: the build refuses each and leaves no repository."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import caffe_nets
import numpy_framework
import onnx
import pytest

from repo_builder import convert, formats, pipeline
from repo_builder.convert import caffe_to_onnx
from repo_builder.convert.caffe import net as caffe_model
from repo_builder.errors import ConversionError
from repo_builder.formats import framework_process
from repo_builder.tasks import plain_tensors
from tests import models

BRANCH = models.FACTORY.replace(
    "return torch.tanh(self.linear(x))", "return self.linear(x) if x.sum() > 0 else torch.tanh(self.linear(x))"
)


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    framework_process.close_all()


def refused(source: Path, text: str, factory: str = "", **fields: Any) -> None:
    repository = source.parent / "repository"
    with pytest.raises(ConversionError) as caught:
        pipeline.build(f"{source}{factory}", repository, name="lie", verify=False, **fields).raise_failed()
    assert text in str(caught.value)
    assert not repository.exists()


@pytest.mark.torch
def test_a_traced_branch_that_says_so(tmp_path: Path) -> None:
    source = models.factory_module(tmp_path / "branch.py", BRANCH)
    refused(
        source, "trace: TracerWarning: Converting a tensor to a Python boolean", factory=":factory", exporter="trace"
    )


@pytest.mark.torch
def test_a_traced_branch_that_says_nothing(tmp_path: Path) -> None:
    """The model's own code silences the tracer: the answers alone tell."""
    silent = BRANCH.replace("import torch\n", "import warnings\n\nimport torch\n", 1).replace(
        "    def forward(self, x):\n", "    def forward(self, x):\n        warnings.simplefilter('ignore')\n"
    )
    source = models.factory_module(tmp_path / "silent.py", silent)
    refused(source, "trace: the file answers differently: max abs error", factory=":factory", exporter="trace")


def test_a_converter_whose_answers_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(formats.FORMATS, "numpy_json", "numpy_framework")
    monkeypatch.setattr(plain_tensors, "SOURCES", {*plain_tensors.SOURCES, "numpy_json"})
    monkeypatch.setitem(convert.EDGES, ("numpy_json", "onnx"), "framework_to_onnx")
    source = numpy_framework.save(tmp_path / "a.npmodel", converted=[[1, 2], [3, 4], [5, 6]])
    refused(source, "the file answers differently: max abs error")


@pytest.mark.slow
def test_a_wrong_eltwise_coefficient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(graph: Any, step: Any) -> list[str]:
        return [graph.node("Add", step.values)]

    monkeypatch.setitem(caffe_model.WRITERS, "Eltwise", forgetful)  # type: ignore[attr-defined]
    source = caffe_nets.save(caffe_nets.NETS["eltwise-coefficients"], tmp_path)
    refused(source, "the file answers differently: max abs error")


@pytest.mark.slow
def test_a_wrong_opset_stamp_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Softmax along one axis, stamped 11, where it goes over all axes from there on."""
    write = caffe_to_onnx.write

    def stamped(source: Any, path: Path) -> None:
        write(source, path)
        model = onnx.load(str(path))
        model.opset_import[0].version = 11
        onnx.save(model, str(path))

    monkeypatch.setattr(caffe_to_onnx, "write", stamped)
    refused(caffe_nets.save(caffe_nets.NETS["softmax"], tmp_path), "the file answers differently: max abs error")
