"""Run a plan once: ``python run.py REQUEST.json ANSWER.json``.

Request: {"plan": path, "inputs": npz path, "outputs": npz path to write, "profile": index | null (the one that fits
best), "plugins": [paths], "module": name | null, "version_compatible": false, "device": 0}. Answer: {"module",
"version", "device", "profile", "outputs": {name: {"dtype" (Triton's name), "shape"}}}. BF16 tensors are the uint16 of
their bits in both files.
"""

from __future__ import annotations

import cuda
import numpy as np
import runtime
from execution import Execution, Plan, asked, choose_profile, converted


def work(request):
    device = cuda.Device(request.get("device") or 0)
    plan = Plan(runtime.load(request), request)
    with np.load(request["inputs"], allow_pickle=False) as stored:
        given = {name: stored[name] for name in stored.files}
    wanted = asked(plan, given)
    arrays = {name: converted(plan.inputs[name], array) for name, array in given.items()}
    profile = choose_profile(plan.profiles, wanted, request.get("profile"))
    stream = cuda.Stream()
    execution = Execution(plan, profile, stream)
    buffers = execution.prepare(arrays)
    buffers.upload(stream)
    execution.enqueue(stream)
    buffers.download(stream)
    stream.synchronize()
    found = {name: buffers.array(name) for name in plan.outputs}
    with open(request["outputs"], "wb") as handle:
        np.savez(handle, **found)
    return {
        **runtime.describe(plan.trt),
        "device": device.facts(),
        "profile": profile,
        "outputs": {
            name: {"dtype": plan.outputs[name].dtype, "shape": list(array.shape)} for name, array in found.items()
        },
    }


if __name__ == "__main__":
    runtime.main(work)
