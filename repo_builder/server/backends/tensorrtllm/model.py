"""A stand-in for TensorRT-LLM's compiled ``tensorrtllm`` backend: transformers on the CPU, in fp32.

It keeps the backend's contract (inputs, outputs, streams, lengths, stop and bad words, cancellation, errors; read in
TensorRT-LLM's triton_backend/inflight_batcher_llm), and generates from the Hugging Face folder that the engine is built
from: ``checkpoint`` in the version folder, which the embedded server puts there. Its tokens are transformers'; it shows
nothing of an engine. Beams, LoRA, prompt tables, draft tokens, guided decoding and logits are refused by name.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from tensorrtllm_stand_in import question
from tensorrtllm_stand_in.engine import Engine

_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
_TYPES = ("V1", "inflight_batching", "inflight_fused_batching")
_CANCELLATION_CHECK_SECONDS = 0.1


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        return config

    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        kind = self.parameters.get("gpt_model_type", "")
        if kind not in _TYPES:
            raise pb_utils.TritonModelException(f"Invalid gpt_model_type {kind!r}: expected one of {', '.join(_TYPES)}")
        self.decoupled = pb_utils.using_decoupled_model_transaction_policy(config)
        folder = Path(args["model_repository"]) / args["model_version"]
        if not (folder / "checkpoint" / "config.json").is_file():
            raise pb_utils.TritonModelException(
                f"the stand-in of TensorRT-LLM's engine finds no Hugging Face folder at {folder / 'checkpoint'}: serve "
                "the repository beside the folder that it was built from"
            )
        pb_utils.Logger.log_info(f"{args['model_name']}: a stand-in serves, transformers on the CPU; no TensorRT-LLM")
        self.engine = Engine(folder)
        self.changed = threading.Condition()
        self.active: deque[question.Asked] = deque()
        self.ended = False
        self.worker = threading.Thread(target=self._work, daemon=True)
        self.worker.start()

    def execute(self, requests):
        if self.decoupled:
            for request in requests:
                self._take(request, request.get_response_sender())
            return None
        return [self._whole(request) for request in requests]

    def finalize(self):
        with self.changed:
            self.ended = True
            self.changed.notify()
        self.worker.join()
        for asked in self.active:
            asked.sender.send(_error("the model is unloaded"), flags=_FINAL)

    def _take(self, request, sender):
        """Into the round of active requests, or answered at once."""
        try:
            if question.stops(request):
                self._stop(request.request_id())
                sender.send(flags=_FINAL)
                return
            rows = question.read(request, self.parameters, self.engine, decoupled=True)
        except ValueError as error:
            sender.send(_error(error), flags=_FINAL)
            return
        asked = question.Asked(request.request_id(), sender, rows)
        with self.changed:
            self.active.append(asked)
            self.changed.notify()

    def _stop(self, request_id):
        with self.changed:
            for asked in self.active:
                if request_id and asked.id == request_id:
                    asked.cancelled = True

    def _work(self):
        """One token of every active request in turn."""
        while True:
            with self.changed:
                while not self.active and not self.ended:
                    self.changed.wait()
                if self.ended:
                    return
                asked = self.active[0]
                self.active.rotate(-1)
            if not self._advance(asked):
                with self.changed:
                    self.active.remove(asked)

    def _advance(self, asked):
        """Whether the request goes on."""
        if time.monotonic() - asked.checked > _CANCELLATION_CHECK_SECONDS:
            asked.checked = time.monotonic()
            asked.cancelled = asked.cancelled or asked.sender.is_cancelled()
        if asked.cancelled:
            asked.sender.send(flags=_FINAL)
            return False
        try:
            for row in [row for row in asked.rows if not row.finished]:
                row.step(self.engine)
                if row.streaming or row.finished:
                    last = all(one.finished for one in asked.rows)
                    asked.sender.send(_response(row), flags=_FINAL if last else 0)
        except (ValueError, RuntimeError, IndexError, KeyError) as error:
            asked.sender.send(_error(error), flags=_FINAL)
            return False
        return not all(row.finished for row in asked.rows)

    def _whole(self, request):
        try:
            if question.stops(request):
                return pb_utils.InferenceResponse([])
            (row,) = question.read(request, self.parameters, self.engine, decoupled=False)
            while not row.finished and not request.is_cancelled():
                row.step(self.engine)
        except (ValueError, RuntimeError, IndexError) as error:
            return _error(error)
        return _response(row)


def _response(row):
    ids, logs = row.told()
    outputs = {
        "output_ids": np.array([[ids]], dtype=np.int32),
        "sequence_length": np.array([[len(ids)]], dtype=np.int32),
        "batch_index": np.array([[row.batch_index]], dtype=np.int32),
        "sequence_index": np.array([[0]], dtype=np.int32),
    }
    if row.log_probabilities:
        outputs["cum_log_probs"] = np.array([[row.cumulative]], dtype=np.float32)
        outputs["output_log_probs"] = np.array([[logs]], dtype=np.float32)
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])


def _error(error):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error) or type(error).__name__))
