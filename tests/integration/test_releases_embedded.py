"""The real server 2.51 knows exactly those ModelConfig fields that the table says release 24.10 knows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from repo_builder import releases

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

SENTINEL = "a_field_that_no_release_has"
REFUSAL = re.compile(
    r'Message type "inference\.([\w.]+)" has no field named "(\w+)"[^\n]*\n'
    r"[^\n]*Poll failed for model directory '(\w+)': failed to read text proto"
)


def field_paths() -> dict[str, tuple[Any, ...]]:
    """``Message.field`` -> the way to it from ModelConfig, for every field of tritonclient's proto."""
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    found: dict[str, tuple[Any, ...]] = {}

    def walk(message: Any, way: tuple[Any, ...]) -> None:
        for field in message.fields:
            name = f"{message.full_name.removeprefix('inference.')}.{field.name}"
            if name in found:
                continue
            found[name] = (*way, field)
            below = field.message_type
            if below is not None and below.GetOptions().map_entry:
                below = below.fields_by_name["value"].message_type
            if below is not None:
                walk(below, (*way, field))

    walk(ModelConfig.DESCRIPTOR, ())
    return found


def with_field(way: tuple[Any, ...]) -> ModelConfig:
    """A ModelConfig with that one field set, and the messages around it."""
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    config = ModelConfig()
    message: Any = config
    for field in way:
        value = getattr(message, field.name)
        if field.message_type is None:
            example = example_of(field)
            value.append(example) if field.is_repeated else setattr(message, field.name, example)
        elif field.message_type.GetOptions().map_entry:
            key, item = (field.message_type.fields_by_name[n] for n in ("key", "value"))
            if item.message_type is None:
                value[example_of(key)] = example_of(item)
            else:
                message = value[example_of(key)]
        else:
            message = value.add() if field.is_repeated else value
            message.SetInParent()
    return config


def example_of(field: Any) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    return {field.CPPTYPE_STRING: "x", field.CPPTYPE_BOOL: True}.get(field.cpp_type, 1)


@pytest.mark.server
def test_server_2_51_refuses_the_unknown_fields_and_no_other(tmp_path: Path, server_factory: Any) -> None:
    from google.protobuf import text_format

    paths = field_paths()
    for number, way in enumerate(paths.values()):
        folder = tmp_path / f"field_{number}"
        (folder / "1").mkdir(parents=True)
        config = text_format.MessageToString(with_field(way))
        (folder / "config.pbtxt").write_text(f"{config}{SENTINEL}: 1\n", encoding="utf-8")

    with server_factory(tmp_path, strict=False) as server:
        assert server.versions["tritonserver"] == releases.embedded().server
        refusals = {model: field for _, field, model in REFUSAL.findall(server.log())}

    assert len(refusals) == len(paths), "every config ends with a field that no server knows"
    refused = {name for number, name in enumerate(paths) if refusals[f"field_{number}"] != SENTINEL}
    expected = {name for name, way in paths.items() if releases.unknown_fields(releases.embedded(), with_field(way))}
    assert refused == expected
    assert {"ModelConfig.model_metrics", "ModelEnsembling.max_inflight_requests"} <= refused
