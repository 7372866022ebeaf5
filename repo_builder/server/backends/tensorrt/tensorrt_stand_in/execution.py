"""One run of a plan for the requests of a batch: context chosen, inputs laid side by side, outputs fetched."""

from __future__ import annotations

import triton_python_backend_utils as pb_utils

from tensorrt_stand_in import contexts, cuda
from tensorrt_stand_in.memory import Memory
from tensorrt_stand_in.messages import refuse

MOST_GRAPHS = 32


class Execution:
    """An instance's plan, its contexts, memory and stream.

    Attributes:
        graphs: executable CUDA graphs by (profile, shapes), None where one could not be recorded; None where graphs are
            not asked for or not possible.
    """

    def __init__(self, plan, made, stream, config, instance):
        self.plan, self.contexts, self.stream, self.instance = plan, made, stream, instance
        self.batched = config["max_batch_size"] > 0
        self.memory = Memory(plan, made)
        use_graphs = config.get("optimization", {}).get("cuda", {}).get("graphs", False)
        self.graphs = {} if use_graphs and not self.memory.allocators and not plan.shape_tensors else None

    def infer(self, feeds, asked):
        """The asked outputs of the feeds side by side, as arrays over pinned memory."""
        rows = sum(len(next(iter(feed.values()))) for feed in feeds) if self.batched else 0
        shapes, values = {}, {}
        for name, tensor in self.plan.inputs.items():
            first = feeds[0][name]
            if tensor.is_shape_tensor:
                values[name] = [rows, *map(int, first[0].reshape(-1))] if self.batched else first.reshape(-1).tolist()
            else:
                shapes[name] = (rows, *first.shape[1:]) if self.batched else first.shape
        index, context = contexts.choose(self.contexts, shapes, values)
        for name, found in values.items():
            details = context.bad_value(name, found)
            if details:
                raise pb_utils.TritonModelException(details)
            self.memory.set_values(context, name, found)
        context.set_shapes(self.instance, shapes, again=bool(values))
        for name, shape in shapes.items():
            self.memory.upload(name, shape, [feed[name] for feed in feeds], self.stream)
        self.enqueue(index, context, tuple(shapes.items()))
        found = {name: self.memory.download(name, context, self.stream) for name in asked}
        self.stream.synchronize()
        return found

    def enqueue(self, index, context, shapes):
        """Run the context: once as it is, then recorded as a CUDA graph where the config asks for graphs."""
        key = (index, shapes)
        recorded = self.graphs.get(key) if self.graphs else None
        if recorded:
            recorded.launch(self.stream)
            return
        if not context.trt.execute_async_v3(self.stream.handle):
            self.stream.synchronize()
            refuse("enqueue", instance=self.instance)
        if self.graphs is not None and key not in self.graphs and len(self.graphs) < MOST_GRAPHS:
            self.stream.synchronize()
            self.graphs[key] = self.record(context)

    def record(self, context):
        """A run of the context as an executable graph; None where it cannot be recorded."""

        def enqueue():
            if not context.trt.execute_async_v3(self.stream.handle):
                refuse("enqueue", instance=self.instance)

        try:
            return cuda.Graph(self.stream, enqueue)
        except (cuda.CudaError, pb_utils.TritonModelException):
            pb_utils.Logger.log_warn(f"unable to record CUDA graph for {self.instance}")
            return None
