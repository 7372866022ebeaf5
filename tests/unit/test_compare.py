from __future__ import annotations

import numpy as np
import pytest

from repo_builder.compare import Errors, compare, is_exact, masked
from repo_builder.proof import DEFAULT_TOLERANCE, Tolerance

NAN, INF = float("nan"), float("inf")


def floats(*values):
    return np.array(values, dtype=np.float32)


def texts(*values):
    return np.array(values, dtype=object)


def test_equal_floats():
    found = compare(floats(1, 2), floats(1, 2), "case 0")
    assert (found.max_abs_error, found.max_rel_error, found.problem, found.where) == (0.0, 0.0, "", "case 0")
    assert found.cosine == pytest.approx(1.0, abs=1e-12)


def test_float_errors_by_every_measure():
    found = compare(floats(3, 4.5), floats(3, 4), "w")
    assert found.max_abs_error == 0.5
    assert found.max_rel_error == 0.125
    assert found.cosine == pytest.approx((9 + 18) / (np.hypot(3, 4.5) * 5), rel=1e-9)


def test_the_place_of_the_largest_error_is_told():
    source = np.array([[1, NAN, 3], [4, 5, 6]], dtype=np.float32)
    served = source + np.array([[0, 0, 0.25], [0, -0.5, 0]], dtype=np.float32)
    assert compare(served, source, "case 2 (alone)").where == "case 2 (alone) at [1, 1]"
    assert compare(np.float32(2), np.float32(1), "case 2").where == "case 2"


def test_relative_error_of_tiny_values_is_absolute():
    found = compare(floats(0.002), floats(0.001), "w")
    assert found.max_rel_error == pytest.approx(0.1, rel=1e-4)


def test_the_classes_of_a_wide_softmax_cannot_be_reversed():
    logits = np.random.default_rng(0).normal(size=50_000)
    source = (np.exp(logits) / np.exp(logits).sum()).astype(np.float32)
    assert source.max() < 0.002
    assert not compare(source[::-1], source, "w").passes(DEFAULT_TOLERANCE, exact=False)
    assert compare(source, source, "w").passes(DEFAULT_TOLERANCE, exact=False)


def test_half_precision_is_compared_in_double():
    served, source = np.array([60000.0], dtype=np.float16), np.array([-60000.0], dtype=np.float16)
    assert compare(served, source, "w").max_abs_error == 120000.0


def test_zeros():
    assert compare(floats(0, 0), floats(0, 0), "w").cosine == 1.0
    assert compare(floats(0, 1), floats(0, 0), "w").cosine == 0.0


@pytest.mark.parametrize(("served", "source"), [([NAN], [NAN]), ([INF, 1], [INF, 1]), ([-INF], [-INF])])
def test_nan_and_infinity_on_both_sides_are_equal(served, source):
    assert compare(floats(*served), floats(*source), "w") == Errors(where="w")


@pytest.mark.parametrize(
    ("served", "source"), [([NAN], [1]), ([1], [NAN]), ([INF], [-INF]), ([INF], [NAN]), ([1, NAN], [NAN, 1])]
)
def test_nan_or_infinity_on_one_side_fails_at_any_tolerance(served, source):
    found = compare(floats(*served), floats(*source), "w")
    assert found.problem == "NaN or infinity on one side only"
    assert not found.passes(Tolerance(), exact=False)


def test_shape_differs():
    found = compare(floats(1, 2), floats(1, 2).reshape(2, 1), "w")
    assert found.problem == "shape [2] served, [2, 1] in the source"
    assert not found.passes(Tolerance(max_abs_error=INF), exact=False)


def test_dtype_differs():
    assert compare(floats(1), np.array([1]), "w").problem == "dtype float32 served, int64 in the source"


def test_empty_arrays_are_equal():
    assert compare(np.empty((0, 3), np.float32), np.empty((0, 3), np.float32), "w").passes(Tolerance(), exact=False)


def test_integers_and_strings_by_share_of_unequal_elements():
    assert compare(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]), "w").max_abs_error == 0.25
    assert compare(texts(b"a", "é"), texts("a", "é".encode()), "w").max_abs_error == 0.0
    assert compare(texts(b"a", b"b"), texts(b"a", b"c"), "w").max_abs_error == 0.5
    assert compare(np.array([True]), np.array([False]), "w").max_abs_error == 1.0


def test_exact_outputs_pass_only_when_equal():
    loose = Tolerance(max_abs_error=1.0, max_rel_error=1.0, cosine=-1.0)
    assert not Errors(max_abs_error=0.01).passes(loose, exact=True)
    assert Errors().passes(Tolerance(), exact=True)
    assert [is_exact(a) for a in (floats(1), np.array([1]), texts("a"), np.array([True]))] == [False, True, True, True]


@pytest.mark.parametrize(
    ("limit", "passes"),
    [
        (Tolerance(), True),
        (Tolerance(max_abs_error=0.5), True),
        (Tolerance(max_abs_error=0.49), False),
        (Tolerance(max_rel_error=0.125), True),
        (Tolerance(max_rel_error=0.12), False),
        (Tolerance(cosine=0.9), True),
        (Tolerance(cosine=0.91), False),
        (Tolerance(max_abs_error=0.5, max_rel_error=0.125, cosine=0.91), False),
    ],
)
def test_every_limit_must_hold(limit, passes):
    assert Errors(0.5, 0.125, 0.9).passes(limit, exact=False) is passes


def test_worst_of_two_in_either_order():
    small, large = Errors(0.1, 0.3, 0.9, where="small"), Errors(0.2, 0.1, 0.99, where="large")
    for found in (small.worst(large), large.worst(small)):
        assert found == Errors(0.2, 0.3, 0.9, "", "large")


def test_a_problem_stays_and_names_its_own_case():
    fine, bad, other = Errors(0.1, where="fine"), Errors(problem="shape", where="bad"), Errors(9.0, where="other")
    for found in (fine.worst(bad), bad.worst(fine), bad.worst(other)):
        assert (found.problem, found.where) == ("shape", "bad")


def test_masked_positions():
    array, mask = np.arange(12).reshape(2, 3, 2), np.array([[1, 0, 1], [0, 1, 0]])
    assert masked(array, mask).tolist() == [[0, 1], [4, 5], [8, 9]]
    assert masked(array, None) is array
