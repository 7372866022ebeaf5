"""Upper-case text, its length in characters, and the size of the batch that it came in."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        texts = [value.decode("utf-8") for value in pb_utils.get_input_tensor_by_name(request, "text").as_numpy()[:, 0]]
        outputs = {
            "upper": np.array([[text.upper().encode("utf-8")] for text in texts], dtype=object),
            "length": np.array([[len(text)] for text in texts], dtype=np.int32),
            "batch": np.full([len(texts), 1], len(texts), dtype=np.int32),
        }
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs.items()])
