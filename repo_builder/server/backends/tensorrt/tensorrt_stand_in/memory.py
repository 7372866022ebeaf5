"""Device and pinned memory for the largest shapes of an instance's contexts, made once, and the copies between."""

from __future__ import annotations

import numpy as np

from tensorrt_stand_in import cuda
from tensorrt_stand_in.allocator import output_allocator
from tensorrt_stand_in.messages import refuse


class Memory:
    """Memory of every tensor.

    Attributes:
        host: pinned memory by tensor name; device: GPU memory, of all but shape tensors and ``allocators``.
        allocators: by name, those of outputs whose size is known only once their data is.
    """

    def __init__(self, plan, contexts):
        self.plan, self.host, self.device, self.allocators = plan, {}, {}, {}
        # Without the largest values of a shape tensor the largest outputs are not known: each grows as it is met.
        self.known = not any(None in high for context in contexts.values() for _, _, high in context.limits.values())
        for name, tensor in plan.inputs.items():
            self._add_input(name, tensor, contexts.values())
        for context in contexts.values():
            if self.known and not context.inferred():
                refuse("infer_shapes")
        for name, tensor in plan.outputs.items():
            self._add_output(name, tensor, contexts.values())

    def _add_input(self, name, tensor, contexts):
        sizes = [context.limits[name][2] for context in contexts]
        count = max(len(size) if tensor.is_shape_tensor else _volume(size) for size in sizes)
        self._add(name, count * tensor.dtype.itemsize, on_device=not tensor.is_shape_tensor)
        for context in contexts:
            if not tensor.is_shape_tensor:
                context.trt.set_tensor_address(name, self.device[name].pointer)
            elif self.known:
                self.set_values(context, name, context.limits[name][2])

    def _add_output(self, name, tensor, contexts):
        shapes = [tuple(context.trt.get_tensor_shape(name)) for context in contexts]
        if not self.known or any(dim < 0 for shape in shapes for dim in shape):
            self.allocators[name] = output_allocator(self.plan.trt, cuda.DeviceMemory)
        else:
            largest = max(_volume(shape) * tensor.dtype.itemsize for shape in shapes)
            most = max(int(context.trt.get_max_output_size(name)) for context in contexts)
            self._add(name, max(largest, most), on_device=True)
        for context in contexts:
            if name in self.allocators:
                context.trt.set_output_allocator(name, self.allocators[name])
            else:
                context.trt.set_tensor_address(name, self.device[name].pointer)

    def _add(self, name, nbytes, *, on_device):
        self.host[name] = cuda.PinnedMemory(nbytes)
        if on_device:
            self.device[name] = cuda.DeviceMemory(nbytes)

    def set_values(self, context, name, values):
        """The values of a shape tensor, which TensorRT reads in host memory."""
        self.host[name].array((len(values),), self.plan.inputs[name].dtype)[...] = values
        context.trt.set_tensor_address(name, self.host[name].pointer)

    def upload(self, name, shape, arrays, stream):
        """Arrays side by side into the pinned memory, and from there to the GPU in one copy."""
        target = self.host[name].array(shape, self.plan.inputs[name].dtype)
        if len(arrays) == 1:
            np.copyto(target, arrays[0])
        else:
            np.concatenate(arrays, out=target)
        stream.to_device(self.device[name].pointer, self.host[name].pointer, target.nbytes)

    def download(self, name, context, stream):
        """An output as an array over pinned memory, whole once the stream is done."""
        tensor, allocator = self.plan.outputs[name], self.allocators.get(name)
        if allocator is None:
            shape, source = tuple(context.trt.get_tensor_shape(name)), self.device[name]
        else:
            shape, source = allocator.shape, allocator.memory
            if name not in self.host or self.host[name].nbytes < source.nbytes:
                self.host[name] = cuda.PinnedMemory(source.nbytes)
        array = self.host[name].array(shape, tensor.dtype)
        stream.to_host(self.host[name].pointer, source.pointer, array.nbytes)
        return array


def _volume(shape):
    return int(np.prod(shape, dtype=np.int64))
