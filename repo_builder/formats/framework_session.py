"""A framework in a process of its own: it opens a model once, converts it, and answers as long as it is asked."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder import child, errors
from repo_builder.errors import ConversionError, FrameworkError, RepoBuilderError, SignatureError
from repo_builder.formats import signature
from repo_builder.formats.framework_names import served
from repo_builder.tensors import TensorSpec

Arrays = dict[str, "np.ndarray[Any, Any]"]

WORKERS = Path(__file__).parent / "framework"
TIMEOUT_S = 3600.0
"""Of one request: opening a model, converting it, one run."""
_ANSWER_BYTES = 16 * 1024 * 1024
_STARTED = "import runpy, sys; sys.path.append(sys.argv[1]); runpy.run_path(sys.argv[2], run_name='__main__')"
"""The folder of ``loop.py`` stands last, so that a worker's neighbours hide nothing of the framework's."""


@dataclasses.dataclass(frozen=True)
class Framework:
    """A framework, and how to run it.

    Attributes:
        name: of its environment, with the version: ``tensorflow-2.21.0``.
        requirements: pinned; empty where this Python has all that the worker needs.
        worker: a script of ``formats/framework``, or a path.
        opset: the ONNX opset that its converter writes best; a target that takes less gets less.
        variables: environment variables of its process.
        otherwise: such ones as let it sum in another order that is its own too; empty where it has one order alone.
    """

    name: str
    requirements: tuple[str, ...]
    worker: str | Path
    opset: int = 17
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    otherwise: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Signature:
    """What the framework says of the model, under the names that are served.

    Attributes:
        inputs, outputs: in the framework's order.
        versions: of the framework and of what converts for it.
        notes: what the user should know.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    versions: Mapping[str, str]
    notes: tuple[str, ...]


