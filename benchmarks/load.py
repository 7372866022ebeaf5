"""Closed-loop clients: each sends one text, waits for the answer, and sends the next. The same loop for every side.

A side runs as a process of its own that takes one JSON command a line (``{"workload", "clients", "seconds"}``) and
answers with one JSON line, so that sides can take turns. Needs the standard library alone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

STRIDE = 17
"""Client n starts at text 17 n, so that clients do not send the same text at the same time."""


def closed_loop(call: Callable[[Any], Any], items: Sequence[Any], clients: int, seconds: float) -> dict[str, Any]:
    """Latencies in seconds, elapsed time and CPU time of this process."""
    latencies: list[float] = []
    lock = threading.Lock()
    end = time.perf_counter() + seconds

    def one(number: int) -> None:
        own, turn = [], number * STRIDE
        while time.perf_counter() < end:
            started = time.perf_counter()
            call(items[turn % len(items)])
            own.append(time.perf_counter() - started)
            turn += 1
        with lock:
            latencies.extend(own)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(clients)]
    before, started = os.times(), time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed, after = time.perf_counter() - started, os.times()
    cpu = after.user + after.system - before.user - before.system
    return {"latencies": latencies, "elapsed": elapsed, "cpu_s": cpu}


def obey(call: Callable[[Any], Any], items: Mapping[str, Sequence[Any]], first: Any) -> None:
    """Answer with ``first``, then run what each line of standard input asks for."""
    print(json.dumps(first), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(closed_loop(call, items[asked["workload"]], asked["clients"], asked["seconds"])), flush=True)
