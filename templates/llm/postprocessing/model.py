"""Token ids in, text out: the last model of TensorRT-LLM's in-flight batching contract.

It knows nothing of a request's other answers, so half a character at either end of an answer is passed on as its bytes,
and a space at the start stays: who joins the parts of a stream gets its text. (The public model beside the ensemble
streams whole characters.) Settings are strings in the config's ``parameters``:

- ``skip_special_tokens``: leave special tokens out (``true``).
- ``streaming``: ``false`` where every answer is whole; it is then decoded as such.
"""

import json
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

sys.dont_write_bytecode = True  # nothing is written into the repository, where it would count as a change
sys.path.insert(0, str(Path(__file__).parent))
import tokenizer_file  # noqa: E402
from streamed_text import Detokenizer  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        given = tokenizer_file.parameters(json.loads(args["model_config"]))
        tokenizer = tokenizer_file.load(Path(args["model_repository"]) / args["model_version"])
        self.detokenizer = Detokenizer(tokenizer, tokenizer_file.flag(given, "skip_special_tokens", True))
        self.parts = tokenizer_file.flag(given, "streaming", True)

    def execute(self, requests):
        return [self._response(request) for request in requests]

    def _response(self, request):
        tokens, lengths = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("TOKENS_BATCH", "SEQUENCE_LENGTH")
        )
        if tokens.ndim != 3 or lengths.shape != tokens.shape[:2]:
            message = f"TOKENS_BATCH has shape {list(tokens.shape)} and SEQUENCE_LENGTH {list(lengths.shape)}, "
            message += "expected [batch, beams, tokens] and [batch, beams]"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
        beams = [beam for row in tokens.tolist() for beam in row]
        texts = [
            self._text(ids[: max(0, length)]) for ids, length in zip(beams, lengths.reshape(-1).tolist(), strict=True)
        ]
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("OUTPUT", np.array(texts, dtype=object))])

    def _text(self, ids):
        return self.detokenizer.part(ids) if self.parts else self.detokenizer.text(ids).encode("utf-8")
