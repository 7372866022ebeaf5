"""What is read of a source's tokenizer, and the Triton model that is planned from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizer_families import TEXTS, minilm, save

from repo_builder.artifact import file_digest
from repo_builder.errors import (
    MissingDependencyError,
    PathEscapeError,
    SignatureError,
    SourceCorruptError,
    SourceMissingError,
    SpecError,
    TargetError,
    UnsafeSourceError,
)
from repo_builder.tasks import tokenizer, vendored
from repo_builder.tasks.tokenizer_source import longest_text, source_tokenizer
from repo_builder.tensors import TensorSpec

NO_LIMIT = int(1e30)


def inputs(*names: str, dtype: str = "INT64") -> list[TensorSpec]:
    return [TensorSpec(name, dtype, ("batch", "tokens")) for name in names]


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


class TestSettings:
    def test_minilm_takes_the_length_of_sentence_transformers(self) -> None:
        found = tokenizer.settings(minilm())
        assert found == tokenizer.TokenizerSettings(
            tokenizer=(minilm() / "tokenizer.json").resolve(), max_length=256, pad_token="[PAD]"
        )

    def test_the_sides_and_ids_are_the_tokenizers(self, tmp_path: Path) -> None:
        left = tokenizer.settings(save("bytelevel_left", tmp_path / "left"))
        assert (left.padding_side, left.truncation_side, left.pad_token, left.max_length) == (
            "left",
            "left",
            "<pad>",
            40,
        )
        assert left.pad_id == source_tokenizer(tmp_path / "left").pad_token_id > 0
        unigram = tokenizer.settings(save("unigram", tmp_path / "unigram"))
        assert (unigram.padding_side, unigram.pad_id, unigram.pad_token) == ("right", 1, "<pad>")

    def test_without_a_padding_token_the_end_of_text_fills(self, tmp_path: Path) -> None:
        found = tokenizer.settings(save("bytelevel_no_pad", tmp_path))
        assert (found.pad_token, found.pad_id) == (None, 0)
        masks = tokenizer.encode(found, tmp_path, ["a", "a river"])["attention_mask"]
        assert masks[0].sum() == 1
        assert masks[1].all()
        nothing = tokenizer.encode(found, tmp_path, ["", ""])
        assert [nothing[name].tolist() for name in tokenizer.OUTPUTS] == [[[0], [0]]] * 3

    def test_special_tokens_written_in_a_text_may_be_split(self, tmp_path: Path) -> None:
        folder = save("wordpiece", tmp_path, split_special_tokens=True)
        assert tokenizer.settings(folder).parameters()["split_special_tokens"] == "true"

    def test_tokens_that_only_the_config_names_are_in_the_served_file(self, tmp_path: Path) -> None:
        folder = save("wordpiece", tmp_path)
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        config["mask_token"] = "<new-mask>"
        write_json(folder / "tokenizer_config.json", config)
        served = tokenizer.settings(folder).tokenizer
        assert isinstance(served, bytes)
        assert b"<new-mask>" in served
        assert json.loads(served)["padding"] is None

    def test_a_slow_vocabulary_is_converted(self, tmp_path: Path) -> None:
        from tokenizers import Tokenizer
        from transformers import BertTokenizer

        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "river", "##s", "the", "kettle"]
        (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "model_max_length": 12})
        found = tokenizer.settings(tmp_path)
        assert isinstance(found.tokenizer, bytes)
        assert found.max_length == 12
        served = Tokenizer.from_str(found.tokenizer.decode())
        expected = BertTokenizer.from_pretrained(str(tmp_path))
        for text in ("The RIVERS", "the kettle, the unknown", ""):
            assert served.encode(text).ids == expected(text)["input_ids"]
        assert served.encode("The RIVERS").ids == [2, 7, 5, 6, 3]


class TestLongestText:
    @pytest.mark.parametrize(
        ("config", "stated", "expected"),
        [
            ({"model_type": "bert", "max_position_embeddings": 64}, 40, 40),
            ({"model_type": "bert", "max_position_embeddings": 32}, 40, 32),
            ({"model_type": "bert", "max_position_embeddings": 64}, NO_LIMIT, 64),
            ({"model_type": "gpt2", "n_positions": 48}, NO_LIMIT, 48),
            ({"model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": 1}, NO_LIMIT, 64),
            ({"model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": 1}, 66, 64),
            ({"model_type": "t5", "n_positions": 48}, NO_LIMIT, None),
            ({"model_type": "xlnet"}, NO_LIMIT, None),
            ({"model_type": "never-heard-of"}, 40, 40),
            (None, NO_LIMIT, None),
        ],
    )
    def test_transformers(self, tmp_path: Path, config: Any, stated: int, expected: int | None) -> None:
        save("wordpiece", tmp_path, model_max_length=stated)
        if config:
            write_json(tmp_path / "config.json", config)
        assert longest_text(tmp_path, source_tokenizer(tmp_path)) == expected

    def test_what_is_asked_for_comes_first(self, tmp_path: Path) -> None:
        save("wordpiece", tmp_path)
        write_json(tmp_path / "config.json", {"model_type": "bert", "max_position_embeddings": 64})
        assert tokenizer.settings(tmp_path, max_length=50).max_length == 50
        for asked in (2, 65):
            with pytest.raises(SpecError) as caught:
                tokenizer.settings(tmp_path, max_length=asked)
            assert str(caught.value) == (
                f"max_length {asked} for the model in {tmp_path}\n"
                "  expected: more than its 2 special tokens, at most 64\n"
                "  to mend it: leave max_length out to take the source's own"
            )


@pytest.mark.torch
class TestSentenceTransformers:
    """Against the library itself, on a tiny BERT."""

    def save(self, folder: Path, sentence_config: dict[str, Any], home: str = "") -> Any:
        from sentence_transformers import SentenceTransformer
        from transformers import BertConfig, BertModel

        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        BertModel(BertConfig(vocab_size=700, max_position_embeddings=30, **sizes)).save_pretrained(str(folder / home))
        save("wordpiece", folder / home)
        kind = "sentence_transformers.models."
        modules = [("0", home, "Transformer"), ("1", "1_Pooling", "Pooling")]
        write_json(
            folder / "modules.json",
            [{"idx": i, "name": n, "path": p, "type": kind + t} for i, (n, p, t) in enumerate(modules)],
        )
        write_json(
            folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True}
        )
        write_json(folder / home / "sentence_bert_config.json", sentence_config)
        prompts = {"prompts": {"query": "find: ", "passage": ""}, "default_prompt_name": "query"}
        write_json(folder / "config_sentence_transformers.json", prompts)
        return SentenceTransformer(str(folder), device="cpu")

    @pytest.mark.parametrize("home", ["", "0_Transformer"])
    @pytest.mark.parametrize(
        "sentence_config",
        [
            {"max_seq_length": 20, "do_lower_case": True},
            {"max_seq_length": None, "do_lower_case": False},
            {"tokenizer_args": {"model_max_length": 17, "padding_side": "left"}},
        ],
    )
    def test_the_same_tokens(self, tmp_path: Path, home: str, sentence_config: dict[str, Any]) -> None:
        source = self.save(tmp_path, sentence_config, home)
        found = tokenizer.settings(tmp_path)
        assert found.max_length == source.max_seq_length
        assert found.prompt == source.prompts[source.default_prompt_name] == "find: "
        expected = source.preprocess(TEXTS, prompt=found.prompt)
        ours = tokenizer.encode(found, tmp_path, TEXTS)
        for name in tokenizer.OUTPUTS:
            np.testing.assert_array_equal(ours[name], expected[name].numpy(), err_msg=name)
        lowered = isinstance(found.tokenizer, bytes) and b'"Lowercase"' in found.tokenizer
        assert lowered == sentence_config.get("do_lower_case", False)

    def test_minilm(self) -> None:
        from sentence_transformers import SentenceTransformer

        source = SentenceTransformer(str(minilm()), device="cpu")
        found = tokenizer.settings(minilm())
        assert found.max_length == source.max_seq_length == 256
        ours = tokenizer.encode(found, minilm(), TEXTS)
        expected = source.preprocess(TEXTS)
        for name in tokenizer.OUTPUTS:
            np.testing.assert_array_equal(ours[name], expected[name].numpy())


class TestModel:
    def test_config_and_files(self, tmp_path: Path) -> None:
        folder = save("wordpiece", tmp_path)
        wanted = [*inputs("input_ids"), *inputs("attention_mask", dtype="INT32")]
        planned = tokenizer.model("tok", folder, wanted, tokenizer.settings(folder), max_batch_size=8)
        config = planned.config
        assert (planned.name, config.backend, config.max_batch_size) == ("tok", "python", 8)
        assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [("TEXT", 13, [1])]
        assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [
            ("input_ids", 9, [-1]),
            ("attention_mask", 8, [-1]),
        ]
        assert config.WhichOneof("scheduling_choice") == "dynamic_batching"
        library = vendored.library("tokenizers")
        assert {key: value.string_value for key, value in config.parameters.items()} == {
            "max_length": "40",
            "padding_side": "right",
            "truncation_side": "right",
            "pad_id": "0",
            "pad_type_id": "0",
            "split_special_tokens": "false",
            "tokenizers_version": library.version,
            "tokenizers_sha256": library.digest,
        }
        assert planned.version_files["tokenizer.json"] == folder / "tokenizer.json"
        assert Path(str(planned.version_files["model.py"])).read_text(encoding="utf-8").startswith('"""Text in')
        vendor = {name: file for name, file in planned.version_files.items() if name.startswith("vendor/")}
        assert vendor == {f"vendor/{name}": file for name, file in library.files.items()}

    def test_without_the_library(self, tmp_path: Path) -> None:
        folder = save("unigram", tmp_path)
        planned = tokenizer.model(
            "tok", folder, inputs("input_ids"), tokenizer.settings(folder), max_batch_size=8, vendor=False
        )
        assert set(planned.version_files) == {"model.py", "tokenizer.json"}
        assert "tokenizers_version" not in planned.config.parameters

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            (inputs("input_ids", "position_ids"), "has the input position_ids INT64[batch, tokens]"),
            (inputs("input_ids", dtype="FP32"), "has the input input_ids FP32[batch, tokens]"),
            ([TensorSpec("input_ids", "INT64", ("tokens",))], "has the input input_ids INT64[tokens]"),
            (inputs("attention_mask"), "has the inputs attention_mask"),
            (inputs("input_ids"), "has no padding token and the model has no input attention_mask"),
        ],
    )
    def test_an_encoder_that_it_cannot_feed_is_refused(
        self, tmp_path: Path, wanted: list[TensorSpec], found: str
    ) -> None:
        folder = save("bytelevel_no_pad", tmp_path)
        settings = tokenizer.settings(folder)
        with pytest.raises(SignatureError) as caught:
            tokenizer.model("tok", folder, wanted, settings, max_batch_size=8)
        assert found in str(caught.value)
        assert str(folder) in str(caught.value)

    def test_a_model_without_batches_is_refused(self, tmp_path: Path) -> None:
        folder = save("wordpiece", tmp_path)
        with pytest.raises(SpecError, match="tok: max_batch_size is 0"):
            tokenizer.model("tok", folder, inputs("input_ids"), tokenizer.settings(folder), max_batch_size=0)


