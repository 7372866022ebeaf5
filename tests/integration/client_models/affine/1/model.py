"""y = 2x + 1, after x[0, 0] seconds where the first value is not negative; a first value of -13 fails."""

import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        if x[0, 0] == -13:
            return pb_utils.InferenceResponse([], pb_utils.TritonError("thirteen is not served here"))
        time.sleep(max(float(x[0, 0]), 0.0))
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", 2 * x + 1)])
