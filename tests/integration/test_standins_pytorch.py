"""The pytorch stand-in in the real server: it serves TorchScript as the compiled backend does, and refuses likewise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.standins import infer, refusals, refused

pytestmark = [pytest.mark.server, pytest.mark.torch]

BATCHED = "max_batch_size: 8\n"
IN = 'input { name: "x" data_type: TYPE_FP32 dims: 4 }\n'
OUT = 'output { name: "doubled" data_type: TYPE_FP32 dims: 4 }\n'
ONES = np.ones((2, 4), np.float32)

MODULES = {
    "double": "def forward(self, x: Tensor) -> Tensor:\n    return x * 2",
    "pair": "def forward(self, a: Tensor, b: Tensor) -> Tuple[Tensor, Tensor]:\n    return a - b, a.sum(1).long()",
    "dictionary": "def forward(self, x: Dict[str, Tensor]) -> Tensor:\n    return x['left'] - x['right']",
    "dictionaries": "def forward(self, x: Tensor, y: Dict[str, Tensor]) -> Tensor:\n    return x",
    "integer": "def forward(self, x: Tensor, n: int) -> Tensor:\n    return x * n",
    "strings": "def forward(self, x: List[str]) -> List[str]:\n    return [s.upper() for s in x]",
    "to_dictionary": "def forward(self, x: Tensor) -> Dict[str, Tensor]:\n    return {'y': x}",
    "to_scalar": "def forward(self, x: Tensor) -> Tensor:\n    return x.sum()",
    "first_row": "def forward(self, x: Tensor) -> Tensor:\n    return x[:1]",
    "picky": "def forward(self, x: Tensor) -> Tensor:\n    assert bool(x.max() < 5), 'too large'\n    return x * 2",
}


@dataclass(frozen=True)
class Case:
    """A model that does not load, or whose requests fail: which message, its words, its file and its config."""

    key: str
    words: Mapping[str, Any] = field(default_factory=dict)
    module: str | bytes | None = "double"
    config: str = BATCHED + IN + OUT


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


CONTROL = "control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] }"
BAD = {
    "no_file": Case("file", {"path": "no_file/1/model.pt"}, None),
    "not_torchscript": Case("load", {"text": "PytorchStreamReader failed"}, b"not an archive"),
    "mode_maybe": Case("boolean", {"value": "maybe"}, config=BATCHED + IN + OUT + parameter("INFERENCE_MODE", "maybe")),
    "threads_many": Case(
        "integer", {"value": "many"}, config=BATCHED + IN + OUT + parameter("INTRA_OP_THREAD_COUNT", "many")
    ),
    "control": Case(
        "control_name",
        {"name": "START"},
        config=BATCHED + IN + OUT + f'sequence_batching {{ control_input {{ name: "START" {CONTROL} }} }}',
    ),
    "dicts": Case("dicts", {}, "dictionaries", BATCHED + IN + IN.replace("x", "y", 1) + OUT),
    "takes_integer": Case("argument_type", {"found": "int"}, "integer", BATCHED + IN + IN.replace('"x"', '"n"') + OUT),
    "one_input": Case("input_count", {"expected": 1, "found": 2}, "pair"),
    "unsigned": Case(
        "datatype",
        {"datatype": "TYPE_UINT16", "side": "input", "name": "x"},
        config=BATCHED + IN.replace("FP32", "UINT16") + OUT,
    ),
    "string_matrix": Case(
        "strings",
        {"side": "output", "name": "doubled"},
        config=BATCHED + IN + OUT.replace("FP32", "STRING"),
    ),
}
FAILING = {
    "third_output": Case(
        "output_index", {"name": "y__2", "found": 1}, config=BATCHED + IN + OUT.replace("doubled", "y__2")
    ),
    "dictionary_output": Case("output_kind", {}, "to_dictionary"),
    "other_type": Case(
        "output_datatype",
        {"expected": "TYPE_FP64", "name": "doubled", "found": "FP32"},
        config=BATCHED + IN + OUT.replace("FP32", "FP64"),
    ),
    "scalar_output": Case("output_scalar", {"name": "doubled"}, "to_scalar"),
    "too_few_rows": Case("split", {"name": "doubled", "expected": 2, "found": 1}, "first_row"),
}
NAMES = 'input {{ name: "{}" data_type: TYPE_FP32 dims: 4 }}\ninput {{ name: "{}" data_type: TYPE_FP32 dims: 4 }}\n'
PAIR_OUT = (
    'output { name: "SUM__1" data_type: TYPE_INT64 dims: 1 reshape { shape: [ ] } }\n'
    'output { name: "DIFFERENCE__0" data_type: TYPE_FP32 dims: 4 }\n'
)
GOOD = {
    "double": Case("", {}, "double"),
    "by_argument": Case("", {}, "pair", BATCHED + NAMES.format("b", "a") + PAIR_OUT),
    "by_index": Case("", {}, "pair", BATCHED + NAMES.format("INPUT__1", "INPUT__0") + PAIR_OUT),
    "by_order": Case("", {}, "pair", BATCHED + NAMES.format("first", "second") + PAIR_OUT),
    "dictionary": Case("", {}, "dictionary", BATCHED + NAMES.format("left", "right") + OUT),
    "strings": Case(
        "",
        {},
        "strings",
        IN.replace("FP32", "STRING").replace("4", "-1") + OUT.replace("FP32 dims: 4", "STRING dims: -1"),
    ),
    "picky": Case("", {}, "picky", BATCHED + IN + OUT + "dynamic_batching { max_queue_delay_microseconds: 300000 }"),
    "switches": Case(
        "",
        {},
        "double",
        BATCHED
        + IN
        + OUT
        + "".join(
            parameter(key, value)
            for key, value in {
                "INFERENCE_MODE": "false",
                "DISABLE_OPTIMIZED_EXECUTION": "true",
                "ENABLE_JIT_PROFILING": "false",
                "ENABLE_JIT_EXECUTOR": "false",
                "ENABLE_TENSOR_FUSER": "false",
                "ENABLE_CACHE_CLEANING": "true",
                "INTRA_OP_THREAD_COUNT": "1",
                "INTER_OP_THREAD_COUNT": "1",
            }.items()
        ),
    ),
}


@pytest.fixture(scope="module")
def client(server_factory: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A gRPC client of one server that carries every model of this file and loads none by itself."""
    import tritonclient.grpc as grpc

    folder = tmp_path_factory.mktemp("standins")
    archives = {name: compiled(source, folder / f"{name}.pt") for name, source in MODULES.items()}
    repository = folder / "models"
    for name, case in (BAD | FAILING | GOOD).items():
        version = repository / name / "1"
        version.mkdir(parents=True)
        if case.module is not None:
            content = case.module if isinstance(case.module, bytes) else archives[case.module]
            (version / "model.pt").write_bytes(content)
        head = 'platform: "pytorch_libtorch"\ninstance_group { kind: KIND_CPU count: 1 }\n'
        (repository / name / "config.pbtxt").write_text(head + case.config, encoding="utf-8")
    running = server_factory(repository, extra_args=["--model-control-mode=explicit"], timeout=600)
    assert running.versions["torch"].startswith("2.")
    with grpc.InferenceServerClient(running.url) as connection:
        yield connection
    running.stop()


