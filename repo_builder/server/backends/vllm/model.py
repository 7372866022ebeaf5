"""The ``vllm`` backend on this machine: real vLLM, on the CPU where there is no GPU, as a Python-based backend.

Inputs, outputs and their meaning are those of the public repository triton-inference-server/vllm_backend (release
r25.11, src/model.py and src/utils/request.py), which does not import under the vLLM that runs here. Images, embeddings
and custom metrics are not served. Where that backend's ``execute`` would fail as a whole (``sampling_parameters`` that
is not JSON), the one request is answered with an error.

The server appends this folder to ``sys.path`` of the instance's process and imports ``model``: what it is made of lies
in a package whose name no other module bears.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import triton_python_backend_utils as pb_utils
from vllm_serving import arguments, question, signature
from vllm_serving.answer import Answer
from vllm_serving.engine import Engine

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
_CANCELLATION_CHECK_SECONDS = 0.1


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        return signature.complete(config)

    def initialize(self, args):
        self.config, self.name = json.loads(args["model_config"]), args["model_name"]
        if not pb_utils.using_decoupled_model_transaction_policy(self.config):
            raise pb_utils.TritonModelException(
                "vLLM Triton backend must be configured to use decoupled model transaction policy"
            )
        folder, repository = pb_utils.get_model_dir(), Path(args["model_repository"]).parent
        try:
            given = arguments.read(folder, repository)
            check_kind(given, args["model_instance_kind"])
            self.adapters = arguments.adapters(given, folder, repository)
        except ValueError as error:
            raise pb_utils.TritonModelException(str(error)) from None
        arguments.set_environment(given)
        self.checks_health = self._parameter("ENABLE_VLLM_HEALTH_CHECK")
        self.lora = str(given.get("enable_lora", "")).lower() == "true"
        self.engine = Engine(self._for_this_machine(given))
        self.numbers = itertools.count()
        self.senders = ThreadPoolExecutor(1, thread_name_prefix="responses")

    def execute(self, requests):
        if self.checks_health and (why := self.engine.failure()):
            self._unload(requests, why)
            return
        for request in requests:
            self.engine.submit(self._answer(request, request.get_response_sender()))

    def finalize(self):
        self.engine.stop()
        self.senders.shutdown()

    def _parameter(self, name):
        return self.config["parameters"].get(name, {}).get("string_value", "").lower() == "true"

    def _for_this_machine(self, given):
        import vllm
        from vllm.platforms import current_platform

        notes = []
        if current_platform.is_cpu():
            given, notes = arguments.without_gpu(given)
        where = current_platform.device_name
        pb_utils.Logger.log_info(
            f"model '{self.name}' is served by vLLM {vllm.__version__} on {where}, behind repo_builder's vllm backend"
        )
        for note in notes:
            pb_utils.Logger.log_warn(f"model '{self.name}': {note}")
        return given

    async def _answer(self, request, sender):
        """Answer one request, whatever happens, with exactly one final response."""
        watcher = asyncio.create_task(cancel_with(sender, asyncio.current_task()))
        try:
            final = await self._generate(question.read(request, self.name), sender)
        except asyncio.CancelledError:
            pb_utils.Logger.log_info(f"model '{self.name}': a request was cancelled by its client; vLLM aborted it")
            final = failed("Request was cancelled", pb_utils.TritonError.CANCELLED)
        except Exception as error:  # noqa: BLE001 (a request's error is its client's, never the server's end)
            reason = error.__cause__ or error
            pb_utils.Logger.log_error(f"model '{self.name}': {reason}")
            final = failed(f"Error generating stream: {reason}")
        finally:
            watcher.cancel()
        self.senders.submit(send, sender, final, _FINAL)

    async def _generate(self, asked, sender):
        """The final response; those before it are sent as they come, where the client streams."""
        answer = Answer(asked)
        number = f"{self.name}-{next(self.numbers)}"
        outputs = self.engine.vllm.generate(
            asked.prompt, asked.sampling, number, lora_request=self._lora(asked.adapter)
        )
        async with contextlib.aclosing(outputs):
            async for output in outputs:
                if output.finished:
                    return answer.response(output)
                if asked.stream:
                    self.senders.submit(send, sender, answer.response(output), 0)
        raise RuntimeError("vLLM ended the answer without its last part")

    def _lora(self, name):
        if not name:
            return None
        if not self.lora:
            raise ValueError("LoRA feature is not enabled.")
        if name not in self.adapters:
            raise ValueError(f"LoRA {name} is not supported, we currently support {list(self.adapters)}")
        from vllm.lora.request import LoRARequest

        number = list(self.adapters).index(name) + 1
        return LoRARequest(str(number), number, self.adapters[name])

    def _unload(self, requests, why):
        pb_utils.Logger.log_error(f"model '{self.name}': vLLM's engine is not healthy, it is unloaded: {why}")
        pb_utils.unload_model(self.name)
        message = "Model is unavailable due to unhealthy vLLM engine"
        for request in requests:
            sender = request.get_response_sender()
            self.senders.submit(send, sender, failed(message, pb_utils.TritonError.UNAVAILABLE), _FINAL)


def check_kind(given, kind):
    """Raises ValueError for a model of several GPUs whose instance has one."""
    if kind == "GPU" and int(given.get("tensor_parallel_size", 1)) * int(given.get("pipeline_parallel_size", 1)) > 1:
        raise ValueError(
            "KIND_GPU is currently for single-GPU models, please specify KIND_MODEL in the model's config.pbtxt for "
            "multi-GPU models"
        )


async def cancel_with(sender, task):
    """Cancel the task once the client cancelled its request; vLLM aborts what a cancelled task awaits."""
    while not sender.is_cancelled():
        await asyncio.sleep(_CANCELLATION_CHECK_SECONDS)
    task.cancel()


def failed(message, code=None):
    error = pb_utils.TritonError(message) if code is None else pb_utils.TritonError(message, code)
    return pb_utils.InferenceResponse([], error)


def send(sender, response, flags):
    try:
        sender.send(response, flags)
    except Exception as error:  # noqa: BLE001 (the next response goes to somebody else)
        pb_utils.Logger.log_error(f"a response could not be sent: {error}")
