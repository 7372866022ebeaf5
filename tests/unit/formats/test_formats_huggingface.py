"""Hugging Face folders, described without any framework: facts, files, and every way to be wrong or unsafe."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from repo_builder.errors import (
    PathEscapeError,
    RepoBuilderError,
    SignatureError,
    SourceCorruptError,
    SourceMissingError,
    UnsafeSourceError,
)
from repo_builder.formats import huggingface
from repo_builder.tensors import TensorSpec


def safetensors(path: Path, header: dict[str, Any] | None = None, data: bytes = b"\0" * 24) -> Path:
    """A safetensors file of one FP32 tensor [2, 3], written by hand."""
    table = header or {
        "__metadata__": {"format": "pt"},
        "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    }
    text = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sentence-transformers folder, with files that do not belong to the model."""
    home = tmp_path / "tiny"
    home.mkdir()
    write(home, "config.json", {"model_type": "bert", "architectures": ["BertModel"], "max_position_embeddings": 512})
    write(home, "tokenizer.json", {})
    write(home, "tokenizer_config.json", {"model_max_length": 512, "added_tokens_decoder": {"0": {}}})
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    write(
        home,
        "modules.json",
        [{"idx": 0, "name": "0", "path": p, "type": f"sentence_transformers.models.{k}"} for p, k in kinds],
    )
    write(home, "sentence_bert_config.json", {"max_seq_length": 256})
    write(home, "1_Pooling/config.json", {"pooling_mode_mean_tokens": True})
    safetensors(home / "model.safetensors")
    (home / "README.md").write_text("not the model's")
    (home / "pytorch_model.bin").write_bytes(b"not looked at: safetensors comes first")
    (home / "onnx").mkdir()
    (home / "onnx" / "model.onnx").write_bytes(b"x")
    return home


def test_facts_and_files(folder: Path) -> None:
    artifact = huggingface.describe(folder)
    assert artifact.files == (
        *("1_Pooling/config.json", "config.json", "model.safetensors", "modules.json", "sentence_bert_config.json"),
        *("tokenizer.json", "tokenizer_config.json"),
    )
    facts = dict(artifact.facts)
    sentence = facts.pop("sentence_transformers")
    assert facts == {
        **{"model_type": "bert", "architectures": ["BertModel"], "max_position_embeddings": 512, "transformer": ""},
        **{"tokenizer_json": True, "tokenizer_config": {"model_max_length": 512}, "trust_remote_code": False},
        **{"weights": "safetensors", "parameters": 6, "parameter_bytes": 24, "weight_dtypes": {"F32": 6}},
    }
    assert sentence["pooling"] == {"pooling_mode_mean_tokens": True}
    assert sentence["normalize"] is True
    assert sentence["max_seq_length"] == 256
    assert [module["kind"] for module in sentence["modules"]] == ["Transformer", "Pooling", "Normalize"]
    json.dumps(dict(artifact.facts))


def test_the_digest_covers_the_model_and_nothing_else(folder: Path) -> None:
    before = huggingface.describe(folder).digest()
    (folder / "README.md").write_text("changed")
    assert huggingface.describe(folder).digest() == before
    write(folder, "1_Pooling/config.json", {"pooling_mode_mean_tokens": False})
    assert huggingface.describe(folder).digest() != before


@pytest.mark.parametrize(
    "name",
    [
        "spm.model",
        "source.spm",
        "qwen.tiktoken",
        "tekken.json",
        "sentence_roberta_config.json",
        "2_Norm/model.safetensors",
    ],
)
def test_the_digest_covers_every_vocabulary_and_the_weights_of_every_module(folder: Path, name: str) -> None:
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Norm", "LayerNorm")]
    write(folder, "modules.json", [{"path": p, "type": f"sentence_transformers.models.{k}"} for p, k in modules])
    write(folder, "2_Norm/config.json", {"dimension": 3})
    write(folder, name, {"one": 1})
    before = huggingface.describe(folder).digest()
    write(folder, name, {"two": 2})
    assert huggingface.describe(folder).digest() != before


