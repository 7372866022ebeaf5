"""repo_builder: from a trained model to a proven Triton Inference Server model repository."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repo_builder.pipeline import build as build

try:
    __version__ = metadata.version("repo-builder")
except metadata.PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__", "build"]


def __getattr__(name: str) -> Any:
    """``repo_builder.build`` loads the pipeline on first use, so that importing the package stays cheap."""
    if name == "build":
        from repo_builder.pipeline import build

        return build
    raise AttributeError(f"module 'repo_builder' has no attribute {name!r}")
