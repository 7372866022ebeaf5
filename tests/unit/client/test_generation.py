"""Generated text: requests of each layout, whole characters, what is refused, what is cancelled."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from repo_builder.client import generation
from repo_builder.client.generation import Generation
from repo_builder.errors import InferenceError, UsageError
from repo_builder.tensors import TensorSpec

TEMPLATE = "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
VLLM = ("text_input", "stream", "sampling_parameters", "exclude_input_in_output", "return_finish_reason")
LLMAPI = ("text_input", "streaming", "sampling_param_exclude_input_from_output", "return_finish_reason")
SAMPLING = {"max_tokens": "INT32", "temperature": "FP32", "top_k": "INT32", "top_p": "FP32", "stop": "BYTES"}
ENGINE = ("text_input", "stream", "exclude_input_in_output", "messages", "stop_words")


class Server:
    """The two answers that ``generate`` asks a client for, and what it then sends; a double of the client alone."""

    def __init__(self, inputs: Mapping[str, str], *, decoupled: bool = True, batch: int = 0, **parameters: str) -> None:
        self._inputs = [TensorSpec(name, dtype, ("?",)) for name, dtype in inputs.items()]
        told = {name: SimpleNamespace(string_value=value) for name, value in parameters.items()}
        policy = SimpleNamespace(decoupled=decoupled)
        self._config = SimpleNamespace(name="m", max_batch_size=batch, parameters=told, model_transaction_policy=policy)
        self.sent: dict[str, np.ndarray[Any, Any]] = {}
        self.parts: list[Mapping[str, Any]] = [_part("yes")]

    def metadata(self, _: str) -> Any:
        return SimpleNamespace(inputs=self._inputs)

    def config(self, _: str) -> Any:
        return self._config

    def stream(self, _: str, inputs: Any, **__: Any) -> Iterator[Mapping[str, Any]]:
        self.sent = inputs
        yield from self.parts

    def infer(self, _: str, inputs: Any, **__: Any) -> Mapping[str, Any]:
        self.sent = inputs
        return self.parts[0]


def _part(text: str | bytes, **others: Any) -> dict[str, Any]:
    raw = text if isinstance(text, bytes) else text.encode()
    return {"text_output": np.array([raw], dtype=object), **{k: np.array([v]) for k, v in others.items()}}


def vllm(**options: Any) -> Server:
    kinds = {"text_input": "BYTES", "sampling_parameters": "BYTES"}
    inputs = {name: kinds.get(name, "BOOL") for name in (*VLLM, "return_num_output_tokens")}
    return Server(inputs, **options)


def llmapi(**options: Any) -> Server:
    inputs = {name: "BYTES" if name == "text_input" else "BOOL" for name in LLMAPI}
    return Server(inputs | {f"sampling_param_{name}": dtype for name, dtype in SAMPLING.items()}, **options)


def engine(seed: str = "seed", **options: Any) -> Server:
    inputs = {name: "BOOL" if name in ("stream", "exclude_input_in_output") else "BYTES" for name in ENGINE}
    numbers = {name: dtype for name, dtype in SAMPLING.items() if name != "stop"}
    return Server(inputs | numbers | {seed: "UINT64"}, batch=8, **options)


def ask(server: Server, prompt: str | None = None, *, stream: bool = True, **options: Any) -> Generation:
    answer = generation.generate(server, "m", prompt, stream=stream, **options)  # type: ignore[arg-type]
    "".join(answer)
    return answer


def test_vllm_gets_its_sampling_parameters_as_json() -> None:
    server = vllm()
    ask(server, "hi", max_tokens=5, stop=["END"])
    assert json.loads(server.sent["sampling_parameters"][0]) == {"max_tokens": 5, "stop": ["END"], "temperature": 0.0}
    assert server.sent["text_input"].tolist() == [b"hi"]
    ask(server, "hi", temperature=0.5, top_k=3, seed=7)
    told = json.loads(server.sent["sampling_parameters"][0])
    assert told == {"max_tokens": 256, "temperature": 0.5, "top_k": 3, "seed": 7}


def test_the_llm_api_gets_tensors_without_a_batch_dimension() -> None:
    server = llmapi()
    ask(server, "hi", max_tokens=5, stop=["a", "b"])
    assert server.sent["sampling_param_max_tokens"].shape == (1,)
    assert server.sent["sampling_param_top_k"].tolist() == [1]  # greedy
    assert server.sent["sampling_param_stop"].tolist() == [b"a", b"b"]


@pytest.mark.parametrize("seed", ["seed", "random_seed"])
def test_the_engine_path_gets_rows_and_the_seed_by_its_older_name(seed: str) -> None:
    server = engine(seed)
    ask(server, "hi", max_tokens=5, temperature=0.5, seed=3)
    assert server.sent["max_tokens"].shape == (1, 1)
    assert server.sent[seed].tolist() == [[3]]
    assert "top_k" not in server.sent
    assert server.sent["top_p"].tolist() == [[1.0]]  # else it would be greedy there


def test_messages_are_rendered_here_unless_the_model_takes_them() -> None:
    chat = {"chat_template": TEMPLATE, "chat_special_tokens": '{"bos_token": "<s>"}', "bos_text": "<s>"}
    messages = [{"role": "user", "content": "您好"}]
    server = vllm(**chat)
    ask(server, messages=messages)
    assert server.sent["text_input"][0].decode() == "[user]您好"  # the server's tokenizer adds <s>
    server = engine(**chat)
    ask(server, messages=messages)
    assert json.loads(server.sent["messages"][0, 0]) == messages
    assert server.sent["text_input"].tolist() == [[b""]]


def test_deltas_of_half_characters_are_joined() -> None:
    server, raw = vllm(), "天气👍🏽好".encode()
    server.parts = [_part(raw[i : i + 2]) for i in range(0, len(raw), 2)]
    answer = generation.generate(server, "m", "x", stream=True)  # type: ignore[arg-type]
    pieces = list(answer)
    assert "".join(pieces) == answer.text == "天气👍🏽好"
    assert all("�" not in piece for piece in pieces)
    assert not answer.cancelled


def test_a_broken_end_is_told_as_decoding_does() -> None:
    server = vllm()
    server.parts = [_part("ok"), _part("天".encode()[:2])]
    assert ask(server, "x").text == "ok�"


def test_cumulative_texts_are_told_once_and_never_half() -> None:
    server = llmapi()
    server.parts = [_part("A"), _part("A�"), _part("A天"), _part("A天�")]
    answer = generation.generate(server, "m", "x", stream=True)  # type: ignore[arg-type]
    assert list(answer) == ["A", "天", "�"]
    server.parts = [_part("�")]
    assert ask(server, "x").text == "�"


def test_figures_are_the_server_s_where_it_tells_them() -> None:
    server = vllm()
    server.parts = [_part("a", num_output_tokens=3), _part("b", num_output_tokens=2, finish_reason=b"length")]
    answer = ask(server, "x")
    assert (answer.tokens, answer.responses, answer.finish_reason) == (5, 2, "length")
    assert answer.time_to_first_token is not None
    assert answer.tokens_per_second > 0


def test_leaving_early_closes_the_stream() -> None:
    closed = []

    def parts() -> Iterator[Mapping[str, Any]]:
        try:
            while True:
                yield _part("x")
        finally:
            closed.append(True)

    with Generation(parts(), cumulative=False) as answer:
        assert next(iter(answer)) == "x"
    assert closed == [True]
    assert answer.cancelled


def test_cancelling_before_the_first_text_closes_too() -> None:
    ended = []
    answer = Generation(iter([_part("x")]), cumulative=False)
    answer.afterwards(lambda: ended.append(True))
    answer.cancel()
    assert list(answer) == []
    assert ended == [True]


def test_a_model_that_is_not_decoupled_answers_in_one_piece() -> None:
    server = engine(decoupled=False)
    assert ask(server, "x", stream=False).text == "yes"
    with pytest.raises(UsageError, match="does not stream"):
        ask(server, "x")


@pytest.mark.parametrize(
    ("server", "given", "said"),
    [
        (Server({"TEXT": "BYTES"}), {"prompt": "x"}, "generates no text"),
        (vllm(), {"messages": [{"role": "user", "content": "x"}]}, "no chat template"),
        (vllm(), {}, "a prompt or messages"),
        (vllm(), {"prompt": "x", "messages": []}, "a prompt or messages"),
        (vllm(chat_template="{{ raise_exception('roles') }}"), {"messages": [{"role": "a", "content": "b"}]}, "roles"),
        (llmapi(), {"prompt": "x", "seed": 1}, "no input 'sampling_param_seed'"),
    ],
)
def test_what_cannot_be_asked_is_refused(server: Server, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        generation.generate(server, "m", given.pop("prompt", None), stream=True, **given)  # type: ignore[arg-type]


def test_a_response_without_text_is_an_error() -> None:
    server = vllm()
    server.parts = [{"other": np.zeros(1)}]
    with pytest.raises(InferenceError, match="no text_output"):
        ask(server, "x")
