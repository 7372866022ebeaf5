"""Loading a described folder with sentence-transformers: fp32 on the CPU, nothing from the network."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Literal

from repo_builder.artifact import Artifact
from repo_builder.errors import MissingDependencyError
from repo_builder.formats import huggingface_model


def load(source: Artifact, kind: Literal["SentenceTransformer", "CrossEncoder", "SparseEncoder"]) -> Any:
    """The folder as this class of sentence-transformers; a folder of transformers gets the class's default modules.

    Raises:
        MissingDependencyError: sentence-transformers is not installed.
    """
    try:
        import sentence_transformers
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            f"loading {source.path.name} as {kind} needs {error.name}", mend="pip install 'repo-builder[huggingface]'"
        ) from error
    with huggingface_model.quiet(), _errors_only():
        return getattr(sentence_transformers, kind)(
            str(source.path),
            device="cpu",
            local_files_only=True,
            trust_remote_code=bool(source.facts.get("trust_remote_code")),
            model_kwargs={"dtype": torch.float32},
        ).eval()


@contextlib.contextmanager
def _errors_only() -> Iterator[None]:
    """sentence-transformers without its warnings; its level comes back afterwards."""
    logger = logging.getLogger("sentence_transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
