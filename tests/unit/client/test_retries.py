"""Retries and failures, against a real gRPC server in this process.

The server is a stand-in for Triton: it implements GRPCInferenceService with answers that the real one gives only by
chance (UNAVAILABLE, a stream that is cut off).
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from repo_builder import client
from repo_builder.errors import InferenceError, ServerUnavailableError, TimeoutExceededError


class StandIn(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Refuses the first ``failures`` requests with ``code``."""

    def __init__(self, failures: int = 0, code: Any = grpc.StatusCode.UNAVAILABLE) -> None:
        self.failures, self.code, self.seen, self.dtype = failures, code, 0, "INT32"

    def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        return service_pb2.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        return service_pb2.ServerReadyResponse(ready=True)

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: ARG002
        response = service_pb2.ModelMetadataResponse(name=request.name, versions=["1"])
        response.inputs.add(name="x", datatype=self.dtype, shape=[-1])
        return response

    def ModelInfer(self, request: Any, context: Any) -> Any:
        self._perhaps_refuse(context)
        return service_pb2.ModelInferResponse(model_name=request.model_name)

    def ModelStreamInfer(self, requests: Any, context: Any) -> Any:
        self._perhaps_refuse(context)
        for _ in requests:
            yield service_pb2.ModelStreamInferResponse(infer_response=service_pb2.ModelInferResponse())

    def _perhaps_refuse(self, context: Any) -> None:
        self.seen += 1
        if self.seen <= self.failures:
            context.abort(self.code, "the stand-in refuses")


@pytest.fixture
def serve() -> Iterator[Any]:
    servers = []

    def start(stand_in: StandIn, port: int = 0) -> str:
        server = grpc.server(ThreadPoolExecutor(4))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(stand_in, server)
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_unavailable_is_tried_again(serve: Any) -> None:
    stand_in = StandIn(failures=2)
    with client.connect(serve(stand_in), retries=2) as triton:
        assert triton.infer("m", {"x": [1]}) == {}
    assert stand_in.seen == 3


def test_the_servers_own_unavailable_is_told_when_retries_are_spent(serve: Any) -> None:
    stand_in = StandIn(failures=9)
    with (
        client.connect(serve(stand_in), retries=1) as triton,
        pytest.raises(InferenceError, match="m: the server answered: the stand-in refuses"),
    ):
        triton.infer("m", {"x": [1]})
    assert stand_in.seen == 2


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED]
)
def test_no_other_code_is_tried_again(serve: Any, code: Any) -> None:
    stand_in = StandIn(failures=1, code=code)
    with client.connect(serve(stand_in)) as triton, pytest.raises(InferenceError, match="the stand-in refuses"):
        triton.infer("m", {"x": [1]})
    assert stand_in.seen == 1


def test_a_step_of_a_sequence_is_never_sent_twice(serve: Any) -> None:
    stand_in = StandIn(failures=1)
    with client.connect(serve(stand_in)) as triton, pytest.raises(InferenceError, match="the stand-in refuses"):
        triton.infer("m", {"x": [1]}, sequence_id=5)
    assert stand_in.seen == 1


def test_retries_end_with_the_timeout(serve: Any) -> None:
    stand_in = StandIn(failures=1000)
    with (
        client.connect(serve(stand_in), retries=1000) as triton,
        pytest.raises((InferenceError, TimeoutExceededError)),
    ):
        triton.infer("m", {"x": [1]}, timeout=0.5)
    assert 1 < stand_in.seen < 1000


def test_a_stream_is_tried_again_before_its_first_response_and_may_not_end_early(serve: Any) -> None:
    stand_in = StandIn(failures=1)
    with client.connect(serve(stand_in)) as triton:
        responses = triton.stream("m", {"x": [1]})
        assert next(responses) == {}
        with pytest.raises(InferenceError, match="m: the server closed the stream before the final response"):
            next(responses)
    assert stand_in.seen == 2


def test_a_model_that_was_replaced_is_asked_for_its_signature_again(serve: Any) -> None:
    stand_in = StandIn()
    with client.connect(serve(stand_in)) as triton:
        triton.infer("m", {"x": [1]})
        stand_in.dtype = "BYTES"
        assert triton.infer("m", {"x": ["text"]}) == {}
        with pytest.raises(InferenceError, match=r"input 'x' holds 1 of type int\n  expected: str or bytes"):
            triton.infer("m", {"x": [1]})


def test_asyncio_does_the_same(serve: Any) -> None:
    stand_in = StandIn(failures=2)

    async def use() -> None:
        async with client.connect_async(serve(stand_in), retries=2) as triton:
            assert await triton.infer("m", {"x": [1]}) == {}
            stand_in.failures, stand_in.seen = 1, 0
            # grpc.aio at times says so itself, when the end and the read that waits for more meet
            ended = "closed the stream before the final response|Internal error from Core"
            with pytest.raises(InferenceError, match=ended):
                assert [answer async for answer in triton.stream("m", {"x": [1]})] == [{}]
            stand_in.failures = 99
            with pytest.raises(InferenceError, match="m: the server answered: the stand-in refuses"):
                await triton.infer("m", {"x": [1]})

    asyncio.run(use())


def test_a_server_that_starts_late_is_awaited(serve: Any) -> None:
    port = free_port()
    with client.connect(f"127.0.0.1:{port}") as triton:
        assert not triton.is_ready()
        starter = threading.Timer(0.5, serve, [StandIn(), port])
        starter.start()
        triton.wait_ready(timeout=60)
        assert triton.is_ready()
        starter.join()


@pytest.mark.parametrize("call", ["server_metadata", "wait_ready"])
def test_nothing_listens(call: str) -> None:
    port = free_port()
    with client.connect(f"127.0.0.1:{port}", timeout=0.5, retries=1) as triton:
        with pytest.raises(ServerUnavailableError) as caught:
            getattr(triton, call)()
        assert f"no inference server answers at 127.0.0.1:{port}" in str(caught.value)
        assert "is the server running, and is this its gRPC port rather than the one for HTTP" in str(caught.value)


def test_a_closed_client_says_so(serve: Any) -> None:
    triton = client.connect(serve(StandIn()))
    triton.close()
    for call in (triton.server_metadata, triton.is_ready, lambda: triton.infer_async("m", {"x": [1]})):
        with pytest.raises(InferenceError, match=r"this client of .* is closed\n  to mend it: call connect\(\) again"):
            call()
