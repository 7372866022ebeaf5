"""The vllm backend apart from vLLM: its signature, the arguments that it reads, and what is new in an answer."""

from __future__ import annotations

import json
import sys
import types
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from repo_builder import toolchain
from repo_builder.errors import ToolchainError
from repo_builder.llm import vllm
from repo_builder.server import backend_directory, embedded, packages
from tests import backend_utils_stand_in


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """The backend's package, as the server's process imports it."""
    module = types.ModuleType("triton_python_backend_utils")
    for part in (backend_utils_stand_in.Tensor, backend_utils_stand_in.InferenceResponse):
        setattr(module, part.__name__, part)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.syspath_prepend(str(backend_directory.STAND_INS / "vllm"))
    import vllm_serving
    from vllm_serving import answer, arguments, question, signature  # noqa: F401

    return vllm_serving


def test_the_signature_is_the_one_that_the_layout_writes_out(serving: Any) -> None:
    config = vllm.config("chat", parameters={}, version="0.32.0")
    for written, completed in ((config.input, serving.signature.INPUTS), (config.output, serving.signature.OUTPUTS)):
        kinds = written[0].DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
        assert [
            (one.name, kinds[one.data_type].name, list(one.dims), getattr(one, "optional", False)) for one in written
        ] == [(one["name"], one["data_type"], one["dims"], one.get("optional", False)) for one in completed]


def test_a_path_of_the_container_is_looked_up_in_the_repository(serving: Any, tmp_path: Path) -> None:
    version = tmp_path / "chat" / "1"
    version.mkdir(parents=True)
    given = {"model": "/models/chat/1/weights", "tokenizer": "org/name", "dtype": "float16"}
    (version / "model.json").write_text(json.dumps(given), encoding="utf-8")
    assert serving.arguments.read(version, tmp_path) == {
        "model": str(tmp_path / "chat/1/weights"),
        "tokenizer": "org/name",
        "dtype": "float16",
    }
    assert serving.arguments.located(str(tmp_path), tmp_path / "other") == str(tmp_path)


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "'model.json' with vLLM's engine arguments must be in"), ("{", "is not JSON"), ("[]", "a JSON object")],
)
def test_a_wrong_model_json_is_told(serving: Any, tmp_path: Path, content: str | None, text: str) -> None:
    if content is not None:
        (tmp_path / "model.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=text):
        serving.arguments.read(tmp_path, tmp_path)


def test_a_machine_without_gpus_holds_the_whole_model_in_one_process(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    changed, notes = serving.arguments.without_gpu({"tensor_parallel_size": 4, "dtype": "float32"})
    assert changed == {
        "tensor_parallel_size": 1,
        "dtype": "float32",
        "kv_cache_memory_bytes": 1 << 30,
        "enforce_eager": True,
    }
    assert notes == ["tensor_parallel_size 4 of model.json is for GPUs; this machine has none: 1"]
    own = {"kv_cache_memory_bytes": 1 << 20, "enforce_eager": False}
    assert serving.arguments.without_gpu(own) == (own, [])
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "2")
    assert "kv_cache_memory_bytes" not in serving.arguments.without_gpu({})[0]


def test_adapters_are_read_where_lora_is_enabled(serving: Any, tmp_path: Path) -> None:
    assert serving.arguments.adapters({}, tmp_path, tmp_path) == {}
    with pytest.raises(ValueError, match=r"cannot find .*multi_lora\.json"):
        serving.arguments.adapters({"enable_lora": "true"}, tmp_path, tmp_path)
    (tmp_path / "multi_lora.json").write_text('{"sql": "/models/chat/1/sql"}', encoding="utf-8")
    found = serving.arguments.adapters({"enable_lora": True}, tmp_path, tmp_path)
    assert found == {"sql": str(tmp_path / "chat/1/sql")}


def test_written_numbers_and_switches_are_taken_by_the_type_of_their_field(serving: Any) -> None:
    typed = serving.question.typed
    assert (typed("3", int), typed("0.5", float), typed("7", "int | None")) == (3, 0.5, 7)
    assert (typed("true", bool), typed("False", bool)) == (True, False)
    assert (typed("3", "str | list[str] | None"), typed("x", "list[int] | None")) == ("3", "x")


def test_each_response_holds_what_is_new(serving: Any) -> None:
    asked = serving.question.Question(
        prompt="Hi",
        stream=True,
        prepend=False,
        sampling=None,
        adapter="",
        returns=frozenset({"num_output_tokens", "finish_reason", "logprobs"}),
    )
    answer = serving.answer.Answer(asked)
    first = answer.response(output(["ab", "x"], [[1], [5]], [None, None]))
    second = answer.response(output(["abcé", "xy"], [[1, 2, 3], [5, 6]], ["length", None]))
    assert list(first.arrays["text_output"]) == [b"ab", b"x"]
    assert list(second.arrays["text_output"]) == ["cé".encode(), b"y"]
    assert list(first.arrays["num_output_tokens"]) == [1, 1]
    assert list(second.arrays["num_output_tokens"]) == [2, 1]
    assert list(second.arrays["finish_reason"]) == [b"length", b"None"]
    assert list(second.arrays["logprobs"]) == [b"null", b"null"]
    assert set(second.arrays) == {"text_output", "num_output_tokens", "finish_reason", "logprobs"}


def test_a_sequence_that_did_not_go_on_keeps_its_place(serving: Any) -> None:
    answer = serving.answer.Answer(serving.question.Question("Hi", True, False, None, "", frozenset()))
    answer.response(output(["ab", "x"], [[1], [5]], [None, None]))
    second = output(["ab", "xy"], [[1], [5, 6]], [None, None])
    second.outputs = second.outputs[1:]
    assert list(answer.response(second).arrays["text_output"]) == [b"", b"y"]


def test_a_whole_answer_begins_with_the_prompt(serving: Any) -> None:
    asked = serving.question.Question("Hi", False, True, None, "", frozenset({"num_input_tokens"}))
    found = serving.answer.Answer(asked).response(output([" there"], [[1]], ["stop"])).arrays
    assert list(found["text_output"]) == [b"Hi there"]
    assert found["num_input_tokens"].tolist() == [4]


def output(texts: list[str], tokens: list[list[int]], reasons: list[str | None]) -> Any:
    """What the backend reads of vLLM's RequestOutput."""
    sequences = [
        SimpleNamespace(index=i, text=text, token_ids=ids, finish_reason=reason, logprobs=None)
        for i, (text, ids, reason) in enumerate(zip(texts, tokens, reasons, strict=True))
    ]
    return SimpleNamespace(outputs=sequences, prompt_token_ids=[0, 1, 2, 3])


def test_the_environment_of_vllm_needs_python_3_11(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPO_BUILDER_CACHE", str(tmp_path / "cache"))
    older = replace(toolchain.this_interpreter(), version=(3, 10, 12))
    with pytest.raises(ToolchainError, match=r"Python 3\.10 .*backend vllm has packages without wheels for it"):
        embedded.prepare(frozenset({"vllm", "python"}), interpreter=older)
    assert not (tmp_path / "cache").exists()


def test_backends_share_their_packages() -> None:
    both = packages.of({"vllm", "pytorch", "python"})
    assert both == packages.of({"vllm"})
    assert both.requirements.count(packages.TORCH) == 1
    assert both.exit_seconds > packages.of({"pytorch"}).exit_seconds
    assert packages.of({"onnxruntime"}) == packages.Packages()
