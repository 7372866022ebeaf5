"""The printed call of a built model: a request out of its proof that the command line carries unchanged."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from repo_builder import proof
from repo_builder.cli import example_call
from repo_builder.pipeline import arguments
from repo_builder.repository.layout import Layout
from repo_builder.tensors import TensorSpec


def texts(*values: str) -> Any:
    return np.array([[value.encode() for value in values]], dtype=object)


def printed(folder: Path, *cases: dict[str, Any], model: str = "m") -> list[str]:
    path = Layout.of(folder / "r").proof("m")
    path.parent.mkdir(parents=True)
    made = tuple(proof.Case(case, {"Y": np.zeros((1, 1), np.float32)}) for case in cases)
    proof.save(proof.Proof("m", made), path)
    return shlex.split(example_call.options(folder / "r", model, proof.Proof("m", made).inputs()))


@pytest.mark.parametrize(
    ("case", "wanted"),
    [
        ({"PAIRS": texts("a kettle's lid", "two  $pots")}, [TensorSpec("PAIRS", "BYTES", ("batch", 2))]),
        (
            {"TEXT": texts("-1 is cold"), "CANDIDATE_LABELS": texts("weather", "soup", "a=b")},
            [TensorSpec("TEXT", "BYTES", ("batch", 1)), TensorSpec("CANDIDATE_LABELS", "BYTES", ("batch", -1))],
        ),
        (
            {"TEXT": texts("a cat"), "DO_SAMPLE": np.array([[False]]), "SEED": np.array([[7]])},
            [
                *(TensorSpec("TEXT", "BYTES", ("batch", 1)), TensorSpec("DO_SAMPLE", "BOOL", ("batch", 1))),
                TensorSpec("SEED", "INT64", ("batch", 1)),
            ],
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_the_call_carries_the_case_as_it_is(case: dict[str, Any], wanted: list[TensorSpec], tmp_path: Path) -> None:
    said = printed(tmp_path, {name: texts("") for name in case}, case)
    assert said[::2] == ["--input"] * (len(said) // 2)
    fitted = arguments.fit(arguments.parse(said[1::2]), wanted)
    assert {name: np.array(rows).tolist() for name, rows in fitted.items()} == {n: a.tolist() for n, a in case.items()}


def test_a_readable_text_comes_first(tmp_path: Path) -> None:
    cases = ["", "a", "two\nlines", "눈이 오는 날", "the kettle sings before the house", "the kettle sings", "x.npy"]
    assert printed(tmp_path, *({"TEXT": texts(case)} for case in cases)) == ["--text", "the kettle sings"]


def test_a_text_that_only_looks_like_an_option_is_an_input(tmp_path: Path) -> None:
    assert printed(tmp_path, {"TEXT": texts("--text me")}) == ["--input", "TEXT=--text me"]


@pytest.mark.parametrize("case", [{"x": np.zeros((1, 3), np.float32)}, {"TEXT": texts("two\nlines")}])
def test_what_no_command_line_holds_is_to_be_filled_in(case: dict[str, Any], tmp_path: Path) -> None:
    wanted = {"x": ["--input", "x=FILE.npy"], "TEXT": ["--input", "TEXT=..."]}
    assert printed(tmp_path, case) == wanted[next(iter(case))]


def test_a_model_without_a_proof_has_a_call_too(tmp_path: Path) -> None:
    assert printed(tmp_path, {"PAIRS": texts("a kettle", "a pot")}, model="other") == ["--input", "PAIRS=..."]
