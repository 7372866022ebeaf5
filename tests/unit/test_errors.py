from __future__ import annotations

import ast
from pathlib import Path

import pytest

import repo_builder
from repo_builder import errors
from repo_builder.errors import (
    ConversionError,
    RepoBuilderError,
    SpecError,
    UnknownTaskError,
    all_errors,
    first_line,
    nearest,
)

PACKAGE = Path(repo_builder.__file__).parent


def test_message_names_place_found_expected_and_mend():
    error = ConversionError("a", expected="b", mend="c", stage="convert", model="m")
    assert str(error) == "m: convert: a\n  expected: b\n  to mend it: c"


def test_message_leaves_out_what_is_unknown():
    assert str(ConversionError("a")) == "a"
    assert str(ConversionError("a", stage="convert")) == "convert: a"
    assert str(ConversionError("a", model="m", mend="c")) == "m: a\n  to mend it: c"


def test_at_fills_in_only_what_is_unknown():
    error = SpecError("a", stage="spec")
    assert error.at(stage="other", model="m") is error
    assert (error.stage, error.model) == ("spec", "m")


def test_every_error_has_an_exit_code_and_a_title_of_its_own():
    classes = all_errors()
    assert RepoBuilderError in classes
    assert UnknownTaskError in classes
    codes = [cls.exit_code for cls in classes]
    assert codes == sorted(set(codes)), "one code, one error"
    assert len({cls.title for cls in classes}) == len(classes)


def test_exit_codes_stay_clear_of_those_of_shells_and_signals():
    assert all(1 <= cls.exit_code < 126 for cls in all_errors())


def test_every_error_is_declared_in_errors_py():
    for path in PACKAGE.rglob("*.py"):
        if path == PACKAGE / "errors.py" or "backends" in path.parts:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        bases = {
            getattr(b, "id", getattr(b, "attr", ""))
            for n in ast.walk(tree)
            if isinstance(n, ast.ClassDef)
            for b in n.bases
        }
        assert not bases & {name for name in vars(errors) if name.endswith("Error")}, path


@pytest.mark.parametrize(
    ("message", "said"),
    [("", "ValueError"), (" \n\t", "ValueError"), ("\n  broken \nat line 3", "broken"), ("broken", "broken")],
)
def test_the_first_line_of_a_foreign_error_is_never_missing(message, said):
    assert first_line(ValueError(message)) == said


@pytest.mark.parametrize(
    ("word", "said"), [("engin", " (did you mean 'engine'?)"), ("ENGINE", ""), ("zzz", ""), ("", "")]
)
def test_nearest(word, said):
    assert nearest(word, ["engine", "task"]) == said
