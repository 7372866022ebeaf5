"""What must be equal in two repositories that are merged, and what no server could load together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repo_builder import releases
from repo_builder.errors import RepositoryError, TargetError
from repo_builder.repository.gpus import GpuUnit, Side
from repo_builder.tensorrt import versions

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

PER_GPU = ("max_batch_size", "instance_group", "dynamic_batching", "optimization")
"""Fields in which the configs of two GPUs may differ; each then has a config of its own, ``configs/NAME.pbtxt``."""


def differ(found: str, expected: str, mend: str = "") -> RepositoryError:
    return RepositoryError(
        found, expected=expected, mend=mend or "build both from the same spec with the same --target", stage="merge"
    )


def check_facts(one: GpuUnit, other: GpuUnit) -> None:
    for what, path in (("source", ("source", "sha256")), ("task", ("task", "name")), ("target", ("target",))):
        told = []
        for unit in (one, other):
            value: Any = unit.record.facts
            for part in path:
                value = value.get(part) if isinstance(value, Mapping) else value
            told.append(value)
        if told[0] != told[1]:
            found = f"the {what} is {told[0]} in {one.repository} and {told[1]} in {other.repository}"
            if what == "target":
                raise TargetError(found, expected="one release", mend="build both with the same --target")
            raise differ(found, f"one {what}: a model answers the same on every GPU")


def check_files(one: GpuUnit, other: GpuUnit) -> None:
    if one.record.models != other.record.models:
        apart = sorted(set(one.record.models) ^ set(other.record.models))
        raise differ(f"the models {', '.join(apart)} are only on one side", "the same models on both sides")
    different = [path for path in sorted({*one.files, *other.files}) if one.files.get(path) != other.files.get(path)]
    if different:
        shown = ", ".join(different[:10]) + (f" and {len(different) - 10} more" if len(different) > 10 else "")
        raise differ(
            f"{one.repository} and {other.repository} differ in {shown}", "files that are equal, apart from plans"
        )


def check_sides(one: GpuUnit, other: GpuUnit) -> None:
    """What both have for one compute capability must be the same."""
    for capability in one.sides.keys() & other.sides.keys():
        a, b = one.sides[capability], other.sides[capability]
        for model, digest in a.digests.items():
            if digest != b.digests[model]:
                raise differ(
                    f"both have a plan of {model!r} for compute capability {capability}, and they differ "
                    f"(sha256 {digest[:12]}... in {one.repository}, {b.digests[model][:12]}... in {other.repository})",
                    "one plan for each compute capability",
                    "keep the one that shall serve, and leave the other repository out",
                )
        unlike = [model for model in a.configs if a.configs[model] != b.configs[model]]
        if unlike:
            place = f"for compute capability {capability} " if capability else ""
            fields = ", ".join(_fields(a.configs[unlike[0]], b.configs[unlike[0]]))
            raise differ(
                f"the configs of {', '.join(unlike)} {place}differ in {fields}",
                "equal configs" + ("" if capability else " of models without a plan"),
            )


def check_configs(sides: Mapping[str, Side]) -> None:
    """Refuse configs that differ in more than ``PER_GPU``."""
    first, *others = sides
    for capability in others:
        for model, config in sides[first].configs.items():
            compared = sides[capability].configs[model]
            fields = [field for field in _fields(config, compared) if field not in PER_GPU]
            if (config.max_batch_size > 0) != (compared.max_batch_size > 0):
                fields.append("max_batch_size")
            if fields:
                raise differ(
                    f"the configs of {model!r} for compute capability {first} and {capability} differ in "
                    + ", ".join(f"{f} ({_value(config, f)} against {_value(compared, f)})" for f in fields),
                    f"configs that differ in {', '.join(PER_GPU)} at most",
                    "build both with the same TensorRT and from the same spec",
                )


def _fields(one: ModelConfig, other: ModelConfig) -> list[str]:
    """Names of the fields in which two configs differ."""
    set_fields = {field.name for config in (one, other) for field, _ in config.ListFields()}
    return sorted(name for name in set_fields if getattr(one, name) != getattr(other, name))


def _value(config: ModelConfig, name: str) -> str:
    value = " ".join(str(getattr(config, name)).split())
    return value if len(value) <= 120 else f"{value[:120]}..."


def check_versions(sides: Mapping[str, Side], target: str) -> None:
    """One server has one TensorRT: it must load every plan."""
    plans = {
        c: (str(s.engine["tensorrt"]), bool(s.engine.get("version_compatible")))
        for c, s in sides.items()
        if s.engine.get("tensorrt")
    }
    image = releases.release(target).images.get("py3") if target in releases.names() else None
    carried = image.tensorrt if image else None
    candidates = [carried] if carried else [version for version, _ in plans.values()]
    if plans and not any(
        all(versions.loads(built, runtime, version_compatible=able) for built, able in plans.values())
        for runtime in candidates
    ):
        raise TargetError(
            "the plans are of TensorRT "
            + ", ".join(f"{version} (compute capability {c})" for c, (version, _) in plans.items()),
            expected=f"TensorRT {carried}, which release {target} carries"
            if carried
            else "one version: a server has one TensorRT",
            mend="build every plan in the container of the target's release, or with tensorrt.version_compatible",
        )
