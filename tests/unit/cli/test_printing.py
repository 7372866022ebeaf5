"""What ``--json`` and ``--report`` say of a whole build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from repo_builder.cli import printing
from repo_builder.errors import RepoBuilderError
from repo_builder.pipeline import Result


@pytest.mark.parametrize(
    ("verdicts", "failed", "passed"),
    [
        ([True, True], (), True),
        ([True, None], (), None),
        ([], (), None),
        ([True, False], (), False),
        ([True, None], ("other",), False),
    ],
)
def test_passed_is_true_only_where_every_model_was_proven(
    verdicts: list[bool | None], failed: tuple[str, ...], passed: bool | None
) -> None:
    reports: dict[str, Any] = {f"m{n}": {"passed": verdict} for n, verdict in enumerate(verdicts)}
    result = Result(Path("r"), "26.08", [], reports, {name: RepoBuilderError("no") for name in failed})
    assert printing.document(result)["passed"] is passed