def compiled(source: str, path: Path) -> bytes:
    """A scripted module whose ``forward`` is the source, as the bytes of its archive."""
    import torch

    module = type(path.stem, (torch.jit.ScriptModule,), {})()
    module.define(source + "\n")
    module.save(str(path))
    return path.read_bytes()


@pytest.fixture(scope="module")
def said(client: Any) -> dict[str, str]:
    """What the server says to the loading of each bad model; side by side, because each load starts processes."""
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(BAD, pool.map(lambda name: refused(client, name), BAD), strict=True))


@pytest.fixture(scope="module")
def loaded(client: Any) -> Any:
    """The client, once all models that load are loaded."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(client.load_model, GOOD | FAILING))
    return client


@pytest.mark.parametrize("name", BAD)
def test_refuses_in_the_words_of_the_compiled_backend(said: dict[str, str], name: str) -> None:
    case = BAD[name]
    _, message = refusals("pytorch")[case.key]
    if case.key == "file":
        assert "unable to find '" in said[name]
        assert f"{case.words['path']}' for model instance '{name}'" in said[name]
    else:
        assert message.format_map({"model": name, **case.words}) in said[name]


@pytest.mark.parametrize("name", FAILING)
def test_fails_requests_in_the_words_of_the_compiled_backend(loaded: Any, name: str) -> None:
    from tritonclient.utils import InferenceServerException

    case = FAILING[name]
    message = refusals("pytorch")[case.key][1].format_map({"model": name, **case.words})
    with pytest.raises(InferenceServerException) as refusal:
        infer(loaded, name, x=ONES)
    assert message in str(refusal.value)


def test_every_message_has_a_test() -> None:
    tested = {case.key for case in (BAD | FAILING).values()} | {"execute"}
    # The core refuses a config without inputs or outputs before any backend sees it.
    assert set(refusals("pytorch")) == tested | {"no_inputs", "no_outputs"}


@pytest.mark.parametrize("name", ["double", "switches"])
def test_serves_a_module(loaded: Any, name: str) -> None:
    np.testing.assert_array_equal(infer(loaded, name, x=ONES)["doubled"], ONES * 2)


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [("by_argument", "a", "b"), ("by_index", "INPUT__0", "INPUT__1"), ("by_order", "first", "second")],
)
def test_inputs_go_by_argument_by_index_or_by_order(loaded: Any, name: str, first: str, second: str) -> None:
    found = infer(loaded, name, **{first: ONES * 5, second: ONES * 2})
    np.testing.assert_array_equal(found["DIFFERENCE__0"], ONES * 3)
    np.testing.assert_array_equal(found["SUM__1"].reshape(-1), [20, 20])


def test_a_dictionary_of_tensors(loaded: Any) -> None:
    np.testing.assert_array_equal(infer(loaded, "dictionary", left=ONES * 5, right=ONES)["doubled"], ONES * 4)


def test_strings(loaded: Any) -> None:
    found = infer(loaded, "strings", x=np.array(["ab", "", "c d"], dtype=object))["doubled"]
    assert found.tolist() == [b"AB", b"", b"C D"]


def test_a_failing_request_does_not_fail_those_that_it_is_batched_with(loaded: Any) -> None:
    from tritonclient.utils import InferenceServerException

    def one(value: float) -> Any:
        try:
            return infer(loaded, "picky", x=np.full((1, 4), value, np.float32))["doubled"]
        except InferenceServerException as error:
            return str(error)

    with ThreadPoolExecutor(3) as pool:
        low, high, other = pool.map(one, [1.0, 9.0, 2.0])
    np.testing.assert_array_equal(low, np.full((1, 4), 2, np.float32))
    np.testing.assert_array_equal(other, np.full((1, 4), 4, np.float32))
    assert "PyTorch execute failure: " in high
    assert "too large" in high
