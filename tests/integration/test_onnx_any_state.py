"""ONNX in any state: served with the same answers through the real server, or refused with its reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from repo_builder import pipeline
from repo_builder.errors import RepoBuilderError, SignatureError, SourceCorruptError, SourceMissingError
from tests import onnx_states

pytestmark = pytest.mark.server
Make = Callable[[Path], Path]


def build(folder: Path, made: dict[str, Make]) -> pipeline.Result:
    """One spec of all; every model in a folder of its own."""
    for name, make in made.items():
        (folder / name).mkdir()
        make(folder / name / "m.onnx")
    rows = "\n".join(f"- {{source: {name}/m.onnx, name: {name}}}" for name in made)
    (folder / "spec.yaml").write_text(f"models:\n{rows}\n", encoding="utf-8")
    return pipeline.build(str(folder / "spec.yaml"), folder / "repository", cpus=1)


def assert_equal(result: pipeline.Result, names: dict[str, Make]) -> None:
    assert not result.failed, {name: str(error) for name, error in result.failed.items()}
    assert list(result.reports) == list(names)
    for name, report in result.reports.items():
        assert report["passed"], name
        assert {output: one["max_abs_error"] for output, one in report["outputs"].items()} == dict.fromkeys(
            report["outputs"], 0.0
        ), name


def opset(number: int) -> Make:
    return lambda path: onnx_states.of_opset(path, number)


def odd(told: str) -> Make:
    return lambda path: onnx_states.odd_names(path, told)


def test_the_oldest_the_quantized_and_the_odd(tmp_path: Path) -> None:
    made: dict[str, Make] = {
        "opset7": opset(7),
        "half": onnx_states.half,
        "qdq": onnx_states.qdq,
        "files": lambda path: onnx_states.external(path, one_file=False),
        "newlines": odd("newlines"),
        "unused": onnx_states.unused_input,
        "colliding": onnx_states.colliding_weights,
        "unsorted": onnx_states.unsorted,
    }
    result = build(tmp_path, made)
    assert_equal(result, made)
    assert list(result.reports["newlines"]["outputs"]) == ["y\n"]
    told = {name: report["engine"].get("notes") for name, report in result.reports.items()}
    assert told["unused"] == ["input 'u' is read by no node; it stays in the signature"]
    assert told["colliding"] == ["its weights are packed: their files bear names that a repository cannot hold"]
    assert "must be topologically sorted" in told["unsorted"][0]
    assert [name for name in made if not told[name]] == ["opset7", "half", "qdq", "files", "newlines"]
    kept = sorted(p.name for p in (tmp_path / "repository" / "files" / "1").iterdir())
    assert kept == ["b", "model.onnx", "w"]


@pytest.mark.slow
def test_every_other_state(tmp_path: Path) -> None:
    made: dict[str, Make] = {f"opset{number}": opset(number) for number in onnx_states.OPSETS if number > 7}
    made |= {told: odd(told) for told in onnx_states.ODD if told != "newlines"}
    made |= {"function": onnx_states.function}
    made |= {"qlinear": onnx_states.qlinear, "file": lambda path: onnx_states.external(path, one_file=True)}
    result = build(tmp_path, {**made, "int4": onnx_states.int4})
    int4 = result.reports.pop("int4")
    assert int4["passed"]
    assert int4["outputs"]["y"]["max_abs_error"] < 1e-5, "two versions of ONNX Runtime sum in two orders"
    assert_equal(result, made)


def truncated(path: Path) -> Path:
    path.write_bytes(onnx_states.of_opset(path, 17).read_bytes()[:300])
    return path


def without_weights(path: Path) -> Path:
    onnx_states.external(path, one_file=True)
    (path.parent / "weights" / "all.bin").unlink()
    return path


def cut_weights(path: Path) -> Path:
    onnx_states.external(path, one_file=True)
    weights = path.parent / "weights" / "all.bin"
    weights.write_bytes(weights.read_bytes()[:20])
    return path


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (
            onnx_states.wrong_stamp,
            SourceCorruptError,
            "m.onnx: the file is stamped opset 21, but node 'mean0': ReduceMean of opset 21 has no attribute 'axes'; "
            "all nodes fit opsets 1 to 17",
        ),
        (onnx_states.wrong_stamp, SourceCorruptError, "to mend it: stamp it: model.opset_import[0].version = 17"),
        (onnx_states.giant_dim, SourceCorruptError, "tensor 'w' of m.onnx declares 18446744073709551616 bytes"),
        (onnx_states.giant_input, SignatureError, "x FP32[batch, 1099511627776] would have 2199023255552 elements"),
        (onnx_states.optional_input, SignatureError, "'x' of m.onnx is an optional"),
        (onnx_states.wrong_shape, SignatureError, "declares the output y FP32[batch, 5] and answers the shape ["),
        (truncated, SourceCorruptError, "m.onnx does not parse as ONNX"),
        (without_weights, SourceMissingError, "all.bin"),
        (cut_weights, SourceCorruptError, "all.bin is truncated: it has 20 bytes"),
    ],
)
def test_what_is_broken_is_refused(tmp_path: Path, make: Make, error: type[RepoBuilderError], text: str) -> None:
    source = make(tmp_path / "m.onnx")
    with pytest.raises(error) as caught:
        pipeline.build(source, tmp_path / "repository", verify=False).raise_failed()
    assert text in str(caught.value)
    assert not (tmp_path / "repository").exists()
