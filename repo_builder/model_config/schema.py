"""JSON Schema (2020-12) of the plain fields of a ModelConfig, generated from the protobuf descriptor."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from repo_builder.model_config.fields import INTEGERS, KINDS, MERGED_BY_NAME, is_map, message_class

Schema = dict[str, Any]


def json_schema() -> Schema:
    """What :func:`build` takes: the fields of ModelConfig, and in ``$defs`` one definition for each other message.

    What needs the value or the model is left to ``build`` and ``apply_overrides``: the range of floats, names of
    inputs, keys to remove, the switch to another alternative.
    """
    definitions: dict[str, Schema] = {}
    _define(message_class().DESCRIPTOR, definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ModelConfig",
        "description": "Fields of Triton's ModelConfig; null clears a field",
        **definitions.pop("ModelConfig"),
        "$defs": dict(sorted(definitions.items())),
    }


def _define(descriptor: Any, definitions: dict[str, Schema]) -> Schema:
    """A reference to the message's definition, which is made where it is missing."""
    name = descriptor.full_name.removeprefix(f"{descriptor.file.package}.")
    if name not in definitions:
        definition: Schema = {"type": "object", "additionalProperties": False}
        definitions[name] = definition
        definition["properties"] = {f.name: _field(f, definitions) for f in descriptor.fields}
        if rules := [rule for oneof in descriptor.oneofs for rule in _alternatives(oneof)]:
            definition["allOf"] = rules
    return {"$ref": f"#/$defs/{name}"}


def _field(field: Any, definitions: dict[str, Schema]) -> Schema:
    if is_map(field):
        schema = _map(field, definitions)
    elif field.is_repeated:
        schema = {"type": "array", "items": _value(field, definitions)}
        if field.full_name in MERGED_BY_NAME:
            schema["description"] = f"merged by name with the {field.name}s that the model has"
            schema["items"] |= {"required": ["name"], "properties": {"name": {"type": "string"}}}
    else:
        schema = _value(field, definitions)
    return _or_null(schema)


def _map(field: Any, definitions: dict[str, Schema]) -> Schema:
    key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    values = _value(value, definitions)
    schema: Schema = {"type": "object", "description": "merged by key; null removes a key"}
    if field.name == "parameters":
        plain: Schema = {"type": ["string", "number", "boolean"]}
        values = {"anyOf": [plain, values]} if value.message_type is not None else plain
        schema["description"] += "; a plain number or boolean stands for its text"
    if KINDS[key.cpp_type] in INTEGERS:
        schema["propertyNames"] = {"pattern": "^[0-9]{1,20}$", "description": KINDS[key.cpp_type]}
    return schema | {"additionalProperties": _or_null(values)}


def _value(field: Any, definitions: dict[str, Schema]) -> Schema:
    if field.message_type is not None:
        return _define(field.message_type, definitions)
    kind = KINDS[field.cpp_type]
    if kind == "enum":
        return {"enum": [value.name for value in field.enum_type.values], "description": field.enum_type.name}
    if kind in INTEGERS:
        low, high = INTEGERS[kind]
        return {"type": "integer", "minimum": low, "maximum": high, "description": kind}
    if kind in ("float", "double"):
        return {"type": "number", "description": kind}
    return {"type": "boolean" if kind == "bool" else "string"}


def _or_null(schema: Schema) -> Schema:
    """``anyOf`` only where it must be: editors show the plain forms better."""
    if "enum" in schema:
        return schema | {"enum": [*schema["enum"], None]}
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        return schema | {"type": [*types, "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _alternatives(oneof: Any) -> list[Schema]:
    names = [field.name for field in oneof.fields]
    return [
        {
            "description": "at most one of " + ", ".join(names),
            "not": {"required": list(pair), "properties": {name: {"not": {"type": "null"}} for name in pair}},
        }
        for pair in combinations(names, 2)
    ]
