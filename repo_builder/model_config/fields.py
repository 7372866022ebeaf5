"""What the descriptor of ModelConfig says of its fields: the message class, kinds, maps, ranges."""

from __future__ import annotations

from typing import Any

KINDS = {1: "int32", 2: "int64", 3: "uint32", 4: "uint64", 5: "double", 6: "float", 7: "bool", 8: "enum", 9: "string"}
"""Kind of a scalar field by its ``cpp_type`` (``FieldDescriptor.CPPTYPE_*`` in protobuf's descriptor.py)."""

INTEGERS = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
"""Smallest and largest value of each kind of integer."""

MERGED_BY_NAME = frozenset({"inference.ModelConfig.input", "inference.ModelConfig.output"})
"""Lists whose elements are known by their ``name``."""


def message_class() -> Any:
    """``ModelConfig`` as tritonclient ships it; imported on the first use, because that import is slow."""
    from tritonclient.grpc import model_config_pb2

    return model_config_pb2.ModelConfig


def is_map(field: Any) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)
