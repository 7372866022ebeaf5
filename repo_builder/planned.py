"""PlannedModel: one Triton model before it is written: its ModelConfig and its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

Content = bytes | Path
"""A file to write: its bytes, or a file to link or copy (its content is never read into memory)."""


@dataclass(frozen=True)
class PlannedModel:
    """One model of the repository.

    Attributes:
        config: Triton's own message; ``config.name`` is the model's folder. The writer renders it as ``config.pbtxt``.
        version_files: files of the version folder, by path relative to it (``model.onnx``). An empty mapping (an
            ensemble) gets a ``.keep``, because git and object stores drop empty folders.
        model_files: files beside ``config.pbtxt``, by path relative to the model's folder (labels).
    """

    config: ModelConfig
    version_files: Mapping[str, Content] = field(default_factory=dict)
    model_files: Mapping[str, Content] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return str(self.config.name)

    def __reduce__(self) -> tuple[Any, ...]:
        """Between processes the message travels as its bytes: protobuf's own classes do not pickle."""
        config = self.config.SerializeToString(deterministic=True)
        return _restored, (config, dict(self.version_files), dict(self.model_files))


def _restored(config: bytes, version_files: Mapping[str, Content], model_files: Mapping[str, Content]) -> PlannedModel:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    return PlannedModel(ModelConfig.FromString(config), version_files, model_files)
