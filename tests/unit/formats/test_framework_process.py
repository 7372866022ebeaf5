"""Sessions with a framework's process: answers, refusals, and every way to die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import numpy_framework
import pytest

from repo_builder import formats
from repo_builder.child import LOG_BYTES
from repo_builder.errors import ConversionError, FrameworkError, SignatureError, UnsafeSourceError
from repo_builder.formats import framework_process
from repo_builder.formats.framework_names import legal, served
from repo_builder.formats.framework_process import Session
from repo_builder.tensors import TensorSpec

FRAMEWORK = numpy_framework.FRAMEWORK
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    framework_process.close_all()


def opened(path: Path, **more: object) -> Session:
    return framework_process.session(FRAMEWORK, numpy_framework.save(path, **more), "json", {"a": 1})


def logs(cache: Path) -> list[Path]:
    return sorted((cache / "logs").iterdir())


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_opens_once_answers_by_name_and_ends_without_a_trace(tmp_path: Path, cache: Path) -> None:
    session = opened(tmp_path / "a.npmodel")
    assert session.signature.inputs == (TensorSpec("x", "FP32", ("batch", 3)),)
    assert session.signature.outputs == (TensorSpec("net_y_1", "FP32", ("batch", 2)),)
    assert session.signature.notes == ("a stand-in",)
    weights = np.random.default_rng(0).standard_normal((3, 2)).round(3).astype(np.float32)
    np.testing.assert_allclose(session.run({"x": X})["net_y_1"], X @ weights, rtol=1e-6)
    assert opened(tmp_path / "a.npmodel") is not session, "the file was written again"
    same = framework_process.session(FRAMEWORK, tmp_path / "a.npmodel", "json", {"a": 1})
    assert framework_process.session(FRAMEWORK, tmp_path / "a.npmodel", "json", {"a": 1}) is same
    pid, folder = same._process.pid, same._folder
    framework_process.close_all()
    assert gone(pid)
    assert not folder.exists()
    assert logs(cache) == []


def test_the_oldest_of_three_sessions_is_closed(tmp_path: Path) -> None:
    first, second, third = (opened(tmp_path / f"{name}.npmodel") for name in "abc")
    assert gone(first._process.pid)
    assert not gone(second._process.pid)
    assert not gone(third._process.pid)


def test_no_thread_closes_the_sessions_of_another(tmp_path: Path) -> None:
    mine, theirs, done = opened(tmp_path / "mine.npmodel"), [], threading.Event()

    def other() -> None:
        theirs.extend(opened(tmp_path / f"{name}.npmodel") for name in "abc")
        done.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    while len(theirs) < 3:
        time.sleep(0.02)
    assert mine.run({"x": X})["net_y_1"].shape == (2, 2)
    assert [gone(session._process.pid) for session in theirs] == [True, False, False]
    done.set()
    thread.join()
    opened(tmp_path / "d.npmodel")
    assert [gone(session._process.pid) for session in (mine, *theirs)] == [True, True, True, False]


def test_arrays_that_do_not_fit_are_refused_here_and_failures_are_told(tmp_path: Path) -> None:
    session = opened(tmp_path / "a.npmodel", refused_rows=5)
    with pytest.raises(SignatureError, match=r"input 'x' of a.npmodel came as float64\[2, 3\]"):
        session.run({"x": X.astype(np.float64)})
    with pytest.raises(SignatureError, match=r"numpy-json failed on a.npmodel: ValueError: no such batch"):
        session.run({"x": np.zeros((5, 3), np.float32)})
    assert session.run({"x": X})["net_y_1"].shape == (2, 2), "it goes on"


def test_a_flood_on_both_pipes_does_no_harm(tmp_path: Path, cache: Path) -> None:
    session = opened(tmp_path / "a.npmodel", run="flood")
    assert session.run({"x": X})["net_y_1"].shape == (2, 2)
    assert logs(cache)[0].stat().st_size <= LOG_BYTES + 100


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("crash", "was killed by SIGSEGV"),
        ("memory", "was killed by SIGKILL, as a lack of memory does"),
        ("exit", "ended with exit code 3"),
    ],
)
@pytest.mark.parametrize("when", ["open", "convert", "run"])
def test_a_death_is_one_error_with_the_log(tmp_path: Path, cache: Path, how: str, text: str, when: str) -> None:
    def ask() -> None:
        session = opened(tmp_path / "a.npmodel", **{when: how})
        if when == "convert":
            session.convert(tmp_path / "out.onnx", 17)
        session.run({"x": X})

    with pytest.raises(FrameworkError) as caught:
        ask()
    assert f"the process of numpy-json that has a.npmodel open {text}" in str(caught.value)
    assert "its last lines:\n    opening json {'a': 1}" in str(caught.value)
    (log,) = logs(cache)
    assert f"read {log}" in caught.value.mend
    assert log.read_text().startswith("opening json")


def test_a_dead_session_says_so_again_and_the_next_one_starts_anew(tmp_path: Path) -> None:
    session = opened(tmp_path / "a.npmodel")
    os.kill(session._process.pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(FrameworkError, match="was killed by SIGKILL"):
            session.run({"x": X})
    again = framework_process.session(FRAMEWORK, tmp_path / "a.npmodel", "json", {"a": 1})
    assert again.run({"x": X})["net_y_1"].shape == (2, 2)


def test_a_session_outlives_the_thread_that_opened_it(tmp_path: Path) -> None:
    found: list[Session] = []
    thread = threading.Thread(target=lambda: found.append(opened(tmp_path / "a.npmodel")))
    thread.start()
    thread.join()
    time.sleep(0.2)
    assert found[0].run({"x": X})["net_y_1"].shape == (2, 2)


def test_a_session_does_not_outlive_its_process(tmp_path: Path) -> None:
    path = numpy_framework.save(tmp_path / "a.npmodel")
    script = (
        "import os, sys, time, numpy_framework\nfrom pathlib import Path\n"
        "from repo_builder.formats import framework_process\n"
        "made = framework_process.session(numpy_framework.FRAMEWORK, Path(sys.argv[1]), 'json', {})\n"
        "print(made._process.pid, flush=True)\ntime.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout
        pid = int(process.stdout.readline())
        assert not gone(pid)
        process.kill()
    until = time.monotonic() + 20
    while not gone(pid) and _state(pid) != "Z" and time.monotonic() < until:
        time.sleep(0.05)
    assert gone(pid) or _state(pid) == "Z"


def _state(pid: int) -> str:
    """``Z`` of a process that ended and that nobody asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def test_a_closed_session_says_so_and_the_next_one_is_opened(tmp_path: Path, cache: Path) -> None:
    session = opened(tmp_path / "a.npmodel")
    session.close()
    asks = (
        lambda: session.run({"x": X}),
        lambda: session.convert(tmp_path / "a.onnx", 17),
        session.examples,
    )
    for ask in asks:
        with pytest.raises(FrameworkError, match=r"that had a\.npmodel open was closed"):
            ask()
    again = framework_process.session(FRAMEWORK, tmp_path / "a.npmodel", "json", {"a": 1})
    assert again is not session
    assert again.run({"x": X})["net_y_1"].shape == (2, 2)