class TestRefusals:
    def test_no_tokenizer(self, tmp_path: Path) -> None:
        write_json(tmp_path / "config.json", {"model_type": "bert"})
        with pytest.raises(SourceMissingError) as caught:
            tokenizer.settings(tmp_path)
        assert str(caught.value).startswith(f"there is no tokenizer in {tmp_path}\n  expected: one of tokenizer.json")

    @pytest.mark.parametrize("content", ["", '{"version": "1.0", "trunc', "[1, 2]"])
    def test_a_broken_tokenizer_json(self, tmp_path: Path, content: str) -> None:
        save("wordpiece", tmp_path)
        (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
        with pytest.raises(SourceCorruptError, match=r"tokenizer\.json is not what its name says"):
            tokenizer.settings(tmp_path)

    def test_json_that_is_no_tokenizer(self, tmp_path: Path) -> None:
        save("wordpiece", tmp_path)
        write_json(tmp_path / "tokenizer.json", {"version": "1.0"})
        with pytest.raises(SourceCorruptError, match=f"the tokenizer in {tmp_path} does not load"):
            tokenizer.settings(tmp_path)

    def test_code_of_its_own_is_not_run(self, tmp_path: Path) -> None:
        save("wordpiece", tmp_path)
        config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
        config |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
        write_json(tmp_path / "tokenizer_config.json", config)
        (tmp_path / "own.py").write_text("open(__file__ + '.ran', 'w')\n", encoding="utf-8")
        with pytest.raises(UnsafeSourceError, match="is code of its own"):
            tokenizer.settings(tmp_path)
        assert not (tmp_path / "own.py.ran").exists()

    def test_modules_outside_the_folder(self, tmp_path: Path) -> None:
        save("wordpiece", tmp_path / "elsewhere")
        write_json(tmp_path / "model" / "modules.json", [{"path": "../elsewhere"}])
        with pytest.raises(PathEscapeError, match=r"points to '\.\./elsewhere'"):
            tokenizer.settings(tmp_path / "model")


class TestVendored:
    def test_only_what_runs_and_the_licence(self) -> None:
        library = vendored.library("tokenizers")
        assert "tokenizers/tokenizers.abi3.so" in library.files
        assert any(name.endswith(".dist-info/METADATA") for name in library.files)
        for name, file in library.files.items():
            assert file.is_file()
            assert "__pycache__" not in name
            assert not name.endswith((".pyi", "RECORD", "INSTALLER"))
        assert library == vendored.library("tokenizers")

    def test_the_digest_is_of_names_and_contents(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fake(tmp_path, "Tag: cp310-abi3-manylinux_2_17_x86_64")
        monkeypatch.syspath_prepend(tmp_path)
        library = vendored.library("tiny_library")
        assert set(library.files) == {"tiny_library/__init__.py", "tiny_library-1.2.dist-info/LICENSE"}
        before = library.digest
        library.files["tiny_library/__init__.py"].write_text("x = 2\n", encoding="utf-8")
        assert vendored.library("tiny_library").digest != before
        assert len(before) == len(file_digest(library.files["tiny_library/__init__.py"]))

    def test_a_wheel_for_one_python_alone_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fake(tmp_path, "Tag: cp313-cp313t-manylinux_2_17_x86_64")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(TargetError) as caught:
            vendored.library("tiny_library")
        assert str(caught.value).splitlines()[:2] == [
            "tiny_library 1.2 is installed from a wheel for cp313-cp313t-manylinux_2_17_x86_64",
            "  expected: a Linux wheel with the stable ABI (abi3), which the server's Python can import",
        ]

    def test_a_library_that_is_not_installed(self) -> None:
        with pytest.raises(MissingDependencyError, match=r"pip install 'repo-builder\[huggingface\]'"):
            vendored.library("no-such-library")

    def fake(self, folder: Path, tag: str) -> None:
        home = folder / "tiny_library-1.2.dist-info"
        home.mkdir()
        (folder / "tiny_library").mkdir()
        (folder / "tiny_library" / "__init__.py").write_text("x = 1\n", encoding="utf-8")
        (folder / "tiny_library" / "__init__.pyi").write_text("x: int\n", encoding="utf-8")
        (home / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny_library\nVersion: 1.2\n", encoding="utf-8")
        (home / "WHEEL").write_text(f"Wheel-Version: 1.0\n{tag}\n", encoding="utf-8")
        (home / "LICENSE").write_text("free\n", encoding="utf-8")
        names = ["tiny_library/__init__.py", "tiny_library/__init__.pyi", f"{home.name}/WHEEL", f"{home.name}/LICENSE"]
        (home / "RECORD").write_text("".join(f"{name},,\n" for name in names), encoding="utf-8")


def test_planning_imports_no_framework_until_it_is_asked() -> None:
    code = (
        "import sys, repo_builder.tasks.tokenizer as t\n"
        "print([m for m in ('transformers', 'tokenizers', 'torch', 'tritonclient') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
