"""Generated text as it comes, from each layout in which a language model is served.

A layout is told by the model's inputs: ``max_tokens`` is TensorRT-LLM's engine path (deltas; the ensemble passes raw
bytes of half characters), ``sampling_parameters`` is vLLM's backend (deltas), ``sampling_param_max_tokens`` is
TensorRT-LLM's LLM API (the whole text so far in every response).
"""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from repo_builder.client import chat_template
from repo_builder.errors import InferenceError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from repo_builder.client.blocking import Client

OUTPUT = "text_output"
LAYOUTS = {"max_tokens": "tensorrt-llm", "sampling_parameters": "vllm", "sampling_param_max_tokens": "llmapi"}
"""By the input that only it has."""
MAX_TOKENS = 256
_NAMES = {
    "tensorrt-llm": {
        "text": "text_input",
        "stream": "stream",
        "without_prompt": "exclude_input_in_output",
        "max_tokens": "max_tokens",
        "temperature": "temperature",
        "top_k": "top_k",
        "top_p": "top_p",
        "seed": "seed",
        "stop": "stop_words",
    },
    "llmapi": {
        "text": "text_input",
        "stream": "streaming",
        "without_prompt": "sampling_param_exclude_input_from_output",
        **{name: f"sampling_param_{name}" for name in ("max_tokens", "temperature", "top_k", "top_p", "seed", "stop")},
    },
    "vllm": {"text": "text_input", "stream": "stream", "without_prompt": "exclude_input_in_output"},
}
_OLDER = {"seed": "random_seed"}
"""Names until TensorRT-LLM 0.19."""
_DTYPES: Mapping[str, Any] = {"BOOL": np.bool_, "INT32": np.int32, "UINT64": np.uint64, "FP32": np.float32}


class Generation:
    """One answer: iterate over it for its text as it comes, in whole characters.

    Attributes:
        text: what has come so far.
        responses: of the server that brought text; a token each, mostly.
        time_to_first_token: seconds from the request to the first text; None before.
        seconds: from the request to the last response.
        finish_reason: ``stop`` or ``length`` where the server tells it, else empty.
        cancelled: whether it was left before its end.
    """

    def __init__(self, parts: Iterator[Mapping[str, Any]], *, cumulative: bool) -> None:
        self.text = ""
        self.responses = 0
        self.time_to_first_token: float | None = None
        self.seconds = 0.0
        self.finish_reason = ""
        self.cancelled = False
        self._tokens = 0
        self._parts, self._cumulative = parts, cumulative
        self._after: list[Callable[[], None]] = []
        self._started = time.perf_counter()
        self._pieces = self._read()

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def __enter__(self) -> Generation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.cancel()

    @property
    def tokens(self) -> int:
        """New tokens as the server counts them; where it does not, responses with text."""
        return self._tokens or self.responses

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    def cancel(self) -> None:
        """End the answer: the request is cancelled on the server. No effect once it is complete."""
        self._pieces.close()
        if close := getattr(self._parts, "close", None):
            close()
        self._left()

    def afterwards(self, call: Callable[[], None]) -> None:
        """Call this once the answer is complete, cancelled or failed."""
        self._after.append(call)

    def _left(self) -> None:
        while self._after:
            self._after.pop()()

    def _read(self) -> Generator[str, None, None]:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        sent, rest, complete = "", "", False
        try:
            for outputs in self._parts:
                raw = _bytes(outputs)
                self._told(outputs)
                if self._cumulative:
                    whole = raw.decode("utf-8", errors="replace")
                    held = whole.rstrip("�")
                    piece, sent = (held[len(sent) :], held) if held.startswith(sent) else ("", sent)
                    rest = whole[len(sent) :]
                else:
                    piece, rest = decoder.decode(raw), ""
                yield from self._came(piece)
            yield from self._came(rest if self._cumulative else decoder.decode(b"", final=True))
            complete = True
        finally:
            self.cancelled = not complete
            self.seconds = time.perf_counter() - self._started
            self._left()

    def _came(self, piece: str) -> Iterator[str]:
        self.seconds = time.perf_counter() - self._started
        if piece:
            if self.time_to_first_token is None:
                self.time_to_first_token = self.seconds
            self.responses += 1
            self.text += piece
            yield piece

    def _told(self, outputs: Mapping[str, Any]) -> None:
        for name in ("finish_reason", "num_output_tokens"):
            found = outputs.get(name)
            if found is None or not found.size:
                continue
            value = found.reshape(-1)[0]
            if name == "finish_reason":
                told = value.decode() if isinstance(value, bytes) else str(value)
                self.finish_reason = told if told != "None" else self.finish_reason
            else:
                self._tokens += int(value)


class GenerationOptions(TypedDict, total=False):
    """Options of :meth:`repo_builder.client.Client.generate`."""

    messages: Sequence[Mapping[str, Any]] | None
    max_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int | None
    stop: Sequence[str]
    timeout: float | None