def test_what_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened(tmp_path / "a.npmodel", run="hang")
    session.timeout_s = 0.3
    before = time.monotonic()
    with pytest.raises(FrameworkError, match=r"did not end within 0\.3 s and was stopped"):
        session.run({"x": X})
    assert time.monotonic() - before < 60
    assert gone(session._process.pid)


def test_garbage_on_the_pipe(tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text("print('Welcome to the framework', flush=True)\ninput()\n")
    framework = framework_process.Framework("garbage", (), worker)
    with pytest.raises(FrameworkError, match=r"answered nonsense .b'Welcome to the framework"):
        framework_process.session(framework, numpy_framework.save(tmp_path / "a.npmodel"), "json")


def test_a_refusal_is_the_error_that_the_worker_names(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(UnsafeSourceError) as caught:
        opened(tmp_path / "a.npmodel", open="refuse")
    assert str(caught.value) == "layer conv_7 is a Lambda\n  expected: layers\n  to mend it: replace it"
    assert logs(cache) == []


def test_a_failure_says_who_failed_at_what_and_keeps_the_log(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ConversionError, match=r"numpy-json does not open a.npmodel: KeyError: 'conv_7") as caught:
        opened(tmp_path / "a.npmodel", open="raise")
    (log,) = logs(cache)
    assert str(log) in caught.value.mend
    assert "Traceback" in log.read_text()


def test_the_users_inputs_are_laid_over_the_frameworks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(formats.FORMATS, "numpy_json", "numpy_framework")
    path = numpy_framework.save(tmp_path / "a.npmodel")
    plain = formats.opened(numpy_framework.describe(path))
    assert plain.facts["framework"] == {"numpy": np.__version__}
    given = formats.opened(numpy_framework.describe(path, [TensorSpec("x", "FP32", ("rows", 3))]))
    assert given.inputs == (TensorSpec("x", "FP32", ("rows", 3)),)
    assert given.outputs == (TensorSpec("net_y_1", "FP32", ("rows", 2)),)
    with pytest.raises(SignatureError, match=r"names 'xx', which a.npmodel does not have"):
        formats.opened(numpy_framework.describe(path, [TensorSpec("xx", "FP32", (1, 3))]))


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("serving_default_x:0", "x"),
        ("model/dense_1/Softmax:0", "model_dense_1_Softmax"),
        ("images", "images"),
        ("a b\n'\"c", "a_b_c"),
        ("../../x", "x"),
        ("日本", "input_3"),
    ],
)
def test_names_become_legal_and_keep_their_meaning(name: str, wanted: str) -> None:
    assert legal(name, "input_3") == wanted


def test_names_stay_apart() -> None:
    tensors = [{"name": "a/b", "dtype": "INT64", "shape": []}, {"name": "a:0", "dtype": "INT64", "shape": ["n/1"]}]
    inputs, outputs = served(tensors, tensors[:1])
    assert [spec.name for spec in inputs] == ["a_b", "a"]
    assert outputs == (TensorSpec("a_b_1", "INT64", ()),)
    assert inputs[1].shape == ("n_1",)


def test_a_worker_makes_examples_of_its_model_or_none(tmp_path: Path) -> None:
    rows = [[[0.5, 1, 2]], [[1, 2, 3], [4, 5, 6]]]
    found = opened(tmp_path / "m.npmodel", examples=rows).examples()
    assert [case["x"].tolist() for case in found] == rows
    assert opened(tmp_path / "n.npmodel").examples() == []
