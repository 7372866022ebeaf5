"""The heads of reranking and sparse embedding against sentence-transformers, what is refused, and what is guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repo_builder import tasks
from repo_builder.artifact import Artifact
from repo_builder.errors import SignatureError, UnknownTaskError
from repo_builder.formats import huggingface
from repo_builder.spec import ModelSpec
from repo_builder.tasks import reranking, sparse_embedding
from tests import tiny_tokenizers, tiny_transformers

TEXTS = [tiny_tokenizers.TEXTS[i] for i in (0, 4, 9, 20)] + ["", max(tiny_tokenizers.TEXTS, key=len)]


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def described(**facts: Any) -> Artifact:
    return Artifact(Path("folder"), "huggingface", facts=facts)


def sentence(kinds: list[str], **settings: Any) -> dict[str, Any]:
    return {
        "modules": [{"kind": kind} for kind in kinds],
        "settings": {"config_sentence_transformers": settings} if settings else {},
    }


@pytest.mark.parametrize(
    ("facts", "task", "why"),
    [
        ({"sentence_transformers": sentence(["Transformer", "Pooling"])}, "sentence-embedding", "modules.json"),
        (
            {"sentence_transformers": sentence(["Transformer"], model_type="CrossEncoder")},
            "reranking",
            "config_sentence_transformers.json names CrossEncoder",
        ),
        (
            {"sentence_transformers": sentence(["MLMTransformer", "SpladePooling"])},
            "sparse-embedding",
            "modules.json names SpladePooling",
        ),
        (
            {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}},
            "reranking",
            "BertForSequenceClassification with one label; of single texts it is text-classification",
        ),
        ({"architectures": ["BertForSequenceClassification"], "num_labels": 1}, "reranking", "with one label"),
        (
            {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "a", "1": "b"}},
            "text-classification",
            "config.json names BertForSequenceClassification",
        ),
        (
            {
                "architectures": ["BertForSequenceClassification"],
                "id2label": {"0": "a", "1": "b"},
                "cross_encoder": True,
            },
            "reranking",
            "config.json bears the mark of sentence-transformers' CrossEncoder",
        ),
    ],
)
def test_what_the_files_tell(facts: dict[str, Any], task: str, why: str) -> None:
    found, said = tasks.guess(described(**facts))
    assert (found, why in said) == (task, True), said


def test_a_kind_of_sentence_transformers_that_nothing_serves() -> None:
    source = described(sentence_transformers=sentence(["Transformer", "Dense"], model_type="MultiVectorEncoder"))
    with pytest.raises(UnknownTaskError) as caught:
        tasks.guess(source)
    assert str(caught.value) == (
        "folder is a MultiVectorEncoder of sentence-transformers\n"
        "  expected: one of SentenceTransformer, CrossEncoder, SparseEncoder\n"
        "  to mend it: name a task with --task that fits its transformer"
    )


@pytest.mark.parametrize("kind", ["Router", "SparseStaticEmbedding", "StaticEmbedding", "CLIPModel"])
def test_folders_that_begin_with_another_module_are_refused(kind: str, tmp_path: Path) -> None:
    write(tmp_path / "modules.json", [{"path": "", "type": f"sentence_transformers.models.{kind}"}])
    with pytest.raises(
        SignatureError, match=f"begins with the module {kind}\n  expected: Transformer or MLMTransformer"
    ):
        huggingface.describe(tmp_path)


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        (
            {"sentence_transformers": sentence(["Transformer", "LogitScore"])},
            "scores with the logits of a language model",
        ),
        ({"architectures": ["Qwen3ForCausalLM"]}, "scores with the logits of a language model"),
        ({"sentence_transformers": sentence(["Transformer", "Pooling", "WordWeights"])}, "has the module WordWeights"),
    ],
)
def test_rerankers_of_another_kind_are_refused(facts: dict[str, Any], found: str) -> None:
    with pytest.raises(UnknownTaskError) as caught:
        reranking.head(described(**facts), ModelSpec(source="folder"))
    assert str(caught.value) == (
        f"folder {found}\n"
        "  expected: an encoder with a classification head, or with Dense, Dropout, LayerNorm, Normalize, Pooling "
        "behind it\n  to mend it: choose another cross-encoder for the task reranking"
    )


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({"architectures": ["BertModel"]}, "folder is BertModel"),
        (
            {"sentence_transformers": sentence(["Transformer", "Pooling", "SparseAutoEncoder"])},
            "folder has the modules Transformer, Pooling, SparseAutoEncoder",
        ),
    ],
)
def test_sparse_encoders_of_another_kind_are_refused(facts: dict[str, Any], found: str) -> None:
    with pytest.raises(UnknownTaskError) as caught:
        sparse_embedding.head(described(**facts), ModelSpec(source="folder"))
    assert str(caught.value).startswith(
        f"{found}\n  expected: a masked language model, alone or with SpladePooling behind it"
    )


def test_neighbours_hold_empty_and_over_long_pairs() -> None:
    rows = list(reranking.neighbours(["a", "", "long text"]))
    assert [row["PAIRS"] for row in rows] == [("a", ""), ("", "long text"), ("long text", "a"), ("long text",) * 2]


def ran(program: Any, folder: Path, *texts: list[str]) -> dict[str, Any]:
    from transformers import AutoTokenizer

    options = {"padding": True, "truncation": True, "return_tensors": "np"}
    found = AutoTokenizer.from_pretrained(folder)(*texts, **options)
    arrays = program.run({spec.name: found[spec.name].astype(np.int64) for spec in program.inputs})
    return dict(zip(program.outputs, arrays, strict=True))


@pytest.mark.torch
def test_several_labels_and_the_activation_of_config_json(tmp_path: Path) -> None:
    import sentence_transformers

    tiny_transformers.save("electra", "sequence-classification", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    activation = {"activation_fn": "torch.nn.modules.activation.Tanh", "version": "4.0.1"}
    write(tmp_path / "config.json", {**config, "sentence_transformers": activation})
    source = huggingface.describe(tmp_path)
    assert tasks.guess(source)[0] == "reranking"
    program = reranking.head(source, ModelSpec(source="folder"))
    assert program.outputs == ("scores", "logits")
    answers = ran(program, tmp_path, TEXTS, TEXTS[::-1])
    oracle = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")
    expected = oracle.predict(list(zip(TEXTS, TEXTS[::-1], strict=True)))
    assert expected.shape == (6, 3)
    np.testing.assert_allclose(answers["scores"], expected, atol=1e-5)
    np.testing.assert_allclose(np.tanh(answers["logits"]), expected, atol=1e-5)


@pytest.mark.torch
def test_pooling_and_dense_behind_an_encoder(tmp_path: Path) -> None:
    import sentence_transformers
    import torch
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    tiny_transformers.save("modernbert", "base", tmp_path / "base")
    encoder = Transformer(str(tmp_path / "base"))
    scorer = Dense(32, 1, activation_function=torch.nn.Identity(), module_output_name="scores")
    oracle = sentence_transformers.CrossEncoder(modules=[encoder, Pooling(32, "mean"), scorer], device="cpu")
    oracle.save_pretrained(str(tmp_path / "reranker"))
    program = reranking.head(huggingface.describe(tmp_path / "reranker"), ModelSpec(source="folder"))
    assert program.outputs == ("score", "logits")
    answers = ran(program, tmp_path / "base", TEXTS, TEXTS[::-1])
    expected = oracle.predict(list(zip(TEXTS, TEXTS[::-1], strict=True)))
    np.testing.assert_allclose(answers["score"][:, 0], expected, atol=1e-5)
    assert np.ptp(expected) > 0.01


@pytest.mark.torch
@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
def test_pooling_equals_the_sources_module(strategy: Any, activation: Any) -> None:
    import torch
    from sentence_transformers.sparse_encoder.modules import SpladePooling

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 11, generator=generator) * 4 - 3
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    pooling = SpladePooling(strategy, activation).eval()
    expected = pooling({"token_embeddings": logits.clone(), "attention_mask": mask})["sentence_embedding"]
    torch.testing.assert_close(sparse_embedding._pooled(pooling, logits, mask), expected, rtol=1e-6, atol=1e-6)
    assert expected[2].max() == 0


@pytest.mark.torch
def test_rows_with_few_entries_are_filled_with_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sentence_transformers
    import torch

    monkeypatch.setattr(sparse_embedding, "ENTRIES", 20)
    tiny_transformers.save("distilbert", "masked-lm", tmp_path)
    source = huggingface.describe(tmp_path)
    assert tasks.guess(source)[0] == "fill-mask", "asked for by name alone"
    program = sparse_embedding.head(source, ModelSpec(source="folder"))
    oracle = sentence_transformers.SparseEncoder(str(tmp_path), device="cpu")
    first = oracle.encode(TEXTS[0], convert_to_sparse_tensor=False)
    tenth = torch.expm1(torch.topk(first, 10).values[-1])
    with torch.no_grad():
        for masked_model in (program.module.encoder.model, oracle[0].model):
            masked_model.vocab_projector.bias -= tenth
    answers = ran(program, tmp_path, TEXTS)
    sparse = oracle.encode(TEXTS, max_active_dims=20).coalesce()
    counts = np.bincount(sparse.indices()[0], minlength=len(TEXTS))
    assert counts[0] < 20
    for row, count in enumerate(counts):
        own = sparse[row].coalesce()
        mine = torch.argsort(own.values(), descending=True)
        np.testing.assert_array_equal(answers["indices"][row, :count], own.indices()[0][mine])
        np.testing.assert_allclose(answers["values"][row, :count], own.values()[mine], atol=1e-5)
        assert (answers["indices"][row, count:] == sparse_embedding.NONE).all()
        assert (answers["values"][row, count:] == 0).all()
        assert (answers["tokens"][row, count:] == b"").all()
        tokens = oracle.tokenizer.convert_ids_to_tokens(own.indices()[0][mine].tolist())
        assert [token.decode() for token in answers["tokens"][row, :count]] == tokens


def test_a_nul_in_the_vocabulary_is_shown_as_a_sign() -> None:
    tokenizer = tiny_tokenizers.make("albert")
    index = tokenizer.convert_tokens_to_ids("\0")
    assert sparse_embedding._names(tokenizer, [index, index + 1]) == [
        "\u2400",
        tokenizer.convert_ids_to_tokens(index + 1),
    ]
    assert sparse_embedding._names(tokenizer, [len(tokenizer) + 5]) == [""]
