"""Caffe's messages, as far as nets that answer need them, built as descriptors in a pool of their own.

Names and types are facts of ``caffe.proto`` (BVLC/caffe; SSD's fork for Permute, Normalize and PriorBox). A prototxt is
text, where only names count: its messages are numbered by position. A caffemodel is binary, and of it only names and
blobs are read: ``Weights`` and what it holds bear Caffe's own field numbers; all else is skipped as unknown.
"""

from __future__ import annotations

import functools
from typing import Any

_BINARY: dict[str, str] = {
    "BlobShape": "dim:int64*=1",
    "BlobProto": "num:int32=1 channels:int32=2 height:int32=3 width:int32=4 data:bytes*=5 shape:BlobShape=7 "
    "double_data:bytes*=8 raw_data_type:int32=10 raw_data:bytes=12",
    "BlobUnpacked": "data:float*=5 double_data:double*=8",
    "WeightLayer": "name:bytes=1 type:bytes=2 blobs:BlobProto*=7",
    "WeightLayerV1": "name:bytes=4 blobs:BlobProto*=6",
    "Weights": "layers:WeightLayerV1*=2 layer:WeightLayer*=100",
}
"""Field ``name:type`` with ``*`` for repeated and the field number. Fields 10 and 12 of a blob are NVIDIA's, which
OpenCV's shrinkCaffeModel writes: the number type of the values (0 double, 1 float, 2 half) and the values themselves.
Fields 5 and 8 are packed numbers, read as the bytes that they are on the wire; ``BlobUnpacked`` reads those of writers
that did not pack them."""

_ENUMS: dict[str, str] = {
    "Phase": "TRAIN TEST",
    "PoolMethod": "MAX AVE STOCHASTIC",
    "RoundMode": "CEIL FLOOR",
    "EltwiseOp": "PROD SUM MAX",
    "NormRegion": "ACROSS_CHANNELS WITHIN_CHANNEL",
    "ReductionOp": "NO_OPERATION SUM ASUM SUMSQ MEAN",
    "V1Type": "NONE ACCURACY BNLL CONCAT CONVOLUTION DATA DROPOUT EUCLIDEAN_LOSS FLATTEN HDF5_DATA HDF5_OUTPUT IM2COL "
    "IMAGE_DATA INFOGAIN_LOSS INNER_PRODUCT LRN MULTINOMIAL_LOGISTIC_LOSS POOLING RELU SIGMOID SOFTMAX SOFTMAX_LOSS "
    "SPLIT TANH WINDOW_DATA ELTWISE POWER SIGMOID_CROSS_ENTROPY_LOSS HINGE_LOSS MEMORY_DATA ARGMAX THRESHOLD "
    "DUMMY_DATA SLICE MVN ABSVAL SILENCE CONTRASTIVE_LOSS EXP DECONVOLUTION",
}

_WINDOW = (
    "num_output:uint32 bias_term:bool=true pad:uint32* kernel_size:uint32* stride:uint32* dilation:uint32* "
    "pad_h:uint32 pad_w:uint32 kernel_h:uint32 kernel_w:uint32 stride_h:uint32 stride_w:uint32 group:uint32=1 "
    "axis:int32=1 force_nd_im2col:bool"
)
_PARAMETERS: dict[str, str] = {
    "input_param": "shape:Dims*",
    "convolution_param": _WINDOW,
    "pooling_param": "pool:PoolMethod=MAX pad:uint32=0 pad_h:uint32 pad_w:uint32 kernel_size:uint32 kernel_h:uint32 "
    "kernel_w:uint32 stride:uint32=1 stride_h:uint32 stride_w:uint32 global_pooling:bool=false "
    "round_mode:RoundMode=CEIL ceil_mode:bool=true",
    "inner_product_param": "num_output:uint32 bias_term:bool=true axis:int32=1 transpose:bool=false",
    "batch_norm_param": "use_global_stats:bool=true moving_average_fraction:float=0.999 eps:float=0.00001",
    "scale_param": "axis:int32=1 num_axes:int32=1 bias_term:bool=false",
    "bias_param": "axis:int32=1 num_axes:int32=1",
    "lrn_param": "local_size:uint32=5 alpha:float=1 beta:float=0.75 norm_region:NormRegion=ACROSS_CHANNELS k:float=1",
    "relu_param": "negative_slope:float=0",
    "prelu_param": "channel_shared:bool=false",
    "elu_param": "alpha:float=1",
    "exp_param": "base:float=-1 scale:float=1 shift:float=0",
    "log_param": "base:float=-1 scale:float=1 shift:float=0",
    "power_param": "power:float=1 scale:float=1 shift:float=0",
    "eltwise_param": "operation:EltwiseOp=SUM coeff:float* stable_prod_grad:bool",
    "slice_param": "axis:int32=1 slice_point:uint32* slice_dim:uint32",
    "concat_param": "axis:int32=1 concat_dim:uint32",
    "crop_param": "axis:int32=2 offset:uint32*",
    "reshape_param": "shape:Dims axis:int32=0 num_axes:int32=-1",
    "permute_param": "order:uint32*",
    "flatten_param": "axis:int32=1 end_axis:int32=-1",
    "softmax_param": "axis:int32=1",
    "mvn_param": "normalize_variance:bool=true across_channels:bool=false eps:float=0.000000001",
    "norm_param": "across_spatial:bool=true channel_shared:bool=true eps:float=0.0000000001",
    "prior_box_param": "min_size:float* max_size:float* aspect_ratio:float* flip:bool=true clip:bool=false "
    "variance:float* img_size:uint32 img_h:uint32 img_w:uint32 step:float step_h:float step_w:float offset:float=0.5 "
    "offset_h:float* offset_w:float* width:float* height:float*",
    "reduction_param": "operation:ReductionOp=SUM axis:int32=0 coeff:float=1",
    "tile_param": "axis:int32=1 tiles:int32",
    "interp_param": "height:int32=0 width:int32=0 zoom_factor:int32=1 shrink_factor:int32=1 pad_beg:int32=0 "
    "pad_end:int32=0",
    "shuffle_channel_param": "group:uint32=1",
}
"""By field of a layer: its parameters and their defaults, as ``name:type=default``."""

