"""Triton's ModelConfig message as a value: built from plain fields, overridden, parsed, described.

Plain fields are what YAML gives: mappings, lists, text, numbers, booleans and null, under the field names of
``model_config.proto`` (``max_batch_size``; camelCase is refused). One set of rules serves a whole config and overrides:

- ``null`` clears a field; ``{}`` sets a message to its defaults; an explicit 0, false or empty text wins.
- Messages merge field by field, maps by key (``null`` removes a key), lists replace; top-level ``input`` and
  ``output`` merge by name where the config has some already.
- A map called ``parameters`` takes plain scalars: ``{beam_width: 1}`` stands for ``{beam_width: {string_value: "1"}}``.
- Of alternatives (``dynamic_batching``, ``sequence_batching``, ``ensemble_scheduling``; ``latest``, ``all``,
  ``specific``; ...) another one than the present is set only when the present one is cleared beside it:
  ``{dynamic_batching: null, sequence_batching: {...}}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repo_builder.errors import RepositoryError
from repo_builder.model_config.fields import message_class
from repo_builder.model_config.merge import apply_overrides
from repo_builder.model_config.schema import json_schema
from repo_builder.model_config.text import parse
from repo_builder.tensors import TensorSpec, dtype

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

__all__ = ["apply_overrides", "build", "json_schema", "parse", "tensors", "without"]


def build(fields: Mapping[str, Any]) -> ModelConfig:
    """The config that has these fields.

    Raises:
        SpecError: an unknown field, a wrong type, enum name or range; the text names the path.
    """
    return apply_overrides(message_class()(), fields)


def tensors(config: ModelConfig) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs as clients see them: axis 0 is ``batch`` where ``max_batch_size`` is above 0, and every -1 is
    a symbolic dim called ``NAME_AXIS``.

    Raises:
        RepositoryError: an input or output has no ``data_type``.
    """
    batch = ("batch",) if config.max_batch_size > 0 else ()

    def spec(tensor: Any) -> TensorSpec:
        data_type = (
            type(tensor).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name
        )
        if data_type == "TYPE_INVALID":
            raise RepositoryError(
                f"{config.name}: tensor '{tensor.name}' has no data_type", expected="one such as TYPE_FP32"
            )
        dims = [d if d >= 0 else f"{tensor.name}_{axis}" for axis, d in enumerate(tensor.dims, start=len(batch))]
        return TensorSpec(tensor.name, dtype(data_type).triton, (*batch, *dims))

    return tuple(map(spec, config.input)), tuple(map(spec, config.output))


def without(config: ModelConfig, paths: Sequence[str]) -> ModelConfig:
    """A copy without the fields at these paths, as ``releases.unknown_fields`` names them (``input[0].optional``)."""
    copy = type(config)()
    copy.CopyFrom(config)
    for path in paths:
        *parents, last = path.split(".")
        owner: Any = copy
        for parent in parents:
            name, _, index = parent.rstrip("]").partition("[")
            owner = getattr(owner, name)[int(index)] if index else getattr(owner, name)
        owner.ClearField(last.partition("[")[0])
    return copy
