"""What PyTorch makes of the same models on the same GPU: eager and compiled in float16, with and without graphs."""

from __future__ import annotations

import time
from typing import Any

import torch
from models import Model


def times(model: Model, batches: tuple[int, ...], seconds: float = 1.0) -> list[dict[str, Any]]:
    """Median milliseconds of one call by CUDA events, inputs on the GPU, by way and batch size."""
    found = []
    module = model.module.cuda().half().eval()
    torch.backends.cudnn.benchmark = True
    for way in ("eager", "eager, CUDA graph", "compile", "compile, CUDA graph"):
        torch._dynamo.reset()
        options = {"triton.cudagraphs": True} if way.endswith("graph") else None
        call = torch.compile(module, dynamic=False, options=options) if way.startswith("compile") else module
        for batch in batches:
            arrays = model.arrays(batch).values()
            inputs = [t.half() if t.is_floating_point() else t for t in (torch.from_numpy(a).cuda() for a in arrays)]
            started = time.perf_counter()
            with torch.no_grad():
                run = _graph(call, inputs) if way == "eager, CUDA graph" else lambda i=inputs, c=call: c(*i)
                for _ in range(10):
                    run()
                torch.cuda.synchronize()
                warm = time.perf_counter() - started
                samples = _timed(run, seconds)
            samples.sort()
            found.append({"way": way, "batch": batch, "ms": samples[len(samples) // 2], "warm_up_s": round(warm, 1)})
    return found


def _graph(call: Any, inputs: list[Any]) -> Any:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call(*inputs)
    return graph.replay


def _timed(run: Any, seconds: float) -> list[float]:
    samples: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(samples) < 20:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end))
    return samples
