"""One channel to one server, and one call over it: timeout, retries, errors."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from repo_builder.client.transport import (
    ALIVE_TIMEOUT_S,
    Budget,
    channel_options,
    closed,
    failure,
    is_unavailable,
    target_of,
)


class Connection:
    """The channel of a blocking client; safe to share between threads."""

    def __init__(self, url: str, *, timeout: float, retries: int) -> None:
        import grpc
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        self.target, self.timeout, self.retries, self.pb = target_of(url), timeout, retries, service_pb2
        self._channel = grpc.insecure_channel(self.target, options=channel_options(self.target))
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._closed = False

    def close(self) -> None:
        self._closed = True
        self._channel.close()

    def check_open(self) -> None:
        if self._closed:
            raise closed(self.target)

    def budget(self, timeout: float | None = None, retries: int | None = None) -> Budget:
        """Time and retries of one call, the client's own where they are not given."""
        return Budget(self.timeout if timeout is None else timeout, self.retries if retries is None else retries)

    def call(self, method: str, request: Any, budget: Budget, model: str = "") -> Any:
        """The response to ``request``, within ``budget``.

        Raises:
            ServerUnavailableError, TimeoutExceededError, InferenceError: see ``failure``.
        """
        import grpc

        while True:
            self.check_open()
            try:
                return getattr(self._stub, method)(request, timeout=budget.remaining())
            except grpc.RpcError as error:
                pause = budget.pause_after(error)
                if pause is None:
                    raise failure(error, self.target, budget, model, alive=self._alive(error)) from error
            time.sleep(pause)

    def stream(self, request: Any, budget: Budget) -> Generator[Any, None, None]:
        """The messages of ModelStreamInfer for one request; closing the iterator cancels the call.

        Only a stream that has brought nothing yet is tried again.
        """
        import grpc

        begun = False
        while True:
            self.check_open()
            call = self._stub.ModelStreamInfer(iter([request]), timeout=budget.remaining())
            try:
                for message in call:
                    begun = True
                    yield message
                return
            except grpc.RpcError as error:
                pause = None if begun else budget.pause_after(error)
                if pause is None:
                    alive = self._alive(error)
                    raise failure(error, self.target, budget, request.model_name, alive=alive) from error
            finally:
                call.cancel()
            time.sleep(pause)

    def _alive(self, error: Any) -> bool:
        """Whether a server stands behind ``error``."""
        import grpc

        if not is_unavailable(error):
            return True
        try:
            return bool(self._stub.ServerLive(self.pb.ServerLiveRequest(), timeout=ALIVE_TIMEOUT_S).live)
        except grpc.RpcError:
            return False
