"""``client.generate`` against the real server: the models are doubles of each layout's tensors, no language model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from repo_builder import client
from repo_builder.errors import InferenceError, TimeoutExceededError

pytestmark = pytest.mark.server

TEXT = "晚上睡不着应该怎么办 👩‍👩‍👧‍👦 done."
STRINGS, BOOLS, INTS = "TYPE_STRING", "TYPE_BOOL", "TYPE_INT32"
LAYOUTS = {
    "engine": {
        **{"text_input": STRINGS, "messages": STRINGS, "max_tokens": INTS, "stream": BOOLS, "top_k": INTS},
        **{"exclude_input_in_output": BOOLS},
    },
    "vllm": {
        **{"text_input": STRINGS, "stream": BOOLS, "sampling_parameters": STRINGS, "exclude_input_in_output": BOOLS},
        **{"return_finish_reason": BOOLS, "return_num_output_tokens": BOOLS},
    },
    "llmapi": {
        **{"text_input": STRINGS, "streaming": BOOLS, "sampling_param_max_tokens": INTS},
        **{"sampling_param_top_k": INTS, "sampling_param_exclude_input_from_output": BOOLS},
    },
}
MODEL = '''"""A double: says the prompt back in parts of two bytes (llmapi: all of it so far), one response each."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        self.cumulative = args["model_name"] == "llmapi"
        self.seen = Path(args["model_repository"]) / "cancelled"

    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.say, args=(request, request.get_response_sender())).start()

    def say(self, request, sender):
        raw = pb.get_input_tensor_by_name(request, "text_input").as_numpy().reshape(-1)[0]
        said = pb.get_input_tensor_by_name(request, "messages")
        if said is not None:
            raw = json.loads(said.as_numpy().reshape(-1)[0])[-1]["content"].encode()
        for end in range(2, len(raw) + 2, 2):
            if sender.is_cancelled():
                self.seen.write_text(str(end))
                break
            part = raw[:end] if self.cumulative else raw[end - 2 : end]
            if raw.startswith(b"fail") and end > 6:
                sender.send(pb.InferenceResponse(error=pb.TritonError("the engine failed half-way")))
                break
            out = pb.Tensor("text_output", np.array([part], dtype=np.object_))
            sender.send(pb.InferenceResponse([out]))
            time.sleep(0.05 if raw.startswith(b"slow") else 0)
        sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
'''
TEMPLATE = "{{ bos_token }}{{ messages[-1].content }}"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from repo_builder import model_config, render

    folder = tmp_path_factory.mktemp("generation")
    for name, inputs in LAYOUTS.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / "model.py").write_text(MODEL, encoding="utf-8")
        optional = {name: {"optional": True} for name in inputs if name != "text_input"}
        config = model_config.build(
            {
                "name": name,
                "backend": "python",
                "max_batch_size": 4 if name == "engine" else 0,
                "input": [
                    {"name": i, "data_type": kind, "dims": [1], **optional.get(i, {})} for i, kind in inputs.items()
                ],
                "output": [{"name": "text_output", "data_type": STRINGS, "dims": [-1]}],
                "model_transaction_policy": {"decoupled": True},
                "parameters": {
                    "chat_template": {"string_value": TEMPLATE},
                    "chat_special_tokens": {"string_value": '{"bos_token": "<s>"}'},
                    "bos_text": {"string_value": "<s>"},
                },
            }
        )
        (folder / name / "config.pbtxt").write_text(render.render_config(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def server(server_factory: Callable[..., Any], repository: Path) -> Any:
    return server_factory(repository)


@pytest.fixture(scope="module")
def triton(server: Any) -> Iterator[client.Client]:
    with client.connect(server.url) as connected:
        connected.wait_ready()
        yield connected


@pytest.mark.parametrize("model", LAYOUTS)
def test_whole_characters_come_in_order(triton: client.Client, model: str) -> None:
    answer = triton.generate(model, TEXT)
    pieces = list(answer)
    assert "".join(pieces) == answer.text == TEXT
    assert len(pieces) > 10
    assert not any("�" in piece for piece in pieces)
    assert answer.time_to_first_token is not None


@pytest.mark.parametrize("model", LAYOUTS)
def test_messages_reach_every_layout(server: Any, model: str) -> None:
    answer = client.generate(server.url, model, messages=[{"role": "user", "content": TEXT}])
    assert "".join(answer) == TEXT


@pytest.mark.parametrize("model", LAYOUTS)
def test_leaving_early_cancels_on_the_server_and_the_connection_goes_on(
    triton: client.Client, repository: Path, model: str
) -> None:
    with triton.generate(model, "slow " * 100) as answer:
        next(iter(answer))
    seen = repository / model / "cancelled"
    for _ in range(100):
        if seen.exists():
            break
        time.sleep(0.1)
    assert 0 < int(seen.read_text()) < 500
    assert answer.cancelled
    assert "".join(triton.generate(model, "again")) == "again"


@pytest.mark.parametrize("model", LAYOUTS)
def test_an_error_half_way_comes_after_the_text_before_it(triton: client.Client, model: str) -> None:
    answer = triton.generate(model, "failing")
    with pytest.raises(InferenceError, match="the engine failed half-way"):
        "".join(answer)
    assert answer.text == "failin"


def test_thirty_two_answers_at_once(triton: client.Client) -> None:
    asked = [(list(LAYOUTS)[i % 3], f"{i}: {TEXT}") for i in range(32)]
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda one: "".join(triton.generate(*one)), asked))
    assert found == [text for _, text in asked]


def test_the_deadline_bounds_the_whole_answer(triton: client.Client) -> None:
    with pytest.raises(TimeoutExceededError):
        "".join(triton.generate("vllm", "slow " * 100, timeout=1.0))
