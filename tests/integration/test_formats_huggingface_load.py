"""Hugging Face folders with real transformers: what is loaded equals the model, and nothing is made up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from repo_builder.errors import SignatureError, SourceCorruptError, UnsafeSourceError  # noqa: E402
from repo_builder.formats import huggingface  # noqa: E402
from repo_builder.tensors import TensorSpec  # noqa: E402
from tests import models, tiny_transformers  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.bert_folder(tmp_path_factory.mktemp("bert"))


def test_the_program_takes_what_the_tokenizer_gives(folder: Path) -> None:
    program = huggingface.load(huggingface.describe(folder))
    names = ["input_ids", "attention_mask", "token_type_ids"]
    assert program.inputs == tuple(TensorSpec(name, "INT64", ("batch", "sequence")) for name in names)
    assert program.outputs == ("last_hidden_state", "pooler_output")
    assert program.kind == "eager"
    assert not program.module.training
    assert {p.dtype for p in program.module.parameters()} == {torch.float32}
    assert program.module.model.config._attn_implementation == "eager"
    assert all(tuple(example.shape) == (2, 7) for example in program.examples)


def test_the_reference_equals_transformers(folder: Path) -> None:
    ids = np.array([[2, 5, 6, 3], [2, 7, 3, 0]], np.int64)
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64), "token_type_ids": np.zeros_like(ids)}
    result = huggingface.run(huggingface.describe(folder), inputs)
    model = transformers.BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    np.testing.assert_allclose(result["last_hidden_state"], expected.last_hidden_state.numpy(), atol=1e-5)
    assert result["pooler_output"].shape == (2, 16)


def test_a_model_without_token_types_and_with_half_weights(tmp_path: Path) -> None:
    models.bert_folder(tmp_path, sentence=False)
    config = transformers.DistilBertConfig(vocab_size=56, dim=16, n_layers=1, n_heads=2, hidden_dim=24)
    transformers.DistilBertModel(config).half().save_pretrained(tmp_path)
    artifact = huggingface.describe(tmp_path)
    assert list(artifact.facts["weight_dtypes"]) == ["F16"]
    program = huggingface.load(artifact)
    assert [spec.name for spec in program.inputs] == ["input_ids", "attention_mask"]
    assert program.outputs == ("last_hidden_state",)
    assert {p.dtype for p in program.module.parameters()} == {torch.float32}


def _without(folder: Path, prefix: str) -> None:
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    weights = {name: tensor for name, tensor in load_file(file).items() if not name.startswith(prefix)}
    save_file(weights, file, metadata={"format": "pt"})


def test_a_pooler_that_was_never_trained_is_left_out(tmp_path: Path) -> None:
    _without(models.bert_folder(tmp_path), "pooler.")
    assert huggingface.load(huggingface.describe(tmp_path)).outputs == ("last_hidden_state",)


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    _without(models.bert_folder(tmp_path), "encoder.layer.1.output.dense.weight")
    with pytest.raises(SourceCorruptError, match=r"lack 1 tensors of BertModel: encoder.layer.1.output.dense.weight"):
        huggingface.load(huggingface.describe(tmp_path))


def test_a_bin_of_tensors_alone_is_taken(tmp_path: Path, folder: Path) -> None:
    from safetensors.torch import load_file

    models.bert_folder(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    artifact = huggingface.describe(tmp_path)
    assert artifact.facts["weights"] == "pickle"
    assert "pytorch_model.bin" in artifact.files
    ids = np.array([[2, 5, 3]], np.int64)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    safe = huggingface.run(huggingface.describe(folder), inputs)
    np.testing.assert_allclose(huggingface.run(artifact, inputs)["pooler_output"], safe["pooler_output"], atol=1e-6)


def test_an_architecture_that_transformers_lacks(tmp_path: Path) -> None:
    models.bert_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "no_such_type"}))
    with pytest.raises(SourceCorruptError, match="transformers does not load"):
        huggingface.load(huggingface.describe(tmp_path))


def test_remote_code_is_never_run_without_the_flag(tmp_path: Path) -> None:
    models.bert_folder(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "evil.Net"}}))
    (tmp_path / "evil.py").write_text(f"import pathlib; pathlib.Path({str(tmp_path / 'ran')!r}).touch()")
    with pytest.raises(UnsafeSourceError, match="asks for code of its own"):
        huggingface.load(huggingface.describe(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_loading_prints_nothing(folder: Path) -> None:
    code = (
        "from pathlib import Path; from repo_builder.formats import huggingface; "
        f"huggingface.load(huggingface.describe(Path({str(folder)!r})))"
    )
    result = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")


def test_a_model_that_cannot_tell_padding_from_text_is_refused(tmp_path: Path) -> None:
    folder = tiny_transformers.save("fnet", "base", tmp_path)
    with pytest.raises(SignatureError) as caught:
        huggingface.load(huggingface.describe(folder))
    assert caught.value.found == (
        "FNetModel takes no attention_mask: its answers would change with the padding of a batch"
    )
    assert caught.value.expected == "a model that can tell padding from text"
