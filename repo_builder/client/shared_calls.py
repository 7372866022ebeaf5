"""Inference through shared memory: register a region, infer, unregister; whatever happens."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

from repo_builder.client import shared_region
from repo_builder.client.connection import Connection
from repo_builder.client.messages import Options
from repo_builder.client.metadata import ModelMetadata
from repo_builder.client.shared_region import Layout, Region
from repo_builder.client.transport import Budget, late
from repo_builder.client.wire import Array
from repo_builder.errors import InferenceError

RELEASE_S = 10.0
"""Seconds that a server may take to let go of a region after its answer."""


class SharedCalls:
    """The calls of one client that go through shared memory.

    Each runs in a thread of its own: the server may go on writing after the caller gave up, and a region in use cannot
    be unregistered ("it is currently in use", server 2.51). So on a timeout the thread stays, and unregisters when the
    server has answered.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._threads: set[threading.Thread] = set()

    def close(self) -> None:
        """Wait until the server has answered every call, and every region is gone."""
        for thread in list(self._threads):
            thread.join()

    def infer(self, metadata: ModelMetadata, layout: Layout, options: Options, budget: Budget) -> dict[str, Array]:
        """The outputs of one request, as arrays over the region's memory.

        Raises:
            InferenceError: the server does not take the region, or refuses the request.
            DiskFullError: /dev/shm has no room.
            TimeoutExceededError: no answer within ``budget``.
        """
        answer: Future[dict[str, Array]] = Future()
        thread = threading.Thread(target=self._carry, args=(answer, metadata, layout, options, budget.retries))
        self._threads.add(thread)
        thread.start()
        try:
            return answer.result(budget.remaining())
        except FutureTimeoutError as error:
            raise late(self._connection.target, budget.timeout, metadata.name) from error

    def _carry(
        self, answer: Future[dict[str, Array]], metadata: ModelMetadata, layout: Layout, options: Options, retries: int
    ) -> None:
        try:
            answer.set_result(self._through_region(metadata, layout, options, retries))
        except BaseException as error:  # noqa: BLE001  (the caller's thread raises it)
            answer.set_exception(error)
        finally:
            self._threads.discard(threading.current_thread())

    def _through_region(
        self, metadata: ModelMetadata, layout: Layout, options: Options, retries: int
    ) -> dict[str, Array]:
        region = Region(layout.size)
        try:
            self._register(region, metadata.name)
            region.unlink()
            try:
                request = shared_region.fill(region, layout, metadata, options)
                endless = self._connection.budget(math.inf, retries)
                response = self._connection.call("ModelInfer", request, endless, metadata.name)
                return shared_region.read(region, layout, response)
            finally:
                self._unregister(region)
        finally:
            region.unlink()

    def _unregister(self, region: Region) -> None:
        """Server 2.51 may still hold a region for a moment after it has answered ("it is currently in use")."""
        request = self._connection.pb.SystemSharedMemoryUnregisterRequest(name=region.name)
        budget = self._connection.budget(RELEASE_S)
        while True:
            try:
                self._connection.call("SystemSharedMemoryUnregister", request, budget)
                return
            except InferenceError as error:
                if "in use" not in error.found or budget.remaining() == 0.0:
                    raise
            time.sleep(0.02)

    def _register(self, region: Region, model: str) -> None:
        request = self._connection.pb.SystemSharedMemoryRegisterRequest(
            name=region.name, key=f"/{region.name}", byte_size=region.size
        )
        try:
            self._connection.call("SystemSharedMemoryRegister", request, self._connection.budget(), model)
        except InferenceError as error:
            raise shared_region.not_shared(self._connection.target, error.found, model) from error
