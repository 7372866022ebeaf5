"""The model.py that fills masks, against FillMaskPipeline on random logits; and the samples that have masks."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import backend_utils_stand_in as stand_in
import numpy as np
import pytest

from repo_builder.errors import SpecError
from repo_builder.spec import ModelSpec
from repo_builder.tasks import fill_mask, tokenizer
from tests import tiny_tokenizers

pytestmark = pytest.mark.torch
MASKS = Path(fill_mask.__file__).parents[1] / "templates" / "masks" / "model.py"
FAMILIES = ("bert", "bert-cased", "roberta", "xlm-roberta", "camembert", "albert", "mpnet", "modernbert", "deberta-v2")
TEXTS = ("one M here.", "M", "two M and M !", "北京M大学 🙂 M", "שלום M عالم", "don't M , n't M ' s M", "\t M\n")
K = 7


@functools.lru_cache
def pipeline(family: str) -> Any:
    import transformers

    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=8, **tiny))
    return transformers.FillMaskPipeline(model=model, tokenizer=tiny_tokenizers.make(family), device="cpu")


def served(source: Any, folder: Path, **changes: Any) -> Any:
    settings = tokenizer.TokenizerSettings(b"", tiny_tokenizers.MAX_LENGTH)
    values = {**fill_mask.parameters(source, settings, K), **changes}
    (folder / "1").mkdir()
    (folder / "1" / "model.py").symlink_to(MASKS)
    (folder / "1" / "tokenizer.json").write_text(source.backend_tokenizer.to_str(), encoding="utf-8")
    return stand_in.load(folder, {"parameters": {key: {"string_value": value} for key, value in values.items()}})


def scored(text: str, source: Any, seed: int = 0) -> dict[str, Any]:
    """What a language model says of one text."""
    import torch

    found = source(text.replace("M", source.mask_token), return_tensors="pt", truncation=True)
    shape = (1, found["input_ids"].shape[1], len(source))
    logits = np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * 3
    logits[:, :, source.all_special_ids] += 4
    return {"input_ids": found["input_ids"], "logits": torch.tensor(logits)}


def request(rows: list[dict[str, Any]], pad: int) -> dict[str, Any]:
    longest = max(row["input_ids"].shape[1] for row in rows)
    arrays = {
        "input_ids": np.full((len(rows), longest), pad, np.int64),
        "attention_mask": np.zeros((len(rows), longest), np.int64),
        "tokens": np.zeros((len(rows), longest, K), np.int64),
        "scores": np.zeros((len(rows), longest, K), np.float32),
        "logits": np.zeros((len(rows), longest, K), np.float32),
    }
    for number, row in enumerate(rows):
        best = row["logits"].topk(K)
        given = {**row, "tokens": best.indices, "scores": row["logits"].softmax(-1).topk(K).values}
        for name, array in arrays.items():
            length = row["input_ids"].shape[1]
            array[number, :length] = 1 if name == "attention_mask" else given[name][0] if name != "logits" else best[0]
    return arrays


def strings(array: Any) -> Any:
    return np.vectorize(lambda raw: raw.decode(), otypes=[object])(array).tolist()


@pytest.mark.parametrize("clean_up", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_fillings_are_the_pipelines(family: str, clean_up: bool, tmp_path: Path) -> None:
    source = pipeline(family)
    source.tokenizer.clean_up_tokenization_spaces = clean_up
    rows = [scored(text, source.tokenizer, seed) for seed, text in enumerate(TEXTS)]
    (answer,) = served(source.tokenizer, tmp_path).execute([request(rows, source.tokenizer.pad_token_id)])
    assert answer.error is None, answer.error
    assert {array.shape for array in answer.arrays.values()} == {(len(TEXTS), 3, K)}
    for number, row in enumerate(rows):
        found = source.postprocess(row, top_k=K)
        expected = [found] if isinstance(found[0], dict) else found
        own = {name: array[number, : len(expected)] for name, array in answer.arrays.items()}
        assert own["TOKENS"].tolist() == [[one["token"] for one in mask] for mask in expected]
        assert strings(own["TOKEN_STRINGS"]) == [[one["token_str"] for one in mask] for mask in expected]
        assert strings(own["SEQUENCES"]) == [[one["sequence"] for one in mask] for mask in expected]
        np.testing.assert_allclose(own["SCORES"], [[one["score"] for one in mask] for mask in expected], atol=1e-6)
        for array in answer.arrays.values():
            assert not array[number, len(expected) :].any(), "rows with fewer masks are padded with nothing"


def test_a_text_without_a_mask_is_refused_and_its_mates_are_served(tmp_path: Path) -> None:
    source = pipeline("bert").tokenizer
    model = served(source, tmp_path)
    plain = request([scored("a M b", source), scored("nothing here", source)], source.pad_token_id)
    long = request([scored("word " * 200 + "M", source)], source.pad_token_id)
    fine = request([scored("a M b", source)], source.pad_token_id)
    answers = model.execute([plain, fine, long])
    assert [answer.error and answer.error.code for answer in answers] == [stand_in.TritonError.INVALID_ARG, None, 3]
    assert str(answers[0].error) == "input 'TEXT': text 1 has no mask token '[MASK]'"
    assert str(answers[2].error) == (
        "input 'TEXT': text 0 has no mask token '[MASK]' among the 48 tokens that the model reads"
    )
    assert answers[1].arrays["TOKENS"].shape == (1, 1, K)


def test_padding_counts_by_the_attention_mask_where_the_source_has_no_padding_token(tmp_path: Path) -> None:
    """Padding has the mask's own id here: only the attention mask tells the two apart."""
    source = pipeline("bert").tokenizer
    model = served(source, tmp_path)
    rows = [scored("a M b", source), scored("a longer text with one M in it", source)]
    (answer,) = model.execute([request(rows, source.mask_token_id)])
    assert answer.arrays["TOKENS"].shape == (2, 1, K)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_sample_has_a_mask_and_some_have_two(family: str) -> None:
    source = tiny_tokenizers.make(family)

    def masks(text: str) -> int:
        return int(source(text, truncation=True)["input_ids"].count(source.mask_token_id))

    texts = list(tiny_tokenizers.TEXTS)
    made = fill_mask.masked(texts, source.mask_token, masks)
    counts = [masks(row["TEXT"][0]) for row in made]
    assert len(made) == 64
    assert set(counts) == {1, 2}
    assert counts.count(2) > 10
    assert made == fill_mask.masked(texts, source.mask_token, masks)


@pytest.mark.parametrize("asked", ["0", "-1", "many", 1.5])
def test_top_k_must_be_a_number_of_tokens(asked: Any) -> None:
    with pytest.raises(SpecError) as caught:
        fill_mask.top_k(ModelSpec(source="x", step_configs={"postprocess": {"parameters": {"top_k": asked}}}))
    assert str(caught.value) == (
        f"step_configs: postprocess: top_k is '{asked}'\n"
        "  expected: a number from 1\n"
        "  to mend it: correct it in the spec"
    )


def test_top_k_is_at_most_the_vocabulary() -> None:
    asked = ModelSpec(source="x", step_configs={"postprocess": {"parameters": {"top_k": 9}}})
    assert fill_mask.top_k(asked, 9) == 9
    with pytest.raises(SpecError, match="expected: a number from 1 to 8, the size of the vocabulary"):
        fill_mask.top_k(asked, 8)
    assert fill_mask.top_k(ModelSpec(source="x")) == 5
