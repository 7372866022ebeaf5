"""The signature of a causal language model with its cache, the cases of its proof, and the models that have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repo_builder.artifact import Artifact
from repo_builder.errors import ConversionError, SignatureError, UnknownTaskError
from repo_builder.spec import Spec
from repo_builder.tasks import causal_lm, causal_lm_head

pytestmark = pytest.mark.torch

SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64}


def made(config: str, **fields: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    known = getattr(transformers, config)(**fields, initializer_range=0.5, bos_token_id=None, eos_token_id=None)
    return transformers.AutoModelForCausalLM.from_config(known, attn_implementation="eager").eval()


def test_the_signature_of_a_llama() -> None:
    program = causal_lm_head.program(made("LlamaConfig", **LLAMA))
    assert [str(spec) for spec in program.inputs] == [
        "input_ids INT64[batch, sequence]",
        "attention_mask INT64[batch, past_plus_sequence]",
        "position_ids INT64[batch, sequence]",
        "past_key_values.0.key FP32[batch, 2, past, 8]",
        "past_key_values.0.value FP32[batch, 2, past, 8]",
        "past_key_values.1.key FP32[batch, 2, past, 8]",
        "past_key_values.1.value FP32[batch, 2, past, 8]",
    ]
    assert program.outputs == ("logits", "present.0.key", "present.0.value", "present.1.key", "present.1.value")


@pytest.mark.parametrize(
    ("config", "fields", "positions"),
    [
        pytest.param("LlamaConfig", LLAMA, True, id="llama"),
        pytest.param(
            "MistralConfig", {**LLAMA, "sliding_window": 3}, True, id="a sliding window shorter than the text"
        ),
        pytest.param(
            "BloomConfig", {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4}, False, id="bloom"
        ),
    ],
)
def test_a_cache_fed_back_gives_what_the_whole_text_gives(config: str, fields: dict[str, Any], positions: bool) -> None:
    import torch

    model = made(config, **fields)
    program = causal_lm_head.program(model)
    assert ("position_ids" in [spec.name for spec in program.inputs]) is positions
    ids = np.array([[5, 9, 3, 60, 21, 8, 2]])
    with torch.no_grad():
        whole = model(input_ids=torch.from_numpy(ids), use_cache=False).logits.numpy()
    cache = {s.name: np.zeros((1, s.shape[1], 0, s.shape[3]), np.float32) for s in program.inputs if "past_" in s.name}
    for start, end in ((0, 4), (4, 5), (5, 7)):
        inputs = {"input_ids": ids[:, start:end], "attention_mask": np.ones((1, end), np.int64), **cache}
        if positions:
            inputs["position_ids"] = np.arange(start, end)[None]
        answer = dict(zip(program.outputs, program.run(inputs), strict=True))
        np.testing.assert_allclose(answer["logits"], whole[:, start:end], rtol=1e-4, atol=1e-4)
        cache = {name: answer[name.replace("past_key_values", "present")] for name in cache}
        assert all(array.shape[2] == end for array in cache.values())


def test_a_model_with_another_state_is_refused() -> None:
    model = made("MambaConfig", vocab_size=64, hidden_size=32, num_hidden_layers=1)
    with pytest.raises(SignatureError, match="MambaForCausalLM does not run with its cache as inputs") as error:
        causal_lm_head.program(model)
    assert "vllm" in error.value.mend


def described(folder: Path, model: Any) -> tuple[Any, Artifact]:
    from repo_builder.formats import huggingface

    model.save_pretrained(folder)
    spec = Spec.model_validate({"models": [{"source": str(folder), "name": "lm", "task": "text-generation"}]})
    return spec.models[0], huggingface.describe(folder)


def test_the_proof_of_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    model, source = described(tmp_path, made("LlamaConfig", **LLAMA))
    program = causal_lm.head(source, model)
    engine = Artifact(tmp_path / "model.onnx", "onnx", program.inputs, tuple(program.inputs[:1]), "batch")
    proof = causal_lm.proof(model, source, engine, program)
    assert "greedy tokens equal to generate()" in proof.reference
    pasts = [case.inputs["past_key_values.0.key"].shape[2] for case in proof.cases]
    assert pasts.count(0) == causal_lm.PROMPTS
    assert len(proof.cases) > causal_lm.PROMPTS * (1 + causal_lm.STEPS)
    for case in proof.cases:
        past, new = case.inputs["past_key_values.0.key"].shape[2], case.inputs["input_ids"].shape[1]
        assert case.inputs["attention_mask"].shape == (1, past + new)
        assert case.inputs["position_ids"].tolist() == [list(range(past, past + new))]
        assert case.outputs["present.1.value"].shape[2] == past + new
        answers = program.run({spec.name: case.inputs[spec.name] for spec in program.inputs})
        np.testing.assert_allclose(answers[0], case.outputs["logits"], rtol=1e-4, atol=1e-5)


def test_tokens_other_than_those_of_generate_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, source = described(tmp_path, made("LlamaConfig", **LLAMA))
    engine = Artifact(tmp_path / "model.onnx", "onnx")
    monkeypatch.setattr(causal_lm, "_generated", lambda *_: [1, 2, 3])
    with pytest.raises(
        ConversionError, match=r"token by token .* LlamaForCausalLM says .* by generate\(\) \[1, 2, 3\]"
    ):
        causal_lm.proof(model, source, engine, None)


def test_a_folder_without_a_language_model_is_refused(tmp_path: Path) -> None:
    import transformers

    config = transformers.T5Config(vocab_size=64, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    model, source = described(tmp_path, transformers.AutoModelForSeq2SeqLM.from_config(config))
    with pytest.raises(UnknownTaskError, match="of the type t5, which is no causal language model"):
        causal_lm.head(source, model)
