"""ModelInfer messages: a request from named arrays, named arrays from a response."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from repo_builder.client import wire
from repo_builder.client.inputs import match_inputs
from repo_builder.client.metadata import ModelMetadata
from repo_builder.client.wire import Array
from repo_builder.errors import InferenceError
from repo_builder.tensors import TensorSpec

Parameter = bool | int | float | str
MAX_MESSAGE_BYTES = 2**31 - 1
"""Protobuf's limit for one message; gRPC cannot carry more."""
_ENVELOPE_BYTES = 1 << 16


@dataclass(frozen=True)
class Options:
    """Everything of a request beside its tensors."""

    outputs: Sequence[str] = ()
    version: str = ""
    request_id: str = ""
    parameters: Mapping[str, Parameter] | None = None
    sequence_id: int | str = 0
    sequence_start: bool = False
    sequence_end: bool = False

    def all_parameters(self) -> dict[str, Parameter]:
        found = dict(self.parameters or {})
        if self.sequence_id:
            found["sequence_id"] = self.sequence_id
            found["sequence_start"] = self.sequence_start
            found["sequence_end"] = self.sequence_end
        return found


class RequestOptions(TypedDict, total=False):
    """``Options`` as keyword arguments."""

    outputs: Sequence[str]
    version: str
    request_id: str
    parameters: Mapping[str, Parameter] | None
    sequence_id: int | str
    sequence_start: bool
    sequence_end: bool


def envelope(metadata: ModelMetadata, options: Options) -> Any:
    """A ModelInferRequest with everything but its inputs' data."""
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(
        model_name=metadata.name, model_version=options.version, id=options.request_id
    )
    for name in options.outputs:
        request.outputs.add(name=metadata.output(name).name)
    for key, value in options.all_parameters().items():
        set_parameter(request.parameters[key], value, key)
    return request


def infer_request(metadata: ModelMetadata, values: Mapping[str, Any], options: Options) -> Any:
    """A complete ModelInferRequest, its tensors inside.

    Raises:
        InferenceError: an input does not fit, or the request is larger than a gRPC message can be.
    """
    request = envelope(metadata, options)
    arrays = match_inputs(metadata.inputs, values, metadata.name)
    specs = {spec.name: spec for spec in metadata.inputs}
    _check_size(metadata.name, sum(array.nbytes for name, array in arrays.items() if specs[name].dtype != "BYTES"))
    total = 0
    for name, array in arrays.items():
        add_input(request, specs[name], array)
        raw = wire.encode(name, specs[name].dtype, array)
        total += len(raw)
        _check_size(metadata.name, total)
        request.raw_input_contents.append(raw)
    return request


def add_input(request: Any, spec: TensorSpec, array: Array) -> Any:
    return request.inputs.add(name=spec.name, datatype=spec.dtype, shape=array.shape)


def set_parameter(parameter: Any, value: Parameter, key: str) -> None:
    """Set the oneof of an InferParameter by the Python type of ``value``."""
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    elif isinstance(value, str):
        parameter.string_param = value
    else:
        raise InferenceError(
            f"request parameter '{key}' is of type {type(value).__name__}", expected="bool, int, float or str"
        )


def outputs_of(response: Any) -> dict[str, Array]:
    """The arrays of a ModelInferResponse, writable and independent of it.

    Raises:
        InferenceError: a tensor without its data.
    """
    found = {}
    for i, tensor in enumerate(response.outputs):
        if i >= len(response.raw_output_contents):
            raise InferenceError(
                f"output '{tensor.name}' came without raw contents",
                expected="a server that answers with raw_output_contents, as Triton does",
                model=response.model_name,
            )
        array = wire.decode(tensor.name, tensor.datatype, tuple(tensor.shape), response.raw_output_contents[i])
        found[tensor.name] = array if array.flags.writeable else array.copy()
    return found


def _check_size(model: str, size: int) -> None:
    if size + _ENVELOPE_BYTES > MAX_MESSAGE_BYTES:
        raise InferenceError(
            f"the inputs take {size} bytes",
            expected=f"less than {MAX_MESSAGE_BYTES - _ENVELOPE_BYTES} bytes: a gRPC message ends at 2 GiB",
            mend="split the batch (infer_many), or use shared_memory=True on the server's own machine",
            model=model,
        )
