"""A served plan under load: requests of one shape from a few clients, answers per second."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from repo_builder import client, pipeline


def throughput(
    repository: Path, model: str, inputs: dict[str, Any], clients: int = 4, seconds: float = 6
) -> dict[str, Any]:
    """Requests per second and their latency, after a second of warm-up, through the embedded server on 127.0.0.1."""
    latencies: list[float] = []
    failures: list[Exception] = []
    with pipeline.serve(repository, target=None, ports=(0, 0, 0)) as running:
        begin, end = threading.Event(), threading.Event()

        def ask() -> None:
            try:
                with client.connect(running.url) as connection:
                    while not end.is_set():
                        started = time.perf_counter()
                        connection.infer(model, inputs)
                        if begin.is_set():
                            latencies.append(time.perf_counter() - started)
            except Exception as error:  # noqa: BLE001 (raised again below, in the thread that measures)
                failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(1)
        begin.set()
        started = time.perf_counter()
        time.sleep(seconds)
        took = time.perf_counter() - started
        count = len(latencies)
        end.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]
    latencies.sort()
    return {
        "clients": clients,
        "requests_per_second": count / took,
        "p50_ms": 1000 * latencies[len(latencies) // 2],
        "p99_ms": 1000 * latencies[int(len(latencies) * 0.99)],
    }
