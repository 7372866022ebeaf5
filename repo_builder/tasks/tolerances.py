"""Tolerances of a proof: the task's defaults under the spec's."""

from __future__ import annotations

from collections.abc import Mapping

from repo_builder.errors import SpecError, nearest
from repo_builder.proof import Tolerance
from repo_builder.spec import ModelSpec


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
        merged[name] = Tolerance(asked.max_abs_error, asked.max_rel_error, asked.cosine) if asked else default
    return merged
