"""Optimization profiles from ranges of named axes: complete shapes, defaults, gaps, and what is refused."""

from __future__ import annotations

import pytest

from repo_builder.convert.profiles import profiles
from repo_builder.errors import SignatureError, SpecError
from repo_builder.spec import AxisRange
from repo_builder.tensors import TensorSpec

TOKENS = (
    TensorSpec("input_ids", "INT32", ("batch", "sequence")),
    TensorSpec("attention_mask", "INT32", ("batch", "sequence")),
)
IMAGE = (TensorSpec("x", "FP32", ("batch", 3, "height", 224)),)


def span(low: int, opt: int, high: int) -> AxisRange:
    return AxisRange(min=low, opt=opt, max=high)


def test_one_profile_takes_every_batch_up_to_max_batch_size_and_is_optimized_for_the_largest() -> None:
    made = profiles(TOKENS, {"sequence": span(1, 64, 256)}, (), 32, "batch", {})
    shape = {"min": [1, 1], "opt": [32, 64], "max": [32, 256]}
    assert made == [{"input_ids": shape, "attention_mask": shape}]


def test_static_sizes_stay_and_static_inputs_need_no_profile() -> None:
    inputs = (*IMAGE, TensorSpec("scale", "FP32", (1,)))
    made = profiles(inputs, {"height": span(32, 224, 512)}, (), 8, "batch", {})
    assert made == [{"x": {"min": [1, 3, 32, 224], "opt": [8, 3, 224, 224], "max": [8, 3, 512, 224]}}]
    assert profiles((TensorSpec("x", "FP32", (1, 3)),), {}, (), 0, None, {}) == []


def test_a_known_default_serves_where_the_spec_has_no_range_and_the_spec_wins() -> None:
    tokenizer = {"sequence": span(1, 128, 512)}
    assert profiles(TOKENS, {}, (), 4, "batch", tokenizer)[0]["input_ids"]["max"] == [4, 512]
    asked = profiles(TOKENS, {"sequence": span(1, 8, 16), "batch": span(1, 2, 4)}, (), 4, "batch", tokenizer)
    assert asked[0]["input_ids"] == {"min": [1, 1], "opt": [2, 8], "max": [4, 16]}


def test_an_axis_without_a_range_is_named_with_how_to_give_one() -> None:
    with pytest.raises(SpecError) as caught:
        profiles(IMAGE, {}, (), 8, "batch", {})
    assert "the dynamic axis 'height' of x FP32[batch, 3, height, 224] has no range" in caught.value.found
    assert "shapes: {height: {min: 1, opt: 8, max: 16}}" in caught.value.mend


def test_a_batch_axis_that_triton_does_not_batch_needs_a_range_like_any_other() -> None:
    with pytest.raises(SpecError, match="dynamic axis 'batch' of input_ids"):
        profiles(TOKENS, {"sequence": span(1, 8, 16)}, (), 0, "batch", {})


def test_buckets_are_laid_over_the_ranges() -> None:
    buckets = ({"sequence": span(1, 64, 64)}, {"sequence": span(65, 256, 256)})
    short, long = profiles(TOKENS, {"batch": span(1, 8, 32)}, buckets, 32, "batch", {})
    assert short["input_ids"] == {"min": [1, 1], "opt": [8, 64], "max": [32, 64]}
    assert long["input_ids"] == {"min": [1, 65], "opt": [8, 256], "max": [32, 256]}


def test_buckets_may_overlap() -> None:
    buckets = ({"batch": span(1, 1, 1)}, {"batch": span(1, 32, 32)})
    one, many = profiles(TOKENS, {"sequence": span(1, 64, 128)}, buckets, 32, "batch", {})
    assert (one["input_ids"]["max"], many["input_ids"]["max"]) == ([1, 128], [32, 128])


