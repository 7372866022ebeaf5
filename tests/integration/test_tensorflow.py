"""TensorFlow's formats, made and answered by TensorFlow itself, served and proved by the real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from repo_builder import formats, pipeline, toolchain
from repo_builder.convert import framework_to_onnx
from repo_builder.errors import (
    PathEscapeError,
    RepoBuilderError,
    SignatureError,
    SourceCorruptError,
    SpecError,
    UnsafeSourceError,
    UnsupportedDtypeError,
)
from repo_builder.formats import framework_process, tensorflow_framework
from scripts.error_rows import members

pytestmark = [pytest.mark.slow, pytest.mark.server]

Make = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """``make(kind, name)``: the path of a model that TensorFlow wrote, once per name."""
    framework = tensorflow_framework.FRAMEWORK
    python = toolchain.ensure(framework.name, framework.requirements)
    folder = tmp_path_factory.mktemp("tensorflow")
    script = Path(__file__).parents[1] / "tensorflow_models.py"

    def made(kind: str, name: str) -> Path:
        if not (folder / name).exists():
            done = subprocess.run([python, script, kind, folder / name], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-2000:]
        return folder / name

    yield made
    framework_process.close_all()


def built(source: Path, out: Path, **arguments: Any) -> dict[str, Any]:
    """The report of a build that was served and proved."""
    result = pipeline.build(source, out, name="net", cpus=1, **arguments)
    result.raise_failed()
    return result.reports["net"]


def signature(out: Path) -> tuple[list[str], list[str]]:
    """Inputs and outputs of the served file, as ``x FP32[batch, 4]``."""
    found = formats.get("onnx").describe(out / "net" / "1" / "model.onnx")
    return [str(spec) for spec in found.inputs], [str(spec) for spec in found.outputs]


@pytest.mark.parametrize(
    ("kind", "name", "inputs", "outputs", "batch"),
    [
        ("saved_model", "net", ["x FP32[batch, 4]"], ["best INT64[batch]", "scores FP32[batch, 3]"], 32),
        ("control_flow", "flow", ["a INT32[1]", "b FP32[batch, 4]"], ["y FP32[batch, 4]"], 0),
        ("old_objects", "old", ["x FP32[batch, 4]"], ["best INT64[batch]", "scores FP32[batch, 3]"], 32),
        ("frozen", "f.pb", ["model_image FP32[batch, 6, 6, 2]"], ["model_probabilities FP32[batch, 3]"], 32),
        ("checkpoint", "c.meta", ["model_image FP32[batch, 6, 6, 2]"], ["model_probabilities FP32[batch, 3]"], 32),
        ("keras_sequential", "s.keras", ["image FP32[batch, 8, 8, 2]"], ["dense FP32[batch, 3]"], 32),
        *(
            (
                *("keras_functional", name, ["ids INT32[batch, dim1]", "mask FP32[batch, dim1]"]),
                *(["states FP32[batch, dim1, 2]", "last FP32[batch, 4]"], 32),
            )
            for name in ("f.h5", "f.keras")
        ),
        ("tflite", "t.tflite", ["keras_tensor FP32[batch, 8, 8, 2]"], ["output_0 FP32[batch, 3]"], 32),
        ("tflite_quantised", "q.tflite", ["keras_tensor UINT8[batch, 8, 8, 2]"], ["output_0 UINT8[batch, 3]"], 32),
    ],
)
def test_served_answers_equal_tensorflows(
    make: Make, tmp_path: Path, kind: str, name: str, inputs: list[str], outputs: list[str], batch: int
) -> None:
    out = tmp_path / "repository"
    report = built(make(kind, name), out)
    assert report["passed"]
    assert "TensorFlow 2.21" in report["reference"]
    for told in report["outputs"].values():
        assert told["max_abs_error"] < 1e-6
    assert signature(out) == (inputs, outputs)
    config = (out / "net" / "config.pbtxt").read_text()
    assert (f"max_batch_size: {batch}" in config) if batch else ("max_batch_size: 0" in config)


def test_indices_are_compared_over_the_whole_embedding(make: Make, tmp_path: Path) -> None:
    source = formats.opened(formats.get("keras").describe(make("keras_functional", "f.keras")))
    made = framework_to_onnx.convert(source, tmp_path / "model.onnx", opset=17, ir_version=10)
    assert made.provenance["ranges"] == {"ids": (0, 9)}
    assert not any("compared on 0 and 1 alone" in note for note in made.provenance["notes"])


def test_basic_pitch_equals_tensorflow_and_the_onnx_file_of_its_package(tmp_path: Path) -> None:
    """A logarithm of sums that nearly cancel: plain sums and those of oneDNN are 2e-4 apart in TensorFlow itself."""
    home = members("basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022/", tmp_path / "package")
    report = built(home / "nmp", tmp_path / "repository")
    for told in report["outputs"].values():
        assert told["passed"]
    onnx_format = formats.get("onnx")
    ours = onnx_format.describe(tmp_path / "repository" / "net" / "1" / "model.onnx")
    shipped = onnx_format.describe(home / "nmp.onnx")
    tone = np.sin(np.arange(2 * 43844, dtype=np.float32) * 0.06).reshape(2, 43844, 1) / 10
    noise = np.random.default_rng(0).standard_normal((1, 43844, 1)).astype(np.float32)
    for given in (tone, noise):
        answers = onnx_format.run(ours, {ours.inputs[0].name: given})
        wanted = onnx_format.run(shipped, {shipped.inputs[0].name: given})
        for place, name in enumerate(("contour", "note", "onset")):
            np.testing.assert_allclose(answers[name], wanted[f"StatefulPartitionedCall:{place}"], atol=1e-5)


def test_both_branches_and_the_loop_are_in_the_file(make: Make, tmp_path: Path) -> None:
    out = tmp_path / "repository"
    built(make("control_flow", "flow"), out)
    graph = onnx.load(str(out / "net" / "1" / "model.onnx")).graph
    assert {"If", "Loop"} <= {node.op_type for node in graph.node}
    source = formats.opened(formats.get("savedmodel").describe(make("control_flow", "flow")))
    served = formats.get("onnx").describe(out / "net" / "1" / "model.onnx")
    for sign in (1, -1):
        for turns in (0, 1, 5):
            given = {"b": np.full((2, 4), sign, np.float32), "a": np.array([turns], np.int32)}
            wanted = formats.get("savedmodel").run(source, given)["y"]
            np.testing.assert_allclose(formats.get("onnx").run(served, given)["y"], wanted, atol=1e-6)


def test_a_switch_of_training_is_fixed_and_told(make: Make, tmp_path: Path) -> None:
    source = formats.opened(formats.get("tf_checkpoint").describe(make("checkpoint", "c.meta")))
    assert source.facts["notes"] == ["the input is_training, which switches training on, is fixed to False"]


def test_a_switch_keeps_its_default_and_what_is_data_stays_an_input(make: Make) -> None:
    with pytest.raises(SignatureError, match="input 'chosen:0' has no rank"):
        formats.opened(formats.get("frozen_graph").describe(make("switches", "s.pb")))
    module = formats.get("frozen_graph")
    source = formats.opened(module.describe(make("switches", "s.pb"), outputs=["truediv", "cond/Merge"]))  # type: ignore[call-arg]
    assert source.facts["notes"] == [
        "the input normalize, which switches training on, keeps its default True",
        "the input training, which switches training on, is fixed to False",
    ]
    answers = module.run(source, {"x": np.full((1, 2), 255, np.float32)})
    np.testing.assert_allclose(answers["cond_Merge"], [[1, 1]])


def test_outputs_of_a_graph_may_be_chosen(make: Make, tmp_path: Path) -> None:
    document = {"name": "net", "source": str(make("frozen", "f.pb")), "outputs": ["Relu", "model/probabilities"]}
    (tmp_path / "spec.yaml").write_text(json.dumps({"models": [document]}))
    pipeline.build(tmp_path / "spec.yaml", tmp_path / "repository", cpus=1).raise_failed()
    told = ["Relu FP32[batch, 6, 6, 4]", "model_probabilities FP32[batch, 3]"]
    assert signature(tmp_path / "repository")[1] == told
    document["outputs"] = ["Rleu"]
    (tmp_path / "spec.yaml").write_text(json.dumps({"models": [document]}))
    with pytest.raises(SpecError, match=r"outputs names 'Rleu', which .* does not have") as caught:
        pipeline.build(tmp_path / "spec.yaml", tmp_path / "repository", cpus=1).raise_failed()
    assert "for example Relu" in caught.value.expected


@pytest.mark.parametrize(
    ("kind", "name", "error", "text"),
    [
        ("texts", "texts", UnsupportedDtypeError, "input 'text' is of dtype string, and strings do not convert"),
        ("keras_weights", "w.weights.h5", SourceCorruptError, "holds weights alone"),
        ("keras_lambda", "l.keras", UnsafeSourceError, "the layer 'evil' is a Lambda: it carries Python code"),
        ("keras_lambda", "l.h5", UnsafeSourceError, "is a Lambda: it carries Python code"),
        ("keras_hidden_lambda", "hidden.h5", UnsafeSourceError, "the layer 'evil' is a Lambda"),
        ("keras_foreign", "foreign.keras", UnsafeSourceError, "is of the class subprocess.Popen"),
        ("keras_tensorflow", "g.keras", UnsafeSourceError, "is of the class tensorflow.io.gfile.GFile"),
        ("keras_settings", "e.keras", UnsafeSourceError, "is of the class keras.config.enable_unsafe_deserialization"),
        ("keras_saved_model", "tfsm.keras", UnsafeSourceError, "the layer 'dense' is a TFSMLayer"),
        ("keras_vocabulary", "v.keras", PathEscapeError, "reads its vocabulary from the file /etc/hostname"),
    ],
)
def test_what_is_refused_runs_nothing(
    make: Make, tmp_path: Path, kind: str, name: str, error: type[RepoBuilderError], text: str
) -> None:
    source = make(kind, name)
    with pytest.raises(error) as caught:
        built(source, tmp_path / "repository")
    assert text in str(caught.value)
    assert not list(tmp_path.rglob("PWNED"))
    assert not list(source.parent.rglob("PWNED"))


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("saver_in_answer", "the signature serving_default runs the operator SaveV2"),
        ("saver_v1_answer", "the signature serving_default runs the operator SaveV2"),
        ("saver_v1_read", "the signature serving_default runs the operator RestoreV2"),
        ("saver_v1_start", "the collection saved_model_main_op runs the operator SaveV2"),
        ("saver_v1_restore", "restoring its variables runs the operator SaveV2"),
        ("saver_v1_elsewhere", "restoring its variables runs the operator RestoreV2"),
    ],
)
def test_savers_that_answers_or_loading_would_run_are_refused(make: Make, kind: str, place: str) -> None:
    source = make(kind, kind)
    with pytest.raises(UnsafeSourceError) as caught:
        formats.opened(formats.get("savedmodel").describe(source))
    assert place in str(caught.value)
    assert not list(source.parent.rglob("PWNED*"))


def test_savers_that_nothing_runs_stay_allowed(make: Make) -> None:
    source = formats.opened(formats.get("savedmodel").describe(make("saver_v1_unused", "unused")))
    assert formats.get("savedmodel").run(source, {"x": np.ones((1, 2), np.float32)})["y"].shape == (1, 3)
    assert not list(source.path.parent.rglob("PWNED*"))


@pytest.mark.parametrize(
    ("kind", "name"), [("frozen", "f.pb"), ("tflite", "t.tflite"), ("keras_sequential", "s.keras")]
)
def test_truncated_files_are_one_clear_error(make: Make, tmp_path: Path, kind: str, name: str) -> None:
    content = make(kind, name).read_bytes()
    for part in (0.2, 0.5, 0.9):
        (tmp_path / name).write_bytes(content[: int(len(content) * part)])
        with pytest.raises(SourceCorruptError, match=f"{name} is truncated"):
            built(tmp_path / name, tmp_path / "repository")
