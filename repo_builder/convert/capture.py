"""Capture: everything that an exporter prints, logs or warns about, kept off the user's terminal."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_ONE_AT_A_TIME = threading.Lock()


@dataclass
class Captured:
    """What one attempt said.

    Attributes:
        text: standard output and standard error, in order.
        warnings: ``Category: message``, each once.
        tracer: the messages of ``torch.jit.TracerWarning`` among them.
    """

    text: str = ""
    warnings: list[str] = field(default_factory=list)
    tracer: list[str] = field(default_factory=list)


@contextmanager
def capture() -> Iterator[Captured]:
    """Collect output and warnings of the block; the result is filled when the block ends.

    File descriptors 1 and 2 are redirected, because PyTorch's TorchScript exporter prints its graph from C++. They and
    the warning filters belong to the process, so one block runs at a time. A live display that must stay visible
    writes to a duplicate of its descriptor.
    """
    captured = Captured()
    with _ONE_AT_A_TIME, tempfile.TemporaryFile() as log, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        saved = []
        try:
            sys.stdout.flush()
            sys.stderr.flush()
            for number in (1, 2):
                saved.append((number, os.dup(number)))
                os.dup2(log.fileno(), number)
            yield captured
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, copy in saved:
                os.dup2(copy, number)
                os.close(copy)
            log.seek(0)
            captured.text = log.read().decode("utf-8", "replace")
            for item in caught:
                line = f"{item.category.__name__}: {item.message}"
                if line not in captured.warnings:
                    captured.warnings.append(line)
                    if item.category.__name__ == "TracerWarning":
                        captured.tracer.append(str(item.message))
