"""Text in, text out: calls the models of TensorRT-LLM's in-flight batching contract and tells whole characters (BLS).

Inputs and outputs bear the names of the contract's model ``tensorrt_llm_bls``; ``messages`` is an addition (see the
preprocessing model). A streamed response holds the new text, with beam search that of all tokens so far. The words of a
model that refuses a request are passed on. Settings are strings in the config's ``parameters``:

- ``preprocessing_model_name``, ``tensorrt_llm_model_name``: the models that are called.
- ``accumulate_tokens``: streamed responses hold the text from the start of the answer (``false``).
- ``skip_special_tokens``: leave special tokens out (``true``).
- ``cancellation_check_period_ms``: how often it is asked whether clients are still there (100).
"""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

sys.dont_write_bytecode = True  # nothing is written into the repository, where it would count as a change
sys.path.insert(0, str(Path(__file__).parent))
import tokenizer_file  # noqa: E402
from answers import Answers  # noqa: E402
from engine_call import Call, Refused, exchange  # noqa: E402
from streamed_text import Detokenizer  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        given = tokenizer_file.parameters(config)
        tokenizer = tokenizer_file.load(Path(args["model_repository"]) / args["model_version"])
        self.detokenizer = Detokenizer(tokenizer, tokenizer_file.flag(given, "skip_special_tokens", True))
        self.decoupled = pb_utils.using_decoupled_model_transaction_policy(config)
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.preprocessing = given.get("preprocessing_model_name", "preprocessing")
        self.engine = given.get("tensorrt_llm_model_name", "tensorrt_llm")
        self.accumulate = tokenizer_file.flag(given, "accumulate_tokens", False)
        self.calls, self.threads, self.closing = set(), set(), threading.Event()
        period = tokenizer_file.number(given, "cancellation_check_period_ms") or 100
        self.watcher = threading.Thread(target=self._watch, args=(period / 1000,), daemon=True)
        self.watcher.start()

    def finalize(self):
        self.closing.set()
        for thread in [self.watcher, *self.threads]:
            thread.join()

    def execute(self, requests):
        if not self.decoupled:
            return [self._whole(request) for request in requests]
        for request in requests:
            thread = threading.Thread(
                target=self._stream, args=(self._read(request), request.get_response_sender()), daemon=True
            )
            self.threads = {one for one in self.threads if one.is_alive()} | {thread}
            thread.start()
        return None

    def _watch(self, period):
        while not self.closing.wait(period):
            for call in list(self.calls):
                try:
                    call.check()
                except Exception as error:  # noqa: BLE001 - the others are still to be watched
                    print(f"{self.engine}: a request was not cancelled: {error}", file=sys.stderr, flush=True)

    def _read(self, request):
        """The inputs, as copies: the request's memory is Triton's again when ``execute`` returns."""
        found = ((name, pb_utils.get_input_tensor_by_name(request, name)) for name in self.inputs)
        return {name: np.array(tensor.as_numpy()) for name, tensor in found if tensor is not None}

    def _stream(self, values, sender):
        """Answer one request of a decoupled model, in a thread of its own."""
        call = Call(self.engine, sender)
        self.calls.add(call)
        try:
            inputs, answers = self._prepared(values)
            for response in call.responses(inputs, self._wanted()):
                row, sequence = (int(response[name].flat[0]) if name in response else 0 for name in INDICES)
                texts = answers.read(row, sequence, response["output_ids"][0], response["sequence_length"][0])
                if texts is not None:
                    sender.send(self._response(texts, response))
                if answers.finished:
                    call.stop()
                    break
            for row, sequence, text in [] if call.stopped else answers.rest():
                indices = {INDICES[0]: np.array([[row]], np.int32), INDICES[1]: np.array([[sequence]], np.int32)}
                sender.send(self._response([text], indices))
        except Exception as error:  # noqa: BLE001 - a request must be answered, and the others served
            if not call.cancelled:
                sender.send(_failed(error))
        finally:
            self.calls.discard(call)
            call.close(lambda: sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL))

    def _whole(self, request):
        """The response to one request of a model that gives one response: the engine is asked for each row alone."""
        try:
            values = self._read(request)
            if "stream" in values and values["stream"].any():
                raise ValueError("stream is true, expected false: this model is not decoupled, it answers once")
            inputs, answers = self._prepared(values)
            rows = range(len(values["text_input"]))
            with ThreadPoolExecutor(len(rows)) as pool:
                found = list(pool.map(lambda row: self._row(request, _one_row(inputs, row)), rows))
            texts = [
                answers.read(row, 0, one["output_ids"][0], one["sequence_length"][0]) for row, one in enumerate(found)
            ]
            return self._response(
                [text for row in texts for text in row],
                {name: _stacked([one[name] for one in found]) for name in found[0]},
            )
        except Exception as error:  # noqa: BLE001 - a request must be answered, and the others served
            return _failed(error)

    def _row(self, request, inputs):
        call = Call(self.engine, request, decoupled=False)
        self.calls.add(call)
        try:
            for response in call.responses(inputs, self._wanted()):
                return response
        finally:
            self.calls.discard(call)
            call.close()
        if call.cancelled:
            raise Refused("the request was cancelled", pb_utils.TritonError.CANCELLED)
        raise Refused(f"{self.engine} gave no answer", pb_utils.TritonError.INTERNAL)

    def _prepared(self, values):
        """Inputs of the engine, and what reads its responses.

        Raises:
            ValueError: an input is wrong, as the preprocessing model says or for this one.
        """
        rows = len(values["text_input"])
        values = {n: a.reshape(rows, 1) if a.ndim == 1 and len(a) == rows else a for n, a in values.items()}
        for name in DRAFT:
            if name in values and values.pop(name).any():
                raise ValueError(f"{name} needs a draft model, expected a request without it: there is none here")
        given = {QUERY[name]: array for name, array in values.items() if name in QUERY}
        try:
            made = exchange(self.preprocessing, given, list(PROMPT))
        except Refused as error:  # of the prompt; Triton 24.10 passes on the words of a refusal, but not its code
            raise ValueError(str(error)) from error
        inputs = {PROMPT[name]: array for name, array in made.items() if array.size}
        inputs |= {ENGINE.get(name, name): array for name, array in values.items() if name not in QUERY}
        streaming = values["stream"][:, 0].tolist() if "stream" in values else [False] * rows
        words = values.get("stop_words", [[]] * rows)
        lengths = inputs["input_lengths"][:, 0].tolist()
        prompts = [ids[:length] for ids, length in zip(inputs["input_ids"].tolist(), lengths, strict=True)]
        answers = Answers(
            self.detokenizer,
            prompts,
            streaming=streaming,
            stop_words=[[word.decode("utf-8") for word in row if word] for row in words],
            sequences=int(values["num_return_sequences"].max()) if "num_return_sequences" in values else 1,
            accumulate=self.accumulate,
        )
        return inputs, answers

    def _wanted(self):
        return ["output_ids", "sequence_length", *(name for name in self.outputs if name != "text_output")]

    def _response(self, texts, others):
        tensors = [pb_utils.Tensor("text_output", np.array([text.encode("utf-8") for text in texts], dtype=object))]
        tensors += [pb_utils.Tensor(name, others[name]) for name in self.outputs if name in others]
        return pb_utils.InferenceResponse(output_tensors=tensors)


