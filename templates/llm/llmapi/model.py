"""A language model on TensorRT-LLM's LLM API: text in, text out, as it is generated.

Inputs, outputs and their meaning are those of TensorRT-LLM's own ``llmapi`` model (triton_backend/all_models/llmapi).
``model.yaml`` beside this file, or the file that LLM_CONFIG_PATH names, holds the arguments of ``tensorrt_llm.LLM`` and
``triton_config``: decoupled, cancellation_check_period_ms. Only the first text of a request is used. A streamed
response holds the whole text so far.
"""

import asyncio
import json
import os
import threading
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
import yaml

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
_MOUNT = "/models/"
_SAMPLING = {
    "best_of": int,
    "beam_width": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "frequency_penalty": float,
    "presence_penalty": float,
    "max_tokens": int,
    "seed": int,
}
_TOLD = {
    "finish_reason": lambda output: _texts(str(output.finish_reason)),
    "stop_reason": lambda output: _texts(str(output.stop_reason)),
    "cumulative_logprob": lambda output: np.array([output.cumulative_logprob], dtype=np.float32),
}


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(args["model_repository"]) / args["model_version"]
        path = Path(os.environ.get("LLM_CONFIG_PATH") or folder / "model.yaml")
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
        own = given.pop("triton_config", {})
        self.decoupled = pb_utils.using_decoupled_model_transaction_policy(json.loads(args["model_config"]))
        if bool(own.get("decoupled", self.decoupled)) != self.decoupled:
            raise pb_utils.TritonModelException(
                f"{path.name} says decoupled: {str(own['decoupled']).lower()}, and config.pbtxt says the opposite"
            )
        self.check_every = own.get("cancellation_check_period_ms", 100) / 1000
        given["model"] = _found(str(given["model"]), Path(args["model_repository"]).parent)
        from tensorrt_llm import LLM, SamplingParams

        self.sampling = SamplingParams
        self.llm = LLM(**given)
        self.loop = asyncio.new_event_loop()
        self.running = {}
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def execute(self, requests):
        if self.decoupled:
            for request in requests:
                asyncio.run_coroutine_threadsafe(self._streamed(request, request.get_response_sender()), self.loop)
            return None
        waiting = [asyncio.run_coroutine_threadsafe(self._whole(request), self.loop) for request in requests]
        return [one.result() for one in waiting]

    def finalize(self):
        self.llm.shutdown()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    async def _streamed(self, request, sender):
        """Responses, then the final flag; an error ends them."""
        try:
            if _value(request, "stop", False):
                if (generation := self.running.get(request.request_id())) is not None:
                    generation.abort()
                sender.send(flags=_FINAL)
                return
            streaming = bool(_value(request, "streaming", False))
            generation = self._asked(request, streaming)
            if request.request_id():
                self.running[request.request_id()] = generation
            watch = asyncio.create_task(self._watch(sender.is_cancelled, generation))
            try:
                found = None
                async for found in generation:
                    if streaming:
                        sender.send(_response(request, found))
                if not streaming and found is not None:
                    sender.send(_response(request, found))
            finally:
                watch.cancel()
                self.running.pop(request.request_id(), None)
            sender.send(flags=_FINAL)
        except Exception as error:  # noqa: BLE001 - one request fails, not the model
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(_said(error))), flags=_FINAL)

    async def _whole(self, request):
        try:
            if _value(request, "streaming", False):
                raise ValueError("streaming needs a decoupled model, and this one is not")
            generation = self._asked(request, False)
            watch = asyncio.create_task(self._watch(request.is_cancelled, generation))
            try:
                found = None
                async for part in generation:
                    found = part
            finally:
                watch.cancel()
            if found is None:
                raise RuntimeError("the request was cancelled before its first token")
            return _response(request, found)
        except Exception as error:  # noqa: BLE001 - one request fails, not the model
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(_said(error)))

    def _asked(self, request, streaming):
        text = _array(request, "text_input")
        if text is None or not text.size:
            raise ValueError("text_input is empty")
        given = {name: kind(v) for name, kind in _SAMPLING.items() if (v := _sampled(request, name)) is not None}
        if "beam_width" in given:
            given["best_of"] = given.pop("beam_width")
        stop = _array(request, "sampling_param_stop")
        if stop is not None:
            given["stop"] = [one.decode("utf-8") for one in stop.reshape(-1)]
        prompt = text.reshape(-1)[0].decode("utf-8")
        return self.llm.generate_async(prompt, self.sampling(**given), streaming=streaming)

    async def _watch(self, is_cancelled, generation):
        while not is_cancelled():
            await asyncio.sleep(self.check_every)
        generation.abort()


def _response(request, found):
    output = found.outputs[0]
    text = output.text
    if not _value(request, "sampling_param_exclude_input_from_output", True):
        text = found.prompt + text
    tensors = {"text_output": _texts(text)}
    tensors |= {name: told(output) for name, told in _TOLD.items() if _value(request, f"return_{name}", False)}
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in tensors.items()])


def _found(model, repository):
    """A path of the container's mount that is not there is looked up in the served repository."""
    if model.startswith(_MOUNT) and not Path(model).exists():
        return str(repository / model.removeprefix(_MOUNT))
    return model


def _sampled(request, name):
    return _value(request, f"sampling_param_{name}", None)


def _array(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def _value(request, name, default):
    array = _array(request, name)
    return default if array is None or not array.size else array.reshape(-1)[0]


def _texts(text):
    return np.array([text.encode("utf-8")], dtype=np.object_)


def _said(error):
    return str(error) or type(error).__name__
