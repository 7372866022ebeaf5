"""Counts to ``count`` in as many responses, fails at ``fail_at``; negative counts never end.

An endless request stops only when it is cancelled, and then leaves the file ``cancelled`` in the model's folder.
"""

import itertools
import pathlib
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.seen = pathlib.Path(args["model_repository"]) / "cancelled"

    def execute(self, requests):
        for request in requests:
            self._count(request)

    def _count(self, request):
        sender = request.get_response_sender()
        count = int(pb_utils.get_input_tensor_by_name(request, "count").as_numpy()[0])
        fail_at = pb_utils.get_input_tensor_by_name(request, "fail_at")
        for i in range(count) if count >= 0 else itertools.count():
            if request.is_cancelled():
                self.seen.write_text("yes", encoding="utf-8")
                break
            if fail_at is not None and i == fail_at.as_numpy()[0]:
                sender.send(pb_utils.InferenceResponse([], pb_utils.TritonError(f"stopped at {i}")))
                break
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("index", np.array([i], dtype=np.int32))]))
            if count < 0:
                time.sleep(0.01)
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
