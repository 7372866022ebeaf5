"""Samples of text tasks: built in, from the spec, from files; every misfit refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from repo_builder import spec
from repo_builder.errors import RepoBuilderError, SpecError
from repo_builder.tasks import samples
from repo_builder.tasks.tokenizer import TEXT_LAYOUT, Layout

PAIRS = Layout("pairs", {"PAIRS": 2})
LABELS = Layout("labels", {"TEXT": 1, "CANDIDATE_LABELS": -1})


def model(texts: Any) -> spec.ModelSpec:
    return spec.from_flags("folder", samples={"texts": texts}).models[0]


def rows(texts: Any, layout: Layout) -> list[Any]:
    return samples.rows(model(texts), layout, lambda own: [{"TEXT": [own[0]]}])


def test_without_samples_the_rows_are_made_of_the_built_in_texts() -> None:
    assert rows(None, TEXT_LAYOUT) == [{"TEXT": [samples.built_in()[0]]}]
    assert len(samples.texts(model(None))) == 64


def test_a_text_alone_stands_for_the_one_input() -> None:
    assert rows(["a", {"TEXT": "b"}], TEXT_LAYOUT) == [{"TEXT": ("a",)}, {"TEXT": ("b",)}]


def test_mappings_fill_several_inputs(tmp_path: Path) -> None:
    assert rows([{"PAIRS": ["q", "p"]}], PAIRS) == [{"PAIRS": ("q", "p")}]
    wanted = {"TEXT": "a", "CANDIDATE_LABELS": ["x", "y", "z"]}
    path = tmp_path / "texts.json"
    path.write_text(json.dumps([wanted]), encoding="utf-8")
    (row,) = rows(str(path), LABELS)
    assert row == {"TEXT": ("a",), "CANDIDATE_LABELS": ("x", "y", "z")}
    request = samples.request(row)
    assert request["CANDIDATE_LABELS"].tolist() == [[b"x", b"y", b"z"]]
    assert request["TEXT"].shape == (1, 1)


@pytest.mark.parametrize(
    ("texts", "layout", "words"),
    [
        (["a"], PAIRS, "samples.texts[0] is 'a'\n  expected: {PAIRS: [...]}: one request of this task"),
        ([{"PAIRS": ["q"]}], PAIRS, "expected: {PAIRS: [...]}"),
        ([{"TEXT": "a", "CANDIDATE_LABELS": []}], LABELS, "expected: {TEXT: ..., CANDIDATE_LABELS: [...]}"),
        ([{"TEXTS": "a"}], TEXT_LAYOUT, "samples.texts[0]"),
        ([], TEXT_LAYOUT, "samples.texts is empty"),
        ("nowhere.txt", TEXT_LAYOUT, "the file of sample texts nowhere.txt does not exist"),
    ],
)
def test_misfits_are_refused(texts: Any, layout: Layout, words: str) -> None:
    with pytest.raises(RepoBuilderError) as refused:
        rows(texts, layout)
    assert " ".join(words.split()) in " ".join(str(refused.value).split())


@pytest.mark.parametrize("sample", [{"PAIRS": 5}, {"PAIRS": None}, {"PAIRS": ["q", 5]}, 7, None])
def test_json_of_other_kinds_is_refused(sample: Any, tmp_path: Path) -> None:
    (tmp_path / "texts.json").write_text(json.dumps([sample]), encoding="utf-8")
    with pytest.raises(SpecError, match=r"samples.texts\[0\] is ") as refused:
        rows(str(tmp_path / "texts.json"), PAIRS)
    assert refused.value.expected == "{PAIRS: [...]}: one request of this task"


def test_a_line_of_a_file_is_a_text_whatever_else_parts_lines_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes("a\u2028b\x0bc\r\n\nd\n".encode())
    assert samples.texts(model(str(path))) == ["a\u2028b\x0bc", "", "d"]
    path.write_bytes(b"")
    with pytest.raises(SpecError, match="holds no list of texts"):
        samples.texts(model(str(path)))


@pytest.mark.parametrize(("layout", "sample"), [(TEXT_LAYOUT, "a \ud83d"), (PAIRS, {"PAIRS": ["a", "\ud83d"]})])
def test_half_of_a_character_is_named(tmp_path: Path, layout: Layout, sample: Any) -> None:
    path = tmp_path / "texts.json"
    fine = "\U0001fad6" if isinstance(sample, str) else {"PAIRS": ["\U0001fad6", "b"]}
    path.write_text(json.dumps([fine, sample]), encoding="utf-8")
    with pytest.raises(SpecError) as refused:
        rows(str(path), layout)
    assert "samples.texts[1] holds '\\ud83d', half of a character\n  expected: text that UTF-8" in str(refused.value)
