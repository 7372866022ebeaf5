"""Models whose tokenizer adds no special tokens refuse the empty text: their proofs leave it out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import tiny_tokenizers, tiny_transformers

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("task", ["feature-extraction", "sentence-embedding"])
def test_the_empty_text_is_left_out_of_the_proof(task: str, tmp_path: Path) -> None:
    from repo_builder import spec, tasks
    from repo_builder.formats import huggingface

    folder = tiny_transformers.save("qwen2", "base", tmp_path)
    model = spec.from_flags(str(folder), task=task).models[0]
    source = huggingface.describe(folder)
    module = tasks.get(task)
    program = module.head(source, model)
    engine: Any = SimpleNamespace(inputs=program.inputs)
    proof = module.proof(model, source, engine, program)
    asked = [case.inputs["TEXT"][0, 0].decode() for case in proof.cases]
    assert asked == [text for text in tiny_tokenizers.TEXTS if text]
