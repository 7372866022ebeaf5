"""A tiny Llama through the whole engine path: built, proven and streamed, on the stand-in of TensorRT-LLM's backend."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repo_builder import client, pipeline
from repo_builder.errors import InferenceError
from tests import tiny_transformers

pytestmark = [pytest.mark.server, pytest.mark.torch]

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
PROMPTS = ("a wide river", "晚上睡不着应该怎么办", "👩‍👩‍👧‍👦 family")
NEW = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("llm") / "llama"
    tiny_transformers.save("llama", tiny_transformers.CAUSAL_LM, made, max_position_embeddings=512)
    (made / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def built(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> pipeline.Result:
    out = tmp_path_factory.mktemp("repository") / "models"
    options = {"max_seq_len": 256, "max_input_len": 128}
    result = pipeline.build(
        str(folder), out, name="tiny", task="text-generation", engine="tensorrt-llm", target="26.07",
        batching={"max_batch_size": 8}, llm=options,
    )  # fmt: skip
    result.raise_failed()
    return result


@pytest.fixture(scope="module")
def triton(built: pipeline.Result) -> Iterator[client.Client]:
    with (
        pipeline.serve(built.repository, target=None, ports=(0, 0, 0)) as running,
        client.connect(running.url) as connected,
    ):
        connected.wait_ready()
        yield connected


@pytest.fixture(scope="module")
def greedy(folder: Path) -> Callable[[str], tuple[list[int], str]]:
    """New ids and text of transformers' own greedy search; the oracle, which did not serve."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def answer(prompt: str, *, special: bool = True) -> tuple[list[int], str]:
        ids = tokenizer(prompt, add_special_tokens=special, return_tensors="pt").input_ids
        with torch.no_grad():
            found = model.generate(ids, do_sample=False, max_new_tokens=NEW, pad_token_id=2)
        new = found[0, ids.shape[1] :].tolist()
        return new, tokenizer.decode(new, skip_special_tokens=True)

    return answer


def test_the_build_is_proven_and_says_what_served(built: pipeline.Result) -> None:
    report = built.reports["tiny"]
    assert report["passed"]
    assert report["outputs"]["text_output"]["exact"]
    assert report["backends"]["tiny_tensorrt_llm"] == "tensorrtllm (Python stand-in)"
    assert "Python stand-ins served for the compiled backends tensorrtllm" in report["limits"]
    assert any("the engine is not built yet" in limit for limit in report["limits"])
    assert report["first_response_ms"]["p50"] > 0
    names = {path.name for path in built.repository.iterdir()}
    assert names == {"tiny", *(f"tiny_{r}" for r in ("ensemble", "preprocessing", "tensorrt_llm", "postprocessing"))}
    beside = {path.name for path in (built.repository / "tiny_tensorrt_llm").iterdir()}
    assert {"build_engine.sh", "build_engine.job.yaml", "launch.sh"} <= beside


@pytest.mark.parametrize("prompt", PROMPTS)
def test_streams_are_transformers_greedy_text_in_whole_characters(
    triton: client.Client, greedy: Callable[..., tuple[list[int], str]], prompt: str
) -> None:
    answer = triton.generate("tiny", prompt, max_tokens=NEW)
    pieces = list(answer)
    assert "".join(pieces) == greedy(prompt)[1]
    assert len(pieces) > 1


def test_token_ids_are_transformers(
    triton: client.Client, greedy: Callable[..., tuple[list[int], str]], folder: Path
) -> None:
    import transformers

    ids = transformers.AutoTokenizer.from_pretrained(folder)(PROMPTS[0]).input_ids
    inputs = {
        "input_ids": np.array([ids], np.int32),
        "input_lengths": np.array([[len(ids)]], np.int32),
        "request_output_len": np.array([[NEW]], np.int32),
        "end_id": np.array([[1]], np.int32),
        "streaming": np.array([[True]]),
    }
    parts = list(triton.stream("tiny_tensorrt_llm", inputs))
    assert [int(part["output_ids"].reshape(-1)[0]) for part in parts] == greedy(PROMPTS[0])[0]
    assert all(part["sequence_length"].tolist() == [[1]] for part in parts)


def test_messages_go_through_the_chat_template_once(
    triton: client.Client, greedy: Callable[..., tuple[list[int], str]]
) -> None:
    answer = triton.generate("tiny", messages=[{"role": "user", "content": PROMPTS[1]}], max_tokens=NEW)
    assert "".join(answer) == greedy(f"user: {PROMPTS[1]}\nassistant:", special=False)[1]


def test_the_ensemble_gives_the_same_text(triton: client.Client, greedy: Callable[..., tuple[list[int], str]]) -> None:
    answer = triton.generate("tiny_ensemble", PROMPTS[0], max_tokens=NEW)
    assert "".join(answer).strip() == greedy(PROMPTS[0])[1].strip()


