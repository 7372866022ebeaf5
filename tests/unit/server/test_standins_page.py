"""docs/standins.md holds every message of the stand-ins, as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.standins import refusals

PAGE = Path(__file__).parents[3] / "docs" / "standins.md"


@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch", "torch_aoti", "tensorrt"])
def test_the_page_lists_every_refusal(backend: str) -> None:
    section = PAGE.read_text(encoding="utf-8").split(f"## {backend}\n")[1].split("\n## ")[0]
    listed = [line for line in section.splitlines() if line.startswith("| `")]
    assert listed == [f"| `{message}` | {source} |" for source, message in refusals(backend).values()]
