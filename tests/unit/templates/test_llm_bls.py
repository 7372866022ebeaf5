"""The public model of the engine path: texts of streams, rows, sequences and beams; cancelling; the words of errors."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import language_tokenizers
import llm_backend_stand_in as stand_in
import numpy as np
import pytest
from llm_backend_stand_in import InferenceResponse, Request, Tensor, TritonError, strings

from repo_builder.llm import source
from repo_builder.tasks.llm_tokens import LlmTokens, tokens

INPUTS = (
    *("text_input", "max_tokens", "bad_words", "stop_words", "end_id", "top_k", "random_seed", "return_log_probs"),
    *("num_return_sequences", "beam_width", "stream", "num_draft_tokens", "lora_task_id", "messages", "length_penalty"),
)
OUTPUTS = ("text_output", "cum_log_probs", "output_log_probs", "batch_index", "sequence_index")
NAMES = {"preprocessing_model_name": "m_preprocessing", "tensorrt_llm_model_name": "m_tensorrt_llm"}
WAIT_S = 20


class Engine:
    """A stand-in for the tensorrt_llm model: tells given ids as its contract says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[list[list[int]]] = []
        self.asked: list[dict[str, Any]] = []
        self.stopped: list[str] = []
        self.ids: list[str] = []
        self.waiting, self.go_on = threading.Event(), threading.Event()
        self.error: TritonError | None = None
        self.pause_after: int | None = None
        self.size, self.includes_prompt, self.fails_to_stop = 1, False, False

    def __call__(self, inputs: dict[str, Any], request_id: str, decoupled: bool) -> Any:
        if "stop" in inputs:
            self.stopped.append(request_id)
            self.go_on.set()
            if self.fails_to_stop:
                raise RuntimeError("the engine is gone")
            return [InferenceResponse()] if decoupled else InferenceResponse()
        self.asked.append(inputs)
        self.ids.append(request_id)
        found = self.told(inputs, request_id)
        if decoupled:
            return found
        return next(found, InferenceResponse())

    def told(self, inputs: dict[str, Any], request_id: str) -> Iterator[InferenceResponse]:
        if self.error:
            yield InferenceResponse(error=self.error)
            return
        streaming = inputs.get("streaming", np.zeros((len(inputs["input_ids"]), 1), bool))[:, 0]
        for row, prompt in enumerate(inputs["input_ids"].tolist()):
            number = (len(self.asked) - 1 if len(inputs["input_ids"]) < len(self.answers) else 0) + row
            prompt = prompt[: int(inputs["input_lengths"][row, 0])]
            for sequence, ids in enumerate(self.answers[number]):
                beams = ids if isinstance(ids[0], list) else [ids]
                if not streaming[row]:
                    if self.pause_after is not None and not self.pause(request_id):
                        return
                    yield self.response(
                        [(prompt if self.includes_prompt else []) + beam for beam in beams], row, sequence
                    )
                    continue
                for place in range(0, len(beams[0]), self.size):
                    if place == self.pause_after and not self.pause(request_id):
                        return
                    start = 0 if len(beams) > 1 else place
                    yield self.response([beam[start : place + self.size] for beam in beams], row, sequence)
        yield InferenceResponse()  # final

    def pause(self, request_id: str) -> bool:
        """Whether the request goes on."""
        self.waiting.set()
        assert self.go_on.wait(WAIT_S)
        return request_id not in self.stopped

    def response(self, beams: list[list[int]], row: int, sequence: int) -> InferenceResponse:
        width = max(map(len, beams))
        padded = np.array([[beam + [-1] * (width - len(beam)) for beam in beams]], np.int32)
        arrays = {
            "output_ids": padded,
            "sequence_length": np.array([[len(beam) for beam in beams]], np.int32),
            "cum_log_probs": np.full((1, len(beams)), -0.5, np.float32),
            "output_log_probs": np.full(padded.shape, -0.25, np.float32),
            "batch_index": np.array([[row]], np.int32),
            "sequence_index": np.array([[sequence]], np.int32),
        }
        return InferenceResponse([Tensor(name, array) for name, array in arrays.items()])


