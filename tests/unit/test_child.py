"""Scripts in processes of their own: what each way to end becomes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from repo_builder import child
from repo_builder.errors import TensorRTError, ToolchainError

READ = "import json, os, signal, subprocess, sys, time\nrequest = json.load(open(sys.argv[1]))\n"
ANSWER = "json.dump({'twice': request['number'] * 2}, open(sys.argv[2], 'w'))\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def call(tmp_path: Path, body: str, python: str = sys.executable, **options: Any) -> dict[str, Any]:
    script = tmp_path / "work.py"
    script.write_text(READ + body, encoding="utf-8")
    told = {"what": "the process", "expected": "an answer", "mend": "try less", **options}
    return child.run([python, "-B", script], {"number": 4}, **told)


def logs(cache: Path) -> list[Path]:
    return list((cache / "logs").iterdir())


def failed(tmp_path: Path, body: str, **options: Any) -> tuple[ToolchainError, bytes]:
    """The error, and what its log holds, whose path it names."""
    with pytest.raises(ToolchainError) as caught:
        call(tmp_path, body, **options)
    [log] = logs(tmp_path / "cache")
    assert caught.value.mend == f"read {log}; try less"
    assert caught.value.expected == "an answer"
    return caught.value, log.read_bytes()


def test_an_answer_comes_back_and_leaves_no_log(tmp_path: Path, cache: Path) -> None:
    assert call(tmp_path, ANSWER + "print('noise')") == {"twice": 8}
    assert logs(cache) == []


def test_a_failure_shows_its_last_words(tmp_path: Path) -> None:
    error, log = failed(tmp_path, "print('before', flush=True)\nraise ValueError('what went wrong')")
    assert error.found.startswith("the process ended with exit code 1; its last lines:\n    before\n    Traceback")
    assert error.found.endswith("ValueError: what went wrong")
    assert log.startswith(b"before\n")


def test_the_class_of_the_error_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(TensorRTError, match="the process ended with exit code 3\n"):
        call(tmp_path, "sys.exit(3)", error=TensorRTError)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the process was killed by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "the process was killed by SIGKILL, as a lack of memory does"),
        ("sys.exit(137)", "the process was killed by SIGKILL, as a lack of memory does"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 3)", f"the process was killed by signal {signal.SIGRTMIN + 3}"),
        ("sys.exit(255)", "the process ended with exit code 255"),
        ("pass", "the process ended without an answer"),
        ("open(sys.argv[2], 'w').write('{')", "the process left an answer that is not JSON"),
        ("open(sys.argv[2], 'w').write('[1]')", "the process left an answer that is no JSON object"),
        (ANSWER + "sys.exit(2)", "the process ended with exit code 2"),
    ],
)
def test_every_end_without_an_answer_is_said(tmp_path: Path, body: str, words: str) -> None:
    error, _ = failed(tmp_path, body)
    assert error.found == words


def test_a_flood_of_messages_keeps_its_first_and_last(tmp_path: Path) -> None:
    error, log = failed(
        tmp_path,
        "sys.stdout.write('first\\n')\nfor _ in range(40):\n    sys.stdout.write('x' * 99999 + '\\n')\n"
        "sys.stdout.write('last\\n')\nsys.stdout.flush()\nsys.exit(1)",
    )
    assert log.startswith(b"first\nxxx")
    assert log.endswith(b"x\nlast\n")
    left_out = 40 * 100000 + len(b"first\nlast\n") - child.LOG_BYTES
    assert f"\n[... {left_out} bytes left out ...]\n".encode() in log
    assert len(log) < child.LOG_BYTES + 60
    assert error.found.endswith("\n    last")
    assert len(error.found) < 8 * 310


def test_a_flood_does_not_stop_an_answer(tmp_path: Path) -> None:
    assert call(tmp_path, "for _ in range(200):\n    os.write(2, b'y' * 65536)\n" + ANSWER) == {"twice": 8}


def test_what_runs_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    body = f"p = subprocess.Popen(['sleep', '600'])\nopen({str(pid)!r}, 'w').write(str(p.pid))\n"
    error, _ = failed(tmp_path, body + "print('waiting', flush=True)\ntime.sleep(600)", timeout_s=3)
    assert error.found == "the process did not end within 3 s and was stopped; its last lines:\n    waiting"
    assert ended(int(pid.read_text()))


def test_a_child_that_stays_behind_does_not_hold_the_answer(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    body = f"p = subprocess.Popen(['sleep', '600'])\nopen({str(pid)!r}, 'w').write(str(p.pid))\n"
    assert call(tmp_path, body + ANSWER) == {"twice": 8}
    assert ended(int(pid.read_text()))


def test_a_python_that_is_none_is_said(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="the process does not start: /none/python does not run"):
        call(tmp_path, ANSWER, python="/none/python")


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file", encoding="utf-8")
    with pytest.raises(ToolchainError, match="no log can be written to"):
        call(tmp_path, ANSWER)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_child_ends_with_us(tmp_path: Path, cache: Path, number: int) -> None:
    """Ctrl-C names the log; a killed caller leaves no child behind."""
    pid, script = tmp_path / "pid", tmp_path / "long.py"
    script.write_text(f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    ours = "from repo_builder import child\nimport sys\n"
    ours += f"child.run([sys.executable, {str(script)!r}], {{}}, what='the process', expected='', mend='')"
    with subprocess.Popen([sys.executable, "-c", ours], stderr=subprocess.PIPE, text=True) as process:
        while not (pid.is_file() and pid.read_text()):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert ended(int(pid.read_text()))
    if number == signal.SIGINT:
        [log] = logs(cache)
        assert said.endswith(f"KeyboardInterrupt: the process was interrupted; its messages are in {log}\n")


def ended(pid: int) -> bool:
    """Whether a process ends within a minute; one that nobody waited for counts."""
    for _ in range(600):
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.1)
    return False


def test_the_environment_is_what_was_given(tmp_path: Path) -> None:
    body = "json.dump({'found': os.environ.get('ONE')}, open(sys.argv[2], 'w'))"
    assert call(tmp_path, body, environment={**os.environ, "ONE": "1"}) == {"found": "1"}
    assert json.dumps(call(tmp_path, body)) == '{"found": null}'