_TYPE_NAMES = {name: "".join(part.capitalize() for part in name.split("_")) for name in _PARAMETERS}
_LAYER = "name:string bottom:string* top:string* include:Rule* exclude:Rule* " + " ".join(
    f"{field}:{kind}" for field, kind in _TYPE_NAMES.items()
)
_TEXT: dict[str, str] = {
    "Dims": "dim:int64*",
    "Rule": "phase:Phase min_level:int32 max_level:int32 stage:string* not_stage:string*",
    **{_TYPE_NAMES[field]: fields for field, fields in _PARAMETERS.items()},
    "Layer": _LAYER + " type:string",
    "LayerV1": _LAYER + " type:V1Type",
    "Net": "name:string input:string* input_dim:int64* input_shape:Dims* layer:Layer* layers:LayerV1*",
}


def net() -> Any:
    """An empty message of a prototxt: ``name``, ``input``, ``input_dim``, ``input_shape``, ``layer``, ``layers``."""
    return _classes()["caffe_text.Net"]()


def weights() -> Any:
    """An empty message of a caffemodel: ``layer`` and ``layers``, each with ``name`` (bytes) and ``blobs``."""
    return _classes()["caffe_binary.Weights"]()


def unpacked(blob: Any) -> Any:
    """The same blob with ``data`` and ``double_data`` as numbers, for a file whose writer did not pack them."""
    message = _classes()["caffe_binary.BlobUnpacked"]()
    message.ParseFromString(blob.SerializeToString())
    return message


@functools.cache
def _classes() -> dict[str, Any]:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    found = {}
    for package, messages, enums in (("caffe_binary", _BINARY, {}), ("caffe_text", _TEXT, _ENUMS)):
        file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
        for enum, values in enums.items():
            kind = file.message_type.add(name=enum).enum_type.add(name="Value")  # a scope for its values' names
            for number, value in enumerate(values.split()):
                kind.value.add(name=value, number=number)
        for name, fields in messages.items():
            message = file.message_type.add(name=name)
            for position, field in enumerate(fields.split(), start=1):
                _field(message.field.add(), field, position, package)
        pool.Add(file)
        for name in messages:
            found[f"{package}.{name}"] = message_factory.GetMessageClass(
                pool.FindMessageTypeByName(f"{package}.{name}")
            )
    return found


def _field(field: Any, told: str, position: int, package: str) -> None:
    """Fill a FieldDescriptorProto from ``name:type``, ``name:type*`` and what follows ``=``."""
    name, _, rest = told.partition(":")
    kind, _, last = rest.partition("=")
    bare = kind.rstrip("*")
    field.name = name
    field.number = int(last) if package == "caffe_binary" else position
    field.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
    if bare[0].islower():
        field.type = getattr(field, f"TYPE_{bare.upper()}")
        field.options.packed = kind.endswith("*") and bare not in ("string", "bytes")
    elif bare in _ENUMS:
        field.type, field.type_name = field.TYPE_ENUM, f".{package}.{bare}.Value"
    else:
        field.type, field.type_name = field.TYPE_MESSAGE, f".{package}.{bare}"
    if last and package == "caffe_text":
        field.default_value = last
