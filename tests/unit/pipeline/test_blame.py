"""Which models of a spec the server's log blames when it does not start."""

from __future__ import annotations

import pytest
from repository_units import ensemble, plain

from repo_builder.errors import ServerStartError
from repo_builder.pipeline import serving

UNITS = (plain("plain", b"", key="1"), ensemble("mini", b"", key="2"))


@pytest.mark.parametrize(
    ("log", "blamed"),
    [
        ("failed to load 'plain' version 1: Invalid argument: ...", ["plain"]),
        ("failed to load model 'plain': at least one version must be available", ["plain"]),
        (f"failed to load '{UNITS[1].models[1].name}' version 1: Internal: ...", ["mini"]),
        ("failed to load 'plain' version 1: a\nfailed to load 'mini' version 1: b", ["plain", "mini"]),
        ("failed to load 'neighbour' version 1: Internal: ...", []),
        ("failed to bind the port", []),
    ],
)
def test_the_units_of_the_models_that_did_not_load(log: str, blamed: list[str]) -> None:
    error = ServerStartError(f"the server ended:\n    {log}", expected="e", mend="m", stage="serve")
    found = serving.not_loaded(error, UNITS)
    assert list(found) == blamed
    for name, own in found.items():
        assert (own.model, own.found, own.expected, own.mend, own.stage) == (name, error.found, "e", "m", "serve")
    assert error.model == "", "the server's own error names no model"
