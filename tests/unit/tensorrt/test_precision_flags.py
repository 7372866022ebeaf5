"""Builder flags of a weakly typed network (TensorRT 8.6), over stand-ins: its builder does not start without a GPU.

The names of flags and members are those of the 8.6.1 bindings; the GPU run proves what they do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

FLAGS_OF_8_6 = ("FP16", "INT8", "TF32", "OBEY_PRECISION_CONSTRAINTS", "VERSION_COMPATIBLE", "FP8")
STAND_IN_8_6 = SimpleNamespace(
    __name__="tensorrt",
    __version__="8.6.1",
    float32="float32",
    BuilderFlag=SimpleNamespace(**{name: name for name in FLAGS_OF_8_6}),
)
STAND_IN_11 = SimpleNamespace(__name__="tensorrt", __version__="11.0.0", BuilderFlag=SimpleNamespace(TF32="TF32"))


class StandInConfig:
    def __init__(self) -> None:
        self.flags = {"TF32"}  # on by default in TensorRT
        self.set_flag, self.clear_flag = self.flags.add, self.flags.discard


class StandInLayer:
    def __init__(self, name: str, kind: str, *dtypes: str, metadata: str = "", output: str = "") -> None:
        self.output = output
        self.name, self.type, self.metadata, self.num_outputs = name, SimpleNamespace(name=kind), metadata, len(dtypes)
        self.precision, self.set, self.dtypes = None, {}, dtypes

    def get_output(self, index: int) -> Any:
        return SimpleNamespace(name=self.output, dtype=SimpleNamespace(name=self.dtypes[index]))

    def set_output_type(self, index: int, dtype: str) -> None:
        self.set[index] = dtype


def told(
    by_precision: dict[str, int], types: tuple[str, ...] = (), inputs: tuple[str, ...] = ("FP32",)
) -> dict[str, Any]:
    return {
        "inputs": [{"dtype": dtype} for dtype in inputs],
        "outputs": [],
        "types": dict.fromkeys(types, 1),
        "compute": by_precision,
        "layers": {"by_precision": by_precision},
    }


@pytest.mark.parametrize(
    ("precision", "network", "flags"),
    [
        ("fp32", told({"FP32": 3}), []),
        ("tf32", told({"FP32": 3}), ["TF32"]),
        ("fp16", told({"FP32": 3}), ["FP16"]),
        ("int8", told({"FP32": 3}, ("QUANTIZE",)), ["INT8"]),
        ("int8", told({"FP16": 3}, ("DEQUANTIZE",)), ["FP16", "INT8"]),
        ("fp16", told({"FP16": 3}, ("QUANTIZE",)), ["FP16", "INT8"]),
        ("fp32", told({"FP32": 3}, inputs=("FP16",)), ["FP16"]),
    ],
)
def test_flags_follow_the_precision_and_the_graph(worker: Any, precision: str, network: Any, flags: list[str]):
    config = StandInConfig()
    asked = {"precision": precision, "keep_fp32": {}}
    worker("precision").set_flags(STAND_IN_8_6, config, None, asked, network, False)
    assert sorted(config.flags) == flags


def test_a_strongly_typed_network_takes_tf32_alone(worker: Any):
    for precision, flags in (("fp16", set()), ("tf32", {"TF32"}), ("bf16", set())):
        config = StandInConfig()
        asked = {"precision": precision, "keep_fp32": {}}
        worker("precision").set_flags(STAND_IN_11, config, None, asked, told({"FP16": 1}), True)
        assert config.flags == flags


def test_what_8_6_cannot_is_refused_with_its_version(worker: Any):
    module = worker("precision")
    for precision in ("bf16", "fp8"):
        with pytest.raises(module.Refused) as caught:
            module.check_typing(STAND_IN_8_6, {"precision": precision, "keep_fp32": {}}, False)
        assert caught.value.found == f"TensorRT 8.6.1 has no precision {precision}"
        assert caught.value.expected == "TensorRT 10 or newer"
        assert caught.value.mend == "take precision: fp16"
    module.check_typing(STAND_IN_11, {"precision": "bf16", "keep_fp32": {}}, True)
    asked = {"precision": "fp32", "keep_fp32": {}}
    with pytest.raises(module.Refused, match=r"fp32 was asked for, and the graph computes in FP16 \(3 of its layers\)"):
        module.set_flags(STAND_IN_8_6, StandInConfig(), None, asked, told({"FP16": 3}), False)


def test_hardware_that_the_builder_disowns_is_refused(worker: Any):
    module = worker("precision")
    with pytest.raises(module.Refused, match="this GPU has no fast TF32"):
        module.check_hardware(SimpleNamespace(platform_has_tf32=False), "tf32")
    module.check_hardware(SimpleNamespace(), "tf32")


def test_kept_nodes_give_their_layers_fp32(worker: Any):
    layers = [
        StandInLayer("first", "MATRIX_MULTIPLY", "FLOAT"),
        StandInLayer("renamed", "SOFTMAX", "HALF", metadata="[ONNX Layer: softmax]"),
        StandInLayer("first_1", "MATRIX_MULTIPLY", "FLOAT"),
        StandInLayer("shape", "SHAPE", "INT32"),
        StandInLayer("(Unnamed Layer* 4) [Normalization]", "NORMALIZATION", "FLOAT", output="normal"),
        StandInLayer("(Unnamed Layer* 5) [Shuffle]", "SHUFFLE", "FLOAT", output="else"),
    ]
    network = SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)
    config = StandInConfig()
    module = worker("precision")
    asked = {"precision": "fp16", "keep_fp32": {n: [f"{n}:0"] for n in ("first", "softmax", "shape", "gone")}}
    asked["keep_fp32"]["norm"] = ["normal"]
    kept = module.set_flags(STAND_IN_8_6, config, network, asked, told({"FP32": 3}), False)
    assert kept == {"layers": 3, "missing": ["gone"]}
    assert [layer.precision for layer in layers] == ["float32", "float32", None, None, "float32", None]
    assert [layer.set for layer in layers] == [{0: "float32"}, {0: "float32"}, {}, {}, {0: "float32"}, {}]
    assert config.flags == {"FP16", "OBEY_PRECISION_CONSTRAINTS"}
    with pytest.raises(module.Refused, match=r"no layer of the network computes what keep_fp32 names \(gone, shape\)"):
        module.set_flags(
            STAND_IN_8_6, config, network, {**asked, "keep_fp32": {"shape": [], "gone": []}}, told({"FP32": 3}), False
        )
