"""A cache among a model's tensors: which sizes follow from others, and how many layers are told as one."""

from __future__ import annotations

import numpy as np
import pytest

from repo_builder.convert.cases import cases
from repo_builder.formats import kv_cache
from repo_builder.formats.examples import example_inputs
from repo_builder.tensors import TensorSpec

IDS = TensorSpec("input_ids", "INT64", ("batch", "sequence"))
MASK = TensorSpec("attention_mask", "INT64", ("batch", "total"))


def cache(side: str, length: str, layers: range, *, width: int = 8) -> list[TensorSpec]:
    return [
        TensorSpec(f"{side}.{layer}.{part}", "FP32", ("batch", 2, length, width))
        for layer in layers
        for part in ("key", "value")
    ]


def test_the_mask_is_as_long_as_past_and_new_tokens_together():
    specs = [IDS, MASK, *cache("past_key_values", "past", range(2))]
    assert kv_cache.past_axes(specs) == ("past",)
    assert kv_cache.sums(specs) == {"total": ("past", "sequence")}
    made = example_inputs(specs, {"batch": 2, "sequence": 4, "past": 0, "total": 99})
    assert made["attention_mask"].shape == (2, 4)
    assert made["past_key_values.1.value"].shape == (2, 2, 0, 8)


def test_axes_that_an_exporter_left_unnamed_fit_each_other():
    """As PyTorch's exporter writes them: a symbol of its own for each tensor."""
    specs = [
        TensorSpec("input_ids", "INT64", ("input_ids_dim0", 1)),
        TensorSpec("attention_mask", "INT64", ("attention_mask_dim0", "attention_mask_dim1")),
        TensorSpec("position_ids", "INT64", ("position_ids_dim0", "position_ids_dim1")),
        *(TensorSpec(f"past_{n}", "FP32", ("batch", 2, f"past_{n}_dim2", 8)) for n in range(3)),
    ]
    sizes = kv_cache.fitted(specs, {"past_0_dim2": 5, "past_1_dim2": 7})
    assert {sizes[f"past_{n}_dim2"] for n in range(3)} == {5}
    assert sizes["attention_mask_dim1"] == 6
    assert sizes["position_ids_dim1"] == 1


@pytest.mark.parametrize(
    "specs",
    [
        pytest.param([IDS, MASK], id="an encoder"),
        pytest.param([TensorSpec("past_1", "FP32", ("batch", 3, "length", "width"))], id="no ids"),
        pytest.param([IDS, MASK, TensorSpec("past_1", "FP32", ("batch", "length"))], id="no heads"),
    ],
)
def test_other_models_have_no_cache(specs: list[TensorSpec]):
    assert kv_cache.sums(specs) == {}
    assert kv_cache.fitted(specs, {"total": 4}) == {"total": 4}


def test_cases_of_a_cache_fit_and_one_is_empty():
    specs = [IDS, MASK, *cache("past_key_values", "past", range(1))]

    def source(arrays):
        past, tokens = arrays["past_key_values.0.key"].shape[2], arrays["input_ids"].shape[1]
        if arrays["attention_mask"].shape[1] != past + tokens:
            raise ValueError("the mask does not fit")
        return [arrays["input_ids"] + past]

    found = cases(specs, example_inputs(specs, {"batch": 2, "sequence": 7, "past": 4}), source)
    assert {case.sizes["past"] for case in found} > {0, 1, 4}
    assert {case.sizes["sequence"] for case in found} > {1, 7}
    assert all(case.sizes["total"] == case.sizes["past"] + case.sizes["sequence"] for case in found)


def test_layers_are_told_as_one():
    specs = [IDS, *cache("past_key_values", "past", range(12))]
    told = kv_cache.grouped(specs)
    assert [str(spec) for spec in told] == [str(IDS), "past_key_values.0..11.key/value FP32[batch, 2, past, 8]"]
    assert [spec.name for spec in kv_cache.grouped(cache("present", "total", range(3)))] == ["present.0..2.key/value"]


def test_layers_that_differ_are_told_each():
    wider = [*cache("past", "past", range(1)), *cache("past", "past", range(1, 2), width=16)]
    assert kv_cache.grouped(wider) == tuple(wider)
    gap = [*cache("past", "past", range(1)), *cache("past", "past", range(2, 3))]
    assert kv_cache.grouped(gap) == tuple(gap)
    lame = cache("past", "past", range(2))[:3]
    assert kv_cache.grouped(lame) == tuple(lame)
    others = [TensorSpec(f"output_{n}", "FP32", ("batch",)) for n in range(3)]
    assert kv_cache.grouped(others) == tuple(others)


def test_keys_and_values_of_two_widths_are_two():
    specs = [
        TensorSpec(f"past_key_values.{n}.{part}", "FP32", ("batch", 2, f"past_key_values.{n}.{part}_dim2", width))
        for n in range(2)
        for part, width in (("key", 8), ("value", 4))
    ]
    assert [spec.name for spec in kv_cache.grouped(specs)] == [
        "past_key_values.0..1.key",
        "past_key_values.0..1.value",
    ]
    assert np.prod(example_inputs(specs)["past_key_values.0.key"].shape) == 3 * 2 * 3 * 8
