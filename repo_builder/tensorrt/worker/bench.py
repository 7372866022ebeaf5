"""Time a plan as trtexec does: ``python bench.py REQUEST.json ANSWER.json``.

Request: {"plan": path, "batches": [sizes] | null (each profile's optimum), "profiles": [indices] | null (all),
"warm_up_ms": 200, "duration_s": 3, "cuda_graph": false, "plugins": [paths], "shapes": {input: complete shape or, for a
shape tensor, values; the others take the profile's optimum}, "inputs": npz path | null (real inputs, which fix the
batch), "module": name | null, "version_compatible": false, "device": 0}.

Answer: {"module", "version", "device": {...}, "plan_bytes", "runs": [{"profile", "batch" (null where axis 0 is none),
"shapes": {input: shape}, "values": {shape tensor: values}, "cuda_graph": bool, "cuda_graph_error": text | null,
"iterations", "seconds" (wall clock of all iterations), "bytes": {"h2d", "d2h"}, "milliseconds": {"h2d", "compute",
"d2h", "enqueue": one number per iteration}}], "skipped": [{"profile", "batch", "why"}]}.

Copies of one iteration overlap the computation of another: two sets of buffers, and a stream each for the copies in,
the computation and the copies out. Inputs are random numbers in [-1, 1) for floats and ones for integers, which index
any table safely.
"""

from __future__ import annotations

import gc
import time

import cuda
import numpy as np
import runtime
from execution import Execution, Plan, asked, converted, fits
from runtime import Refused

_SLOTS = 2
_FEWEST_ITERATIONS = 10
_PHASES = ("h2d", "compute", "d2h")


class Slot:
    """One of the iterations that are under way: its buffers, its graph and the events around its phases."""

    def __init__(self, execution, arrays, streams, as_graph):
        self._execution, self._streams = execution, streams
        self.buffers = execution.prepare(arrays)
        self._events = [[cuda.Event(), cuda.Event()] for _ in _PHASES]
        self._graph, self.busy, self._enqueue_ms = None, False, 0.0
        copy_in, compute, _ = streams
        self.buffers.upload(copy_in)
        copy_in.synchronize()
        execution.enqueue(compute)
        compute.synchronize()
        if as_graph:
            self._graph = cuda.Graph(compute, lambda: execution.enqueue(compute))

    def start(self):
        """Put one iteration on the streams."""
        copy_in, compute, copy_out = self._streams
        uploads, computes, downloads = self._events
        uploads[0].record(copy_in)
        self.buffers.upload(copy_in)
        uploads[1].record(copy_in)
        compute.wait(uploads[1])
        computes[0].record(compute)
        if self._graph is None:
            self.buffers.attach()
        began = time.perf_counter()
        if self._graph is None:
            self._execution.enqueue(compute)
        else:
            self._graph.launch(compute)
        self._enqueue_ms = (time.perf_counter() - began) * 1e3
        computes[1].record(compute)
        copy_out.wait(computes[1])
        downloads[0].record(copy_out)
        self.buffers.download(copy_out)
        downloads[1].record(copy_out)
        self.busy = True

    def finish(self):
        """Milliseconds of each phase of the iteration that this slot holds, and of its enqueue; waits for its end."""
        self._events[-1][1].synchronize()
        self.busy = False
        phases = {name: end.milliseconds_since(start) for name, (start, end) in zip(_PHASES, self._events)}
        return {**phases, "enqueue": self._enqueue_ms}


def loop(slots, milliseconds, fewest):
    """Iterate for so long and at least so often; the samples of every iteration, and the seconds that all took."""
    samples, began, count = [], time.perf_counter(), 0
    while count < fewest or (time.perf_counter() - began) * 1e3 < milliseconds:
        slot = slots[count % len(slots)]
        if slot.busy:
            samples.append(slot.finish())
        slot.start()
        count += 1
    for step in range(len(slots)):
        slot = slots[(count + step) % len(slots)]
        if slot.busy:
            samples.append(slot.finish())
    return samples, time.perf_counter() - began