@pytest.mark.parametrize(
    ("buckets", "gap"),
    [
        ([{"sequence": span(1, 8, 64)}, {"sequence": span(100, 128, 256)}], "batch 1..8 with sequence 65..99"),
        (
            [{"sequence": span(1, 8, 64)}, {"sequence": span(65, 99, 256), "batch": span(1, 4, 4)}],
            "batch 5..8 with sequence 65..256",
        ),
        ([{"sequence": span(1, 8, 64)}], "batch 1..8 with sequence 65..256"),
        ([{"batch": span(2, 4, 8)}], "batch 1 with sequence 1..256"),
        ([{"batch": span(1, 4, 4)}], "batch 5..8 with sequence 1..256"),
    ],
)
def test_gaps_between_profiles_are_refused(buckets: list[dict[str, AxisRange]], gap: str) -> None:
    with pytest.raises(SpecError) as caught:
        profiles(TOKENS, {"sequence": span(1, 64, 256)}, buckets, 8, "batch", {})
    assert f"no optimization profile takes {gap};" in caught.value.found
    assert "batch 1..8 (max_batch_size 8)" in caught.value.expected
    assert "batching.max_batch_size" in caught.value.mend


def test_batches_that_a_bucket_does_not_take_with_long_rows_are_refused_until_max_batch_size_is_lowered() -> None:
    buckets = ({"sequence": span(1, 64, 64)}, {"sequence": span(65, 256, 256), "batch": span(1, 4, 4)})
    with pytest.raises(SpecError, match=r"takes batch 5\.\.32 with sequence 65\.\.256"):
        profiles(TOKENS, {}, buckets, 32, "batch", {})
    assert len(profiles(TOKENS, {}, buckets, 4, "batch", {})) == 2


def test_a_bucket_outside_of_the_range_and_a_bucket_said_twice_are_refused() -> None:
    buckets = ({"sequence": span(1, 8, 64)}, {"sequence": span(65, 80, 512)})
    with pytest.raises(SpecError, match=r"profile 1 takes sequence 65\.\.512, shapes says 1\.\.256") as caught:
        profiles(TOKENS, {"sequence": span(1, 64, 256)}, buckets, 8, "batch", {})
    assert "shapes.sequence" in caught.value.mend
    with pytest.raises(SpecError, match=r"profiles 0 and 1 are the same \(batch 1\.\.8, sequence 1\.\.9\)"):
        profiles(TOKENS, {}, ({"sequence": span(1, 8, 9)}, {"sequence": span(1, 8, 9)}), 8, "batch", {})


def test_unknown_axes_are_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError) as caught:
        profiles(TOKENS, {"sequence": span(1, 8, 9)}, ({"sequense": span(1, 8, 9)},), 8, "batch", {})
    assert "tensorrt.profiles[0]: the model has no dynamic axis 'sequense' (did you mean 'sequence'?)" in str(caught)
    with pytest.raises(SpecError, match="none: every size is static: x FP32"):
        profiles((TensorSpec("x", "FP32", (1, 3)),), {"batch": span(1, 8, 9)}, (), 0, None, {})


def test_shape_tensors_have_ranges_of_their_values() -> None:
    inputs = (TensorSpec("x", "FP32", (1, 3, "height")), TensorSpec("size", "INT64", (2,)))
    ranges = {"height": span(8, 16, 32), "size": span(4, 8, 16), "size[1]": span(1, 1, 1)}
    assert profiles(inputs, ranges, (), 0, None, {}, shape_tensors={"size"}) == [
        {
            "x": {"min": [1, 3, 8], "opt": [1, 3, 16], "max": [1, 3, 32]},
            "values": {"size": {"min": [4, 1], "opt": [8, 1], "max": [16, 1]}},
        }
    ]
    scalar = profiles((TensorSpec("k", "INT64", ()),), {"k": span(1, 5, 10)}, (), 0, None, {}, shape_tensors={"k"})
    assert scalar == [{"values": {"k": {"min": [1], "opt": [5], "max": [10]}}}]
    with pytest.raises(SpecError, match=r"the value 'size\[0\]' of size INT64\[2\] has no range"):
        profiles(inputs, {"height": span(8, 16, 32)}, (), 0, None, {}, shape_tensors={"size"})
    with pytest.raises(SignatureError, match="decides shapes by its values"):
        profiles((TensorSpec("s", "INT64", ("n",)),), {}, (), 0, None, {}, shape_tensors={"s"})
