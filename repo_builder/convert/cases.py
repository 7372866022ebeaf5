"""Cases: inputs on which a converted file must answer as its source did."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from repo_builder.errors import ConversionError
from repo_builder.formats import kv_cache
from repo_builder.tensors import TensorSpec

Arrays = dict[str, "np.ndarray[Any, Any]"]
Source = Callable[[Mapping[str, "np.ndarray[Any, Any]"]], Sequence["np.ndarray[Any, Any]"]]
PATTERNS = ("spread", "positive", "negative", "wide")


@dataclass(frozen=True)
class CheckedCase:
    """One set of inputs, the size of every symbolic dim in it, and the source's flattened outputs."""

    sizes: Mapping[str, int]
    inputs: Arrays
    outputs: tuple[np.ndarray[Any, Any], ...]


def cases(
    specs: Sequence[TensorSpec], examples: Mapping[str, np.ndarray[Any, Any]], source: Source, *, all_dims: bool = True
) -> list[CheckedCase]:
    """Cases with at least two sizes of every symbolic dim, several value patterns each, and the examples themselves.

    The values keep to what the examples show: integers stay within their range (token ids, masks), floats keep their
    mean and deviation, then all positive and all negative, so that a branch on a sum or a sign goes both ways. Inputs
    that the source itself refuses are left out. A cache of past tokens is also empty once.

    Args:
        specs: the inputs.
        examples: one array per input.
        source: the outputs, flattened, for named inputs; it raises on inputs that it does not take.
        all_dims: every symbolic dim must take two sizes.

    Raises:
        ConversionError: the source fails on its examples, answers differently when asked twice, or takes only one size
            of a dim that is declared dynamic.
    """
    first = _asked_twice(source, examples)
    base = _sizes(specs, examples)
    found = [CheckedCase(base, dict(examples), first)]
    distinct = next((sizes for sizes in _ladder(base) if _extend(found, specs, examples, source, sizes)), base)
    other = dict(distinct)
    following = kv_cache.sums(specs)
    for name in kv_cache.past_axes(specs)[:1]:
        _extend(found, specs, examples, source, {**distinct, name: 0}, 1)
    for name, size in distinct.items():
        if name in following:
            continue
        tried = [n for n in dict.fromkeys((size + 1, 2 * size, size // 2)) if n > 1]
        accepted = next((n for n in tried if _extend(found, specs, examples, source, {**distinct, name: n}, 1)), None)
        one = size != 1 and _extend(found, specs, examples, source, {**distinct, name: 1}, 1)
        if all_dims and accepted is None and not one and size == base[name]:
            raise ConversionError(
                f"dim '{name}' is declared dynamic, but the source model takes only the size {base[name]}",
                expected=f"a model that takes several sizes of '{name}'",
                mend=f"declare the fixed size {base[name]} instead of '{name}', or one name for dims that are equal",
            )
        other[name] = accepted or (1 if one else size)
    if len(distinct) > 1:
        _extend(found, specs, examples, source, other)
    return found


def arrays(
    specs: Sequence[TensorSpec],
    examples: Mapping[str, np.ndarray[Any, Any]],
    sizes: Mapping[str, int],
    pattern: str,
    seed: int,
) -> Arrays:
    """Inputs of the given sizes with values like the examples', in one of ``PATTERNS``."""
    rng = np.random.default_rng(seed)
    made: Arrays = {}
    for spec in specs:
        shape = tuple(dim if isinstance(dim, int) else sizes[dim] for dim in spec.shape)
        example = examples[spec.name]
        kind = example.dtype.kind
        if kind == "b":
            made[spec.name] = rng.random(shape) < {"positive": 1.1, "negative": 0.0}.get(pattern, 0.5)
        elif kind in "iu":
            made[spec.name] = _integers(example, shape, pattern, rng)
        elif kind == "f":
            made[spec.name] = _floats(example, shape, pattern, rng)
        else:
            made[spec.name] = rng.choice(example.reshape(-1), size=shape)
    return made


def _integers(example: np.ndarray[Any, Any], shape: tuple[int, ...], pattern: str, rng: Any) -> np.ndarray[Any, Any]:
    """Values in the example's range; ``wide`` opens it to 0 and 1, and a scalar (a count, say) goes to its double."""
    low, high = (int(example.min()), int(example.max())) if example.size else (0, 1)
    if not shape and pattern != "spread":
        low, high = min(low, 0), 2 * max(high, 1)
    elif pattern == "wide":
        low = min(low, 0)
    top = max(high, 1) if pattern == "wide" else high
    made = np.asarray(rng.integers(low, top + 1, size=shape), dtype=example.dtype)
    if pattern == "wide" and shape and shape[-1] > 1:
        made[..., 0] = high
    return made


def _floats(example: np.ndarray[Any, Any], shape: tuple[int, ...], pattern: str, rng: Any) -> np.ndarray[Any, Any]:
    wide = example.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    mean, deviation = (finite.mean(), finite.std() or 1.0) if finite.size else (0.0, 1.0)
    made = rng.standard_normal(shape) * deviation
    made = {"spread": made + mean, "positive": np.abs(made), "negative": -np.abs(made), "wide": 3 * made}[pattern]
    return np.asarray(made, dtype=example.dtype)


def _extend(
    found: list[CheckedCase],
    specs: Sequence[TensorSpec],
    examples: Mapping[str, np.ndarray[Any, Any]],
    source: Source,
    sizes: Mapping[str, int],
    patterns: int = len(PATTERNS),
) -> bool:
    """Append the first ``patterns`` that the source takes at these sizes; False where it takes none."""
    before = len(found)
    sizes = kv_cache.fitted(specs, sizes)
    for pattern in PATTERNS[:patterns]:
        made = arrays(specs, examples, sizes, pattern, seed=len(found))
        outputs = _try(source, made)
        if outputs is not None:
            found.append(CheckedCase(sizes, made, outputs))
    return len(found) > before


def _try(source: Source, inputs: Mapping[str, np.ndarray[Any, Any]]) -> tuple[np.ndarray[Any, Any], ...] | None:
    try:
        return tuple(source(inputs))
    except Exception:  # noqa: BLE001  a model's code may raise anything to refuse an input
        return None


def _asked_twice(source: Source, inputs: Mapping[str, np.ndarray[Any, Any]]) -> tuple[np.ndarray[Any, Any], ...]:
    try:
        first, again = tuple(source(inputs)), tuple(source(inputs))
    except Exception as error:
        raise ConversionError(
            f"the source model fails on its own example inputs ({type(error).__name__}: {error})",
            expected="a model that runs on the CPU with its examples",
            mend="correct the example inputs or the declared dtypes and shapes",
        ) from error
    if not all(_alike(a, b) for a, b in zip(first, again, strict=True)):
        raise ConversionError(
            "the source model answers differently when the same inputs are sent twice",
            expected="a deterministic model, so that the converted file can be compared with it",
            mend="put the model in eval mode and remove random operations",
        )
    return first


def _alike(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    if a.shape != b.shape or a.dtype.kind != "f":
        return np.array_equal(a, b)
    return np.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True)


def _sizes(specs: Sequence[TensorSpec], examples: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for spec in specs:
        for dim, size in zip(spec.shape, examples[spec.name].shape, strict=True):
            if isinstance(dim, str) and sizes.setdefault(dim, size) != size:
                raise ConversionError(
                    f"the examples give dim '{dim}' two sizes, {sizes[dim]} and {size} (input '{spec.name}')",
                    expected="one size for one name",
                    mend="give the axes different names, or examples of one size",
                )
    return sizes


def _ladder(sizes: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Sizes to compare and export with, best first: an exporter may bake a 1 and tie equal sizes together."""
    steps: tuple[Callable[[int], int], ...] = (lambda size: size + 1, lambda size: 2 * size)
    for grow in steps:
        made: dict[str, int] = {}
        for name, size in sizes.items():
            size = max(size, 2)
            while size in made.values():
                size = grow(size)
            made[name] = size
        yield made
    yield {name: max(size, 2) for name, size in sizes.items()}
    yield dict(sizes)
