"""What the stand-in refuses: in the compiled backend's words, and in its own where it alone refuses."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils

REFUSALS = {
    "secondary": (
        "tensorrt_model_instance.cc TensorRTModelInstance::TensorRTModelInstance",
        "{instance} of model {model} must have either zero or or one secondary devices",
    ),
    "kind": (
        "instance_state.cc ModelInstanceState::ModelInstanceState",
        "unable to load model '{model}', TensorRT backend supports only GPU device",
    ),
    "file": ("instance_state.cc ModelInstanceState::Create", "unable to find '{path}' for model instance '{instance}'"),
    "device": ("instance_state.cc ModelInstanceState::InitStreamsAndEvents", "unable to set device for {name}: {text}"),
    "dla": (
        "loader.cc LoadPlan",
        "unable to create TensorRT runtime with DLA Core ID: {core}, available number of DLA cores: {count}",
    ),
    "engine": ("loader.cc LoadPlan", "unable to create TensorRT engine: {text}"),
    "autofill_file": (
        "model_state.cc ModelState::AutoCompleteConfigHelper",
        "unable to load plan file to auto complete config: {path}",
    ),
    "autofill_profile": (
        "model_state.cc ModelState::GetProfileIndices",
        "unable to autofill for '{model}', configuration specified invalid profile {profile} . Number of profiles "
        "supported by TensorRT engine: {count}",
    ),
    "autofill_contradiction": (
        "model_state.cc ModelState::ExtractBatchHintFromIOConfig",
        "unable to autofill for '{model}', model tensor configurations are contradicting each other in terms of "
        "whether batching is supported",
    ),
    "autofill_hint": (
        "model_state.cc ModelState::AutoCompleteConfigHelper",
        "autofill failed for model '{model}': model tensor shape configuration hints for dynamic batching but the "
        "underlying engine doesn't support batching.",
    ),
    "autofill_batch": (
        "model_state.cc ModelState::AutoCompleteConfigHelper",
        "autofill failed for model '{model}': configuration specified max-batch {asked} but TensorRT engine only "
        "supports max-batch {limit}",
    ),
    "autofill_shape_tensor": (
        "model_state.cc ModelState::FixIO",
        "'{name}' is incorrectly specified as a shape tensor.",
    ),
    "context": (
        "instance_state.cc ModelInstanceState::InitOptimizationProfiles",
        "unable to create TensorRT context: {text}",
    ),
    "profile": (
        "instance_state.cc ModelInstanceState::InitOptimizationProfiles",
        "Can not set the specified optimization profile {profile}[{index}] for {instance}. Expected optimization "
        "profile index range 0-{last}",
    ),
    "input_count": (
        "instance_state.cc ModelInstanceState::ValidateIO",
        "unable to load model '{model}', configuration expects {expected} inputs, model provides at most {found}",
    ),
    "input_name": (
        "backend_common.cc CheckAllowedModelInput",
        "unexpected inference input '{name}', allowed inputs are: {allowed}",
    ),
    "output_name": (
        "backend_common.cc CheckAllowedModelOutput",
        "unexpected inference output '{name}', allowed outputs are: {allowed}",
    ),
    "unsupported": (
        "instance_state.cc ModelInstanceState::ValidateIOHelper",
        "unsupported datatype {datatype} for {side} '{name}' for model '{model}'",
    ),
    "shape_unmarked": (
        "instance_state.cc ModelInstanceState::ValidateIOHelper",
        "{side} '{name}' for model '{model}' is a shape tensor but the model configuration doesn't mark it as a shape "
        "tensor.",
    ),
    "shape_marked": (
        "instance_state.cc ModelInstanceState::ValidateIOHelper",
        "{side} '{name}' for model '{model}' is incorrectly marked as a shape tensor in the model configuration.",
    ),
    "nonlinear_unmarked": (
        "instance_state.cc ModelInstanceState::ValidateIOHelper",
        "{side} '{name}' for model '{model}' uses a non-linear IO format, but 'is_non_linear_format_io' is incorrectly "
        "set to false in the model configuration.",
    ),
    "nonlinear_marked": (
        "instance_state.cc ModelInstanceState::ValidateIOHelper",
        "{side} '{name}' for model '{model}' uses a linear IO format, but 'is_non_linear_format_io' is incorrectly set "
        "to true in the model configuration.",
    ),
    "shape_dims": (
        "tensorrt_utils.cc CompareShapeDimsSupported",
        "unable to load model '{instance}', binding '{name}' shape expected by framework {shape} doesn't match model "
        "configuration shape {dims}",
    ),
    "shape_datatype": (
        "instance_state.cc ModelInstanceState::InitializeShapeInputBinding",
        "unexpected datatype TYPE_{found} in engine for shape input '{name}', expecting TYPE_{expected} for {instance}",
    ),
    "datatype": (
        "instance_state.cc ModelInstanceState::InitializeExecuteInputBinding, InitializeExecuteOutputBinding",
        "unexpected datatype TYPE_{found} for inference {side} '{name}', expecting TYPE_{expected} for {instance}",
    ),
    "batch_dimension": (
        "tensorrt_utils.cc CompareDimsSupported",
        "model '{model}', tensor '{name}': for the model to support batching the shape should have at least 1 "
        "dimension; but shape expected by the model is {shape}",
    ),
    "dims_batching": (
        "tensorrt_utils.cc CompareDimsSupported",
        "model '{model}', tensor '{name}': the model expects {rank} dimensions (shape {shape}) but the model "
        "configuration specifies {count} dimensions (an initial batch dimension because max_batch_size > 0 followed by "
        "the explicit tensor shape, making complete shape {dims})",
    ),
    "dims": (
        "tensorrt_utils.cc CompareDimsSupported",
        "model '{model}', tensor '{name}': the model expects {rank} dimensions (shape {shape}) but the model "
        "configuration specifies {count} dimensions (shape {dims})",
    ),
    "config_shape": (
        "instance_state.cc TRTv3Interface::ConfigureInputDimensions",
        "model configuration specified invalid shape for input '{name}' for model {model}. Error details: {details}",
    ),
    "missing_config": (
        "instance_state.cc ModelInstanceState::InitIOBindingBuffers",
        "expected configuration for {side} '{name}' for {instance}",
    ),
    "rank": (
        "tensorrt_utils.h ValidateDimension",
        "model expected {expected} dimensions but received {found} dimensions",
    ),
    "dimension": (
        "tensorrt_utils.h ValidateDimension",
        "model expected the shape of dimension {axis} to be between {low} and {high} but received {found}",
    ),
    "no_profile": (
        "instance_state.cc ModelInstanceState::GetMostOptimizedProfile",
        "failed to find any Optimization Profile among [{profiles}] to support the requested dimensions (or shape "
        "values), proceeding with first profile.",
    ),
    "request_shape": (
        "instance_state.cc TRTv3Interface::SetBindingDimensions",
        "request specifies invalid shape for input '{name}' for {instance}. Error details: {details}",
    ),
    "set_shape": (
        "instance_state.cc TRTv3Interface::SetBindingDimensions",
        "trt failed to set binding dimension to {shape} for input '{name}' for {instance}",
    ),
    "value_count": (
        "tensorrt_utils.cc ValidateShapeValues",
        "mismatch between the number of shape values. Expecting {expected}. Got {found}",
    ),
    "value": (
        "tensorrt_utils.h CheckShapeTensorInRange",
        "The shape value at index {index} is expected to be in range from {low} to {high}, Got: {found}",
    ),
    "infer_shapes": (
        "instance_state.cc ModelInstanceState::Run",
        "failed to specify the dimensions of all input tensors or values of all input shape tensors",
    ),
    "enqueue": ("instance_state.cc ModelInstanceState::Run", "unable to enqueue for inference {instance}"),
    "split": (
        "backend_output_responder.cc BackendOutputResponder::ProcessTensor",
        "failed to split the output tensor '{name}' in responses: expected batch size of at least {expected} in model "
        "output, got {found}",
    ),
}
# Not the compiled backend's words: what only this stand-in refuses.
LIMITS = {
    "tensorrt": "model '{model}': the tensorrt stand-in finds no TensorRT ({text}); the Python that the server runs "
    "models with needs the tensorrt package, and LD_LIBRARY_PATH the folders of its libraries",
    "driver": "the tensorrt stand-in finds no NVIDIA driver: {text}",
    "sequence": "model '{model}': the tensorrt stand-in does not serve sequence batching",
    "ragged": "model '{model}': the tensorrt stand-in does not serve batch_input, batch_output or ragged batches",
    "shape_output": "model '{model}': the tensorrt stand-in does not serve outputs that are shape tensors ('{name}')",
    "nonlinear": "model '{model}': the tensorrt stand-in serves linear formats alone (tensor '{name}')",
    "bf16": "model '{model}': the tensorrt stand-in does not serve TYPE_BF16 (tensor '{name}')",
    "cuda": "{text}",
}


def refuse(key, **words):
    """Refuse as the compiled backend does."""
    raise pb_utils.TritonModelException(REFUSALS[key][1].format(**words)) from None


def limit(key, **words):
    """Refuse what only the stand-in refuses."""
    raise pb_utils.TritonModelException(LIMITS[key].format(**words)) from None


def text(shape):
    return "[" + ",".join(str(dim) for dim in shape) + "]"
