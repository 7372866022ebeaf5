"""The running total of one sequence."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, _args):
        self.total = 0

    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        start = pb_utils.get_input_tensor_by_name(request, "START").as_numpy()
        x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        self.total = x if start.ravel()[0] else self.total + x
        return pb_utils.InferenceResponse([pb_utils.Tensor("total", self.total)])
