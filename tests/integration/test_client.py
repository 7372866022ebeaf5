"""The client against the real server: requests, batches, streams, threads, errors."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repo_builder import client
from repo_builder.client import shared_region
from repo_builder.errors import (
    DiskFullError,
    InferenceError,
    ServerUnavailableError,
    TimeoutExceededError,
)
from repo_builder.tensors import TensorSpec

pytestmark = pytest.mark.server

MODELS = Path(__file__).parent / "client_models"
SLEEPY = [[1.5, 0, 0]]
AT_ONCE = [[-1.0, 0.25, 3]]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(MODELS, tmp_path_factory.mktemp("client") / "models"))


@pytest.fixture(scope="module")
def server(server_factory: Callable[..., Any], repository: Path) -> Any:
    return server_factory(repository)


@pytest.fixture(scope="module")
def triton(server: Any) -> Iterator[client.Client]:
    with client.connect(server.url) as connected:
        connected.wait_ready()
        yield connected


def test_the_server_and_its_models_describe_themselves(triton: client.Client) -> None:
    server = triton.server_metadata()
    assert (server.name, server.version) == ("triton", "2.51.0")
    assert "system_shared_memory" in server.extensions
    model = triton.metadata("upper")
    assert (model.name, model.versions, model.platform) == ("upper", ("1",), "python")
    assert model.inputs == (TensorSpec("text", "BYTES", ("?", 1)),)
    assert model.output("length") == TensorSpec("length", "INT32", ("?", 1))
    assert model.output("length").dims == (-1, 1)
    assert triton.config("upper").max_batch_size == 8


def test_readiness(triton: client.Client) -> None:
    assert triton.is_ready()
    assert triton.is_ready("upper")
    assert not triton.is_ready("nope")
    triton.wait_ready(models=["upper", "affine"])
    with pytest.raises(TimeoutExceededError) as caught:
        triton.wait_ready(timeout=0.2, models=["upper", "nope"])
    assert "was not ready within 0.2 s: nope is not in the repository" in str(caught.value)


@pytest.mark.parametrize(
    "dtype",
    ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64"],
)
def test_every_numpy_dtype_comes_back(triton: client.Client, dtype: str) -> None:
    name = dtype.upper().replace("FLOAT", "FP")
    sent = (np.random.default_rng(7).normal(size=(3, 4)) * 100).astype(dtype)
    found = triton.infer("echo", {name: sent})[f"{name}_OUT"]
    assert found.dtype == sent.dtype
    np.testing.assert_array_equal(found, sent)
    found[0, 0] = 0


def test_text_and_bfloat16_come_back(triton: client.Client) -> None:
    found = triton.infer("echo", {"STRING": [["a", "é"], [b"\xff", ""]], "BF16": [[1.5, 3.14159]]})
    assert found["STRING_OUT"].tolist() == [[b"a", "é".encode()], [b"\xff", b""]]
    assert found["BF16_OUT"].dtype == np.float32
    assert found["BF16_OUT"].tolist() == [[1.5, 3.140625]]


def test_empty_tensors_come_back(triton: client.Client) -> None:
    assert triton.infer("echo", {"FP32": np.zeros((0, 3), np.float32)})["FP32_OUT"].shape == (0, 3)


def test_lists_of_str_take_the_models_shape(triton: client.Client) -> None:
    found = triton.infer("upper", {"text": ["straße", "日本語"]}, outputs=["upper", "length"])
    assert sorted(found) == ["length", "upper"]
    assert client.text(found["upper"]) == ["STRASSE", "日本語"]
    assert found["length"].tolist() == [[6], [3]]
    assert client.text(triton.infer("upper", {"text": "one"}, version="1")["upper"]) == ["ONE"]


def test_answers_beyond_grpcs_four_megabytes(triton: client.Client) -> None:
    sent = np.arange(2**21, dtype=np.float32).reshape(2, -1)
    np.testing.assert_array_equal(triton.infer("echo", {"FP32": sent})["FP32_OUT"], sent)


def test_sequences_keep_their_state(triton: client.Client) -> None:
    for sequence in (7, "by-name"):
        totals = [
            triton.infer("total", {"x": [[x]]}, sequence_id=sequence, sequence_start=x == 1, sequence_end=x == 3)[
                "total"
            ].item()
            for x in (1, 2, 3)
        ]
        assert totals == [1, 3, 6]


@pytest.mark.parametrize(
    ("model", "inputs", "options", "text"),
    [
        ("nope", {}, {}, "nope: the server answered: Request for unknown model: 'nope' is not found"),
        ("upper", {"text": "a"}, {"version": "9"}, "'upper' version 9 is not found"),
        ("upper", {}, {}, "upper: the server answered: [request id: <id_unknown>] expected 1 inputs but got 0"),
        ("upper", {"text": ["a"] * 9}, {}, "inference request batch-size must be <= 8 for 'upper'"),
        ("upper", {"texts": "a"}, {}, "upper: the model has no input 'texts' (did you mean 'text'?)"),
        ("upper", {"text": "a"}, {"outputs": ["uper"]}, "the model has no output 'uper' (did you mean 'upper'?)"),
        ("upper", {"text": [1]}, {}, "input 'text' holds 1 of type int"),
        ("affine", {"x": [[-13, 0, 0]]}, {}, "affine: the server answered: thirteen is not served here"),
        ("affine", {"x": [1.0, 2, 3]}, {}, "affine: input 'x' was given shape [3]\n  expected: x FP32[?, 3]"),
        ("repeat", {"count": [1]}, {}, "decoupled transaction policy\n  to mend it: use stream()"),
    ],
)
def test_errors_name_the_model_and_keep_the_servers_words(
    triton: client.Client, model: str, inputs: dict[str, Any], options: dict[str, Any], text: str
) -> None:
    with pytest.raises(InferenceError) as caught:
        triton.infer(model, inputs, **options)
    assert text in str(caught.value)


def test_a_deadline_is_a_timeout(triton: client.Client) -> None:
    with pytest.raises(TimeoutExceededError) as caught:
        triton.infer("affine", {"x": SLEEPY}, timeout=0.2)
    assert f"affine: {triton.target} did not answer within 0.2 s" in str(caught.value)
    assert triton.infer("affine", {"x": AT_ONCE}, timeout=math.inf)["y"].tolist() == [[-1.0, 1.5, 7.0]]


def test_the_http_port_is_not_the_grpc_port(server: Any) -> None:
    with client.connect(f"127.0.0.1:{server.ports.http}", retries=0) as wrong:
        with pytest.raises(ServerUnavailableError, match="is this its gRPC port rather than the one for HTTP"):
            wrong.server_metadata()
        assert not wrong.is_ready()


def test_rows_travel_in_batches_and_come_back_in_order(triton: client.Client) -> None:
    answers = list(triton.infer_many("upper", ({"text": f"t{i}"} for i in range(37)), batch_size=5))
    assert [client.text(answer["upper"])[0] for answer in answers] == [f"T{i}" for i in range(37)]
    assert [int(answer["batch"].item()) for answer in answers] == [5] * 35 + [2] * 2
    assert [int(a["batch"].item()) for a in triton.infer_many("upper", [{"text": "a"}] * 9)] == [8] * 8 + [1]
    assert list(triton.infer_many("upper", [])) == []
    endless = triton.infer_many("affine", ({"x": np.float32([-1, i, 0])} for i in itertools.count()), in_flight=2)
    assert [next(endless)["y"].tolist() for _ in range(3)] == [[-1, 1, 1], [-1, 3, 1], [-1, 5, 1]]
    endless.close()
    with pytest.raises(InferenceError, match="thirteen is not served here"):
        list(triton.infer_many("affine", [{"x": np.float32([-13, 0, 0])}]))


def test_many_threads_share_a_client(triton: client.Client) -> None:
    def ask(i: int) -> bool:
        return triton.infer("affine", {"x": [[-1, i, i]]})["y"].tolist() == [[-1, 2 * i + 1, 2 * i + 1]]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(ask, range(200)))
    futures = [triton.infer_async("affine", {"x": [[-1, i, i]]}) for i in range(50)]
    assert [int(future.result()["y"][0, 1]) for future in futures] == [2 * i + 1 for i in range(50)]
    assert isinstance(triton.infer_async("nope", {}).exception(), InferenceError)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_streams_give_every_response(triton: client.Client, count: int) -> None:
    assert [answer["index"].item() for answer in triton.stream("repeat", {"count": [count]})] == list(range(count))


def test_a_stream_of_an_ordinary_model_has_one_response(triton: client.Client) -> None:
    assert [client.text(answer["upper"]) for answer in triton.stream("upper", {"text": "a"})] == [["A"]]


def test_an_error_mid_stream_comes_after_what_came_before(triton: client.Client) -> None:
    answers = triton.stream("repeat", {"count": [5], "fail_at": [2]})
    assert [next(answers)["index"].item() for _ in range(2)] == [0, 1]
    with pytest.raises(InferenceError, match="repeat: the server answered: stopped at 2"):
        next(answers)


def test_closing_a_stream_cancels_it_on_the_server(triton: client.Client, repository: Path) -> None:
    answers = triton.stream("repeat", {"count": [-1]})
    assert [next(answers)["index"].item() for _ in range(2)] == [0, 1]
    answers.close()
    _await_cancelled(repository)


def test_a_stream_past_its_timeout_is_cancelled(triton: client.Client, repository: Path) -> None:
    with pytest.raises(TimeoutExceededError, match=r"did not answer within 0\.3 s"):
        list(triton.stream("repeat", {"count": [-1]}, timeout=0.3))
    _await_cancelled(repository)


def _await_cancelled(repository: Path) -> None:
    seen = repository / "repeat" / "cancelled"
    end = time.monotonic() + 30
    while not seen.exists():
        assert time.monotonic() < end, "the server never saw the cancellation"
        time.sleep(0.05)
    seen.unlink()


def test_asyncio(server: Any, repository: Path) -> None:
    async def use() -> None:
        async with client.connect_async(f"grpc://{server.url}") as triton:
            await triton.wait_ready()
            assert await triton.is_ready("upper")
            assert not await triton.is_ready("nope")
            assert (await triton.server_metadata()).version == "2.51.0"
            assert (await triton.metadata("upper")).inputs == (TensorSpec("text", "BYTES", ("?", 1)),)
            assert (await triton.config("upper")).max_batch_size == 8
            answers = await asyncio.gather(*(triton.infer("affine", {"x": [[-1, i, i]]}) for i in range(20)))
            assert [int(answer["y"][0, 1]) for answer in answers] == [2 * i + 1 for i in range(20)]
            with pytest.raises(InferenceError, match="thirteen is not served here"):
                await triton.infer("affine", {"x": [[-13, 0, 0]]})
            with pytest.raises(TimeoutExceededError, match=r"did not answer within 0\.2 s"):
                await triton.infer("affine", {"x": SLEEPY}, timeout=0.2)
            with pytest.raises(TimeoutExceededError, match="nope is not in the repository"):
                await triton.wait_ready(timeout=0.2, models=["nope"])
            assert [answer["index"].item() async for answer in triton.stream("repeat", {"count": [3]})] == [0, 1, 2]
            endless = triton.stream("repeat", {"count": [-1]})
            await anext(endless)
            await endless.aclose()
            await asyncio.to_thread(_await_cancelled, repository)
        with pytest.raises(InferenceError, match="is closed"):
            await triton.server_metadata()

    asyncio.run(use())


def test_asyncio_without_a_server() -> None:
    async def use() -> None:
        async with client.connect_async("127.0.0.1:1", retries=0) as triton:
            with pytest.raises(ServerUnavailableError, match=r"no inference server answers at 127\.0\.0\.1:1 "):
                await triton.infer("upper", {"text": "a"})

    asyncio.run(use())


@pytest.fixture
def no_region_left(server: Any) -> Iterator[None]:
    """Nothing of the client stays in shared memory, neither here nor registered at the server."""
    from tritonclient.grpc import InferenceServerClient

    yield
    assert not list(shared_region.FOLDER.glob(f"repo_builder_client_{os.getpid()}_*"))
    with InferenceServerClient(server.url) as plain:
        assert not plain.get_system_shared_memory_status().regions


@pytest.mark.usefixtures("no_region_left")
def test_shared_memory_carries_inputs_and_outputs(triton: client.Client) -> None:
    sent = np.random.default_rng(7).normal(size=(512, 1024)).astype(np.float32)
    sizes = {"FP32_OUT": sent.nbytes, "STRING_OUT": 100, "BF16_OUT": 64, "INT8_OUT": 64}
    inputs = {"FP32": sent, "STRING": [["é", "b"]], "BF16": [[1.5]], "INT8": np.zeros((0, 2), np.int8)}
    found = triton.infer("echo", inputs, outputs=list(sizes), shared_memory=sizes)
    np.testing.assert_array_equal(found["FP32_OUT"], sent)
    assert found["STRING_OUT"].tolist() == [["é".encode(), b"b"]]
    assert found["BF16_OUT"].tolist() == [[1.5]]
    assert found["INT8_OUT"].shape == (0, 2)
    found["FP32_OUT"][:] = 0
    by_batch = triton.infer("affine", {"x": AT_ONCE * 3}, shared_memory=True)
    assert by_batch["y"].tolist() == [[-1.0, 1.5, 7.0]] * 3


@pytest.mark.usefixtures("no_region_left")
@pytest.mark.parametrize(
    ("model", "inputs", "sizes", "text"),
    [
        ("affine", {"x": [[-13, 0, 0]]}, True, "the server answered: thirteen is not served here"),
        ("echo", {"FP32": [[1.0, 2]]}, {"FP32_OUT": 4}, "(4 bytes) should be at least 8 bytes to hold the results"),
        ("upper", {"text": "a"}, True, "the size of output 'upper' is not known before the answer"),
        ("upper", {"text": "a"}, {"uper": 8}, "the model has no output 'uper'"),
        ("affine", {"x": [[1]]}, True, "input 'x' was given shape [1, 1]"),
        ("nope", {}, True, "Request for unknown model: 'nope' is not found"),
    ],
)
def test_shared_memory_is_given_back_on_errors(
    triton: client.Client, model: str, inputs: dict[str, Any], sizes: Any, text: str
) -> None:
    outputs = list(sizes) if model == "echo" else ()
    with pytest.raises(InferenceError) as caught:
        triton.infer(model, inputs, outputs=outputs, shared_memory=sizes)
    assert text in str(caught.value)


@pytest.mark.usefixtures("no_region_left")
def test_a_timeout_leaves_the_region_to_the_server_until_it_has_answered(server: Any) -> None:
    with client.connect(server.url) as triton:
        with pytest.raises(TimeoutExceededError, match=r"did not answer within 0\.2 s"):
            triton.infer("affine", {"x": SLEEPY}, shared_memory=True, timeout=0.2)
        assert triton.infer("affine", {"x": AT_ONCE}, shared_memory=True)["y"].tolist() == [[-1.0, 1.5, 7.0]]
    assert server.alive()


@pytest.mark.usefixtures("no_region_left")
def test_no_room_for_shared_memory(triton: client.Client) -> None:
    with pytest.raises(DiskFullError, match=r"has no room for 1125899906842\d+ bytes\n  to mend it: enlarge it"):
        triton.infer("echo", {"FP32": [[1.0]]}, outputs=["FP32_OUT"], shared_memory={"FP32_OUT": 2**50})


def test_a_server_that_does_not_see_the_region_is_told_apart(
    triton: client.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The region lies where the server does not look, as another machine's would."""
    monkeypatch.setattr(shared_region, "FOLDER", tmp_path)
    with pytest.raises(InferenceError) as caught:
        triton.infer("affine", {"x": AT_ONCE}, shared_memory=True)
    assert f"affine: the server at {triton.target} does not take the shared memory: " in str(caught.value)
    assert "Unable to open shared memory region" in str(caught.value)
    assert "expected: a server on this machine, run by the same user, that sees the same /dev/shm" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shared_region, "FOLDER", tmp_path / "missing")
    with pytest.raises(InferenceError, match=r"no shared memory can be made in .*missing: No such file"):
        triton.infer("affine", {"x": AT_ONCE}, shared_memory=True)
