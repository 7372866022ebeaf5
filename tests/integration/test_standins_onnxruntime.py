"""The onnxruntime stand-in in the real server: it serves what the compiled backend serves, and refuses in its words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.integration.standins import infer, refusals, refused

pytestmark = pytest.mark.server

X = 'input { name: "X" data_type: TYPE_FP32 dims: 4 }\n'
Y = 'output { name: "Y" data_type: TYPE_FP32 dims: 4 }\n'
BATCHED = "max_batch_size: 8\n"
ONE_INSTANCE = "instance_group { kind: KIND_CPU count: 1 }\n"
Signature = Mapping[str, tuple[str, list[Any]]]


def graph(
    op: str = "Identity",
    inputs: Signature | None = None,
    outputs: Signature | None = None,
    initializers: tuple[str, ...] = (),
    ir_version: int = 8,
    **attributes: Any,
) -> bytes:
    """One node over the inputs and initializers."""
    inputs = inputs if inputs is not None else {"X": ("FLOAT", ["n", 4])}
    outputs = outputs or {"Y": ("FLOAT", ["n", 4])}

    def values(tensors: Signature) -> list[Any]:
        return [helper.make_tensor_value_info(n, getattr(TensorProto, t), s) for n, (t, s) in tensors.items()]

    made = helper.make_graph(
        [helper.make_node(op, [*inputs, *(n for n in initializers if n not in inputs)], list(outputs), **attributes)],
        "g",
        values(inputs),
        values(outputs),
        [helper.make_tensor(name, TensorProto.FLOAT, [1], [10.0]) for name in initializers],
    )
    return bytes(
        helper.make_model(made, ir_version=ir_version, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    )


def sequence() -> bytes:
    sequence_type = helper.make_tensor_sequence_value_info("Y", TensorProto.FLOAT, None)
    made = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["X"], ["Y"])],
        "g",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 4])],
        [sequence_type],
    )
    model = helper.make_model(made, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    return bytes(model.SerializeToString())


def control(name: str = "START", typed: str = "int32_false_true: [ 0, 1 ]") -> str:
    inside = f"control {{ kind: CONTROL_SEQUENCE_START {typed} }}"
    return f'sequence_batching {{ control_input {{ name: "{name}" {inside} }} }}\n'


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


@dataclass(frozen=True)
class Case:
    """A model that must not load: which message, its words, its file and its config."""

    key: str
    words: Mapping[str, Any] = field(default_factory=dict)
    file: bytes | None = field(default_factory=graph)
    config: str = BATCHED + X + Y


TWO = {"START": ("INT32", ["n", 1]), "X": ("FLOAT", ["n", 4])}
BAD: dict[str, Case] = {
    "no_file": Case("file", {"path": "no_file/1/model.onnx"}, None),
    "unknown_accelerator": Case(
        "accelerator",
        {"name": "warp"},
        config=BATCHED
        + X
        + Y
        + 'optimization { execution_accelerators { cpu_execution_accelerator { name: "warp" } } }',
    ),
    "newer_ir": Case("runtime", {"code": 1, "text": "Load model from"}, graph(ir_version=99)),
    "not_onnx": Case("runtime", {"code": 7, "text": "Load model from"}, b"not a protobuf at all"),
    "mode_2": Case("execution_mode", {"value": 2}, config=BATCHED + X + Y + parameter("execution_mode", "2")),
    "threads_many": Case(
        "integer", {"value": "many"}, config=BATCHED + X + Y + parameter("intra_op_thread_count", "many")
    ),
    "arena_maybe": Case("boolean", {"value": "maybe"}, config=BATCHED + X + Y + parameter("enable_mem_arena", "maybe")),
    "sequence_output": Case("onnx_type", {"found": "ONNX_TYPE_SEQUENCE", "name": "Y"}, sequence()),
    "autofill_static": Case(
        "autofill_batch", {}, graph(inputs={"X": ("FLOAT", [2, 4])}, outputs={"Y": ("FLOAT", [2, 4])}), BATCHED
    ),
    "too_many_inputs": Case(
        "input_count",
        {"expected": 2, "found": 1},
        config=BATCHED + X + X.replace("X", "W") + Y,
    ),
    "optional_batched": Case(
        "optional_batching",
        {"name": "B"},
        graph("Add", initializers=("B",), inputs={"X": ("FLOAT", ["n", 4]), "B": ("FLOAT", [1])}),
        BATCHED + X + Y + 'input { name: "B" data_type: TYPE_FP32 dims: 1 optional: true }',
    ),
    "wrong_input": Case("input_name", {"name": "x", "allowed": "X"}, config=BATCHED + X.replace("X", "x") + Y),
    "wrong_output": Case("output_name", {"name": "y", "allowed": "Y"}, config=BATCHED + X + Y.replace("Y", "y", 1)),
    "wrong_input_type": Case(
        "datatype",
        {"expected": "TYPE_FP64", "side": "input", "name": "X", "found": "FP32"},
        config=BATCHED + X.replace("FP32", "FP64") + Y,
    ),
    "wrong_output_type": Case(
        "datatype",
        {"expected": "TYPE_INT32", "side": "output", "name": "Y", "found": "FP32"},
        config=BATCHED + X + Y.replace("FP32", "INT32"),
    ),
    "string_type": Case(
        "datatype",
        {"expected": "TYPE_FP32", "side": "input", "name": "X", "found": "BYTES"},
        graph(inputs={"X": ("STRING", ["n", 4])}, outputs={"Y": ("STRING", ["n", 4])}),
    ),
    "wide_scalar": Case(
        "scalar",
        {"name": "X", "dims": "[4]"},
        graph(inputs={"X": ("FLOAT", [])}, outputs={"Y": ("FLOAT", [])}),
        X + Y,
    ),
    "no_batch_dimension": Case(
        "batch_dimension",
        {"name": "X", "shape": "[2,4]"},
        graph(inputs={"X": ("FLOAT", [2, 4])}, outputs={"Y": ("FLOAT", [2, 4])}),
    ),
    "rank_batched": Case(
        "dims_batching",
        {"name": "X", "rank": 2, "shape": "[-1,4]", "count": 3, "dims": "[-1,4,4]"},
        config=BATCHED + X.replace("dims: 4", "dims: [ 4, 4 ]") + Y,
    ),
    "size_batched": Case(
        "dims_batching",
        {"name": "Y", "rank": 2, "shape": "[-1,4]", "count": 2, "dims": "[-1,-1]"},
        config=BATCHED + X + Y.replace("dims: 4", "dims: -1"),
    ),
    "rank_unbatched": Case(
        "dims", {"name": "X", "rank": 2, "shape": "[-1,4]", "count": 1, "dims": "[4]"}, config=X + Y
    ),
    "control_unknown": Case("control_name", {"name": "BEGIN"}, config=BATCHED + X + Y + control("BEGIN")),
    "control_wide": Case(
        "control_dims",
        {"name": "START", "dims": "[4]"},
        graph("Sum", {"START": ("FLOAT", ["n", 4]), "X": ("FLOAT", ["n", 4])}),
        BATCHED + X + Y + control(),
    ),
    "control_typed": Case(
        "control_datatype",
        {"name": "START", "found": "FLOAT", "expected": "TYPE_INT32"},
        graph("Sum", {"START": ("FLOAT", ["n", 1]), "X": ("FLOAT", ["n", 4])}),
        BATCHED + X + Y + control(),
    ),
}
GOOD: dict[str, tuple[bytes, str]] = {
    "add": (graph("Add", initializers=("B",)), BATCHED + X + Y + "dynamic_batching { }"),
    "no_config": (graph(), ""),
    "partial_config": (graph(), "max_batch_size: 16\n" + X),
    "unbatched": (graph(), X.replace("dims: 4", "dims: [ -1, 4 ]") + Y.replace("dims: 4", "dims: [ -1, 4 ]")),
    "scalar": (
        graph(inputs={"X": ("FLOAT", [])}, outputs={"Y": ("FLOAT", [])}),
        X.replace("dims: 4", "dims: 1") + Y.replace("dims: 4", "dims: 1"),
    ),
    "vector": (
        graph(inputs={"X": ("FLOAT", ["n"])}, outputs={"Y": ("FLOAT", ["n"])}),
        "",
    ),
    "strings": (graph(inputs={"X": ("STRING", ["n", 2])}, outputs={"Y": ("STRING", ["n", 2])}), ""),
    "shrinks": (graph("Unique", outputs={"Y": ("FLOAT", ["m", 4])}, axis=0), BATCHED + X + Y),
    "optional": (
        graph("Add", initializers=("B",), inputs={"X": ("FLOAT", ["n", 4]), "B": ("FLOAT", [1])}),
        X.replace("dims: 4", "dims: [ -1, 4 ]")
        + Y.replace("dims: 4", "dims: [ -1, 4 ]")
        + 'input { name: "B" data_type: TYPE_FP32 dims: 1 optional: true }',
    ),
}


@pytest.fixture(scope="module")
def client(server_factory: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A gRPC client of one server that carries every model of this file and loads none by itself."""
    import tritonclient.grpc as grpc

    repository = tmp_path_factory.mktemp("standins") / "models"
    models = {name: (case.file, case.config) for name, case in BAD.items()} | GOOD
    for name, (file, config) in models.items():
        version = repository / name / "1"
        version.mkdir(parents=True)
        if file is not None:
            (version / "model.onnx").write_bytes(file)
        if config:
            (repository / name / "config.pbtxt").write_text(
                f'backend: "onnxruntime"\n{ONE_INSTANCE}{config}', encoding="utf-8"
            )
    running = server_factory(repository, extra_args=["--model-control-mode=explicit"])
    with grpc.InferenceServerClient(running.url) as connection:
        yield connection
    running.stop()


