"""The client for asyncio code: the same requests, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from repo_builder.client import readiness, streaming
from repo_builder.client.messages import Options, infer_request, outputs_of
from repo_builder.client.metadata import ModelMetadata, ServerMetadata, model_metadata, server_metadata
from repo_builder.client.transport import (
    ALIVE_TIMEOUT_S,
    Budget,
    channel_options,
    closed,
    failure,
    is_unavailable,
    target_of,
)
from repo_builder.client.wire import Array
from repo_builder.errors import InferenceError, RepoBuilderError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from repo_builder.client.messages import RequestOptions


class AsyncClient:
    """A client of one Triton server within one event loop. Made by ``connect_async``.

    Timeouts, retries and errors are those of ``Client``; cancelling a task cancels its request on the server.
    """

    def __init__(self, url: str, *, timeout: float = 60.0, retries: int = 3) -> None:
        from tritonclient.grpc import service_pb2

        self.target = target_of(url)
        self._timeout, self._retries, self._pb = timeout, retries, service_pb2
        self._channel: Any = None
        self._opened_stub: Any = None
        self._closed = False
        self._signatures: dict[tuple[str, str], ModelMetadata] = {}

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what is in flight and close the channel."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def server_metadata(self) -> ServerMetadata:
        """See ``Client.server_metadata``."""
        return server_metadata(await self._call("ServerMetadata", self._pb.ServerMetadataRequest(), self._budget()))

    async def metadata(self, model: str, version: str = "") -> ModelMetadata:
        """See ``Client.metadata``."""
        return await self._metadata(model, version, self._budget())

    async def config(self, model: str, version: str = "") -> Any:
        """See ``Client.config``."""
        request = self._pb.ModelConfigRequest(name=model, version=version)
        return (await self._call("ModelConfig", request, self._budget(), model)).config

    async def is_ready(self, model: str = "", version: str = "", *, timeout: float | None = None) -> bool:
        """See ``Client.is_ready``."""
        method, request = readiness.question(self._pb, model, version)
        try:
            return bool((await self._call(method, request, self._budget(timeout, retries=0))).ready)
        except RepoBuilderError:
            self._check_open()
            return False

    async def wait_ready(self, timeout: float | None = None, models: Sequence[str] = ()) -> None:
        """See ``Client.wait_ready``."""
        budget = self._budget(timeout)
        while not await self._all_ready(models, budget):
            if budget.remaining() == 0.0:
                last = self._budget(readiness.REASON_TIMEOUT_S, retries=0)
                index = await self._call("RepositoryIndex", self._pb.RepositoryIndexRequest(), last)
                raise readiness.not_ready(self.target, budget.timeout, models, index)
            await asyncio.sleep(readiness.PAUSE_S)

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        timeout: float | None = None,
        **options: Unpack[RequestOptions],
    ) -> dict[str, Array]:
        """One request; the arguments, answers and errors of ``Client.infer``, shared memory apart."""
        chosen = Options(**options)
        budget = self._budget(timeout, 0 if chosen.sequence_id else None)
        request = await self._request(model, inputs, chosen, budget)
        try:
            return outputs_of(await self._call("ModelInfer", request, budget, model))
        except InferenceError:
            self._signatures.pop((model, chosen.version), None)
            raise

    async def stream(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        timeout: float | None = None,
        **options: Unpack[RequestOptions],
    ) -> AsyncIterator[dict[str, Array]]:
        """The responses to one request, as ``Client.stream`` gives them; ``aclose`` cancels it on the server."""
        import grpc

        chosen = Options(**options)
        budget = self._budget(timeout, 0 if chosen.sequence_id else None)
        request = streaming.request(await self._request(model, inputs, chosen, budget))
        begun = False
        while True:
            call = self._stub.ModelStreamInfer(iter([request]), timeout=budget.remaining())
            try:
                async for message in call:
                    begun = True
                    outputs, final = streaming.response(message, model)
                    if outputs is not None:
                        yield outputs
                    if final:
                        return
                raise streaming.cut_off(model)
            except grpc.RpcError as error:
                pause = None if begun else budget.pause_after(error)
                if pause is None:
                    raise failure(error, self.target, budget, model, alive=await self._alive(error)) from error
            finally:
                call.cancel()
            await asyncio.sleep(pause)

    async def _request(self, model: str, inputs: Mapping[str, Any], options: Options, budget: Budget) -> Any:
        known = self._signatures.get((model, options.version))
        if known is not None:
            try:
                return infer_request(known, inputs, options)
            except InferenceError:
                pass
        return infer_request(await self._metadata(model, options.version, budget), inputs, options)

    async def _metadata(self, model: str, version: str, budget: Budget) -> ModelMetadata:
        request = self._pb.ModelMetadataRequest(name=model, version=version)
        found = model_metadata(await self._call("ModelMetadata", request, budget, model))
        self._signatures[model, version] = found
        return found

    async def _all_ready(self, models: Sequence[str], budget: Budget) -> bool:
        for model in models or [""]:
            if not await self.is_ready(model, timeout=budget.remaining()):
                return False
        return True

    async def _call(self, method: str, request: Any, budget: Budget, model: str = "") -> Any:
        import grpc

        while True:
            try:
                return await getattr(self._stub, method)(request, timeout=budget.remaining())
            except grpc.RpcError as error:
                pause = budget.pause_after(error)
                if pause is None:
                    raise failure(error, self.target, budget, model, alive=await self._alive(error)) from error
            await asyncio.sleep(pause)

    async def _alive(self, error: Any) -> bool:
        import grpc

        if not is_unavailable(error):
            return True
        try:
            return bool((await self._stub.ServerLive(self._pb.ServerLiveRequest(), timeout=ALIVE_TIMEOUT_S)).live)
        except grpc.RpcError:
            return False

    def _budget(self, timeout: float | None = None, retries: int | None = None) -> Budget:
        return Budget(self._timeout if timeout is None else timeout, self._retries if retries is None else retries)

    @property
    def _stub(self) -> Any:
        """The stub; its channel is made at the first call, since it belongs to the event loop that runs then."""
        import grpc.aio
        from tritonclient.grpc import service_pb2_grpc

        self._check_open()
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self.target, options=channel_options(self.target))
            self._opened_stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._opened_stub

    def _check_open(self) -> None:
        if self._closed:
            raise closed(self.target)
