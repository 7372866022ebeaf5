"""Real vLLM on the CPU behind the real server: its streams against transformers' own greedy search."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ServerFactory

from repo_builder import client, render
from repo_builder.errors import InferenceError
from repo_builder.llm import source, vllm
from repo_builder.server import RunningServer
from repo_builder.spec import ModelSpec
from tests import tiny_tokenizers

pytestmark = [pytest.mark.server, pytest.mark.torch, pytest.mark.slow]

POSITIONS = 1024
NEW = 24
MARGIN = 1e-3
"""Between the two best logits of every step: below it rounding may choose another token."""
_DIMS = {
    **{"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "max_position_embeddings": POSITIONS},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.5},
}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "llama", _DIMS),
    "qwen2": ("Qwen2Config", "qwen2", _DIMS),
    "glm": ("GlmConfig", "llama", {**_DIMS, "head_dim": 32}),
    "gpt2": (
        "GPT2Config",
        "gpt2",
        {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS, "initializer_range": 0.5},
    ),
}
"""Config class of transformers, tokenizer and dims; vLLM's attention on the CPU wants heads of 32 and more."""
PROMPTS = (
    "The quick brown fox",
    "晚上睡不着应该怎么办",
    "你好 🦜 emoji 🎉",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "def answer():\n    return 42\n",
    "x",
)