INDICES = ("batch_index", "sequence_index")
DRAFT = ("num_draft_tokens", "use_draft_logits")
QUERY = {
    "text_input": "QUERY",
    "messages": "MESSAGES",
    "max_tokens": "REQUEST_OUTPUT_LEN",
    "bad_words": "BAD_WORDS_DICT",
    "stop_words": "STOP_WORDS_DICT",
    "embedding_bias_words": "EMBEDDING_BIAS_WORDS",
    "embedding_bias_weights": "EMBEDDING_BIAS_WEIGHTS",
    "end_id": "END_ID",
    "pad_id": "PAD_ID",
    "prompt_table_extra_id": "PROMPT_TABLE_EXTRA_ID",
}
PROMPT = {
    "INPUT_ID": "input_ids",
    "REQUEST_INPUT_LEN": "input_lengths",
    "REQUEST_OUTPUT_LEN": "request_output_len",
    "BAD_WORDS_IDS": "bad_words_list",
    "STOP_WORDS_IDS": "stop_words_list",
    "EMBEDDING_BIAS": "embedding_bias",
    "OUT_END_ID": "end_id",
    "OUT_PAD_ID": "pad_id",
    "OUT_PROMPT_TABLE_EXTRA_IDS": "prompt_table_extra_ids",
}
ENGINE = {"top_k": "runtime_top_k", "top_p": "runtime_top_p", "length_penalty": "len_penalty", "stream": "streaming"}


def _failed(error):
    code = error.code if isinstance(error, Refused) else pb_utils.TritonError.INTERNAL
    code = pb_utils.TritonError.INVALID_ARG if isinstance(error, ValueError) else code
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))


def _one_row(inputs, row):
    """The inputs of one row; the backend takes the ids of a lone prompt as they are, so they lose their padding."""
    found = {name: array[row : row + 1] for name, array in inputs.items()}
    found["input_ids"] = found["input_ids"][:, : int(found["input_lengths"][0, 0])]
    return found


def _stacked(arrays):
    """Rows of one output under each other, padded with 0 to the largest."""
    shape = np.max([array.shape for array in arrays], axis=0)
    padded = [
        np.pad(array, [(0, most - size) for most, size in zip(shape, array.shape, strict=True)]) for array in arrays
    ]
    return np.concatenate(padded) if len(arrays) > 1 else arrays[0]
