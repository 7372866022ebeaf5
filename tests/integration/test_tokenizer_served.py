"""The tokenizer model on the real server, whose Python has numpy and no tokenizers library."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ServerFactory
from tokenizer_families import TEXTS, minilm, save

from repo_builder import client
from repo_builder.errors import InferenceError
from repo_builder.planned import PlannedModel
from repo_builder.repository.plan import Unit
from repo_builder.repository.write import transaction
from repo_builder.server import embedded
from repo_builder.tasks import tokenizer
from repo_builder.tensors import TensorSpec

pytestmark = pytest.mark.server


def planned(name: str, folder: Path, dtype: str = "INT64", **changes: Any) -> PlannedModel:
    inputs = [TensorSpec(output, dtype, ("batch", "tokens")) for output in tokenizer.OUTPUTS]
    settings = replace(tokenizer.settings(folder), **changes)
    return tokenizer.model(name, folder, inputs, settings, max_batch_size=64)


def reference(folder: Path, texts: list[str], longest: int) -> dict[str, Any]:
    from transformers import AutoTokenizer

    options = {"padding": True, "truncation": True, "max_length": longest, "return_token_type_ids": True}
    found = AutoTokenizer.from_pretrained(str(folder))(texts, **options)
    return {name: np.array(found[name], dtype=np.int64) for name in tokenizer.OUTPUTS}


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("bytelevel_left", tmp_path_factory.mktemp("left"))


@pytest.fixture(scope="module")
def triton(
    server_factory: ServerFactory, left: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[client.Client]:
    merging = planned("merging", minilm())
    merging.config.dynamic_batching.preferred_batch_size.append(3)
    merging.config.dynamic_batching.max_queue_delay_microseconds = 20_000_000
    models = (
        planned("minilm", minilm()),
        merging,
        planned("left", left, "INT32"),
        planned("buckets", left, pad_lengths=(8, 32)),
    )
    repository = tmp_path_factory.mktemp("tokenizers") / "repository"
    with transaction(repository) as change:
        change.stage([Unit("tokenizers", "key", models)])
        change.commit()
    server = server_factory(repository)
    with client.connect(f"127.0.0.1:{server.ports.grpc}") as connected:
        yield connected


def test_the_servers_python_has_no_tokenizers() -> None:
    python = embedded.prepare(frozenset({"python"})).folder / "bin" / "python"
    code = "import importlib.util as u; print([u.find_spec(n) is not None for n in ('numpy', 'tokenizers')])"
    ran = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[True, False]"


def test_each_text_alone_and_all_together_equal_transformers(triton: client.Client) -> None:
    together = reference(minilm(), TEXTS, 256)
    answer = triton.infer("minilm", {"TEXT": TEXTS})
    for name in tokenizer.OUTPUTS:
        assert answer[name].dtype == np.int64
        np.testing.assert_array_equal(answer[name], together[name], err_msg=name)
    for row, text in enumerate(TEXTS):
        alone = triton.infer("minilm", {"TEXT": [text]})
        length = together["attention_mask"][row].sum()
        for name in tokenizer.OUTPUTS:
            np.testing.assert_array_equal(alone[name], together[name][row : row + 1, :length], err_msg=repr(text))


def test_a_long_text_is_cut_where_the_source_cuts_it(triton: client.Client) -> None:
    long = [text for text in TEXTS if len(text) > 900]
    expected = reference(minilm(), long, 256)["input_ids"]
    assert expected.shape[1] == 256
    assert (expected[:, -1] == 102).all(), "the closing [SEP] stays"
    np.testing.assert_array_equal(triton.infer("minilm", {"TEXT": long})["input_ids"], expected)


def test_bad_utf8_is_refused_alone_and_its_batch_mates_are_served(triton: client.Client) -> None:
    """Three requests in one execute call, each padded for itself."""
    raw = np.array([[b"fine"], [b"sea\xff!"]], dtype=object)
    triton.metadata("merging")
    waiting = [
        triton.infer_async("merging", {"TEXT": ["one long mate of nine words in this batch"]}),
        triton.infer_async("merging", {"TEXT": raw[1:]}),
        triton.infer_async("merging", {"TEXT": ["short"]}),
    ]
    long, short = waiting[0].result(), waiting[2].result()
    with pytest.raises(InferenceError, match=r"text 0 is not UTF-8: invalid start byte at byte 3 \(0xff\)"):
        waiting[1].result()
    assert long["attention_mask"].sum() == 11
    assert short["input_ids"].tolist() == [[101, 2460, 102]]
    with pytest.raises(InferenceError, match="text 1 is not UTF-8"):
        triton.infer("minilm", {"TEXT": raw})


def test_left_padding_and_int32(triton: client.Client, left: Path) -> None:
    expected = reference(left, TEXTS, 40)
    answer = triton.infer("left", {"TEXT": TEXTS})
    for name in tokenizer.OUTPUTS:
        assert answer[name].dtype == np.int32
        np.testing.assert_array_equal(answer[name], expected[name], err_msg=name)
    assert expected["attention_mask"][:, 0].sum() < 64
    assert expected["attention_mask"][:, -1].sum() == 63, "all but the empty text"


def test_a_text_without_tokens(triton: client.Client, left: Path) -> None:
    answer = triton.infer("left", {"TEXT": [""]})
    assert {name: array.tolist() for name, array in answer.items()} == {
        "input_ids": [[tokenizer.settings(left).pad_id]],
        "attention_mask": [[0]],
        "token_type_ids": [[0]],
    }


def test_lengths_follow_the_buckets(triton: client.Client) -> None:
    widths = [triton.infer("buckets", {"TEXT": [text]})["input_ids"].shape[1] for text in ("a", "a" * 20, "q:" * 50)]
    assert widths == [8, 32, 40]


def test_rows_of_three_texts_are_refused(triton: client.Client) -> None:
    from tritonclient import grpc
    from tritonclient.utils import InferenceServerException

    tensor = grpc.InferInput("TEXT", [1, 3], "BYTES")
    tensor.set_data_from_numpy(np.array([[b"a", b"b", b"c"]], dtype=object))
    with (
        grpc.InferenceServerClient(triton.target) as raw,
        pytest.raises(
            InferenceServerException, match=r"unexpected shape for input 'TEXT'.*Expected \[-1,1\], got \[1,3\]"
        ),
    ):
        raw.infer("minilm", [tensor])