@dataclass(frozen=True)
class Oracle:
    """transformers' model and tokenizer of one folder."""

    model: Any
    tokenizer: Any

    def answer(self, prompt: str, new: int = NEW) -> list[int]:
        """The new ids of greedy search; every one ahead of the next best by ``MARGIN``."""
        import torch

        ids = self.tokenizer(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            found = self.model.generate(
                ids, max_new_tokens=new, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
        for logits in found.logits:
            best, second = torch.topk(logits[0], 2).values.tolist()
            assert best - second > MARGIN, prompt
        return list(map(int, found.sequences[0, ids.shape[1] :]))

    def text(self, ids: list[int]) -> str:
        """As transformers decodes them. vLLM keeps back tokens at the end with which a character is incomplete, whole:
        of a token of a space and half a character, the space too."""
        texts = (str(self.tokenizer.decode(ids[:end], skip_special_tokens=True)) for end in range(len(ids), 0, -1))
        return next((text for text in texts if not text.endswith("\ufffd")), "")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A served model of every architecture: configs and model.json as the layout writes them."""
    import torch
    import transformers

    root = tmp_path_factory.mktemp("vllm") / "repository"
    for name, (config_class, tokenizer_name, dims) in MODELS.items():
        tokenizer = tiny_tokenizers.make(tokenizer_name)
        tokenizer.model_max_length = POSITIONS
        ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
        config = getattr(transformers, config_class)(vocab_size=len(tokenizer), **ids, **dims)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = transformers.AutoModelForCausalLM.from_config(config).eval()
        weights = root / name / "1" / "weights"
        model.save_pretrained(weights)
        tokenizer.save_pretrained(weights)
        spec = ModelSpec.model_validate(
            {
                "source": str(weights),
                "name": name,
                "engine": "vllm",
                "batching": {"max_batch_size": 32},
                "llm": {"dtype": "float32", "tp": 2, "engine_args": {"kv_cache_memory_bytes": 1 << 26}},
            }
        )
        arguments = vllm.model_json(spec, source.read(weights), f"/models/{name}/1/weights", "0.24.0")
        (root / name / "1" / "model.json").write_bytes(arguments)
        written = render.render_config(vllm.config(name, parameters={}, version="0.24.0"))
        (root / name / "config.pbtxt").write_text(written, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def oracles(repository: Path) -> dict[str, Oracle]:
    import transformers

    return {
        name: Oracle(
            transformers.AutoModelForCausalLM.from_pretrained(repository / name / "1" / "weights").eval(),
            transformers.AutoTokenizer.from_pretrained(repository / name / "1" / "weights"),
        )
        for name in MODELS
    }


@pytest.fixture(scope="module")
def server(repository: Path, server_factory: ServerFactory) -> RunningServer:
    return server_factory(repository, timeout=900)


@pytest.fixture(scope="module")
def served(server: RunningServer) -> Iterator[client.Client]:
    with client.connect(f"127.0.0.1:{server.ports.grpc}", timeout=300) as connected:
        yield connected


def request(prompt: str, *, stream: bool = True, sampling: str | None = None, **more: Any) -> dict[str, Any]:
    """Inputs of a greedy request; ``more`` are sampling parameters."""
    parameters = json.dumps({"temperature": 0, "max_tokens": NEW, **more}) if sampling is None else sampling
    return {"text_input": [prompt], "stream": [stream], "sampling_parameters": [parameters]}


def text_of(responses: list[dict[str, Any]]) -> str:
    return b"".join(one["text_output"][0] for one in responses).decode("utf-8")


def ids_of(responses: list[dict[str, Any]]) -> list[int]:
    """The chosen tokens: with ``logprobs: 1`` the only one told of a greedy step is the best."""
    told = [position for one in responses for position in json.loads(one["logprobs"][0])]
    assert all(len(position) == 1 for position in told)
    return [int(token) for position in told for token in position]


@pytest.mark.parametrize("name", MODELS)
def test_the_stream_is_greedy_search_token_for_token(
    served: client.Client, oracles: dict[str, Oracle], name: str
) -> None:
    oracle, answers = oracles[name], set()
    for prompt in PROMPTS:
        expected = oracle.answer(prompt)
        more = {f"return_{output}": [True] for output in ("logprobs", "num_output_tokens", "finish_reason")}
        more["return_num_input_tokens"] = [True]
        responses = list(served.stream(name, {**request(prompt, logprobs=1), **more}))
        assert ids_of(responses) == expected
        assert text_of(responses) == oracle.text(expected)
        assert sum(int(one["num_output_tokens"][0]) for one in responses) == len(expected)
        assert {int(one["num_input_tokens"][0]) for one in responses} == {len(oracle.tokenizer(prompt).input_ids)}
        reasons = [one["finish_reason"][0] for one in responses]
        ended = expected[-1] == oracle.tokenizer.eos_token_id
        assert set(reasons[:-1]) <= {b"None"}
        assert reasons[-1] == (b"stop" if ended else b"length")
        assert len(responses) > len(expected) // 2
        answers.add(tuple(expected))
    assert len(answers) == len(PROMPTS)
    assert len({token for answer in answers for token in answer}) > NEW


@pytest.mark.parametrize("name", MODELS)
def test_one_response_holds_the_prompt_unless_it_is_excluded(
    served: client.Client, oracles: dict[str, Oracle], name: str
) -> None:
    expected = oracles[name].text(oracles[name].answer(PROMPTS[1]))
    for excluded, before in ((False, PROMPTS[1]), (True, "")):
        inputs = {**request(PROMPTS[1], stream=False), "exclude_input_in_output": [excluded]}
        responses = list(served.stream(name, inputs))
        assert len(responses) == 1
        assert text_of(responses) == before + expected


def test_several_answers_come_side_by_side(served: client.Client, oracles: dict[str, Oracle]) -> None:
    expected = oracles["llama"].text(oracles["llama"].answer(PROMPTS[0]))
    inputs = {**request(PROMPTS[0], stream=False, n=2, temperature=1e-6), "exclude_input_in_output": [True]}
    (response,) = served.stream("llama", inputs)
    assert [text.decode() for text in response["text_output"]] == [expected] * 2
    joined = [b"", b""]
    for response in served.stream("llama", request(PROMPTS[0], n=2, temperature=1e-6)):
        for place, text in enumerate(response["text_output"]):
            joined[place] += text
    assert [text.decode() for text in joined] == [expected] * 2


def test_32_streams_at_once_each_get_their_own_answer(served: client.Client, oracles: dict[str, Oracle]) -> None:
    oracle = oracles["qwen2"]
    prompts = [f"{prompt} {number}" for number in range(6) for prompt in PROMPTS][:32]
    expected = [oracle.text(oracle.answer(prompt)) for prompt in prompts]
    with ThreadPoolExecutor(32) as threads:
        found = list(threads.map(lambda prompt: text_of(list(served.stream("qwen2", request(prompt)))), prompts))
    assert found == expected


def test_a_cancelled_request_is_aborted_in_vllm(server: RunningServer, served: client.Client) -> None:
    words = "model 'llama': a request was cancelled by its client; vLLM aborted it"
    before = server.log().count(words)
    long = request(PROMPTS[0], max_tokens=POSITIONS - 64, ignore_eos=True)
    responses = served.stream("llama", long)
    taken = [next(responses) for _ in range(5)]
    responses.close()  # type: ignore[attr-defined]
    assert all(one["text_output"].shape == (1,) for one in taken)
    end = time.monotonic() + 60
    while server.log().count(words) == before and time.monotonic() < end:
        time.sleep(0.1)
    assert server.log().count(words) == before + 1
    assert len(list(served.stream("llama", request(PROMPTS[0], max_tokens=3, ignore_eos=True)))) == 3


def test_a_stop_string_across_tokens_ends_the_answer_before_it(
    served: client.Client, oracles: dict[str, Oracle]
) -> None:
    oracle = oracles["gpt2"]
    ids = oracle.answer(PROMPTS[0])
    whole = oracle.text(ids)
    ends = [len(oracle.text(ids[:count])) for count in range(len(ids) + 1)]
    pairs = [(end - 1, whole[end - 1 : end + 1]) for start, end in pairwise(ends) if start < end < len(whole)]
    stop = next(pair for at, pair in pairs if at > 3 and "\ufffd" not in pair and whole.index(pair) == at)
    inputs = {**request(PROMPTS[0], stop=[stop]), "return_finish_reason": [True]}
    responses = list(served.stream("gpt2", inputs))
    assert text_of(responses) == whole[: whole.index(stop)]
    assert responses[-1]["finish_reason"][0] == b"stop"
    shown = list(served.stream("gpt2", request(PROMPTS[0], stop=[stop], include_stop_str_in_output=True)))
    assert text_of(shown) == whole[: whole.index(stop) + len(stop)]


def test_an_empty_prompt_is_what_the_tokenizer_makes_of_it(served: client.Client, oracles: dict[str, Oracle]) -> None:
    """BOS for Llama; nothing for GPT-2, which vLLM refuses."""
    expected = oracles["llama"].text(oracles["llama"].answer(""))
    assert text_of(list(served.stream("llama", request("")))) == expected
    with pytest.raises(InferenceError, match=r"Error generating stream: .*empty"):
        list(served.stream("gpt2", request("")))


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        (request("x", sampling="{oops"), "sampling_parameters is not JSON"),
        (request("x", sampling="[1]"), "sampling_parameters must be a JSON object"),
        (request("x", temprature=1), "Unexpected keyword argument 'temprature'"),
        (request("x", max_tokens=-1), "max_tokens must be at least 1"),
        (request("x", lora_name="sql"), "LoRA feature is not enabled"),
        ({**request("x"), "exclude_input_in_output": [False]}, "`exclude_input_in_output` = False is not allowed"),
        ({**request("x"), "embedding_request": ["{}"]}, "does not support 'embed' request"),
        (request("word " * POSITIONS), f"maximum context length is {POSITIONS} tokens"),
        ({**request("x"), "text_input": np.array([b"\xff\xfe"], dtype=object)}, "can't decode byte 0xff"),
    ],
)
def test_what_is_wrong_is_said_and_the_next_request_is_answered(
    served: client.Client, inputs: dict[str, Any], text: str
) -> None:
    with pytest.raises(InferenceError) as refused:
        list(served.stream("llama", inputs))
    assert "Error generating stream: " in str(refused.value)
    assert text in str(refused.value)
    assert len(list(served.stream("llama", request("x", max_tokens=2, ignore_eos=True)))) == 2


def test_numbers_may_come_as_strings(served: client.Client, oracles: dict[str, Oracle]) -> None:
    expected = oracles["llama"].text(oracles["llama"].answer(PROMPTS[0], 8))
    found = list(served.stream("llama", request(PROMPTS[0], temperature="0.0", max_tokens="8")))
    assert text_of(found) == expected


def test_the_log_tells_what_serves(server: RunningServer) -> None:
    log = server.log()
    for name in MODELS:
        assert f"model '{name}' is served by vLLM 0.32.0 on cpu, behind repo_builder's vllm backend" in log
        assert f"model '{name}': tensor_parallel_size 2 of model.json is for GPUs" in log


def test_weights_that_are_not_there_fail_the_load(
    repository: Path, tmp_path: Path, server_factory: ServerFactory
) -> None:
    from repo_builder.errors import ServerStartError

    shutil.copytree(repository / "llama", tmp_path / "llama", ignore=shutil.ignore_patterns("weights"))
    with pytest.raises(ServerStartError, match="failed to load 'llama'"):
        server_factory(tmp_path, timeout=300)
