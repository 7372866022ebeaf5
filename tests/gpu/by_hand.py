"""Tests of a module without pytest, which a GPU machine may lack."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any


class Skipped(Exception):
    """What ends a test that does not apply here."""


def run(module: Mapping[str, Any]) -> int:
    """Every ``test_`` function of a module's globals, each told as it ends; the exit status."""
    failures = 0
    for name, test in list(module.items()):
        if name.startswith("test_"):
            try:
                test()
                print("passed", name, flush=True)
            except Skipped as why:
                print("skipped", name, why, flush=True)
            except Exception:  # noqa: BLE001 (the next test still runs)
                failures += 1
                print("FAILED", name, flush=True)
                traceback.print_exc()
    print(f"{failures} failed" if failures else "all passed")
    return min(failures, 1)
