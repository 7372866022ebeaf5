"""Loading with sentence-transformers leaves the settings of the process as they were."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from repo_builder.formats import huggingface, sentence_transformers_model
from tests import tiny_transformers

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("level", [logging.INFO, logging.NOTSET])
def test_the_log_level_comes_back(level: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = huggingface.describe(tiny_transformers.save("bert", "sequence-classification", tmp_path / "m"))
    logger = logging.getLogger("sentence_transformers")
    with caplog.at_level(level, "sentence_transformers"):
        caplog.clear()
        sentence_transformers_model.load(source, "SentenceTransformer")
        assert logger.level == level
    assert not [record for record in caplog.records if record.name.startswith("sentence_transformers")]
