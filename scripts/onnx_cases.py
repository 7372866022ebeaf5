"""The node cases of the package ``onnx``: what they hold, and how answers are compared with it."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np


def cases(modules: Sequence[str] = ()) -> list[Any]:
    """The node cases: ``onnx.backend.test.case.test_case.TestCase`` with its model and data sets.

    Args:
        modules: of ``onnx.backend.test.case.node``; all by default, which takes a while: importing makes the cases.
    """
    from onnx.backend.test.case import node
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings(), np.errstate(all="ignore"), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")
        for module in modules:
            importlib.import_module(f"{node.__name__}.{module}")
        found = node._NodeTestCases if modules else load_model_tests(kind="node")
    for case in found:
        case.data_sets[0] = tuple([value(one) for one in side] for side in case.data_sets[0])
    return sorted(found, key=lambda case: str(case.name))


def value(one: Any) -> Any:
    """An input or output of a case as an array; sequences and optionals stay as they are."""
    from onnx import TensorProto, numpy_helper

    if isinstance(one, TensorProto):
        return numpy_helper.to_array(one)
    return np.asarray(one) if np.isscalar(one) else one


def sample(array: Any) -> np.ndarray[Any, Any]:
    """An array as a sample file takes it: strings as such; what no file takes (sequences, FP8) becomes an empty one."""
    if not isinstance(array, np.ndarray) or array.dtype.isbuiltin == 2:
        return np.zeros(0)
    return array.astype(str) if array.dtype == object else array


def shaped(array: np.ndarray[Any, Any], output: Any) -> np.ndarray[Any, Any]:
    """An answer in the rank of the case: a scalar is served as ``[1]``."""
    scalar = not output.type.tensor_type.shape.dim and array.size == 1
    return array.reshape(()) if scalar else array


def difference(case: Any, expected: Sequence[Any], answers: Sequence[Any]) -> str:
    """The first line that ONNX's own comparison says of answers that differ; empty where they do not."""
    from onnx.backend.test.runner import Runner

    try:
        Runner.assert_similar_outputs([text(a) for a in expected], [text(a) for a in answers], case.rtol, case.atol)
    except (AssertionError, TypeError, AttributeError) as error:
        return " ".join(str(error).split())[:200] or type(error).__name__
    return ""


def text(array: Any) -> Any:
    """Strings as str, whoever gave them as bytes."""
    if not isinstance(array, np.ndarray) or array.dtype != object:
        return array
    flat = [v.decode() if isinstance(v, bytes) else v for v in array.reshape(-1)]
    return np.array([*flat, None], dtype=object)[:-1].reshape(array.shape)
