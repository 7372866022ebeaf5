"""Importing torch where a format needs it, with the mend where it is missing."""

from __future__ import annotations

from typing import Any

from repo_builder.errors import MissingDependencyError


def import_torch(needed_by: object) -> Any:
    """The torch package.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            f"{needed_by} needs PyTorch, which is not installed ({error})", mend="pip install 'repo-builder[torch]'"
        ) from error
    return torch