class World:
    """A served public model, its real preprocessing model, and the stand-in of the engine."""

    def __init__(self, found: LlmTokens, folder: Path, decoupled: bool, **parameters: str) -> None:
        self.tokens, self.engine = found, Engine()
        from test_llm_preprocessing import INPUTS as PROMPT_INPUTS
        from test_llm_preprocessing import OUTPUTS as PROMPT_OUTPUTS

        prompts = stand_in.load(found.preprocessing, folder / "preprocessing", PROMPT_INPUTS, PROMPT_OUTPUTS)
        self.model = stand_in.load(
            found.bls,
            folder / "bls",
            INPUTS,
            OUTPUTS,
            decoupled=decoupled,
            **NAMES,
            cancellation_check_period_ms="5",
            **parameters,
        )

        def preprocess(inputs: dict[str, Any], request_id: str, decoupled: bool) -> InferenceResponse:
            assert not decoupled
            [response] = prompts.execute([Request(**inputs)])
            return response

        stand_in.MODELS.update(
            {NAMES["preprocessing_model_name"]: preprocess, NAMES["tensorrt_llm_model_name"]: self.engine}
        )

    def ids(self, text: str) -> list[int]:
        return self.tokens.encode(text, add_special_tokens=False)

    def stream(self, request: Request, *, wait: bool = True) -> Any:
        """The response sender of one request, when it has been answered."""
        assert self.model.execute([request]) is None
        if wait:
            self.joined()
            assert request.sender.final
        return request.sender

    def joined(self) -> None:
        for thread in self.model.threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()


