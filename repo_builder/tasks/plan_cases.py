"""Inputs that a TensorRT plan takes: within its optimization profiles, at their ends and between."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.formats.examples import example_inputs
from repo_builder.proof import Arrays

KINDS = ("min", "opt", "max")


def requests(engine: Artifact, count: int, seed: int) -> list[Arrays]:
    """Seeded random inputs that the plan's profiles take: the smallest, usual and largest sizes of each in turn.

    A batch is of one row, which the profiles take together with every other size (see ``convert.profiles``).
    """
    found = []
    profiles = engine.facts["profiles"]
    for number in range(max(count, len(KINDS) * len(profiles))):
        profile, kind = profiles[number % len(profiles)], KINDS[number // len(profiles) % len(KINDS)]
        found.append(request(engine, profile, kind, seed + number, rows=1))
    return found


def request(
    engine: Artifact, profile: Mapping[str, Any], kind: str, seed: int = 0, *, rows: int | None = None
) -> Arrays:
    """Seeded random inputs of the sizes, and for shape tensors the values, that a profile has as its min, opt or max.

    Args:
        rows: of a batch, where it is not the profile's own.
    """
    sizes: dict[str, int] = {}
    for spec in engine.inputs:
        for axis, size in enumerate(spec.shape):
            if isinstance(size, str) and spec.name in profile:
                sizes[size] = int(profile[spec.name][kind][axis])
    if rows and engine.batch:
        sizes[engine.batch] = rows
    found = example_inputs(engine.inputs, sizes, seed)
    for spec in engine.inputs:
        if spec.name in profile.get("values", {}):
            found[spec.name] = np.asarray(profile["values"][spec.name][kind], spec.numpy).reshape(spec.dims)
    return found


def outside(engine: Artifact, arrays: Arrays) -> str:
    """Why no profile of the plan takes these inputs; empty where one does, or where there is none to take them."""
    profiles = engine.facts.get("profiles", ())
    if not profiles or any(_holds(profile, arrays) for profile in profiles):
        return ""
    valued = {name for profile in profiles for name in profile.get("values", {})}
    return "no profile takes " + ", ".join(
        f"{spec.name} "
        + (f"= {arrays[spec.name].tolist()}" if spec.name in valued else f"{list(arrays[spec.name].shape)}")
        for spec in engine.inputs
    )


def _holds(profile: Mapping[str, Any], arrays: Arrays) -> bool:
    sizes = [(range_, arrays[name].shape) for name, range_ in profile.items() if name in arrays]
    sizes += [(range_, arrays[name].reshape(-1).tolist()) for name, range_ in profile.get("values", {}).items()]
    return all(
        low <= size <= high
        for range_, found in sizes
        for low, size, high in zip(range_["min"], found, range_["max"], strict=True)
    )
