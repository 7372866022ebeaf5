"""What ``--json`` and ``--report`` say of a whole build."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from repo_builder.cli import printing
from repo_builder.errors import RepoBuilderError
from repo_builder.pipeline import Result
from tests import models


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


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"count": 2, "kind": "cpu", "threads": 1}, "2 on the CPU, 1 thread each"),
        ({"count": 1, "kind": "cpu", "threads": 8}, "1 on the CPU, 8 threads each"),
        ({"count": 2, "kind": "gpu", "threads": 0}, "2 on each GPU"),
        ({"count": 1, "kind": "auto", "threads": 0}, "1 where the server puts them"),
    ],
)
def test_a_build_says_how_many_instances_serve(
    chosen: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = {"passed": None, "instances": {"net": chosen}}
    printing.built(Result(Path("r"), "26.08", [], {"net": report}))
    assert f"  instances   net: {said}\n" in capsys.readouterr().out


def test_a_cache_is_inspected_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    tensors = [{"name": "input_ids", "dtype": "INT64", "shape": ["batch", "sequence"]}]
    for layer in range(12):
        for part in ("key", "value"):
            tensors.append(
                {"name": f"past_key_values.{layer}.{part}", "dtype": "FP32", "shape": ["batch", 4, "past", 8]}
            )
    printing.inspected({"inputs": tensors})
    printing.inspected({"models": [{"name": "lm", "inputs": tensors}]})
    said = capsys.readouterr().out
    assert len(said.splitlines()) < 12
    assert said.count("past_key_values.0..11.key/value") == 2
    assert "past_key_values.1.key" not in said


def test_the_line_for_a_server_of_ones_own_has_the_options_that_plans_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = models.plan_repository(tmp_path / "r")
    line = (
        f"tritonserver --model-repository={repository} --backend-config=tensorrt,version-compatible=true "
        f"'--backend-config=tensorrt,plugins={repository}/m/1/libone.so;{repository}/m/1/libtwo.so'\n"
    )
    printing.built(Result(repository, "26.08", [], {"m": {"passed": True}}))
    assert capsys.readouterr().out.endswith(f"  repo-builder serve {repository}\n  {line}")
    ports = SimpleNamespace(grpc=1, http=2, metrics=3)
    printing.serving(SimpleNamespace(versions={"tritonserver": "2.51.0"}, ports=ports), repository)
    assert f"Elsewhere: {line}Ctrl-C stops it." in capsys.readouterr().out
