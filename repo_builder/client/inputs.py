"""What a caller passes, made into the array that the model declares: only where nothing is lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from repo_builder.client.wire import Array
from repo_builder.errors import InferenceError, nearest
from repo_builder.tensors import TensorSpec


def match_inputs(specs: tuple[TensorSpec, ...], values: Mapping[str, Any], model: str) -> dict[str, Array]:
    """Every value as an array of its input's dtype and shape.

    Raises:
        InferenceError: an unknown input, or a value that does not fit; names the input, what the model declares, what
            was found and what mends it.
    """
    by_name = {spec.name: spec for spec in specs}
    for name in values:
        if name not in by_name:
            raise InferenceError(
                f"the model has no input '{name}'{nearest(name, list(by_name))}",
                expected="inputs " + ", ".join(str(spec) for spec in specs),
                model=model,
            )
    try:
        return {name: match_input(by_name[name], value) for name, value in values.items()}
    except InferenceError as error:
        raise error.at(model=model) from error.__cause__


def match_input(spec: TensorSpec, value: Any) -> Array:
    """``value`` as an array for ``spec``: float32 for BF16, object for BYTES."""
    array = _text_array(spec, value) if spec.dtype == "BYTES" else _number_array(spec, value)
    if not _fits(array.shape, spec.shape):
        raise _mismatch(
            spec,
            f"shape {list(array.shape)}",
            "add the missing axes with array[None]" if array.ndim < len(spec.shape) else "reshape the array",
        )
    return array


def _fits(shape: tuple[int, ...], declared: tuple[int | str, ...]) -> bool:
    return len(shape) == len(declared) and all(
        isinstance(d, str) or d == n for n, d in zip(shape, declared, strict=True)
    )


def _text_array(spec: TensorSpec, value: Any) -> Array:
    array = np.asarray([value] if isinstance(value, (str, bytes)) else value, dtype=object)
    if array.ndim == 1 and len(spec.shape) > 1:
        return array.reshape(_spread(len(array), spec.shape))
    return array


def _spread(count: int, declared: tuple[int | str, ...]) -> tuple[int, ...]:
    """The shape that puts a flat list on the first axis that can hold it, with 1 on all others."""
    axis = next((i for i, d in enumerate(declared) if isinstance(d, str) or d == count), 0)
    return tuple(count if i == axis else 1 for i in range(len(declared)))


def _number_array(spec: TensorSpec, value: Any) -> Array:
    literal = not isinstance(value, (np.ndarray, np.generic))
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise _mismatch(spec, f"a ragged list ({error})", "pad the rows to one length") from error
    if array.dtype.name == "bfloat16":  # ml_dtypes, where it is installed
        array = array.astype(np.float32)
    if array.dtype.kind not in "biuf":
        raise _mismatch(spec, f"values of {_kind_name(array)}", "pass numbers, or choose another input")
    wanted = np.dtype(np.float32 if spec.dtype == "BF16" else spec.numpy)
    if literal and wanted.kind == "f" and array.dtype.kind == "f":
        return _round_literals(spec, array, wanted)
    if literal and array.size == 0:
        return array.astype(wanted)
    if not _lossless(array, wanted):
        raise _mismatch(
            spec,
            f"{array.dtype.name} values that {wanted.name} cannot hold exactly",
            f"convert it yourself, e.g. array.astype(np.{wanted.name}), if the loss is meant",
        )
    return array.astype(wanted, copy=False)


def _round_literals(spec: TensorSpec, array: Array, wanted: np.dtype[Any]) -> Array:
    """Python floats are decimal literals without a width: they take the nearest value; overflow is refused."""
    with np.errstate(over="ignore"):
        rounded = array.astype(wanted)
    if np.isinf(rounded).sum() != np.isinf(array).sum():
        raise _mismatch(spec, f"floats beyond the range of {wanted.name}", "scale the values")
    return rounded


def _lossless(array: Array, wanted: np.dtype[Any]) -> bool:
    """Whether every value of ``array`` is held exactly by ``wanted``; decided by the values, not by the dtypes."""
    if array.size == 0 or array.dtype == wanted or array.dtype.kind == "b":
        return True
    if wanted.kind == "b":
        return bool(((array == 0) | (array == 1)).all())
    if array.dtype.kind == "f":
        return _lossless_from_float(array, wanted)
    low, high = int(array.min()), int(array.max())
    if wanted.kind == "f":
        exact = 2 ** (np.finfo(wanted).nmant + 1)
        return bool(-exact <= low and high <= exact)
    limits = np.iinfo(wanted)
    return limits.min <= low and high <= limits.max


def _lossless_from_float(array: Array, wanted: np.dtype[Any]) -> bool:
    if wanted.kind == "f":
        with np.errstate(over="ignore"):
            return bool(np.array_equal(array.astype(wanted).astype(array.dtype), array, equal_nan=True))
    if not (np.isfinite(array).all() and (array == np.trunc(array)).all()):
        return False
    limits = np.iinfo(wanted)
    return bool(limits.min <= int(array.min()) and int(array.max()) <= limits.max)


def _kind_name(array: Array) -> str:
    return "text" if array.dtype.kind in "USO" else array.dtype.name


def _mismatch(spec: TensorSpec, found: str, mend: str) -> InferenceError:
    return InferenceError(f"input '{spec.name}' was given {found}", expected=str(spec), mend=mend)
