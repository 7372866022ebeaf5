"""Calls of other models of this server, and of the engine so that they can be cancelled."""

import threading
import uuid

import numpy as np
import triton_python_backend_utils as pb_utils


class Refused(Exception):
    """A model's own words, and Triton's code of the error."""

    def __init__(self, message, code):
        super().__init__(message)
        self.code = code


class Call:
    """One request to the engine, and the client's request behind it, which may be cancelled.

    Args:
        model: the engine's name.
        client: what knows whether the client has gone: the request, or the response sender of a decoupled model.
    """

    def __init__(self, model, client, decoupled=True):
        self.model, self.client, self.decoupled = model, client, decoupled
        self.id = str(uuid.uuid4())
        self.lock = threading.Lock()
        self.iterator = None
        self.cancelled = self.stopped = self.closed = False

    def responses(self, inputs, outputs):
        """Outputs of the engine by name, for every response that has any.

        Raises:
            Refused: the engine refused or failed.
        """
        if self.cancelled:
            return
        request = _request(self.model, inputs, outputs, self.id)
        if not self.decoupled:
            found = [request.exec()]
        else:
            found = self.iterator = request.exec(decoupled=True)
            if self.stopped:  # in the moment before
                self._stop()
        for response in found:
            if made := _read(response):
                yield made

    def check(self):
        """Cancel where the client has gone; nothing is asked of Triton once the request is answered."""
        with self.lock:
            if self.closed or self.stopped or not self.client.is_cancelled():
                return
            self.cancelled = True
        self.stop()

    def stop(self):
        """End the generation: the engine ends the request of this id (input ``stop`` of its contract)."""
        self.stopped = True
        self._stop()

    def _stop(self):
        inputs = {name: np.array([[value]], np.int32) for name, value in STOP.items()} | {"stop": np.array([[True]])}
        request = _request(self.model, inputs, [], self.id)
        if not self.decoupled:
            request.exec()
            return
        for _ in request.exec(decoupled=True):
            pass
        if hasattr(self.iterator, "cancel"):  # Triton 25.04 and later
            self.iterator.cancel()

    def close(self, answered=lambda: None):
        """Tell Triton that the request is answered, then wait for what the engine still sends."""
        with self.lock:
            self.closed = True
            answered()
        if self.stopped and self.iterator is not None:
            for _ in self.iterator:
                pass


STOP = {"input_ids": 0, "input_lengths": 1, "request_output_len": 1}


def exchange(model, inputs, outputs):
    """The outputs of one request to a model that answers once, by name.

    Raises:
        Refused: it refused or failed.
    """
    return _read(_request(model, inputs, outputs, "").exec())


def _request(model, inputs, outputs, request_id):
    return pb_utils.InferenceRequest(
        model_name=model,
        request_id=request_id,
        requested_output_names=outputs,
        inputs=[pb_utils.Tensor(name, np.ascontiguousarray(array)) for name, array in inputs.items()],
        preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
    )


def _read(response):
    if response.has_error():
        raise Refused(response.error().message(), response.error().code())
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
