"""The worker's plain modules, which need neither TensorRT nor a GPU."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from repo_builder.tensorrt import calls

_NAMES = (
    "inspection", "network", "plan_text", "profiles", "precision", "runtime", "build", "execution", "buffers", "cuda",
    "profile_values", "timing_cache",
)  # fmt: skip


@pytest.fixture
def worker() -> Iterator[Callable[[str], ModuleType]]:
    """``worker(name)``: a module of ``worker/``, imported as its scripts import it."""
    before = {name: sys.modules.pop(name) for name in _NAMES if name in sys.modules}
    sys.path.insert(0, str(calls.SCRIPTS))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(calls.SCRIPTS))
        for name in _NAMES:
            sys.modules.pop(name, None)
        sys.modules.update(before)