@pytest.fixture(scope="module", params=["byte_level", "byte_fallback"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LlmTokens:
    folder = tmp_path_factory.mktemp(request.param)
    chat = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": language_tokenizers.CHAT}
    chat = chat if request.param == "byte_fallback" else {"chat_template": language_tokenizers.CHATML}
    language_tokenizers.hugging_face(folder, getattr(language_tokenizers, request.param)(), end_ids=[2], **chat)
    return tokens(folder, source.read(folder))


@pytest.fixture
def world(found: LlmTokens, tmp_path: Path) -> Iterator[World]:
    made = World(found, tmp_path, decoupled=True)
    yield made
    made.engine.go_on.set()
    made.model.finalize()


@pytest.fixture
def whole(found: LlmTokens, tmp_path: Path) -> Iterator[World]:
    made = World(found, tmp_path, decoupled=False)
    yield made
    made.model.finalize()


def asked(*prompts: str, **others: Any) -> Request:
    rows = len(prompts)
    return Request(text_input=strings(*prompts), max_tokens=np.full((rows, 1), 50, np.int32), **others)


def flags(*values: bool) -> Any:
    return np.array([[value] for value in values])


def texts(sender: Any, row: int = 0, sequence: int = 0, beam: int = 0) -> list[str]:
    """Deltas of one answer."""
    assert not [response.error().message() for response in sender.sent if response.has_error()]
    places = [(r.arrays["batch_index"][0, 0], r.arrays["sequence_index"][0, 0]) for r in sender.sent]
    chosen = [r for r, place in zip(sender.sent, places, strict=True) if place == (row, sequence)]
    return [r.arrays["text_output"][beam].decode("utf-8") for r in chosen]


def error(response: Any) -> tuple[str, int]:
    return response.error().message(), response.error().code()


def test_a_stream_tells_whole_characters(world: World) -> None:
    said = "晚上🦕睡不着 the fox 👩‍👩‍👧"
    world.engine.answers = [[world.ids(said)]]
    sender = world.stream(asked("hi", stream=flags(True)))
    told = texts(sender)
    assert "".join(told) == said
    assert not any("�" in text for text in told)
    assert len(told) >= len(world.ids(said))
    assert {str(r.arrays["cum_log_probs"].dtype) for r in sender.sent if "cum_log_probs" in r.arrays} == {"float32"}


def test_a_tail_that_stays_broken_comes_last(world: World) -> None:
    ids = world.ids("ab🦕")[:-1]
    world.engine.answers = [[ids]]
    sender = world.stream(asked("hi", stream=flags(True)))
    told = texts(sender)
    assert "".join(told) == world.tokens.decode(ids)
    assert set(told[-1]) == {"�"}
    assert set(sender.sent[-1].arrays) == {"text_output", "batch_index", "sequence_index"}


def test_accumulated_tokens_are_told_from_the_start(found: LlmTokens, tmp_path: Path) -> None:
    world = World(found, tmp_path, decoupled=True, accumulate_tokens="true")
    world.engine.answers = [[world.ids("晚上 a🦕b")]]
    told = texts(world.stream(asked("hi", stream=flags(True))))
    assert told[-1] == "晚上 a🦕b"
    assert all(later.startswith(text) for text, later in itertools.pairwise(told))
    assert not any("�" in text for text in told)
    world.model.finalize()


def test_rows_and_sequences_have_streams_of_their_own(world: World) -> None:
    said = [["一🦕二", "三 x"], ["a b", "🦕🦕"]]
    world.engine.answers = [[world.ids(text) for text in row] for row in said]
    request = asked("hi", "a longer prompt", stream=flags(True, True), num_return_sequences=np.array([2, 2], np.int32))
    sender = world.stream(request)
    assert [["".join(texts(sender, row, sequence)) for sequence in (0, 1)] for row in (0, 1)] == said
    [inputs] = world.engine.asked
    assert inputs["num_return_sequences"].tolist() == [[2], [2]]
    assert inputs["input_lengths"].tolist() == [[len(world.tokens.encode(p))] for p in ("hi", "a longer prompt")]


def test_a_stream_of_beams_tells_all_of_each(world: World) -> None:
    world.engine.answers = [[[world.ids("一二三"), world.ids("a b c d")[:3]]]]
    sender = world.stream(asked("hi", stream=flags(True), beam_width=np.array([[2]], np.int32)))
    expected = [world.tokens.decode(beam) for beam in world.engine.answers[0][0]]
    assert [texts(sender, beam=beam)[-1] for beam in (0, 1)] == expected
    assert all(r.arrays["text_output"].shape == (2,) for r in sender.sent)


def test_an_answer_at_once_from_a_decoupled_model(world: World) -> None:
    world.engine.answers = [[world.ids("晚上🦕")]]
    prompt = world.tokens.encode("hello")
    for includes in (False, True):
        world.engine.includes_prompt = includes
        [text] = texts(world.stream(asked("hello", stream=flags(False))))
        assert text == world.tokens.decode(prompt * includes + world.ids("晚上🦕"))


def test_a_stop_word_across_tokens_ends_the_stream(world: World) -> None:
    said = "the fox. STOP and more, much more than that"
    world.engine.answers = [[world.ids(said)]]
    sender = world.stream(asked("hi", stream=flags(True), stop_words=strings([". STOP", "never"])))
    assert "".join(texts(sender)) == "the fox. STOP"
    assert len(texts(sender)) < len(world.ids(said))
    assert world.engine.stopped == world.engine.ids
    assert all(response.arrays for response in sender.sent)


def test_a_stop_word_of_one_row_leaves_the_other_alone(world: World) -> None:
    world.engine.answers = [[world.ids("a b X c")], [world.ids("d e f")]]
    stops = strings(["X", ""], ["Y", "Z"])
    sender = world.stream(asked("hi", "ho", stream=flags(True, True), stop_words=stops))
    assert ["".join(texts(sender, row)) for row in (0, 1)] == ["a b X", "d e f"]
    assert world.engine.stopped == []


def test_inputs_reach_the_engine_by_their_names_there(world: World) -> None:
    world.engine.answers = [[world.ids("x")]]
    given: dict[str, Any] = {
        "top_k": np.array([[3]], np.int32),
        "length_penalty": np.array([[0.5]], np.float32),
        "random_seed": np.array([[7]], np.uint64),
        "return_log_probs": np.array([True]),  # reshaped by the config
        "lora_task_id": np.array([5], np.uint64),
    }
    world.stream(asked("hi", stop_words=strings(["x"]), end_id=np.array([[9]], np.int32), **given))
    [inputs] = world.engine.asked
    found = {name: inputs[name].tolist() for name in ("runtime_top_k", "len_penalty", "random_seed", "end_id")}
    assert found == {"runtime_top_k": [[3]], "len_penalty": [[0.5]], "random_seed": [[7]], "end_id": [[9]]}
    assert inputs["return_log_probs"].tolist() == [[True]]
    assert inputs["lora_task_id"].tolist() == [[5]]
    assert inputs["request_output_len"].tolist() == [[50]]
    assert inputs["stop_words_list"].shape[:2] == (1, 2)
    assert {"streaming", "bad_words_list", "embedding_bias", "text_input", "messages"}.isdisjoint(inputs)


def test_messages_are_a_prompt(world: World) -> None:
    world.engine.answers = [[world.ids("x")]]
    messages = '[{"role": "user", "content": "晚上睡不着"}]'
    world.stream(asked("", messages=strings(messages), stream=flags(True)))
    prompt = world.tokens.prompt([{"role": "user", "content": "晚上睡不着"}])
    assert world.engine.asked[0]["input_ids"][0].tolist() == world.tokens.encode(prompt, add_special_tokens=False)


def test_a_client_that_leaves_ends_the_generation(world: World) -> None:
    world.engine.answers, world.engine.pause_after = [[world.ids("one two three four five six")]], 2
    request = asked("hi", stream=flags(True))
    sender = world.stream(request, wait=False)
    assert world.engine.waiting.wait(WAIT_S)
    sender.gone = True
    world.joined()
    assert world.engine.stopped == world.engine.ids
    assert sender.final
    assert not any(response.has_error() for response in sender.sent)
    assert len(sender.sent) == 2
    assert not sender.asked_after_final


def test_clients_are_watched_on_when_an_engine_did_not_stop(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    world.engine.answers, world.engine.pause_after = [[world.ids("one two three")]], 1
    for fails in (True, False):
        world.engine.fails_to_stop = fails
        world.engine.waiting.clear()
        world.engine.go_on.clear()
        sender = world.stream(asked("hi", stream=flags(True)), wait=False)
        assert world.engine.waiting.wait(WAIT_S)
        sender.gone = True
        world.joined()
        assert sender.final
    assert world.engine.stopped == world.engine.ids
    assert "m_tensorrt_llm: a request was not cancelled: the engine is gone" in capfd.readouterr().err


def test_another_stream_goes_on_while_one_is_cancelled(world: World) -> None:
    world.engine.answers, world.engine.pause_after = [[world.ids("one two three")]], 1
    leaving = asked("hi", stream=flags(True))
    world.stream(leaving, wait=False)
    assert world.engine.waiting.wait(WAIT_S)
    world.engine.pause_after = None
    staying = asked("hi", stream=flags(True))
    before = set(world.model.threads)
    assert world.model.execute([staying]) is None
    [thread] = world.model.threads - before
    thread.join(WAIT_S)
    assert "".join(texts(staying.sender)) == "one two three"
    assert not leaving.sender.final
    leaving.sender.gone = True
    world.joined()
    assert leaving.sender.final
    assert len(leaving.sender.sent) == 1


@pytest.mark.parametrize("decoupled", [True, False])
def test_the_words_of_other_models_are_passed_on(found: LlmTokens, tmp_path: Path, decoupled: bool) -> None:
    world = World(found, tmp_path, decoupled=decoupled)
    world.engine.answers = [[world.ids("x")]]

    def answered(request: Request) -> tuple[str, int]:
        if decoupled:
            [response] = world.stream(request).sent
        else:
            [response] = world.model.execute([request])
        return error(response)

    assert answered(asked("")) == ("prompt 0 is empty, expected a text or messages", TritonError.INVALID_ARG)
    draft = np.array([[3]], np.int32)
    assert answered(asked("x", num_draft_tokens=draft))[0].startswith("num_draft_tokens needs a draft model, expected")
    world.engine.error = TritonError("the engine is full", TritonError.UNAVAILABLE)
    assert answered(asked("x")) == ("the engine is full", TritonError.UNAVAILABLE)
    world.model.finalize()


def test_one_response_for_all_rows(whole: World) -> None:
    said = ["晚上🦕", "a much longer answer", "x"]

    def told(inputs: dict[str, Any], _: str) -> Iterator[InferenceResponse]:
        """Rows are asked for in any order; a sampling option says which this is."""
        yield whole.engine.response([whole.ids(said[int(inputs["runtime_top_k"][0, 0])])], 0, 0)

    whole.engine.told = told  # type: ignore[method-assign]
    order = np.array([[0], [1], [2]], np.int32)
    [response] = whole.model.execute([asked("p", "a longer prompt", "q", top_k=order)])
    assert not response.has_error()
    assert [text.decode() for text in response.arrays["text_output"]] == said
    assert response.arrays["cum_log_probs"].shape == (3, 1)
    longest = max(len(whole.ids(text)) for text in said)
    assert response.arrays["output_log_probs"].shape == (3, 1, longest)
    lengths = sorted(inputs["input_ids"].shape[1] for inputs in whole.engine.asked)
    assert lengths == sorted(len(whole.tokens.encode(prompt)) for prompt in ("p", "a longer prompt", "q"))


def test_streaming_needs_a_decoupled_model(whole: World) -> None:
    [response] = whole.model.execute([asked("hi", stream=flags(True))])
    told = "stream is true, expected false: this model is not decoupled, it answers once"
    assert error(response) == (told, TritonError.INVALID_ARG)


def test_stop_words_cut_an_answer_behind_its_prompt(whole: World) -> None:
    whole.engine.answers, whole.engine.includes_prompt = [[whole.ids(" and then END of it")]], True
    [response] = whole.model.execute([asked("the END is near", stop_words=strings(["END"]))])
    text = response.arrays["text_output"][0].decode()
    assert text.startswith("the END is near")
    assert text.endswith("and then END")


def test_a_cancelled_request_of_one_response(whole: World) -> None:
    whole.engine.answers, whole.engine.pause_after = [[whole.ids("one two")]], 0
    request, found = asked("hi"), []
    thread = threading.Thread(target=lambda: found.extend(whole.model.execute([request])))
    thread.start()
    assert whole.engine.waiting.wait(WAIT_S)
    request.sender.gone = True
    thread.join(WAIT_S)
    assert error(found[0]) == ("the request was cancelled", TritonError.CANCELLED)
    assert whole.engine.stopped == whole.engine.ids
