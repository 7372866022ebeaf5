"""Which TensorRT there is: this Python's, another's, or the toolchain's tensorrt_rtx, which needs no GPU to parse."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repo_builder import toolchain
from repo_builder.errors import TensorRTError, TensorRTMissingError, ToolchainError
from repo_builder.tensorrt import calls

Progress = calls.Progress
VARIABLE = "REPO_BUILDER_TENSORRT_PYTHON"
RTX_REQUIREMENTS = ("tensorrt-rtx-cu13-bindings==1.7.1.116", "tensorrt-rtx-cu13-libs==1.7.1.116", "numpy==2.2.6")
"""``tensorrt-rtx-cu13`` itself is a source package around these wheels."""


@dataclass(frozen=True)
class Gpu:
    """The GPU that plans are built for and run on.

    Attributes:
        name: ``NVIDIA H100 80GB HBM3``.
        compute_capability: ``9.0``.
        driver: the driver's version, ``580.95.05``.
        memory_bytes: all of its memory.
    """

    name: str
    compute_capability: str
    driver: str
    memory_bytes: int


@dataclass(frozen=True)
class Installation:
    """A Python that imports TensorRT.

    Attributes:
        python: its executable.
        module: ``tensorrt`` or ``tensorrt_rtx``.
        version: ``8.6.1``.
        gpu: the first GPU that it sees, or None.
    """

    python: Path
    module: str
    version: str
    gpu: Gpu | None

    @property
    def called(self) -> str:
        """``TensorRT 8.6.1`` or ``TensorRT-RTX 1.7.1.116``."""
        return f"{'TensorRT-RTX' if self.module == 'tensorrt_rtx' else 'TensorRT'} {self.version}"

    @property
    def is_rtx(self) -> bool:
        """A stand-in of TensorRT: it parses and builds without a GPU, and Triton serves none of its plans."""
        return self.module == "tensorrt_rtx"


def find() -> Installation | None:
    """TensorRT of the Python that ``$REPO_BUILDER_TENSORRT_PYTHON`` names, else of this one; None where it has none.

    Raises:
        TensorRTMissingError: the variable names a Python that does not run or has no TensorRT.
    """
    found = _found()
    return found if isinstance(found, Installation) else None


def _found() -> Installation | str:
    """The installation, or why there is none."""
    named = os.environ.get(VARIABLE)
    if not named:
        return _ask(Path(sys.executable), "tensorrt")
    if not Path(named).is_file():
        raise TensorRTMissingError(
            f"{VARIABLE} names {named}, which is no file", expected="the path of a Python that has TensorRT"
        )
    found = _ask(Path(named), "tensorrt")
    if isinstance(found, str):
        raise TensorRTMissingError(
            f"{VARIABLE} names {named}: {found}",
            expected="a Python that has TensorRT",
            mend="install TensorRT there, or unset the variable",
        )
    return found


def builder() -> Installation:
    """The TensorRT that builds plans to be served: with a GPU, for plans are built on the GPU that runs them.

    Raises:
        TensorRTMissingError: there is no TensorRT, or no GPU.
    """
    found = _found()
    if isinstance(found, str):
        raise TensorRTMissingError(
            found,
            expected="TensorRT and its libraries on the machine whose GPU will serve the plan: a plan is built on the "
            "GPU that runs it",
            mend="run repo-builder in NVIDIA's TensorRT or Triton container, or pip install tensorrt, or name a Python "
            f"that has it with {VARIABLE}; `repo-builder inspect --tensorrt model.onnx` checks a graph without a GPU",
        )
    if found.gpu is None:
        raise TensorRTMissingError(
            f"{found.called} is installed, and this machine shows no GPU to it",
            expected="the GPU that will serve the plan, with its driver",
            mend="start the container with --gpus all, or check nvidia-smi; `repo-builder inspect --tensorrt "
            "model.onnx` checks a graph without a GPU",
        )
    return found


def parser(progress: Progress | None = None) -> Installation:
    """A TensorRT whose parser answers here: one with a GPU, else this Python's tensorrt_rtx, else the toolchain's.

    Raises:
        ToolchainError: the toolchain's environment cannot be made.
        TensorRTMissingError: as :func:`find`.
    """
    found = find()
    if found is not None and found.gpu is not None:
        return found
    here = _ask(Path(sys.executable), "tensorrt_rtx")
    if isinstance(here, Installation):
        return here
    try:
        python = toolchain.ensure("tensorrt-rtx", RTX_REQUIREMENTS, progress=progress)
    except ToolchainError as error:
        raise ToolchainError(
            f"checking a graph without TensorRT and a GPU needs TensorRT-RTX: {error.found}",
            expected=error.expected,
            mend=f"{error.mend}; or run this where TensorRT and a GPU are",
        ) from error
    made = _ask(python, "tensorrt_rtx")
    if isinstance(made, str):
        raise ToolchainError(
            f"TensorRT-RTX was installed in {python.parent.parent}, and does not import there: {made}",
            expected="an x86-64 Linux with glibc 2.28 or newer",
        )
    return made


@functools.lru_cache(maxsize=8)
def _ask(python: Path, module: str) -> Installation | str:
    """The installation of a Python, or why it has none; a Python is asked once."""
    if python == Path(sys.executable) and not _may_import(module):
        return f"TensorRT is not installed here (no Python module {module})"
    try:
        answer = calls.run(python, "probe.py", {"module": module})
    except TensorRTError as error:
        return error.found
    return Installation(python, answer["module"], answer["version"], _gpu(answer["gpu"]))


def _may_import(module: str) -> bool:
    found = (importlib.util.find_spec(name) for name in (module, f"{module}_bindings"))
    return any(spec is not None and spec.origin for spec in found)  # a bare folder of that name has no origin


def _gpu(told: dict[str, Any] | None) -> Gpu | None:
    if told is None:
        return None
    return Gpu(told["name"], told["compute_capability"], told["driver"], int(told["memory_bytes"]))
