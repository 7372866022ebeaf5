"""TensorRT in its guises (8.6, 10 and 11, tensorrt_rtx): import, messages, names; a script's request and answer."""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
import tempfile
from pathlib import Path

from cuda import CudaError

MODULES = ("tensorrt", "tensorrt_rtx")
# tensorrt.DataType name -> Triton's; what Triton lacks (FP8, FP4, INT4) keeps TensorRT's own.
DTYPES = {"FLOAT": "FP32", "HALF": "FP16"}
_KEPT = 400
ALIVE = []
"""What must live until the process ends: TensorRT 8.6 does not survive every order of destruction."""


class Refused(Exception):
    """A request that cannot be met, in words for the user: what was found, what was expected, what mends it."""

    def __init__(self, found, expected="", mend=""):
        super().__init__(found)
        self.found, self.expected, self.mend = found, expected, mend


def main(work):
    """Run ``work(request) -> answer`` over the JSON files that the command line names: ``script.py REQUEST ANSWER``.

    A ``Refused`` or ``CudaError`` becomes ``{"refused": {"found", "expected", "mend"}}``. Any other error ends the
    process without an answer, and its traceback stands in the log.
    """
    faulthandler.enable()  # a crash inside TensorRT leaves the line of ours that led to it in the log
    asked, answered = sys.argv[1:3]
    with open(asked, encoding="utf-8") as handle:
        request = json.load(handle)
    try:
        answer = work(request)
    except (Refused, CudaError) as error:
        answer = {"refused": {"found": error.found, "expected": error.expected, "mend": error.mend}}
    write(answered, json.dumps(answer).encode("utf-8"))
    # The answer is whole: what TensorRT does when the interpreter ends must not turn it into a failure.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def load(request):
    """The module that the request names under ``module``, else ``tensorrt``, else ``tensorrt_rtx``.

    NVIDIA's wheels are a name (``tensorrt_rtx``) over the module itself (``tensorrt_rtx_bindings``): either will do.
    """
    wanted = [request["module"]] if request.get("module") else list(MODULES)
    failures = []
    for name in wanted:
        for spelled in (name, name + "_bindings"):
            try:
                module = importlib.import_module(spelled)
            except (ImportError, OSError) as error:
                failures.append("{}: {}".format(spelled, str(error).splitlines()[0] if str(error) else "not there"))
                continue
            if hasattr(module, "Builder"):
                return module
            failures.append(f"{spelled}: it has no Builder")
    raise Refused(
        "TensorRT cannot be imported by {} ({})".format(sys.executable, "; ".join(failures)),
        "an importable tensorrt or tensorrt_rtx",
        "install TensorRT in that Python, or name another one that has it",
    )


def describe(trt):
    """``{"module", "version"}`` of the answer."""
    return {"module": "tensorrt_rtx" if is_rtx(trt) else "tensorrt", "version": trt.__version__}


def is_rtx(trt):
    return trt.__name__.startswith("tensorrt_rtx")


def lacks(trt, what, expected, mend="leave it out, or build with a version that has it"):
    """The refusal of something that this version has not got."""
    return Refused(f"{called(trt)} has no {what}", expected, mend)


def version(trt):
    """The version as numbers, ``(8, 6, 1)``."""
    return tuple(int(part) for part in trt.__version__.split(".")[:3] if part.isdigit())


def called(trt):
    """How messages name the module: ``TensorRT 8.6.1`` or ``TensorRT-RTX 1.7.1.116``."""
    return "{} {}".format("TensorRT-RTX" if is_rtx(trt) else "TensorRT", trt.__version__)


def logger(trt):
    """A logger that prints warnings and errors, and keeps them in ``kept`` as (severity, text)."""

    class Messages(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)
            self.kept = []

        def log(self, severity, text):
            name = str(severity).rsplit(".", 1)[-1]
            if name in ("INTERNAL_ERROR", "ERROR", "WARNING"):
                sys.stderr.write(f"[{name}] {text}\n")
                if len(self.kept) < _KEPT:
                    self.kept.append((name, text))

        def errors(self):
            """The errors' texts, each once, in order."""
            return list(dict.fromkeys(text for name, text in self.kept if name != "WARNING"))

        def warnings(self):
            return list(dict.fromkeys(text for name, text in self.kept if name == "WARNING"))

    return Messages()


def dtype(value):
    """Triton's name of a ``tensorrt.DataType``; FP8, FP4, INT4 keep TensorRT's."""
    name = name_of(value)
    return DTYPES.get(name, name)


def name_of(value):
    """The bare name of a pybind11 enum's member."""
    return getattr(value, "name", None) or str(value).rsplit(".", 1)[-1]


def dims(value):
    """Dims as a list of int, -1 where dynamic."""
    return [int(size) for size in value]


def load_plugins(trt, log, paths):
    """Load plugin libraries; how each was found: ``[{"path", "how": "dlopen"|"registry"}]``.

    Triton's tensorrt backend opens a plugin library with dlopen alone, so that comes first; a library whose creators
    appear only through the registry's own loader serves elsewhere, not in that backend.
    """
    if hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(log, "")
    registry = trt.get_plugin_registry() if paths else None
    return [{"path": path, "how": _load_plugin(path, registry)} for path in paths]


def _load_plugin(path, registry):
    import ctypes

    before = _creators(registry)
    try:
        ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise Refused(
            f"the plugin library {path} cannot be loaded: {error}",
            "a shared library built for this TensorRT and this machine",
            "build it against the TensorRT that builds and serves the plan",
        ) from error
    if _creators(registry) > before:
        return "dlopen"
    if hasattr(registry, "load_library") and registry.load_library(path) is not None and _creators(registry) > before:
        return "registry"
    raise Refused(
        f"{path} was loaded, but brought no plugin to TensorRT's registry",
        "a library that registers its plugin creators when it is loaded (REGISTER_TENSORRT_PLUGIN)",
        "check that it was built for this TensorRT, and that it is not named twice",
    )


def _creators(registry):
    for name in ("all_creators", "plugin_creator_list"):
        creators = getattr(registry, name, None)
        if creators is not None:
            return len(creators)
    return 0


def write(path, data):
    """Write a file whole or not at all."""
    handle, name = tempfile.mkstemp(dir=Path(path).absolute().parent)
    partial = Path(name)
    try:
        with open(handle, "wb") as out:
            out.write(data)
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        partial.unlink()
        raise
