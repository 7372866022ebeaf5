"""What a report says of plans that the target may not load."""

from __future__ import annotations

from typing import Any

import pytest

from repo_builder import releases
from repo_builder.pipeline import serving
from repo_builder.tensorrt import versions


@pytest.mark.parametrize(
    "facts",
    [
        {"engine": {"tensorrt": "8.6.1"}},
        {"engine": {"parts": {"encoder": {"tensorrt": "8.6.1"}, "decoder": {"tensorrt": "8.6.1"}}}},
        {"engine": {"format": "tensorrt_plan"}, "gpus": {"9.0": {"engine": {"tensorrt": "8.6.1"}}, "8.0": {}}},
    ],
)
def test_an_unknown_tensorrt_of_the_target_is_a_limit(facts: dict[str, Any]) -> None:
    unknown = releases.release(versions.releases_unknown()[-1])
    (limit,) = serving.unchecked_plans(unknown, facts)
    assert limit.startswith(f"which TensorRT release {unknown.name} carries is not known")
    assert serving.unchecked_plans(releases.release("24.02"), facts) == []
    assert serving.unchecked_plans(unknown, {"engine": {"format": "onnx"}}) == []


def test_a_precision_that_a_plan_does_not_tell_is_a_limit() -> None:
    engine = {"tensorrt": "8.6.1", "untold": "nobody knows"}
    assert serving.unchecked_plans(releases.release("24.02"), {"engine": engine}) == ["nobody knows"]
    assert serving.unchecked_plans(releases.release("24.02"), {"engine": {**engine, "untold": ""}}) == []