def measure(plan, profile, arrays, request):
    """One run: the plan on one profile with these inputs."""
    streams = [cuda.Stream() for _ in _PHASES]
    graph, error = bool(request.get("cuda_graph")), None
    try:
        slots = prepared(plan, profile, arrays, streams, graph)
    except (Refused, cuda.CudaError) as failure:
        if not graph:
            raise
        graph, error = False, str(failure)
    if error:
        gc.collect()  # TensorRT 8 has one context at a time for a profile: the failed one must be gone
        slots = prepared(plan, profile, arrays, streams, graph)
    loop(slots, request.get("warm_up_ms", 200), _SLOTS)
    samples, seconds = loop(slots, request.get("duration_s", 3) * 1e3, _FEWEST_ITERATIONS)
    buffers = slots[0].buffers
    return {
        "cuda_graph": graph,
        "cuda_graph_error": error,
        "iterations": len(samples),
        "seconds": seconds,
        "bytes": {"h2d": buffers.nbytes(plan.inputs), "d2h": buffers.nbytes(plan.outputs)},
        "milliseconds": {name: [round(one[name], 5) for one in samples] for name in (*_PHASES, "enqueue")},
    }


def prepared(plan, profile, arrays, streams, graph):
    """Slots over one new context."""
    execution = Execution(plan, profile, streams[1])
    return [Slot(execution, arrays, streams, graph) for _ in range(_SLOTS)]


def filled(plan, limits, batch, request):
    """Inputs for one run: shapes of the request, else the profile's optimum, with axis 0 at the batch size."""
    arrays, random = {}, np.random.default_rng(0)
    for name, tensor in plan.inputs.items():
        shape = list((request.get("shapes") or {}).get(name) or limits[name]["opt"])
        if None in shape:
            raise Refused(
                f"TensorRT's Python does not tell the optimum of the shape tensor {name!r}",
                "the values of every shape tensor that its profiles do not show (TensorRT 8 shows the first)",
                "give its values among the shapes",
            )
        if tensor.is_shape_tensor:
            arrays[name] = np.asarray(shape, tensor.numpy_dtype).reshape(tensor.shape)
            continue
        if batch is not None and tensor.shape[:1] == (-1,):
            shape[0] = batch
        if tensor.dtype == "BF16":
            arrays[name] = (random.random(shape, np.float32).view(np.uint32) >> 16).astype(np.uint16)
        elif tensor.numpy_dtype.kind == "f":
            arrays[name] = (random.random(shape, np.float32) * 2 - 1).astype(tensor.numpy_dtype)
        else:
            arrays[name] = np.ones(shape, tensor.numpy_dtype)
    return arrays


def batch_of(plan, arrays):
    """The size of axis 0 that all inputs with a dynamic one share, else None."""
    sizes = {
        arrays[name].shape[0]
        for name, tensor in plan.inputs.items()
        if not tensor.is_shape_tensor and tensor.shape[:1] == (-1,)
    }
    return sizes.pop() if len(sizes) == 1 else None


def work(request):
    device = cuda.Device(request.get("device") or 0)
    plan = Plan(runtime.load(request), request)
    given = None
    if request.get("inputs"):
        with np.load(request["inputs"], allow_pickle=False) as stored:
            given = {name: stored[name] for name in stored.files}
        asked(plan, given)
        given = {name: converted(plan.inputs[name], array) for name, array in given.items()}
    profiles = range(len(plan.profiles)) if request.get("profiles") is None else request["profiles"]
    runs, skipped = [], []
    for profile in profiles:
        if not 0 <= profile < len(plan.profiles):
            raise Refused(f"there is no profile {profile}: the plan has {len(plan.profiles)}")
        for batch in [None] if given else request.get("batches") or [None]:
            arrays = given or filled(plan, plan.profiles[profile], batch, request)
            found = asked(plan, arrays)
            why = fits(plan.profiles[profile], found)
            if batch is not None and not why and batch_of(plan, arrays) != batch:
                why = f"axis 0 of the inputs is fixed or none: the plan takes no batch of {batch}"
            if why:
                skipped.append({"profile": profile, "batch": batch, "why": why})
                continue
            shape_tensors = [name for name, tensor in plan.inputs.items() if tensor.is_shape_tensor]
            described = {
                "profile": profile,
                "batch": batch_of(plan, arrays),
                "shapes": {name: list(array.shape) for name, array in arrays.items()},
                "values": {name: found[name] for name in shape_tensors},
            }
            runs.append({**described, **measure(plan, profile, arrays, request)})
            print("timed profile {} batch {}".format(profile, described["batch"]), flush=True)
    if not runs:
        reasons = "; ".join("profile {profile} batch {batch}: {why}".format(**one) for one in skipped)
        raise Refused("nothing to time: " + reasons)
    return {
        **runtime.describe(plan.trt),
        "device": device.facts(),
        "plan_bytes": plan.nbytes,
        "runs": runs,
        "skipped": skipped,
    }


if __name__ == "__main__":
    runtime.main(work)