class Session:
    """One model, open in one process of its framework.

    Attributes:
        died: what whoever asks is told, where the process is gone.
        asker: the thread that asked for it last.
    """

    def __init__(
        self,
        framework: Framework,
        python: Path,
        source: Path,
        kind: str,
        options: Mapping[str, Any],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.framework, self.source, self.timeout_s = framework, source, timeout_s
        self.died: FrameworkError | None = None
        self.asker = threading.current_thread()
        self._closed = self._log_told = False
        self._asking = threading.Lock()
        self._folder = Path(tempfile.mkdtemp(prefix="repo-builder-framework-"))
        self._log = child.new_log(framework.name)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        worker = WORKERS / framework.worker
        command = [sys.executable, "-I", "-S", "-c", child.LAUNCHER, str(os.getpid())]
        self._process = _start(
            [*command, str(python), "-I", "-B", "-u", "-X", "utf8", "-c", _STARTED, str(WORKERS), str(worker)],
            self._folder,
            {**kept, "CUDA_VISIBLE_DEVICES": "", **framework.variables},
        )
        self._keeper = threading.Thread(target=child.keep, args=(self._process.stderr, self._log), daemon=True)
        self._keeper.start()
        atexit.register(self.close)
        try:
            told = self._ask("open", source=str(source.absolute()), kind=kind, options=dict(options))
            self.signature = self._signature(told)
        except BaseException:
            self.close()
            raise

    def convert(self, onnx: Path, opset: int) -> tuple[str, ...]:
        """Write an ONNX file; gives the notes.

        Raises:
            FrameworkError, RepoBuilderError: as :func:`session`; ConversionError where the converter fails.
        """
        told = self._ask("convert", onnx=str(onnx.absolute()), opset=opset)
        if not onnx.is_file():
            raise ConversionError(f"{self.framework.name} says that it converted {self.source.name}, but wrote no file")
        return tuple(map(str, told.get("notes", ())))

    def run(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> Arrays:
        """The framework's own answers by name; strings are bytes.

        Raises:
            SignatureError: the arrays do not fit, or the framework fails on them.
            FrameworkError: its process died, or took too long.
        """
        signature.check_arrays(self.signature.inputs, arrays, self.source.name)
        self._refuse_if_dead()
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            given, answered = Path(folder) / "given.npz", Path(folder) / "answered.npz"
            np.savez(given, **{str(i): _plain(arrays[s.name]) for i, s in enumerate(self.signature.inputs)})  # type: ignore[arg-type]
            self._ask("run", inputs=str(given), outputs=str(answered))
            with np.load(answered, allow_pickle=False) as archive:
                found = [_as_bytes(archive[str(place)]) for place in range(len(archive.files))]
        if len(found) != len(self.signature.outputs):
            raise SignatureError(
                f"{self.source.name} gave {len(found)} outputs",
                expected="the outputs " + "; ".join(map(str, self.signature.outputs)),
            )
        return {spec.name: array for spec, array in zip(self.signature.outputs, found, strict=True)}

    def examples(self) -> list[Arrays]:
        """Inputs that try this model, made by the worker from the model itself; none where it knows of none."""
        self._refuse_if_dead()
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            made = Path(folder) / "examples.npz"
            count = int(self._ask("examples", outputs=str(made))["cases"])
            with np.load(made, allow_pickle=False) as archive:
                arrays = [_as_bytes(archive[str(place)]) for place in range(len(archive.files))]
        names = [spec.name for spec in self.signature.inputs]
        rows = [arrays[case * len(names) : (case + 1) * len(names)] for case in range(count)]
        return [dict(zip(names, row, strict=True)) for row in rows]

    def close(self) -> None:
        """End the process; its log is kept only where something went wrong. Who asks it again is told so."""
        if self._closed:
            return
        self._closed = True
        self.died = self.died or FrameworkError(
            f"the process of {self.framework.name} that had {self.source.name} open was closed",
            expected="a session that is open",
            mend="ask framework_process.session for it again: it opens the model anew",
        )
        atexit.unregister(self.close)
        child.end(self._process, self._keeper)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        if not self._log_told:
            self._log.unlink(missing_ok=True)

    def _ask(self, do: str, **more: Any) -> dict[str, Any]:
        with self._asking:
            self._refuse_if_dead()
            try:
                answer = self._answer(json.dumps({"do": do, **more}).encode() + b"\n")
            except BaseException:  # whatever came between: request and answer are no longer in step
                child.end(self._process, self._keeper)
                if not self.died:
                    self.died = self._death("was interrupted")
                raise
        if refused := answer.get("refused"):
            raise _refusal(refused)
        if "done" in answer:
            return dict(answer["done"])
        raise self._failure(do, str(answer.get("failed")))

    def _refuse_if_dead(self) -> None:
        if self.died:
            raise self.died

    def _answer(self, line: bytes) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        source, found, until = self._process.stdout.fileno(), bytearray(), time.monotonic() + self.timeout_s
        with contextlib.suppress(OSError):  # where it is gone, the end of its answers says so below
            self._process.stdin.write(line)
            self._process.stdin.flush()
        while not found.endswith(b"\n"):
            ready, _, _ = select.select([source], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise self._dead(None)
            piece = os.read(source, 1 << 16)
            if not piece:
                raise self._dead(self._process.wait(), "ended without an answer")
            found += piece
            if len(found) > _ANSWER_BYTES:
                break
        try:
            answer = json.loads(found)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not {"done", "refused", "failed"} & answer.keys():
            raise self._dead(0, f"answered nonsense ({bytes(found[:60])!r})")
        return answer

    def _dead(self, code: int | None, otherwise: str = "") -> FrameworkError:
        child.end(self._process, self._keeper)
        self.died = self._death(child.ended(code, self.timeout_s) or otherwise)
        return self.died

    def _death(self, how: str) -> FrameworkError:
        self._log_told = True
        said = child.tail(self._log)
        return FrameworkError(
            f"the process of {self.framework.name} that has {self.source.name} open {how}"
            + (f"; its last lines:\n    {said}" if said else ""),
            expected="an answer",
            mend=f"read {self._log}; a model that needs more memory than there is ends so too",
        )

    def _failure(self, do: str, said: str) -> RepoBuilderError:
        if do == "run":
            return SignatureError(f"{self.framework.name} failed on {self.source.name}: {said}")
        self._log_told = True
        verb = {"open": "does not open", "convert": "does not convert", "examples": "makes no examples of"}[do]
        return ConversionError(
            f"{self.framework.name} {verb} {self.source.name}: {said}",
            expected="a model that this version opens" if do == "open" else "a model that its converter knows",
            mend=f"read {self._log}",
        )

    def _signature(self, told: Mapping[str, Any]) -> Signature:
        inputs, outputs = served(told["inputs"], told["outputs"])
        for side, specs in (("inputs", inputs), ("outputs", outputs)):
            if not specs:
                raise SignatureError(f"{self.source.name} has no {side}", expected="at least one")
        signature.refuse_bf16((*inputs, *outputs), self.source.name)
        return Signature(inputs, outputs, dict(told.get("versions", {})), tuple(told.get("notes", ())))


def _start(command: list[str], folder: Path, variables: dict[str, str]) -> subprocess.Popen[bytes]:
    """The process, started by a thread that lasts as long as this process does.

    Linux counts the thread that started a child as its parent: with that thread's end, ``child.LAUNCHER`` ends it.
    """
    thread = _STARTERS.get(os.getpid())  # a forked process has none of our threads
    if thread is None:
        thread = _STARTERS[os.getpid()] = ThreadPoolExecutor(1, "framework-starter")
    return thread.submit(
        subprocess.Popen,
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=variables,
        start_new_session=True,
    ).result()


_STARTERS: dict[int, ThreadPoolExecutor] = {}


def _refusal(told: Mapping[str, Any]) -> RepoBuilderError:
    kind = getattr(errors, str(told.get("error")), None)
    known = isinstance(kind, type) and issubclass(kind, RepoBuilderError)
    made = kind if known else ConversionError
    return made(str(told["found"]), expected=str(told["expected"]), mend=str(told["mend"]))  # type: ignore[misc]


def _plain(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind not in "OS":
        return np.asarray(array, order="C")
    texts = [value.decode() if isinstance(value, bytes) else str(value) for value in array.reshape(-1).tolist()]
    made: np.ndarray[Any, Any] = np.array(texts, dtype=str).reshape(array.shape)
    return made


def _as_bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if array.dtype.kind not in "SU":
        return array
    made: np.ndarray[Any, Any] = np.empty(array.shape, dtype=object)
    made.reshape(-1)[:] = [v if isinstance(v, bytes) else str(v).encode() for v in array.reshape(-1).tolist()]
    return made
