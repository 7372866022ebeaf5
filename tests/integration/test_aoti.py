"""AOTInductor packages: compiled here, looked at, served by torch's own loader in the real server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repo_builder import formats, pipeline
from repo_builder.client import connect
from repo_builder.errors import ConversionError, SignatureError, TargetError
from repo_builder.formats import aoti, framework_process
from repo_builder.spec import ModelSpec, Spec, TensorDeclaration
from repo_builder.tensors import TensorSpec
from tests.integration.standins import infer, refusals, refused

pytestmark = [pytest.mark.slow, pytest.mark.torch, pytest.mark.server]

INPUTS = [TensorSpec("INPUT__0", "FP32", ("rows", 4)), TensorSpec("INPUT__1", "INT64", ("rows",))]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Takes a tensor and, by keyword, numbers; gives a dictionary and a tuple in it."""
    import torch

    if shutil.which("g++") is None:
        pytest.skip("AOTInductor compiles with g++")

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 3)

        def forward(self, x, *, numbers):  # type: ignore[no-untyped-def]
            return {"scores": torch.tanh(self.linear(x)), "more": (numbers * 2, x.sum(1, keepdim=True))}

    rows = torch.export.Dim("rows", min=2, max=64)
    program = torch.export.export(
        Net().eval(),
        (torch.ones(4, 4),),
        {"numbers": torch.ones(4, dtype=torch.int64)},
        dynamic_shapes={"x": {0: rows}, "numbers": {0: rows}},
    )
    path = tmp_path_factory.mktemp("aoti") / "net.pt2"
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    yield path
    framework_process.close_all()


def spec(package: Path, target: str = "26.05") -> Spec:
    inputs = tuple(TensorDeclaration(name=t.name, dtype=t.dtype, shape=t.shape) for t in INPUTS)
    return Spec(models=(ModelSpec(source=str(package), engine="torch_aoti", inputs=inputs),), target=target)


def test_a_package_is_served_as_it_is_and_proved(package: Path, tmp_path: Path) -> None:
    built = pipeline.build(spec(package), tmp_path / "repository")
    assert not built.failed
    report = built.reports["net"]
    assert report["passed"]
    assert "AOTInductor loader" in report["reference"]
    assert report["backends"] == {"net": "pytorch (Python stand-in)"}
    folder = tmp_path / "repository" / "net"
    assert (folder / "1" / "model.pt2").read_bytes() == package.read_bytes()
    config = (folder / "config.pbtxt").read_text()
    for words in ('backend: "pytorch"', 'platform: "torch_aoti"', "max_batch_size: 0", '"INPUT__1"', '"OUTPUT__2"'):
        assert words in config
    assert "dynamic_batching" not in config
    with (
        pipeline.serve(tmp_path / "repository", target=None, ports=(0, 0, 0)) as running,
        connect(running.url) as connection,
    ):
        asked = {"INPUT__0": np.ones((3, 4), np.float32), "INPUT__1": np.arange(3)}
        answer = connection.infer("net", asked)
    np.testing.assert_array_equal(answer["OUTPUT__1"], [0, 2, 4])


def test_a_release_before_26_03_is_refused(package: Path, tmp_path: Path) -> None:
    built = pipeline.build(spec(package, "26.02"), tmp_path / "repository")
    error = built.failed["net"]
    assert isinstance(error, TargetError)
    assert "26.02 does not know platform 'torch_aoti'" in error.found


def test_its_machine_code_runs_only_for_its_own_engine(package: Path, tmp_path: Path) -> None:
    built = pipeline.build(Spec(models=(ModelSpec(source=str(package)),)), tmp_path / "repository")
    error = built.failed["net"]
    assert isinstance(error, ConversionError)
    assert (error.found, error.expected) == ("nothing converts aoti to onnx", "aoti to torch_aoti")


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        ([TensorSpec("INPUT__0", "FP64", ("rows", 4)), INPUTS[1]], "unmatched dtype"),
        ([TensorSpec("INPUT__0", "FP32", ("rows", 5)), INPUTS[1]], "unmatched dim value at 1, expected: 4, but got: 5"),
        (INPUTS[:1], "gives 1 tensors, and the package takes 2"),
    ],
)
def test_inputs_are_held_against_the_package(package: Path, inputs: list[TensorSpec], found: str) -> None:
    with pytest.raises(SignatureError) as caught:
        formats.opened(aoti.describe(package, inputs))
    assert found in caught.value.found


MISSING = {
    "file": {"path": "/file/1/model.pt2"},
    "input_count": {"model": "input_count_0", "expected": 1, "found": 2},
    "input_name": {"model": "input_name_0", "name": "x"},
    "output_name": {"model": "output_name_0", "name": "OUTPUT__3"},
}


@pytest.fixture(scope="module")
def client(package: Path, server_factory: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    import tritonclient.grpc as grpc

    repository = tmp_path_factory.mktemp("aoti_models")
    for name in [*MISSING, "forward_names"]:
        version = repository / name / "1"
        version.mkdir(parents=True)
        if name != "file":
            (version / "model.pt2").symlink_to(package)
        first = {"input_name": "x", "forward_names": "ARGS[0]"}.get(name, "INPUT__0")
        second = {"forward_names": "KWARGS[numbers]"}.get(name, "INPUT__1")
        output = {"output_name": "OUTPUT__3", "forward_names": "RESULT[more][1]"}.get(name, "OUTPUT__2")
        text = 'platform: "torch_aoti"\nbackend: "torch_aoti"\n'
        text += f'input {{ name: "{first}" data_type: TYPE_FP32 dims: [-1, 4] }}\n'
        if name != "input_count":
            text += f'input {{ name: "{second}" data_type: TYPE_INT64 dims: -1 }}\n'
        text += f'output {{ name: "{output}" data_type: TYPE_FP32 dims: [-1, 1] }}\n'
        (repository / name / "config.pbtxt").write_text(text, encoding="utf-8")
    running = server_factory(repository, extra_args=["--model-control-mode=explicit"], timeout=600)
    with grpc.InferenceServerClient(running.url) as connection:
        yield connection
    running.stop()


@pytest.mark.parametrize("key", MISSING)
def test_the_stand_in_refuses_in_the_words_of_the_compiled_backend(client: Any, key: str) -> None:
    words = refusals("torch_aoti")[key][1].format_map(MISSING[key])
    said = refused(client, key)
    assert words.split('"')[-1] in said
    assert all(str(value) in said for value in MISSING[key].values())


def test_every_message_of_the_stand_in_has_a_test() -> None:
    assert set(refusals("torch_aoti")) == set(MISSING)


def test_names_by_the_call_of_forward_are_served_too(client: Any) -> None:
    client.load_model("forward_names")
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = infer(client, "forward_names", **{"ARGS[0]": rows, "KWARGS[numbers]": np.ones(3, np.int64)})
    np.testing.assert_array_equal(found["RESULT[more][1]"], rows.sum(1, keepdims=True))
