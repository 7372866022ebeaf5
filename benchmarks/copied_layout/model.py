"""The tokenizer that tutorials show: AutoTokenizer in a Python model, one request after another."""

import json
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        sys.path.append(parameters["packages"]["string_value"])  # an image would have transformers installed
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(Path(args["model_repository"]) / args["model_version"])

    def execute(self, requests):
        responses = []
        for request in requests:
            texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy().tolist()
            tokens = self.tokenizer([text.decode("utf-8") for text in texts], padding=True, truncation=True)
            tensors = [pb_utils.Tensor(name, np.array(tokens[name], dtype=np.int64)) for name in tokens]
            responses.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return responses
