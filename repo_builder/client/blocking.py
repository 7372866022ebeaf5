"""The client for ordinary (blocking) code; safe to share between threads."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import TracebackType
from typing import Any

from repo_builder.client import batches, readiness, shared_region, streaming
from repo_builder.client.messages import Options, Parameter, infer_request, outputs_of
from repo_builder.client.metadata import ModelMetadata, ServerMetadata, model_metadata, server_metadata
from repo_builder.client.transport import Budget, channel_options, failure, late, target_of
from repo_builder.client.wire import Array
from repo_builder.errors import InferenceError, RepoBuilderError

THREADS = 32
"""Requests that ``infer_async`` has in flight at most; more wait their turn."""


class Client:
    """A connection to one Triton server. Made by ``connect``.

    ``timeout`` (seconds, ``math.inf`` for none) bounds every call, its retries included; each call can pass its own.
    Only UNAVAILABLE is tried again, ``retries`` times; requests of a sequence never are, since the server may already
    have taken the step.
    """

    def __init__(self, url: str, *, timeout: float = 60.0, retries: int = 3) -> None:
        import grpc
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        self.target, self.timeout, self.retries = target_of(url), timeout, retries
        self._channel = grpc.insecure_channel(self.target, options=channel_options(self.target))
        self._open_stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._pb = service_pb2
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="infer")
        self._signatures: dict[tuple[str, str], ModelMetadata] = {}
        self._sharing: set[threading.Thread] = set()
        self._closed = False

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what waits in ``infer_async``, await what is in flight, close the channel."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for thread in list(self._sharing):
            thread.join()
        self._closed = True
        self._channel.close()

    def server_metadata(self) -> ServerMetadata:
        """The server's name, version and extensions."""
        return server_metadata(self._call("ServerMetadata", self._pb.ServerMetadataRequest()))

    def metadata(self, model: str, version: str = "") -> ModelMetadata:
        """The model's versions, platform, inputs and outputs, as the server tells them now.

        Raises:
            InferenceError: no such model, or it is not ready.
        """
        request = self._pb.ModelMetadataRequest(name=model, version=version)
        found = model_metadata(self._call("ModelMetadata", request, model=model))
        self._signatures[model, version] = found
        return found

    def config(self, model: str, version: str = "") -> Any:
        """The model's configuration as the server completed it: Triton's ``ModelConfig`` message."""
        request = self._pb.ModelConfigRequest(name=model, version=version)
        return self._call("ModelConfig", request, model=model).config

    def is_ready(self, model: str = "", version: str = "") -> bool:
        """Whether the server, or the model, is ready; False where nothing answers."""
        method, request = readiness.question(self._pb, model, version)
        try:
            return bool(self._call(method, request, retries=0).ready)
        except RepoBuilderError:
            return False

    def wait_ready(self, timeout: float | None = None, models: Sequence[str] = ()) -> None:
        """Wait until the server and all its models are ready, or only ``models`` where they are named.

        Raises:
            ServerUnavailableError: nothing answered within ``timeout`` seconds.
            TimeoutExceededError: the server answers but is not ready; names the models and the server's reasons.
        """
        limit = self.timeout if timeout is None else timeout
        budget = Budget(limit, retries=0)
        while not all(self.is_ready(model) for model in models or [""]):
            if budget.remaining() == 0.0:
                raise self._not_ready(limit, models)
            time.sleep(readiness.PAUSE_S)

    def _not_ready(self, timeout: float, models: Sequence[str]) -> RepoBuilderError:
        try:
            index = self._call("RepositoryIndex", self._pb.RepositoryIndexRequest(), retries=0, timeout=5.0)
        except RepoBuilderError as error:
            return error
        return readiness.not_ready(self.target, timeout, models, index)

    def infer(
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        outputs: Sequence[str] = (),
        version: str = "",
        timeout: float | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        request_id: str = "",
        sequence_id: int | str = 0,
        sequence_start: bool = False,
        sequence_end: bool = False,
        shared_memory: bool | Mapping[str, int] = False,
    ) -> dict[str, Array]:
        """One request; the outputs by name.

        Args:
            model: the model's name; ``version`` is chosen by the server where it is empty.
            inputs: per input a numpy array of the request's shape (batch axis included), or a (nested) list. For a
                BYTES input a str, or a flat list of them, goes on the first axis that can hold it: N texts for an
                input ``[-1, 1]`` travel as ``[N, 1]``. dtypes are converted where no value changes; Python floats
                take the nearest value; BF16 inputs are given as float32 and rounded to nearest even.
            outputs: names of the outputs wanted; all by default.
            timeout: seconds for the whole call.
            parameters: request parameters (``priority`` and ``timeout`` are Triton's own).
            sequence_id: of a stateful model; with ``sequence_start`` and ``sequence_end``.
            shared_memory: True sends inputs and takes outputs through one region of system shared memory; only for a
                server on this machine. Outputs whose size the model's metadata leaves open (BYTES, or a symbolic dim
                beside the batch) need their largest size in bytes: ``{"OUTPUT": 1 << 20}``.

        Returns:
            Arrays by output name: BYTES as object arrays of bytes (see ``text``), BF16 as float32.

        Raises:
            InferenceError: an input does not fit, or the server refused; the server's message is given as it is.
            TimeoutExceededError: no answer in time.
            ServerUnavailableError: no server there.
        """
        options = Options(outputs, version, request_id, parameters or {}, sequence_id, sequence_start, sequence_end)
        if shared_memory is not False:
            sizes = {} if shared_memory is True else shared_memory
            return self._infer_shared(model, inputs, options, timeout, sizes)
        request = self._request(model, inputs, options)
        return outputs_of(self._infer_call(request, timeout, options))

    def infer_async(self, model: str, inputs: Mapping[str, Any], **options: Any) -> Future[dict[str, Array]]:
        """``infer`` in a thread of the client's pool; takes the same arguments."""
        self._check_open()
        return self._threads.submit(self.infer, model, inputs, **options)

    def infer_many(
        self,
        model: str,
        rows: Iterable[Mapping[str, Any]],
        *,
        batch_size: int = 32,
        in_flight: int = 4,
        **options: Any,
    ) -> Iterator[dict[str, Array]]:
        """One dict of outputs per row, in the order of ``rows``, the batch axis taken off.

        Each row gives every input without its batch axis. Rows travel ``batch_size`` at a time (never more than the
        model's ``max_batch_size``), ``in_flight`` requests at once; ``rows`` may be endless, it is read as answers are
        taken. The other arguments are those of ``infer``.
        """
        largest = self.config(model, options.get("version", "")).max_batch_size
        size = min(batch_size, largest) if largest else batch_size
        pending: deque[tuple[int, Future[dict[str, Array]]]] = deque()
        try:
            for chunk in batches.chunks(rows, size):
                pending.append((len(chunk), self.infer_async(model, batches.join(chunk, model), **options)))
                if len(pending) >= in_flight:
                    count, answer = pending.popleft()
                    yield from batches.split(answer.result(), count, model)
            while pending:
                count, answer = pending.popleft()
                yield from batches.split(answer.result(), count, model)
        finally:
            for _, answer in pending:
                answer.cancel()

    def stream(
        self, model: str, inputs: Mapping[str, Any], *, timeout: float | None = None, **options: Any
    ) -> Iterator[dict[str, Array]]:
        """Every response to one request, as it comes: none, one or many from a decoupled model, one from any other.

        Closing the iterator cancels the request on the server. ``timeout`` bounds the whole stream; the other
        arguments are those of ``infer``, shared memory apart. An error ends the stream with ``InferenceError``, after
        the responses that came before it.
        """
        chosen = Options(**options)
        request = streaming.request(self._request(model, inputs, chosen))
        return self._responses(request, self.timeout if timeout is None else timeout, chosen)

    def _responses(self, request: Any, timeout: float, options: Options) -> Iterator[dict[str, Array]]:
        import grpc

        budget, begun = Budget(timeout, self._retries(options)), False
        while True:
            call = self._stub.ModelStreamInfer(iter([request]), timeout=budget.remaining())
            try:
                for message in call:
                    begun = True
                    outputs, final = streaming.response(message, request.model_name)
                    if outputs is not None:
                        yield outputs
                    if final:
                        return
                return
            except grpc.RpcError as error:
                pause = None if begun else budget.pause_after(error)
                if pause is None:
                    raise failure(error, self.target, model=request.model_name, timeout=timeout) from error
            finally:
                call.cancel()
            time.sleep(pause)

    def _infer_shared(
        self,
        model: str,
        inputs: Mapping[str, Any],
        options: Options,
        timeout: float | None,
        sizes: Mapping[str, int],
    ) -> dict[str, Array]:
        """The request through a region, in a thread of its own.

        A server may go on writing after a client gave up, and before 2.53 one dies when the region is unregistered
        meanwhile: so on a timeout the thread stays, and unregisters when the server has answered.
        """
        self._check_open()
        metadata = self.metadata(model, options.version)
        batched = self.config(model, options.version).max_batch_size > 0
        layout = shared_region.plan(metadata, inputs, options, sizes, batched)
        limit = self.timeout if timeout is None else timeout
        answer: Future[dict[str, Array]] = Future()
        thread = threading.Thread(target=self._carry_shared, args=(answer, metadata, layout, options))
        self._sharing.add(thread)
        thread.start()
        try:
            return answer.result(None if math.isinf(limit) else limit)
        except FutureTimeoutError as error:
            raise late(self.target, limit, model) from error

    def _carry_shared(
        self, answer: Future[dict[str, Array]], metadata: ModelMetadata, layout: shared_region.Layout, options: Options
    ) -> None:
        try:
            answer.set_result(self._through_region(metadata, layout, options))
        except BaseException as error:  # noqa: BLE001  (it is raised in the thread that waits)
            answer.set_exception(error)
        finally:
            self._sharing.discard(threading.current_thread())

    def _through_region(
        self, metadata: ModelMetadata, layout: shared_region.Layout, options: Options
    ) -> dict[str, Array]:
        model, region = metadata.name, shared_region.Region(layout.size)
        try:
            register = self._pb.SystemSharedMemoryRegisterRequest(
                name=region.name, key=f"/{region.name}", byte_size=region.size
            )
            try:
                self._call("SystemSharedMemoryRegister", register, model=model)
            except InferenceError as error:
                raise shared_region.not_shared(self.target, error.found, model) from error
            region.unlink()
            try:
                request = shared_region.fill(region, layout, metadata, options)
                response = self._call(
                    "ModelInfer", request, model=model, timeout=math.inf, retries=self._retries(options)
                )
                return shared_region.read(region, layout, response)
            finally:
                self._call(
                    "SystemSharedMemoryUnregister",
                    self._pb.SystemSharedMemoryUnregisterRequest(name=region.name),
                    model=model,
                )
        finally:
            region.unlink()

    def _request(self, model: str, inputs: Mapping[str, Any], options: Options) -> Any:
        """The request, by the signature known; what does not fit is tried once more with the server's present one."""
        known = self._signatures.get((model, options.version))
        if known is not None:
            try:
                return infer_request(known, inputs, options)
            except InferenceError:
                pass
        return infer_request(self.metadata(model, options.version), inputs, options)

    def _infer_call(self, request: Any, timeout: float | None, options: Options) -> Any:
        model = request.model_name
        try:
            return self._call("ModelInfer", request, model=model, timeout=timeout, retries=self._retries(options))
        except InferenceError:
            self._signatures.pop((model, options.version), None)
            raise

    def _retries(self, options: Options) -> int:
        return 0 if options.sequence_id else self.retries

    def _call(
        self, method: str, request: Any, *, model: str = "", timeout: float | None = None, retries: int | None = None
    ) -> Any:
        import grpc

        limit = self.timeout if timeout is None else timeout
        budget = Budget(limit, self.retries if retries is None else retries)
        while True:
            try:
                return getattr(self._stub, method)(request, timeout=budget.remaining())
            except grpc.RpcError as error:
                pause = budget.pause_after(error)
                if pause is None:
                    raise failure(error, self.target, model=model, timeout=limit) from error
            time.sleep(pause)

    @property
    def _stub(self) -> Any:
        self._check_open()
        return self._open_stub

    def _check_open(self) -> None:
        if self._closed:
            raise InferenceError(f"this client of {self.target} is closed", mend="call connect() again")