@pytest.fixture(scope="module")
def said(client: Any) -> dict[str, str]:
    """What the server says to the loading of each bad model; side by side, because each load starts processes."""
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(BAD, pool.map(lambda name: refused(client, name), BAD), strict=True))


@pytest.fixture(scope="module")
def loaded(client: Any) -> Any:
    """The client, once all good models are loaded."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client.load_model, GOOD))
    return client


@pytest.mark.parametrize("name", BAD)
def test_refuses_in_the_words_of_the_compiled_backend(said: dict[str, str], name: str) -> None:
    case = BAD[name]
    _, message = refusals("onnxruntime")[case.key]
    if case.key == "file":
        assert "unable to find '" in said[name]
        assert f"{case.words['path']}' for model instance '{name}'" in said[name]
    else:
        assert message.format_map({"model": name, **case.words}) in said[name]


def test_names_the_newest_ir_version_that_it_loads(said: dict[str, str]) -> None:
    assert "Unsupported model IR version: 99, max supported IR version: 11" in said["newer_ir"]


def test_every_message_has_a_test() -> None:
    at_load = {case.key for case in BAD.values()}
    assert set(refusals("onnxruntime")) == at_load | {"split"}


def test_batches_requests_into_one_run(loaded: Any) -> None:

    def one(number: int) -> Any:
        return infer(loaded, "add", X=np.full((1 + number % 3, 4), number, np.float32))["Y"]

    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(one, range(32))):
            np.testing.assert_array_equal(found, np.full((1 + number % 3, 4), number + 10, np.float32))
    statistics = loaded.get_inference_statistics("add").model_stats[0]
    assert statistics.inference_count == sum(1 + number % 3 for number in range(32))
    assert statistics.execution_count <= 32


@pytest.mark.parametrize(
    ("name", "batch", "inputs"),
    [("no_config", 4, [4]), ("partial_config", 16, [4]), ("vector", 4, [1]), ("strings", 4, [2])],
)
def test_completes_the_config_from_the_file(loaded: Any, name: str, batch: int, inputs: list[int]) -> None:
    config = loaded.get_model_config(name).config
    assert config.max_batch_size == batch
    assert [list(tensor.dims) for tensor in config.input] == [inputs]
    assert [list(tensor.dims) for tensor in config.output] == [inputs]
    assert config.input[0].data_type == config.output[0].data_type


def test_serves_vectors_through_a_reshape(loaded: Any) -> None:
    np.testing.assert_array_equal(infer(loaded, "vector", X=np.ones((3, 1), np.float32))["Y"], np.ones((3, 1)))


def test_serves_models_without_a_batch_dimension(loaded: Any) -> None:
    assert infer(loaded, "unbatched", X=np.ones((9, 4), np.float32))["Y"].shape == (9, 4)


def test_serves_scalars(loaded: Any) -> None:
    np.testing.assert_array_equal(infer(loaded, "scalar", X=np.array([7], np.float32))["Y"], [7])


def test_serves_strings_in_every_script(loaded: Any) -> None:
    words = np.array([["naïve", "日本語"], ["", "Здравствуй 🌍"]], dtype=object)
    found = infer(loaded, "strings", X=words)["Y"]
    assert [[value.decode("utf-8") for value in row] for row in found] == words.tolist()


def test_refuses_bytes_that_are_not_text(loaded: Any) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match="input 'X' is not UTF-8"):
        infer(loaded, "strings", X=np.array([[b"\xff\xfe", b"a"]], dtype=object))


def test_optional_inputs_are_the_initializers(loaded: Any) -> None:
    ones = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(infer(loaded, "optional", X=ones)["Y"], ones + 10)
    np.testing.assert_array_equal(infer(loaded, "optional", X=ones, B=np.array([1], np.float32))["Y"], ones + 1)


def test_says_when_outputs_cannot_be_split(loaded: Any) -> None:
    from tritonclient.utils import InferenceServerException

    message = refusals("onnxruntime")["split"][1].format(name="Y", expected=3, found=1)
    with pytest.raises(InferenceServerException) as refusal:
        infer(loaded, "shrinks", X=np.ones((3, 4), np.float32))
    assert message in str(refusal.value)
