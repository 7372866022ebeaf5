"""Free axes get names by running the model: small functions of numpy stand for models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from repo_builder.errors import SignatureError
from repo_builder.formats.framework_axes import named
from repo_builder.tensors import TensorSpec

Arrays = Mapping[str, "np.ndarray[Any, Any]"]


def told(*specs: TensorSpec) -> list[str]:
    return [str(spec) for spec in specs]


def pair(arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
    if arrays["ids"].shape != arrays["mask"].shape:
        raise SignatureError("shapes do not match")
    return {"states": arrays["ids"][..., None] * arrays["mask"][..., None], "last": arrays["ids"][:, -1:]}


IDS, MASK = (TensorSpec(name, "FP32", ("batch", f"{name}_dim1")) for name in ("ids", "mask"))


def test_axes_that_only_go_together_bear_one_name_and_outputs_follow() -> None:
    outputs = (TensorSpec("states", "FP32", ("batch", "states_dim1", 1)), TensorSpec("last", "FP32", ("batch", 1)))
    inputs, outputs = named((IDS, MASK), outputs, pair)
    assert told(*inputs) == ["ids FP32[batch, dim1]", "mask FP32[batch, dim1]"]
    assert told(*outputs) == ["states FP32[batch, dim1, 1]", "last FP32[batch, 1]"]


def test_axes_that_are_free_of_each_other_stay_so() -> None:
    def both(arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        return {"y": arrays["ids"][:, :, None] * arrays["mask"][:, None, :], "twice": np.tile(arrays["ids"], 2)}

    outputs = (TensorSpec("y", "FP32", ("batch", "a", "b")), TensorSpec("twice", "FP32", ("batch", "twice_dim1")))
    inputs, outputs = named((IDS, MASK), outputs, both)
    assert told(*inputs) == ["ids FP32[batch, ids_dim1]", "mask FP32[batch, mask_dim1]"]
    assert told(*outputs) == ["y FP32[batch, ids_dim1, mask_dim1]", "twice FP32[batch, twice_dim1]"]


def test_an_output_that_is_said_to_follow_the_batch_and_does_not() -> None:
    x = TensorSpec("x", "FP32", ("batch", 4))
    y = TensorSpec("y", "FP32", ("batch", 2))
    _, outputs = named((x,), (y,), lambda arrays: {"y": arrays["x"].reshape(-1, 2)})
    assert told(*outputs) == ["y FP32[y_dim0, 2]"]


def test_an_axis_that_grows_in_steps() -> None:
    def pooled(arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        if arrays["x"].shape[1] % 16:
            raise SignatureError("not a multiple of 16")
        return {"y": arrays["x"]}

    x, y = (TensorSpec(name, "FP32", ("batch", f"{name}_dim1")) for name in "xy")
    assert told(*named((x,), (y,), pooled)[1]) == ["y FP32[batch, x_dim1]"]


@pytest.mark.parametrize("shape", [("batch", "n"), (2, 3)])
def test_a_model_that_takes_nothing_or_is_static_stays_as_it_is(shape: tuple[int | str, ...]) -> None:
    def refuses(arrays: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        raise SignatureError("no")

    x = TensorSpec("x", "FP32", shape)
    assert named((x,), (x,), refuses) == ((x,), (x,))