def generate(
    client: Client, model: str, prompt: str | None, *, stream: bool, **options: Unpack[GenerationOptions]
) -> Generation:
    """See :meth:`repo_builder.client.Client.generate`."""
    messages, temperature = options.get("messages"), options.get("temperature", 0.0)
    if (prompt is None) == (messages is None):
        raise UsageError("give a prompt or messages, one of the two")
    given = {spec.name: spec for spec in client.metadata(model).inputs}
    config = client.config(model)
    layout = _layout(model, given)
    decoupled = bool(config.model_transaction_policy.decoupled)
    if stream and not decoupled:
        raise UsageError(
            f"{model} does not stream: its config is not decoupled",
            expected="stream=False",
            mend="or build it with llm.decoupled: true",
        )
    asked = {
        "max_tokens": options.get("max_tokens", MAX_TOKENS),
        "temperature": temperature or None,
        "top_k": options.get("top_k") or (None if temperature else 1),
        "top_p": options.get("top_p"),
        "seed": options.get("seed"),
        "stop": list(options.get("stop", ())) or None,
    }
    text, extra = _text(config, given, prompt, messages)
    values = {"text": text, "stream": stream, "without_prompt": True}
    inputs = {_NAMES[layout][name]: value for name, value in values.items()} | extra
    if layout == "vllm":
        sampling = {name: value for name, value in asked.items() if value is not None}
        sampling["temperature"] = temperature
        if not temperature:
            sampling.pop("top_k")
        inputs |= {"sampling_parameters": json.dumps(sampling), "return_finish_reason": True}
        inputs["return_num_output_tokens"] = True
    else:
        if layout == "tensorrt-llm" and temperature and not (asked["top_k"] or asked["top_p"]):
            asked["top_p"] = 1.0  # without either TensorRT-LLM searches greedily
        inputs |= {_named(layout, name, given): value for name, value in asked.items() if value is not None}
        if "return_finish_reason" in given:
            inputs["return_finish_reason"] = True
    unknown = [name for name in inputs if name not in given]
    if unknown:
        raise UsageError(
            f"{model} has no input {unknown[0]!r}",
            expected="options among its inputs: " + ", ".join(given),
            mend="leave the option out",
        )
    arrays = {name: _array(given[name], value, int(config.max_batch_size) > 0) for name, value in inputs.items()}
    parts: Iterator[Mapping[str, Any]]
    if decoupled:
        parts = client.stream(model, arrays, timeout=options.get("timeout"))
    else:
        parts = (client.infer(model, one, timeout=options.get("timeout")) for one in [arrays])
    return Generation(parts, cumulative=layout == "llmapi" and stream)


def _layout(model: str, given: Mapping[str, Any]) -> str:
    for name, layout in LAYOUTS.items():
        if name in given and "text_input" in given:
            return layout
    raise UsageError(
        f"{model} generates no text: its inputs are {', '.join(given)}",
        expected="text_input, and one of " + ", ".join(LAYOUTS),
        mend="name the public model of a text-generation repository",
    )


def _named(layout: str, option: str, given: Mapping[str, Any]) -> str:
    name = _NAMES[layout][option]
    return _OLDER[option] if name not in given and _OLDER.get(option) in given else name


def _text(
    config: Any, given: Mapping[str, Any], prompt: str | None, messages: Sequence[Mapping[str, Any]] | None
) -> tuple[str, dict[str, Any]]:
    """The prompt, and ``messages`` where the model takes them itself."""
    if messages is None:
        return str(prompt), {}
    if "messages" in given:
        return "", {"messages": json.dumps(list(messages), ensure_ascii=False)}
    parameters = {name: value.string_value for name, value in config.parameters.items()}
    if "chat_template" not in parameters:
        raise UsageError(
            f"{config.name} has no chat template", expected="a prompt in place of messages", mend="give prompt=..."
        )
    special = json.loads(parameters.get("chat_special_tokens") or "{}")
    try:
        text = chat_template.render(parameters["chat_template"], messages, special)
    except ImportError as error:
        raise MissingDependencyError("rendering messages needs jinja2", mend="pip install jinja2") from error
    except chat_template.ChatTemplateError as error:
        raise UsageError(str(error), expected="messages that the model's chat template takes") from error
    return text.removeprefix(parameters.get("bos_text", "")), {}


def _array(spec: Any, value: Any, batched: bool) -> Any:
    several = value if isinstance(value, list) else [value]
    if spec.dtype == "BYTES":
        array = np.array([one.encode("utf-8") for one in several], dtype=object)
    else:
        array = np.array(several, dtype=_DTYPES[spec.dtype])
    return array[None] if batched else array


def _bytes(outputs: Mapping[str, Any]) -> bytes:
    if OUTPUT not in outputs:
        raise InferenceError(f"a response has no {OUTPUT}", expected="an output of that name in every response")
    return b"".join(v if isinstance(v, bytes) else str(v).encode("utf-8") for v in outputs[OUTPUT].reshape(-1))
