"""``--input NAME=VALUE``: files, texts, numbers, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from repo_builder.errors import RepoBuilderError
from repo_builder.pipeline import arguments
from repo_builder.tensors import TensorSpec

SPECS = (
    TensorSpec("QUESTION", "BYTES", ("batch", 1)),
    TensorSpec("LABELS", "BYTES", ("batch", "labels")),
    TensorSpec("SEED", "INT64", ("batch", 1)),
    TensorSpec("x", "FP32", ("batch", 3)),
)


def fitted(*given: str) -> dict[str, object]:
    return arguments.fit(arguments.parse(given), SPECS)


def test_texts_become_one_row_and_repeated_ones_fill_it() -> None:
    assert fitted("QUESTION=a=b?", "LABELS=x", "LABELS=größer") == {
        "QUESTION": [[b"a=b?"]],
        "LABELS": [[b"x", "größer".encode()]],
    }


def test_bytes_of_the_command_line_that_are_not_utf_8_go_to_the_server_as_they_are() -> None:
    assert fitted("QUESTION=a\udcff") == {"QUESTION": [[b"a\xff"]]}


def test_numbers_are_json() -> None:
    assert fitted("SEED=7", "x=[1, 2.5, 3]") == {"SEED": [[7]], "x": [[1, 2.5, 3]]}
    assert fitted("x=1", "x=2", "x=3") == {"x": [[1, 2, 3]]}


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    found = fitted(f"x={tmp_path / 'x.npy'}")["x"]
    np.testing.assert_array_equal(found, np.ones((2, 3), np.float32))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["x"], "--input 'x' is not NAME=VALUE"),
        (["=1"], "--input '=1' is not NAME=VALUE"),
        (["x=nowhere.npy"], "--input x: there is no file nowhere.npy"),
        (["SEED=seven"], "--input SEED=seven is no number"),
    ],
)
def test_what_does_not_fit_is_refused(given: list[str], words: str) -> None:
    with pytest.raises(RepoBuilderError) as refused:
        fitted(*given)
    assert words in str(refused.value)


def test_a_file_and_a_value_for_one_input_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(3))
    with pytest.raises(RepoBuilderError, match="a file and other values"):
        fitted(f"x={tmp_path / 'x.npy'}", "x=1")
