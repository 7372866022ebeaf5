"""What a server says of itself and of a model, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from repo_builder.errors import InferenceError, nearest
from repo_builder.tensors import TensorSpec


@dataclass(frozen=True)
class ServerMetadata:
    """The server's name, version (``2.51.0``) and protocol extensions."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class ModelMetadata:
    """A served model's signature.

    Shapes are those of a request: a batch dimension comes first where the model batches. The protocol has no names for
    symbolic dims (it says -1): they are ``"?"`` here, and ``TensorSpec.dims`` gives the -1 back.
    """

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def output(self, name: str) -> TensorSpec:
        """The output of that name.

        Raises:
            InferenceError: the model has no such output.
        """
        for spec in self.outputs:
            if spec.name == name:
                return spec
        raise InferenceError(
            f"the model has no output '{name}'{nearest(name, [spec.name for spec in self.outputs])}",
            expected="outputs " + ", ".join(str(spec) for spec in self.outputs),
            model=self.name,
        )


def server_metadata(message: Any) -> ServerMetadata:
    return ServerMetadata(message.name, message.version, tuple(message.extensions))


def model_metadata(message: Any) -> ModelMetadata:
    return ModelMetadata(
        message.name,
        tuple(message.versions),
        message.platform,
        tuple(_spec(tensor) for tensor in message.inputs),
        tuple(_spec(tensor) for tensor in message.outputs),
    )


def _spec(tensor: Any) -> TensorSpec:
    return TensorSpec(tensor.name, tensor.datatype, tuple("?" if d < 0 else int(d) for d in tensor.shape))
