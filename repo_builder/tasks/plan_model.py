"""What a TensorRT plan asks of its ModelConfig: GPU instances that open every profile, batches that the plan holds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from repo_builder.artifact import Artifact
from repo_builder.errors import SignatureError, SpecError
from repo_builder.server import needs
from repo_builder.spec import ModelSpec

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

FORMAT = "tensorrt_plan"


def largest_batch(engine: Artifact, profiles: Collection[int] | None = None) -> int | None:
    """Rows of the largest batch that these of the plan's profiles (default: all) take; None where none is known.

    A profile takes what all of its inputs take; the server loads a model whose ``max_batch_size`` is no more than the
    most of its profiles (tensorrt_backend, model_state.cc, GetMaxSupportedBatchSize).
    """
    found = []
    for number, profile in enumerate(engine.facts.get("profiles", ())):
        others = ("values", *shape_tensors(engine))
        sizes = [range_["max"][0] for name, range_ in profile.items() if name not in others]
        if sizes and (profiles is None or number in profiles):
            found.append(min(sizes))
    return max(found, default=None)


def shortest(engine: Artifact) -> int:
    """Tokens of the shortest row that a plan takes; 1 for every other engine."""
    rows = [profile["input_ids"] for profile in engine.facts.get("profiles", ()) if "input_ids" in profile]
    return min((int(ranges["min"][-1]) for ranges in rows), default=1)


def shape_tensors(engine: Artifact) -> Sequence[str]:
    """Inputs and outputs whose values decide shapes."""
    return tuple(engine.facts.get("shape_tensors", ()))


def instance_group(spec: ModelSpec, engine: Artifact) -> dict[str, Any]:
    """One instance on every GPU, or the asked ones (the spec refuses those on the CPU); each opens all profiles.

    The scheduler gives any request to any instance, whatever its shape, so an instance that opened only some profiles
    would fail what another one serves. The cores of ``cpus`` do not count.
    """
    asked = spec.instances
    group: dict[str, Any] = {"count": asked.count if asked else 1, "kind": "KIND_GPU"}
    if asked and asked.gpus:
        group["gpus"] = list(asked.gpus)
    count = len(engine.facts.get("profiles", ()))
    if count > 1:
        group["profile"] = [str(number) for number in range(count)]
    return group


def server_parameters(engine: Artifact) -> dict[str, Any]:
    """What the plan needs of the server, as parameters of its config that ``server.needs`` reads."""
    values = {
        needs.VERSION_COMPATIBLE: "true" if engine.facts.get("version_compatible") else "",
        needs.PLUGINS: ";".join(engine.facts.get("plugins", ())),
    }
    return {key: {"string_value": value} for key, value in values.items() if value}


def check_kinds(config: ModelConfig) -> None:
    """Refuse instances on the CPU.

    Raises:
        SpecError: the config has some.
    """
    kinds = type(config).DESCRIPTOR.fields_by_name["instance_group"].message_type.enum_types_by_name["Kind"]
    if any(kinds.values_by_number[group.kind].name == "KIND_CPU" for group in config.instance_group):
        raise SpecError(
            "instance_group has KIND_CPU, and a TensorRT plan runs on GPUs only",
            expected="kind: KIND_GPU",
            mend="leave instance_group out of config, or correct its kind",
        )


def check(config: ModelConfig, engine: Artifact) -> None:
    """Refuse a config (the user's overrides laid over it) that the backend refuses, or whose requests it would fail.

    Raises:
        SpecError: instances on the CPU, or profiles that the plan does not have or that no instance opens.
        SignatureError: larger batches than the profiles take, or batching of shape tensors.
    """
    check_kinds(config)
    count = len(engine.facts.get("profiles", ()))
    known = [str(number) for number in range(max(1, count))]
    opened: set[int] = set()
    for group in config.instance_group:
        unknown = [profile for profile in group.profile if profile not in known]
        if unknown or (count > 1 and not group.profile):
            raise SpecError(
                f"instance_group opens the profile {', '.join(unknown)}, which the plan does not have"
                if unknown
                else f"instance_group names no profile, so that its instances open only the first of {count}",
                expected=f"profile: [{', '.join(known)}]",
                mend="name every profile that its instances shall serve",
            )
        opened |= {int(profile) for profile in group.profile} or {0}
    if config.max_batch_size > 0 and shape_tensors(engine):
        raise SignatureError(
            f"max_batch_size is {config.max_batch_size}, and {', '.join(shape_tensors(engine))} decide shapes by value",
            expected="no batching: Triton would add the number of rows to such values (Shape Tensors in its docs)",
            mend="set batching.max_batch_size: 0",
        )
    limit = largest_batch(engine, opened or None)
    if limit is not None and config.max_batch_size > limit:
        raise SignatureError(
            f"max_batch_size {config.max_batch_size} is larger than the batches of the plan's profiles ({limit})",
            expected=f"at most {limit}: the server refuses to load the model otherwise",
            mend="lower batching.max_batch_size, or build the plan with a larger batch in shapes or tensorrt.profiles",
        )
