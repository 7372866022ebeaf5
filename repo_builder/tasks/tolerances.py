"""Tolerances of a proof: the task's defaults, or the precision's, under the spec's."""

from __future__ import annotations

from collections.abc import Mapping

from repo_builder.errors import SpecError, nearest
from repo_builder.proof import Tolerance
from repo_builder.spec import ModelSpec

TENSORRT = {
    "fp32": Tolerance(max_rel_error=1e-4),
    "tf32": Tolerance(max_rel_error=5e-3),
    "fp16": Tolerance(max_rel_error=5e-3),
    "bf16": Tolerance(max_rel_error=4e-2),
    "int8": Tolerance(max_rel_error=0.25, cosine=0.95),
    "fp8": Tolerance(max_rel_error=0.15, cosine=0.98),
}
"""What a plan of each precision must keep where the spec says nothing, in place of a task's default for floats."""


def tolerances(model: ModelSpec, defaults: Mapping[str, Tolerance]) -> dict[str, Tolerance]:
    """One tolerance for every output in ``defaults``; the spec's ``'*'`` serves outputs that it does not name.

    Raises:
        SpecError: the spec names an output that the model does not have.
    """
    for name in model.tolerances:
        if name != "*" and name not in defaults:
            raise SpecError(
                f"tolerances: the model has no output {name!r}{nearest(name, list(defaults))}",
                expected="one of " + ", ".join(defaults) + ", or '*'",
                mend="correct the name in the spec",
            )
    merged = {}
    for name, default in defaults.items():
        asked = model.tolerances.get(name) or model.tolerances.get("*")
        if model.engine == "tensorrt" and default != Tolerance():
            default = TENSORRT[model.precision]
        merged[name] = Tolerance(asked.max_abs_error, asked.max_rel_error, asked.cosine) if asked else default
    return merged
