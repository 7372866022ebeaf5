"""What the script of ONNX's own tests calls right, refused and lost."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest

from scripts import onnx_cases, onnx_suite
from scripts.onnx_suite import RIGHT, Verdict


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ("tensor 'x' has dtype INT4, which Triton does not have", "a dtype that Triton lacks"),
        ("tensor 'x' of m.onnx is BF16, which numpy cannot hold", "BF16, which numpy lacks"),
        ("'x' of m.onnx is a sequence", "a sequence or optional type"),
        (
            "m has opset 27 and IR version 14, and cannot be lowered: why",
            "an operator set newer than the target's",
        ),
        (
            "ONNX Runtime 1.31.1 does not load m.onnx: [FAIL] Opset 28 is under development and support",
            "an operator set newer than ONNX Runtime",
        ),
        ("ONNX Runtime 1.31.1 does not load m.onnx: why", "ONNX Runtime lacks the operator or the dtype"),
        (
            "m: load failed for model 'm': onnx runtime error 9: Could not find an implementation for",
            "an operator or dtype newer than the target's ONNX Runtime",
        ),
        ("something else of 'x' in 3 lines\nmore", "something else of _ in _ lines"),
    ],
)
def test_a_refusal_has_a_reason(found: str, told: str) -> None:
    assert onnx_suite.reason(found) == told


@pytest.mark.parametrize(
    ("process", "served", "lost"),
    [
        (RIGHT, RIGHT, False),
        (RIGHT, "a dtype that Triton lacks", False),
        (RIGHT, "ONNX Runtime lacks the operator or the dtype", True),
        (RIGHT, "wrong", True),
        (RIGHT, "the server answered: something else", True),
        ("wrong", "as in process", False),
        ("refused", "ONNX Runtime lacks the operator or the dtype", False),
    ],
)
def test_only_what_is_right_in_process_can_be_lost(process: str, served: str, lost: bool) -> None:
    assert Verdict("test_x", process, served).lost is lost


def test_answers_are_compared_by_the_case_s_own_tolerance() -> None:
    case = SimpleNamespace(rtol=1e-3, atol=1e-7)
    wanted = [np.array([1.0, 2.0], np.float32)]
    assert onnx_cases.difference(case, wanted, [np.array([1.0001, 2.0], np.float32)]) == ""
    assert "Not equal to tolerance" in onnx_cases.difference(case, wanted, [np.array([1.1, 2.0], np.float32)])
    assert "incorrect shape" in onnx_cases.difference(case, wanted, [np.array([[1.0, 2.0]], np.float32)])
    assert "float64" in onnx_cases.difference(case, wanted, [np.array([1.0, 2.0])])
    words = np.array(["tea", "茶"], dtype=object)
    assert onnx_cases.difference(case, [words], [np.array([b"tea", "茶".encode()], dtype=object)]) == ""


def test_the_page_tells_of_every_case() -> None:
    page = onnx_suite.PAGE.read_text(encoding="utf-8")
    inside = page.split(onnx_suite.BEGIN)[1].split(onnx_suite.END)[0]
    counts = [int(count) for count in re.findall(r" \| (\d+) \|$", inside, re.MULTILINE)]
    assert f"has {sum(counts)} node cases" in inside
    assert ", 0 are lost" in inside
