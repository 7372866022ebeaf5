"""The client for ordinary (blocking) code; safe to share between threads."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any

from repo_builder.client import batches, generation, readiness, shared_region, streaming
from repo_builder.client.connection import Connection
from repo_builder.client.generation import Generation
from repo_builder.client.messages import Options, Parameter, infer_request, outputs_of
from repo_builder.client.metadata import ModelMetadata, ServerMetadata, model_metadata, server_metadata
from repo_builder.client.shared_calls import SharedCalls
from repo_builder.client.transport import Budget
from repo_builder.client.wire import Array
from repo_builder.errors import InferenceError, RepoBuilderError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from repo_builder.client.generation import GenerationOptions
    from repo_builder.client.messages import RequestOptions

THREADS = 32
"""Requests that ``infer_async`` has in flight at most; more wait their turn."""


class Client:
    """A client of one Triton server. Made by ``connect``.

    ``timeout`` (seconds, ``math.inf`` for none) bounds every call, its retries included; each call can pass its own.
    Only UNAVAILABLE is tried again, ``retries`` times; requests of a sequence never are, since the server may already
    have taken the step.
    """

    def __init__(self, url: str, *, timeout: float = 60.0, retries: int = 3) -> None:
        self._connection = Connection(url, timeout=timeout, retries=retries)
        self._pb = self._connection.pb
        self._shared = SharedCalls(self._connection)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="infer")
        self._signatures: dict[tuple[str, str], ModelMetadata] = {}

    @property
    def target(self) -> str:
        """The server's ``host:port``."""
        return self._connection.target

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what waits in ``infer_async``, await what is in flight, close the channel."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._shared.close()
        self._connection.close()

    def server_metadata(self) -> ServerMetadata:
        """The server's name, version and extensions."""
        return server_metadata(self._call("ServerMetadata", self._pb.ServerMetadataRequest()))

    def metadata(self, model: str, version: str = "") -> ModelMetadata:
        """The model's versions, platform, inputs and outputs, as the server tells them now.

        Raises:
            InferenceError: no such model, or it is not ready.
        """
        return self._metadata(model, version, self._connection.budget())

    def config(self, model: str, version: str = "") -> Any:
        """The model's configuration as the server completed it: Triton's ``ModelConfig`` message."""
        return self._call("ModelConfig", self._pb.ModelConfigRequest(name=model, version=version), model=model).config

    def is_ready(self, model: str = "", version: str = "", *, timeout: float | None = None) -> bool:
        """Whether the server, or the model, is ready; False where nothing answers."""
        method, request = readiness.question(self._pb, model, version)
        try:
            return bool(self._connection.call(method, request, self._connection.budget(timeout, retries=0)).ready)
        except RepoBuilderError:
            self._connection.check_open()
            return False

    def wait_ready(self, timeout: float | None = None, models: Sequence[str] = ()) -> None:
        """Wait until the server and all its models are ready, or only ``models`` where they are named.

        Raises:
            ServerUnavailableError: nothing answered within ``timeout`` seconds.
            TimeoutExceededError: the server answers but is not ready; names the models and the server's reasons.
        """
        budget = self._connection.budget(timeout)
        while not all(self.is_ready(model, timeout=budget.remaining()) for model in models or [""]):
            if budget.remaining() == 0.0:
                self._raise_not_ready(budget, models)
            time.sleep(readiness.PAUSE_S)

    def load(self, models: Sequence[str]) -> None:
        """Have the server read these models anew, in this order; for servers under explicit model control.

        Raises:
            InferenceError: the server does not load on request, or a model does not load; its own message.
        """
        for model in models:
            self._call("RepositoryModelLoad", self._pb.RepositoryModelLoadRequest(model_name=model), model=model)

    def unload(self, models: Sequence[str]) -> None:
        """Have the server give up these models; it still answers the requests that they have. See ``load``.

        Raises:
            InferenceError: the server does not unload on request; its own message.
        """
        for model in models:
            self._call("RepositoryModelUnload", self._pb.RepositoryModelUnloadRequest(model_name=model), model=model)

    def _raise_not_ready(self, budget: Budget, models: Sequence[str]) -> None:
        last = self._connection.budget(readiness.REASON_TIMEOUT_S, retries=0)
        index = self._connection.call("RepositoryIndex", self._pb.RepositoryIndexRequest(), last)
        raise readiness.not_ready(self.target, budget.timeout, models, index)

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
            DiskFullError: /dev/shm has no room for ``shared_memory``.
        """
        options = Options(outputs, version, request_id, parameters, sequence_id, sequence_start, sequence_end)
        budget = self._connection.budget(timeout, retries=self._retries(options))
        if shared_memory is not False:
            sizes = {} if shared_memory is True else shared_memory
            metadata = self._metadata(model, version, budget)
            layout = shared_region.plan(metadata, inputs, options, sizes, self._max_batch(model, version, budget) > 0)
            return self._shared.infer(metadata, layout, options, budget)
        request = self._request(model, inputs, options, budget)
        try:
            return outputs_of(self._connection.call("ModelInfer", request, budget, model))
        except InferenceError:
            self._signatures.pop((model, version), None)
            raise

    def infer_async(self, model: str, inputs: Mapping[str, Any], **options: Any) -> Future[dict[str, Array]]:
        """``infer`` in a thread of the client's pool; takes the same arguments."""
        self._connection.check_open()
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
        largest = self._max_batch(model, options.get("version", ""), self._connection.budget())
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
        self,
        model: str,
        inputs: Mapping[str, Any],
        *,
        timeout: float | None = None,
        **options: Unpack[RequestOptions],
    ) -> Iterator[dict[str, Array]]:
        """Every response to one request, as it comes: none, one or many from a decoupled model, one from any other.

        Closing the iterator cancels the request on the server. ``timeout`` bounds the whole stream; the other
        arguments are those of ``infer``, shared memory apart. An error ends the stream with ``InferenceError``, after
        the responses that came before it.
        """
        chosen = Options(**options)
        budget = self._connection.budget(timeout, retries=self._retries(chosen))
        return self._responses(streaming.request(self._request(model, inputs, chosen, budget)), budget)

    def generate(
        self, model: str, prompt: str | None = None, *, stream: bool = True, **options: Unpack[GenerationOptions]
    ) -> Generation:
        """Text from a language model, in any of the layouts that ``build`` writes: iterate over it as it comes.

        Args:
            prompt: plain text; or ``messages``, one of the two.
            stream: text as it is generated; otherwise in one piece.
            messages: a chat, ``[{"role": "user", "content": ...}, ...]``; the model's chat template makes the prompt.
            max_tokens: most new tokens (default 256).
            temperature: 0, the default, is greedy search.
            top_k, top_p, seed: of sampling.
            stop: texts that end the answer.
            timeout: seconds for the whole answer.

        Leaving it early (``with``, or ``cancel()``) cancels the request on the server.

        Raises:
            UsageError: the model generates no text, does not stream, or has no such option.
            InferenceError: the model's own error, while it is read.
        """
        return generation.generate(self, model, prompt, stream=stream, **options)

    def _responses(self, request: Any, budget: Budget) -> Iterator[dict[str, Array]]:
        with contextlib.closing(self._connection.stream(request, budget)) as messages:
            for message in messages:
                outputs, final = streaming.response(message, request.model_name)
                if outputs is not None:
                    yield outputs
                if final:
                    return
        raise streaming.cut_off(request.model_name)

    def _request(self, model: str, inputs: Mapping[str, Any], options: Options, budget: Budget) -> Any:
        """The request, by the signature known; what does not fit is tried once more with the server's present one."""
        known = self._signatures.get((model, options.version))
        if known is not None:
            try:
                return infer_request(known, inputs, options)
            except InferenceError:
                pass
        return infer_request(self._metadata(model, options.version, budget), inputs, options)

    def _metadata(self, model: str, version: str, budget: Budget) -> ModelMetadata:
        request = self._pb.ModelMetadataRequest(name=model, version=version)
        found = model_metadata(self._connection.call("ModelMetadata", request, budget, model))
        self._signatures[model, version] = found
        return found

    def _max_batch(self, model: str, version: str, budget: Budget) -> int:
        request = self._pb.ModelConfigRequest(name=model, version=version)
        return int(self._connection.call("ModelConfig", request, budget, model).config.max_batch_size)

    def _retries(self, options: Options) -> int:
        return 0 if options.sequence_id else self._connection.retries

    def _call(self, method: str, request: Any, model: str = "") -> Any:
        return self._connection.call(method, request, self._connection.budget(), model)
