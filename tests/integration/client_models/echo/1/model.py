"""Gives every input back under NAME_OUT; BF16 travels by DLPack, since numpy has none."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([self._same(t) for t in request.inputs()]) for request in requests]

    def _same(self, tensor):
        name = tensor.name() + "_OUT"
        if tensor.name() == "BF16":
            return pb_utils.Tensor.from_dlpack(name, tensor)
        return pb_utils.Tensor(name, tensor.as_numpy())
