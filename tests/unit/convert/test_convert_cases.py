"""The inputs that a converted file is compared on, and the sources that cannot be compared with."""

from __future__ import annotations

import numpy as np
import pytest

from repo_builder.convert.cases import cases
from repo_builder.errors import ConversionError
from repo_builder.tensors import TensorSpec

X = TensorSpec("x", "FP32", ("batch", "length"))
N = TensorSpec("n", "INT64", ())
IDS = TensorSpec("ids", "INT64", ("batch", "length"))


def example(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_every_symbolic_dim_takes_several_sizes_and_one():
    found = cases([X], {"x": example(1, 4)}, lambda a: [a["x"].sum(1)])
    batches, lengths = ({c.sizes[d] for c in found} for d in ("batch", "length"))
    for sizes in (batches, lengths):
        assert 1 in sizes
        assert len(sizes) >= 3
    assert all(c.inputs["x"].shape == (c.sizes["batch"], c.sizes["length"]) for c in found)
    assert all(c.outputs[0].shape == (c.sizes["batch"],) for c in found)


def test_both_signs_of_a_sum_are_tried():
    sums = [c.inputs["x"].sum() for c in cases([X], {"x": example(2, 3)}, lambda a: [a["x"]])]
    assert min(sums) < 0 < max(sums)


def test_a_count_takes_several_values_from_zero():
    found = cases([X, N], {"x": example(1, 4), "n": np.array(3)}, lambda a: [a["x"] * a["n"]])
    assert len({int(c.inputs["n"]) for c in found}) >= 4


def test_integers_stay_in_the_range_of_the_examples_and_a_mask_of_ones_gets_zeros():
    mask = TensorSpec("mask", "INT64", ("batch", "length"))
    examples = {"ids": np.array([[5, 90, 7]]), "mask": np.ones((1, 3), dtype=np.int64)}
    table = np.zeros(91, dtype=np.float32)
    found = cases([IDS, mask], examples, lambda a: [table[a["ids"]] * a["mask"]])
    assert max(c.inputs["ids"].max() for c in found) <= 90
    assert any((c.inputs["mask"] == 0).any() for c in found)
    assert all((c.inputs["mask"][:, 0] == 1).all() for c in found if c.sizes["length"] > 1)


def test_what_the_source_refuses_is_left_out():
    def source(a):
        if a["x"].shape[1] > 4:
            raise ValueError("too long")
        return [a["x"]]

    found = cases([X], {"x": example(2, 4)}, source)
    assert {c.sizes["length"] for c in found} == {1, 2, 4}


def test_a_dim_that_the_source_takes_in_one_size_only():
    def source(a):
        return [a["x"].reshape(2, 4)]

    with pytest.raises(ConversionError) as caught:
        cases([X], {"x": example(2, 4)}, source)
    assert "dim 'batch' is declared dynamic, but the source model takes only the size 2" in str(caught.value)
    assert "to mend it: declare the fixed size 2 instead of 'batch'" in str(caught.value)
    assert len(cases([X], {"x": example(2, 4)}, source, all_dims=False)) >= 4


def test_a_source_that_answers_differently_each_time():
    random = np.random.default_rng(0)
    with pytest.raises(ConversionError, match="answers differently when the same inputs are sent twice"):
        cases([X], {"x": example(2, 4)}, lambda a: [a["x"] + random.random()])


def test_a_source_that_fails_on_its_examples():
    with pytest.raises(ConversionError, match=r"fails on its own example inputs \(KeyError: 'y'\)"):
        cases([X], {"x": example(2, 4)}, lambda a: [a["y"]])


def test_examples_that_give_one_dim_two_sizes():
    y = TensorSpec("y", "FP32", ("batch",))
    with pytest.raises(ConversionError, match=r"give dim 'batch' two sizes, 2 and 3 \(input 'y'\)"):
        cases([X, y], {"x": example(2, 4), "y": example(3)}, lambda a: [a["x"]])


def test_the_same_examples_give_the_same_cases():
    first, second = (cases([X], {"x": example(1, 4)}, lambda a: [a["x"]]) for _ in range(2))
    assert all(np.array_equal(a.inputs["x"], b.inputs["x"]) for a, b in zip(first, second, strict=True))


def test_sizes_that_go_by_steps_are_doubled():
    image = TensorSpec("image", "FP32", ("batch", "height", "width"))

    def source(a):
        if a["image"].shape[1] % 8 or a["image"].shape[2] % 8:
            raise ValueError("not a multiple of 8")
        return [a["image"]]

    found = cases([image], {"image": example(1, 16, 16)}, source)
    assert {"batch": 2, "height": 16, "width": 32} in [c.sizes for c in found]
    assert {c.sizes["height"] for c in found} == {16, 32}
