"""The tokenizer's model.py against the source's own library, with a stand-in for Triton's Python module."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import backend_utils_stand_in as stand_in
import numpy as np
import pytest
from backend_utils_stand_in import write
from tokenizer_families import FAMILIES, TEXTS, minilm, save

from repo_builder.tasks import tokenizer
from repo_builder.tensors import TensorSpec

INPUTS = tuple(TensorSpec(name, "INT64", ("batch", "tokens")) for name in tokenizer.OUTPUTS)


def serve(folder: Path, repository: Path, inputs: tuple[TensorSpec, ...] = INPUTS, **changes: Any) -> Any:
    found = replace(tokenizer.settings(folder), **changes)
    planned = tokenizer.model("tok", folder, inputs, found, max_batch_size=64, vendor=False)
    return stand_in.load(*write(planned, repository))


@functools.lru_cache
def source(folder: Path) -> Any:
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(str(folder))
    found.pad_token = found.pad_token or found.eos_token
    return found


def reference(folder: Path, texts: list[str]) -> dict[str, Any]:
    longest = 256 if folder == minilm() else source(folder).model_max_length
    options = {"padding": True, "truncation": True, "max_length": longest, "return_token_type_ids": True}
    return {name: np.array(array, dtype=np.int64) for name, array in source(folder)(texts, **options).items()}


@pytest.fixture(scope="module", params=["minilm", *FAMILIES])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = minilm() if request.param == "minilm" else save(request.param, tmp_path_factory.mktemp(request.param))
    return folder, serve(folder, tmp_path_factory.mktemp("repository"))


def test_every_text_alone_equals_the_source(family: tuple[Path, Any]) -> None:
    folder, served = family
    for text in TEXTS:
        [answer] = served.execute([stand_in.request([text])])
        expected = reference(folder, [text])
        assert answer.error is None
        for name in tokenizer.OUTPUTS:
            if expected[name].size:
                np.testing.assert_array_equal(answer.arrays[name], expected[name], err_msg=f"{name} of {text!r}")
            else:
                assert answer.arrays[name].shape == (1, 1)
                assert answer.arrays["attention_mask"].sum() == 0


def test_each_of_several_merged_requests_is_padded_as_the_source_pads_it(family: tuple[Path, Any]) -> None:
    folder, served = family
    parts = [TEXTS[start : start + 7] for start in range(0, 64, 7)]
    answers = served.execute([stand_in.request(part) for part in parts])
    widths = set()
    for part, answer in zip(parts, answers, strict=True):
        expected = reference(folder, part)
        for name in tokenizer.OUTPUTS:
            assert answer.arrays[name].dtype == np.int64
            np.testing.assert_array_equal(answer.arrays[name], expected[name], err_msg=f"{name} of {part}")
        widths.add(expected["input_ids"].shape[1])
    assert len(widths) > 1


def test_the_families_cover_padding_truncation_and_type_ids(tmp_path: Path) -> None:
    left = serve(save("bytelevel_left", tmp_path / "left"), tmp_path / "served_left")
    [answer] = left.execute([stand_in.request(["a river", "a"])])
    assert answer.arrays["attention_mask"][1].tolist()[0] == 0
    assert answer.arrays["attention_mask"][1].tolist()[-1] == 1
    word = serve(save("wordpiece", tmp_path / "word"), tmp_path / "served_word")
    [answer] = word.execute([stand_in.request(["a river", "a"])])
    assert answer.arrays["attention_mask"][1].tolist()[-1] == 0
    assert answer.arrays["token_type_ids"].max() == 1
    [answer] = word.execute([stand_in.request([max(TEXTS, key=len)])])
    assert answer.arrays["input_ids"].shape == (1, 40), "neither the 48 nor the 24 that tokenizer.json itself carries"


def test_only_the_request_with_bad_utf8_is_refused(tmp_path: Path) -> None:
    served = serve(save("wordpiece", tmp_path / "source"), tmp_path / "served")
    good, bad, also_good = served.execute(
        [stand_in.request(t) for t in (["a river"], ["fine", b"sea\xff!"], ["the kettle", "a"])]
    )
    assert str(bad.error) == "input 'TEXT': text 1 is not UTF-8: invalid start byte at byte 3 (0xff)"
    assert bad.error.code == stand_in.TritonError.INVALID_ARG
    assert good.error is None
    assert also_good.arrays["input_ids"].shape[0] == 2
    [alone] = served.execute([stand_in.request([b"\xc3"])])
    assert "text 0 is not UTF-8: unexpected end of data at byte 0 (0xc3)" in str(alone.error)


@pytest.mark.parametrize("shape", [(2,), (1, 2), (1, 1, 1)])
def test_other_shapes_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    served = serve(save("wordpiece", tmp_path / "source"), tmp_path / "served")
    [answer] = served.execute([{"TEXT": np.full(shape, b"a", dtype=object)}])
    assert str(answer.error) == (f"input 'TEXT' has shape {list(shape)}, expected [batch, 1]: one text in each row")


def test_lengths_are_rounded_up_but_never_above_the_longest_text(tmp_path: Path) -> None:
    folder = save("wordpiece", tmp_path / "source")
    buckets = serve(folder, tmp_path / "buckets", pad_lengths=(16, 8), pad_to_multiple_of=12)

    def width(served: Any, words: int) -> int:
        [answer] = served.execute([stand_in.request([" ".join("a" * words)])])
        assert answer.arrays["attention_mask"].sum() == min(words + 2, 40)
        return int(answer.arrays["input_ids"].shape[1])

    assert [width(buckets, words) for words in (0, 6, 7, 14, 15, 30, 60)] == [8, 8, 16, 16, 24, 36, 40]
    multiple = serve(folder, tmp_path / "multiple", pad_to_multiple_of=16)
    assert [width(multiple, words) for words in (0, 14, 15, 31, 60)] == [16, 16, 32, 40, 40]
    unlimited = serve(folder, tmp_path / "unlimited", max_length=None)
    [answer] = unlimited.execute([stand_in.request([" ".join("a" * 500)])])
    assert answer.arrays["input_ids"].shape == (1, 502)


def test_outputs_are_those_of_the_config_in_its_dtypes(tmp_path: Path) -> None:
    inputs = (TensorSpec("attention_mask", "INT32", (-1, -1)), TensorSpec("input_ids", "INT64", (-1, -1)))
    served = serve(save("wordpiece", tmp_path / "source"), tmp_path / "served", inputs)
    [answer] = served.execute([stand_in.request(["a"])])
    assert {name: str(array.dtype) for name, array in answer.arrays.items()} == {
        "attention_mask": "int32",
        "input_ids": "int64",
    }


def test_the_prompt_comes_before_every_text(tmp_path: Path) -> None:
    folder = save("unigram", tmp_path / "source")
    plain, prompted = serve(folder, tmp_path / "plain"), serve(folder, tmp_path / "prompted", prompt="query: ")
    [expected] = plain.execute([stand_in.request(["query: a river", "query: "])])
    [answer] = prompted.execute([stand_in.request(["a river", ""])])
    np.testing.assert_array_equal(answer.arrays["input_ids"], expected.arrays["input_ids"])


@pytest.mark.parametrize("options", [{"split_special_tokens": True}, {"pad_token_type_id": 3}])
def test_rarer_settings_equal_the_source(tmp_path: Path, options: dict[str, Any]) -> None:
    folder = save("wordpiece", tmp_path / "source", **options)
    texts = ["[CLS] a [SEP]", "a river [MASK] of brackets"]
    expected = reference(folder, texts)
    plain = reference(save("wordpiece", tmp_path / "plain"), texts)
    assert any(plain[name].tolist() != expected[name].tolist() for name in expected), "the option changes something"
    [answer] = serve(folder, tmp_path / "served").execute([stand_in.request(texts)])
    for name in tokenizer.OUTPUTS:
        np.testing.assert_array_equal(answer.arrays[name], expected[name], err_msg=name)


def test_special_tokens_may_be_left_out(tmp_path: Path) -> None:
    folder = save("wordpiece", tmp_path / "source")
    planned = tokenizer.model("tok", folder, INPUTS, tokenizer.settings(folder), max_batch_size=8, vendor=False)
    planned.config.parameters["add_special_tokens"].string_value = "false"
    [answer] = stand_in.load(*write(planned, tmp_path / "served")).execute([stand_in.request(["a", ""])])
    assert answer.arrays["attention_mask"].tolist() == [[1], [0]]


def test_a_wrong_parameter_stops_the_load(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="parameter 'padding_side' is 'middle', expected one of: right, left"):
        serve(save("wordpiece", tmp_path / "source"), tmp_path / "served", padding_side="middle")


@pytest.mark.parametrize("python", [sys.executable, "python3.10", "python3.11", "python3.12", "python3.13"])
def test_numpy_and_the_vendored_library_are_enough(python: str, tmp_path: Path) -> None:
    """A Python of its own, isolated; its tokenizers, if it has any, is not the one that is used."""
    if shutil.which(python) is None:
        pytest.skip(f"there is no {python}")
    probe = subprocess.run([python, "-I", "-c", "import numpy"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"{python} has no numpy")
    folder = save("wordpiece", tmp_path / "source")
    planned = tokenizer.model("tok", folder, INPUTS, tokenizer.settings(folder), max_batch_size=64)
    repository, config = write(planned, tmp_path / "tok")
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    lines = [",".join(text.encode().hex() for text in TEXTS if text), "ff", "61"]
    ran = subprocess.run(
        [python, "-I", stand_in.__file__, str(repository), str(tmp_path / "config.json")],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert Path(found["library"]).is_relative_to(repository / "1" / "vendor")
    assert not list((repository / "1" / "vendor").rglob("__pycache__"))
    expected = reference(folder, [text for text in TEXTS if text])
    for name in tokenizer.OUTPUTS:
        np.testing.assert_array_equal(found["answers"][0][name], expected[name])
    assert "is not UTF-8" in found["answers"][1]
    assert np.shape(found["answers"][2]["input_ids"]) == (1, 3), "not as long as its batch-mates"