def test_describing_imports_no_framework(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from repo_builder.formats import detect, get; "
        f"name, path = detect({str(folder)!r}); get(name).describe(path); "
        "heavy = {'torch', 'transformers', 'tokenizers', 'onnx', 'onnxruntime', 'tritonclient'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_transformer_in_a_folder_of_its_own(folder: Path) -> None:
    write(folder, "modules.json", [{"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}])
    (folder / "0_Transformer").mkdir()
    for name in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "sentence_bert_config.json",
    ):
        (folder / name).rename(folder / "0_Transformer" / name)
    artifact = huggingface.describe(folder)
    assert artifact.facts["transformer"] == "0_Transformer"
    assert artifact.facts["sentence_transformers"]["max_seq_length"] == 256
    assert "0_Transformer/model.safetensors" in artifact.files


def test_shards_come_with_their_index(folder: Path) -> None:
    for number in (1, 2):
        safetensors(folder / f"model-{number}.safetensors")
    (folder / "model.safetensors").unlink()
    weights = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    write(folder, "model.safetensors.index.json", {"weight_map": weights})
    artifact = huggingface.describe(folder)
    assert {"model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"} <= set(artifact.files)
    assert artifact.facts["parameters"] == 12
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(SourceMissingError, match=r"1 of 2 weight files .* are missing .*: model-2.safetensors"):
        huggingface.describe(folder)
    write(folder, "model.safetensors.index.json", {"weight_map": {"a": "../model.safetensors"}})
    with pytest.raises(PathEscapeError, match=r"model.safetensors.index.json names the file '../model.safetensors'"):
        huggingface.describe(folder)
    write(folder, "model.safetensors.index.json", {"weight_map": []})
    with pytest.raises(SourceCorruptError, match="has no weight_map"):
        huggingface.describe(folder)


def test_every_truncation_of_safetensors_is_found(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    for size in (*range(len(whole)), len(whole) + 1):
        (folder / "model.safetensors").write_bytes((whole + b"x")[:size])
        with pytest.raises(SourceCorruptError):
            huggingface.describe(folder)


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ({"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 24]}}, "F32[2, 2] has 24 bytes"),
        ({"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [8, 24]}}, "do not lie side by side"),
        ({"w": {"dtype": "F32"}}, "is not a table of tensors"),
        ({"w": 3}, "is not a table of tensors"),
    ],
)
def test_safetensors_headers_that_lie(folder: Path, header: dict[str, Any], text: str) -> None:
    safetensors(folder / "model.safetensors", header)
    with pytest.raises(SourceCorruptError) as caught:
        huggingface.describe(folder)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("config.json", b'{"a": "\xff\xfe"}', "config.json is not UTF-8"),
        ("config.json", b"[]", "config.json holds a JSON list"),
        ("config.json", b"", "config.json is empty"),
        ("modules.json", b"{}", "modules.json holds a JSON dict"),
        ("modules.json", b'[{"path": 1}]', "modules.json lists"),
        ("1_Pooling/config.json", b"{", "is not JSON"),
        ("tokenizer.json", b"", "tokenizer.json is empty"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_files_that_are_damaged(folder: Path, name: str, content: bytes, text: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(SourceCorruptError) as caught:
        huggingface.describe(folder)
    assert text in str(caught.value)


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(SourceMissingError, match="holds no weights"):
        huggingface.describe(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_its_own_is_refused_without_the_flag(folder: Path, name: str) -> None:
    value = json.loads((folder / name).read_text())
    write(folder, name, {**value, "auto_map": {"AutoModel": "modeling.Net"}})
    (folder / "modeling.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UnsafeSourceError, match=f"{name} asks for code of its own"):
        huggingface.describe(folder)
    trusted = huggingface.describe(folder, trust_remote_code=True)
    assert trusted.facts["trust_remote_code"] is True
    assert "modeling.py" in trusted.files


def test_module_types_from_outside_are_refused(folder: Path) -> None:
    write(folder, "modules.json", [{"path": "", "type": "custom_st.Transformer"}])
    with pytest.raises(UnsafeSourceError, match=r"the module type custom_st.Transformer, which is code from outside"):
        huggingface.describe(folder)


def test_module_folders_outside_are_refused(folder: Path) -> None:
    write(folder, "modules.json", [{"path": "../other", "type": "sentence_transformers.models.Pooling"}])
    with pytest.raises(PathEscapeError, match=r"modules.json names the file '../other'"):
        huggingface.describe(folder)


class Poison:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


def _stack_global(marker: Path) -> bytes:
    return pickle.dumps(Poison(marker), protocol=4)


def _global(marker: Path) -> bytes:
    return pickle.dumps(Poison(marker), protocol=2)


@pytest.mark.parametrize("make", [_global, _stack_global])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_poisoned_bin_is_refused_and_nothing_runs(folder: Path, tmp_path: Path, make: Any, zipped: bool) -> None:
    marker = tmp_path / "ran"
    (folder / "model.safetensors").unlink()
    poison = make(marker)
    pickle.loads(poison)
    assert marker.exists(), "the payload works"
    marker.unlink()
    target = folder / "pytorch_model.bin"
    target.write_bytes(poison)
    if zipped:
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("archive/data.pkl", poison)
    with pytest.raises(UnsafeSourceError, match="is a pickle that would run"):
        huggingface.describe(folder)
    assert not marker.exists()


def test_a_bin_that_is_no_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(SourceCorruptError, match="is no whole pickle"):
        huggingface.describe(folder)


def test_inputs_of_the_spec_have_no_place_here(folder: Path) -> None:
    with pytest.raises(SignatureError, match="the task decides what is served"):
        huggingface.describe(folder, [TensorSpec("x", "FP32", (1,))])


def test_every_error_says_what_was_expected_or_how_to_mend_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RepoBuilderError) as caught:
        huggingface.describe(tmp_path)
    assert caught.value.expected
    assert caught.value.mend
