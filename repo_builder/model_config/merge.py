"""Plain fields applied to a ModelConfig; the rules are those of the package's docstring."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repo_builder.errors import SpecError, nearest
from repo_builder.model_config.fields import INTEGERS, KINDS, MERGED_BY_NAME, is_map
from repo_builder.model_config.scalars import scalar, written, wrong

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig


def apply_overrides(config: ModelConfig, overrides: Mapping[str, Any]) -> ModelConfig:
    """A copy of ``config`` with ``overrides`` applied by the rules of this module; ``config`` stays as it is.

    Raises:
        SpecError: as for :func:`build`; an input or output that the config does not have; a switch to another
            alternative (scheduler, version policy, ...) that does not clear the present one.
    """
    result = type(config)()
    result.CopyFrom(config)
    _merge(result, overrides, "config")
    return result


def _merge(message: Any, values: Any, path: str) -> None:
    if not isinstance(values, Mapping):
        raise wrong(
            path, values, "a mapping of fields", "write {} to set it with its defaults" if values is True else ""
        )
    fields = message.DESCRIPTOR.fields_by_name
    for key in values:
        if key not in fields:
            raise _unknown_field(message.DESCRIPTOR, key, path)
    _check_alternatives(message, values, path)
    for key, value in values.items():
        _set(message, fields[key], value, f"{path}.{key}")


def _set(message: Any, field: Any, value: Any, path: str) -> None:
    if value is None:
        message.ClearField(field.name)
    elif is_map(field):
        _merge_map(getattr(message, field.name), field, value, path)
    elif field.is_repeated:
        _set_list(message, field, value, path)
    elif field.message_type is not None:
        getattr(message, field.name).SetInParent()
        _merge(getattr(message, field.name), value, path)
    else:
        setattr(message, field.name, scalar(field, value, path))


def _set_list(message: Any, field: Any, values: Any, path: str) -> None:
    if not isinstance(values, (list, tuple)):
        plain = isinstance(values, (str, int, float))
        raise wrong(path, values, "a list", f"write it as a list: [{values}]" if plain else "")
    if field.full_name in MERGED_BY_NAME:
        return _merge_by_name(getattr(message, field.name), values, path)
    message.ClearField(field.name)
    target = getattr(message, field.name)
    for index, value in enumerate(values):
        if field.message_type is not None:
            _merge(target.add(), value, f"{path}[{index}]")
        else:
            target.append(scalar(field, value, f"{path}[{index}]"))


def _merge_by_name(target: Any, values: Sequence[Any], path: str) -> None:
    present = {tensor.name: tensor for tensor in target}
    seen: set[str] = set()
    for index, value in enumerate(values):
        name = value.get("name") if isinstance(value, Mapping) else None
        if not isinstance(name, str):
            raise SpecError(f"{path}[{index}] has no name", expected="a mapping with the key name, as text")
        if name in seen:
            raise SpecError(f"{path} has {name!r} twice", expected="each name once")
        if present and name not in present:
            raise SpecError(
                f"{path} names {name!r}, which the model does not have{nearest(name, list(present))}",
                expected="one of " + ", ".join(present),
            )
        seen.add(name)
        _merge(present[name] if present else target.add(), value, f"{path}[{name!r}]")


def _merge_map(target: Any, field: Any, values: Any, path: str) -> None:
    if not isinstance(values, Mapping):
        raise wrong(path, values, "a mapping")
    key_field, value_field = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    for raw, value in values.items():
        where = f"{path}[{raw!r}]"
        key = scalar(key_field, _decimal(raw) if KINDS[key_field.cpp_type] in INTEGERS else raw, f"key {where}")
        if field.name == "parameters":
            value = _parameter(value, where, nested=value_field.message_type is not None)
        if value is None:
            if key not in target:
                known = [str(k) for k in target]
                raise SpecError(
                    f"{where} is null, but there is no such key to remove{nearest(str(key), known)}",
                    expected="one of " + ", ".join(sorted(known)) if known else "a value; the map is empty",
                )
            del target[key]
        elif value_field.message_type is not None:
            _merge(target[key], value, where)
        else:
            target[key] = scalar(value_field, value, where)


def _decimal(key: Any) -> Any:
    """Keys of JSON are text: decimal digits stand for the integer."""
    return int(key) if isinstance(key, str) and re.fullmatch("[0-9]{1,20}", key) else key


def _parameter(value: Any, path: str, *, nested: bool) -> Any:
    if value is None or (nested and isinstance(value, Mapping)):
        return value
    if not isinstance(value, (str, int, float)):
        mend = "a parameter is text: write the value as text, for example as JSON in quotes"
        raise wrong(path, value, "text, a number or a boolean", mend)
    return {"string_value": written(value)} if nested else written(value)


def _check_alternatives(message: Any, values: Mapping[str, Any], path: str) -> None:
    for oneof in message.DESCRIPTOR.oneofs:
        names = [field.name for field in oneof.fields]
        wanted = [name for name in names if values.get(name) is not None]
        if len(wanted) > 1:
            raise SpecError(f"{path} sets {' and '.join(wanted)}", expected="at most one of " + ", ".join(names))
        present = message.WhichOneof(oneof.name)
        if wanted and present not in (None, wanted[0]) and present not in values:
            raise SpecError(
                f"{path} sets {wanted[0]}, but the model has {present}",
                expected="at most one of " + ", ".join(names),
                mend=f"to replace it, clear it beside the new one: {{{present}: null, {wanted[0]}: ...}}",
            )


def _unknown_field(descriptor: Any, key: Any, path: str) -> SpecError:
    names = [field.name for field in descriptor.fields]
    camel = {field.json_name: field.name for field in descriptor.fields}
    hint = f" (did you mean {camel[key]!r}?)" if key in camel else nearest(key, names) if isinstance(key, str) else ""
    return SpecError(
        f"{path} has the key {key!r}, but {descriptor.name} has no such field{hint}",
        expected="one of " + ", ".join(names),
    )