def test_thirty_two_streams_at_once_do_not_mix(
    triton: client.Client, greedy: Callable[..., tuple[list[int], str]]
) -> None:
    prompts = [f"{PROMPTS[i % 3]} {i}" for i in range(32)]
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda prompt: "".join(triton.generate("tiny", prompt, max_tokens=NEW)), prompts))
    assert found == [greedy(prompt)[1] for prompt in prompts]


def test_a_stop_word_ends_the_answer_wherever_its_tokens_part(
    triton: client.Client, greedy: Callable[..., tuple[list[int], str]]
) -> None:
    whole = greedy(PROMPTS[0])[1]
    word = next(whole[i : i + 3] for i in range(4, len(whole)) if whole[i : i + 3].isascii() and whole[i].isalpha())
    found = "".join(triton.generate("tiny", PROMPTS[0], max_tokens=NEW, stop=[word]))
    assert found == whole[: whole.index(word) + len(word)]


def test_leaving_early_frees_the_engine(triton: client.Client) -> None:
    with triton.generate("tiny", PROMPTS[0], max_tokens=120) as answer:
        next(iter(answer))
    assert "".join(triton.generate("tiny", PROMPTS[0], max_tokens=2))
    assert answer.cancelled


@pytest.mark.parametrize(
    ("prompt", "options", "said"),
    [
        ("", {}, "empty"),
        ("river " * 200, {}, "max_input_len"),
        ("river", {"max_tokens": 400}, "max_seq_len"),
        ("river", {"max_tokens": 0}, ""),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(
    triton: client.Client, prompt: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InferenceError) as caught:
        "".join(triton.generate("tiny", prompt, **options))
    assert said in str(caught.value)


def test_broken_messages_are_told(triton: client.Client) -> None:
    inputs = {"text_input": [[""]], "messages": [["{not json"]], "max_tokens": [[4]], "stream": [[True]]}
    arrays = {
        **{name: np.array([[inputs[name][0][0].encode()]], dtype=object) for name in ("text_input", "messages")},
        "max_tokens": np.array([[4]], np.int32),
        "stream": np.array([[True]]),
    }
    with pytest.raises(InferenceError, match="JSON"):
        list(triton.stream("tiny", arrays))


def test_the_proof_is_replayed_without_the_framework(built: pipeline.Result) -> None:
    result = pipeline.validate(built.repository)
    assert result.reports["tiny"]["passed"], json.dumps(result.reports["tiny"]["outputs"])


def test_a_build_with_nothing_to_do_does_nothing(built: pipeline.Result, folder: Path) -> None:
    again = pipeline.build(
        str(folder), built.repository, name="tiny", task="text-generation", engine="tensorrt-llm", target="26.07",
        batching={"max_batch_size": 8}, llm={"max_seq_len": 256, "max_input_len": 128}, dry_run=True,
    )  # fmt: skip
    assert [step.unchanged for step in again.steps] == [True]


@pytest.fixture(scope="module")
def api(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[client.Client]:
    """The layout llmapi, on the stand-in of the Python package tensorrt_llm."""
    out = tmp_path_factory.mktemp("api") / "models"
    result = pipeline.build(str(folder), out, name="api", engine="llmapi", target="26.07", llm={"dtype": "float32"})
    result.raise_failed()
    limits = result.reports["api"]["limits"]
    assert any("a stand-in served for the Python package tensorrt_llm" in one for one in limits)
    assert "no chat: the engine puts a BOS in front" in result.reports["api"]["reference"]
    with pipeline.serve(out, target=None, ports=(0, 0, 0)) as running, client.connect(running.url) as connected:
        connected.wait_ready()
        yield connected


def test_the_llm_api_streams_the_same_text(api: client.Client, greedy: Callable[..., tuple[list[int], str]]) -> None:
    for prompt in PROMPTS:
        answer = api.generate("api", prompt, max_tokens=NEW)
        pieces = list(answer)
        assert "".join(pieces) == greedy(prompt)[1]
        assert len(pieces) > 1
        assert answer.finish_reason in ("length", "stop")
    chat = api.generate("api", messages=[{"role": "user", "content": PROMPTS[1]}], max_tokens=NEW)
    assert "".join(chat) == greedy(f"user: {PROMPTS[1]}\nassistant:")[1]  # with the BOS in front


def test_the_llm_api_keeps_requests_apart_and_refuses_by_name(
    api: client.Client, greedy: Callable[..., tuple[list[int], str]]
) -> None:
    prompts = [f"{PROMPTS[i % 3]} {i}" for i in range(32)]
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda prompt: "".join(api.generate("api", prompt, max_tokens=NEW)), prompts))
    assert found == [greedy(prompt)[1] for prompt in prompts]
    with api.generate("api", PROMPTS[0], max_tokens=300) as answer:
        next(iter(answer))
    with pytest.raises(InferenceError, match="max_seq_len"):
        "".join(api.generate("api", PROMPTS[0], max_tokens=4000))
    assert "".join(api.generate("api", PROMPTS[0], max_tokens=2))
