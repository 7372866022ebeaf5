"""The worker's side of a framework session: one JSON request per line in, one JSON answer per line out.

A worker is a script of its framework's own Python; it has the standard library, numpy and the framework. It offers
four functions, maybe a fifth, and ends with ``loop.main(open_model, describe, convert, run)``:

- ``open_model(source, kind, options) -> state``: loads the model once.
- ``describe(state) -> {"inputs": [{"name", "dtype", "shape"}], "outputs": [...], "versions": {...}, "notes": [...]}``:
  dtypes are Triton's names (``FP32``), a dynamic axis is a string, tensors stand in the framework's order.
- ``convert(state, onnx, opset) -> {"notes": [...]}``: writes a file whose inputs and outputs stand in that order.
- ``run(state, arrays) -> arrays``: the framework's own answers, by position.
- ``examples(state) -> cases``, each arrays by position: where the model itself tells which inputs try it, such as the
  thresholds of trees. The converted file is compared on these alone, and the proof takes its rows from them.

Requests (``do``): ``open`` (source, kind, options; answers with what describe gives), ``convert`` (onnx, opset),
``run`` (inputs, outputs: paths of ``.npz`` files with the arrays ``0``, ``1``, ...; strings as numpy's ``U``) and
``examples`` (outputs: such a file for all cases one after another; answers with their number).
Answers: ``{"done": ...}``, ``{"refused": {found, expected, mend, error}}`` or ``{"failed": message}``.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np


class Refused(Exception):
    """The model cannot be carried; the message is for the user.

    ``error`` names a class of ``repo_builder.errors`` (default: ConversionError).
    """

    def __init__(self, found: str, expected: str = "", mend: str = "", error: str = "ConversionError") -> None:
        super().__init__(found)
        self.told = {"found": found, "expected": expected, "mend": mend, "error": error}


def main(
    open_model: Callable[[str, str, dict[str, Any]], Any],
    describe: Callable[[Any], dict[str, Any]],
    convert: Callable[[Any, str, int], dict[str, Any]],
    run: Callable[[Any, list[Any]], list[Any]],
    examples: Callable[[Any], list[list[Any]]] = lambda _state: [],
) -> None:
    """Answer requests until the pipe ends; what anything prints meanwhile goes to the log, never into an answer."""
    requests, answers = os.fdopen(os.dup(0), "r", encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    state: Any = None
    for line in requests:
        request = json.loads(line)
        try:
            if request["do"] == "open":
                state = open_model(request["source"], request["kind"], request["options"])
                answer = {"done": describe(state)}
            elif request["do"] == "convert":
                answer = {"done": convert(state, request["onnx"], request["opset"])}
            elif request["do"] == "examples":
                cases = examples(state)
                _write(request["outputs"], [array for case in cases for array in case])
                answer = {"done": {"cases": len(cases)}}
            else:
                _write(request["outputs"], run(state, _read(request["inputs"])))
                answer = {"done": {}}
        except Refused as refused:
            answer = {"refused": refused.told}
        except Exception as error:  # noqa: BLE001  a framework may raise anything; its words reach the user
            traceback.print_exc()
            said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            answer = {"failed": (type(error).__name__ + ": " + said).rstrip(": ")[:1000]}
        sys.stdout.flush()
        sys.stderr.flush()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _read(path: str) -> list[Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return [arrays[str(place)] for place in range(len(arrays.files))]


def _write(path: str, arrays: list[Any]) -> None:
    np.savez(path, **{str(place): _plain(array) for place, array in enumerate(arrays)})


def _plain(array: Any) -> Any:
    array = np.asarray(array)
    if array.dtype != object:
        return array
    texts = [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in array.reshape(-1)]
    return np.array(texts, dtype=str).reshape(array.shape)
