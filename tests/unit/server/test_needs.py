"""Which backends a repository needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from repo_builder.server import needs

CONFIGS = {
    "by_backend": 'backend: "onnxruntime"',
    "by_platform": 'platform: "pytorch_libtorch"',
    "tokenizer": 'backend: "python"',
    "whole": 'platform: "ensemble" ensemble_scheduling { step { model_name: "tokenizer" } '
    'step { model_name: "by_backend" } }',
    "broken": "max_batch_size: $",
}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, config in CONFIGS.items():
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "config.pbtxt").write_text(config, encoding="utf-8")
    (tmp_path / "by_file" / "3").mkdir(parents=True)
    (tmp_path / "by_file" / "3" / "model.pt").touch()
    (tmp_path / "README").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ((), {"onnxruntime", "pytorch", "python", "ensemble"}),
        (("whole",), {"onnxruntime", "python", "ensemble"}),
        (("by_platform",), {"pytorch"}),
        (("by_file",), {"pytorch"}),
        (("broken",), set()),
        (("absent",), set()),
    ],
)
def test_backends(repository: Path, models: tuple[str, ...], expected: set[str]) -> None:
    assert needs.backends(repository, models) == expected
