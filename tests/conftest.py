"""Fixtures for all tests: real servers that are always stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

ServerFactory = Callable[..., Any]


@pytest.fixture(scope="session")
def server_factory() -> Iterator[ServerFactory]:
    """``server_factory(repository, **options)``: a started server; all are stopped when the session ends."""
    from repo_builder import server

    with ExitStack() as stack:

        def start(repository: Path, **options: Any) -> server.RunningServer:
            return stack.enter_context(server.start(repository, **options))

        yield start
