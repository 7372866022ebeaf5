"""repo_builder: from a trained model to a proven Triton Inference Server model repository."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repo_builder.pipeline import Result

try:
    __version__ = metadata.version("repo-builder")
except metadata.PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__", "build"]


def build(*arguments: Any, **options: Any) -> Result:
    """Build a repository and prove it: :func:`repo_builder.pipeline.build`, but a model that failed raises.

    Raises:
        RepoBuilderError: the model's own error, or ``SomeModelsFailedError`` when others of the spec were built.
    """
    from repo_builder import pipeline

    result = pipeline.build(*arguments, **options)
    result.raise_failed()
    return result
