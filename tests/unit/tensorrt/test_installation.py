"""Finding TensorRT where there is none, and a worker's process that ends badly."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from repo_builder.errors import TensorRTError, TensorRTMissingError
from repo_builder.tensorrt import calls, installation, mends
from repo_builder.tensorrt.installation import Gpu, Installation

NONE = Installation(Path(sys.executable), "tensorrt", "8.6.1", None)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(installation.VARIABLE, raising=False)
    installation._ask.cache_clear()
    yield
    installation._ask.cache_clear()


def test_without_tensorrt_the_builder_says_what_is_needed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(installation, "_may_import", lambda _module: False)
    assert installation.find() is None
    with pytest.raises(TensorRTMissingError) as caught:
        installation.builder()
    assert caught.value.found == "TensorRT is not installed here (no Python module tensorrt)"
    assert "a plan is built on the GPU that runs it" in caught.value.expected
    assert "pip install tensorrt" in caught.value.mend
    assert "inspect --tensorrt" in caught.value.mend
    assert caught.value.exit_code == 25


def test_without_a_gpu_the_builder_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(installation, "_found", lambda: NONE)
    with pytest.raises(TensorRTMissingError, match=r"TensorRT 8\.6\.1 is installed, and this machine shows no GPU"):
        installation.builder()
    gpu = Gpu("NVIDIA H100", "9.0", "580.95.05", 80 << 30)
    whole = Installation(Path(sys.executable), "tensorrt", "8.6.1", gpu)
    monkeypatch.setattr(installation, "_found", lambda: whole)
    assert installation.builder() is whole
    assert installation.parser() is whole


def test_the_variable_names_a_python_that_must_have_tensorrt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv(installation.VARIABLE, str(tmp_path / "python"))
    with pytest.raises(TensorRTMissingError, match=r"REPO_BUILDER_TENSORRT_PYTHON names .*python, which is no file"):
        installation.find()
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    with pytest.raises(TensorRTMissingError) as caught:
        installation.find()
    assert "TensorRT cannot be imported by" in caught.value.found
    assert caught.value.mend == "install TensorRT there, or unset the variable"


def test_a_process_that_dies_is_an_error_with_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "crash.py").write_text(
        "import os, signal\nprint('the last words', flush=True)\nos.kill(os.getpid(), 11)\n"
    )
    (tmp_path / "silent.py").write_text("print('no answer')\n")
    monkeypatch.setattr(calls, "SCRIPTS", tmp_path)
    with pytest.raises(TensorRTError) as caught:
        calls.call(NONE, "crash.py", {})
    assert (
        caught.value.found
        == "the TensorRT process (crash.py) was killed by SIGSEGV; its last lines:\n    the last words"
    )
    log = Path(caught.value.mend.split("read ", 1)[1].split(";", 1)[0])
    assert log.read_text() == "the last words\n"
    with pytest.raises(TensorRTError, match=r"\(silent\.py\) ended without an answer; its last lines:\n    no answer"):
        calls.call(NONE, "silent.py", {})


def test_a_refusal_is_an_error_in_its_words_and_leaves_no_log(tmp_path: Path):
    with pytest.raises(TensorRTError, match="TensorRT cannot be imported by"):
        calls.call(NONE, "probe.py", {})
    assert list((tmp_path / "cache" / "logs").iterdir()) == []


@pytest.mark.parametrize(
    ("op", "words", "dtypes", "mend"),
    [
        ("SequenceConstruct", "false", (), "replace the sequence by plain tensors"),
        ("Foo", "Plugin not found, are the plugin name, version, and namespace correct?", (), "tensorrt.plugins"),
        ("Add", "But type is UInt8.", (), "cast it to INT32 or FP32 right after the input"),
        ("Reshape", "shape must be a build-time constant", (), "onnxslim"),
        ("Resize", "The sizes input must be an initializer!", (), "onnxslim"),
        ("", "Failed to convert ONNX data type", ("BYTES",), "TensorRT has no strings"),
        ("Cast", "unsupported", ("FP64",), "cast it to FP32"),
        ("And", "unsupported", ("BOOL",), "cast the BOOL tensor to INT32"),
        ("Attention", "Unsupported opset 23", (), "export with another opset"),
        ("Other", "who knows", ("FP32",), ""),
    ],
)
def test_mends_follow_operator_words_and_dtypes(op: str, words: str, dtypes: tuple[str, ...], mend: str):
    found = mends.mend(op, words, dtypes)
    assert mend in found
    assert bool(found) is bool(mend)


def test_the_parsers_words_are_cleaned():
    assert mends.reason("false", "Det") == "the parser does not know the operator Det"
    assert mends.reason('Assertion failed: x && "Failed to convert."', "") == "Failed to convert."
    assert mends.reason("Invalid Node - c\nError Code 1: (cudaError 35: no driver)", "Add") == "Invalid Node - c"
