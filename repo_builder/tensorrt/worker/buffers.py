"""Memory for the inputs and outputs of a plan, on the host and on the device, and the copies between."""

from __future__ import annotations

import cuda
import numpy as np
from allocator import output_allocator
from runtime import Refused


class Buffers:
    """Memory for every tensor of one set of shapes: pinned on the host and, where it runs there, on the device.

    Args:
        plan: the Plan; context: TensorRT's context over it, whose input shapes are set already.
        arrays: inputs by name, copied into the pinned memory.
    """

    def __init__(self, plan, context, arrays):
        self._plan, self._context = plan, context
        self.host, self.device, self.shapes, self.allocators = {}, {}, {}, {}
        for name, tensor in self._plan.inputs.items():
            self._add(tensor, arrays[name].shape)
            self.array(name)[...] = arrays[name]
        for name, tensor in self._plan.outputs.items():
            shape = tuple(self._context.get_tensor_shape(name))
            if any(dim < 0 for dim in shape):
                self.allocators[name] = output_allocator(self._plan.trt, cuda.DeviceMemory)
            else:
                self._add(tensor, shape)

    def _add(self, tensor, shape):
        self.shapes[tensor.name] = tuple(shape)
        nbytes = int(np.prod(shape, dtype=np.int64)) * tensor.numpy_dtype.itemsize
        self.host[tensor.name] = cuda.PinnedMemory(nbytes)
        if not tensor.on_host:
            self.device[tensor.name] = cuda.DeviceMemory(nbytes)

    def array(self, name):
        """The tensor's pinned memory as an array: a view."""
        tensor = self._plan.inputs.get(name) or self._plan.outputs[name]
        return self.host[name].array(self.shapes[name], tensor.numpy_dtype)

    def nbytes(self, tensors):
        """Bytes that are copied for these tensors."""
        return sum(self.array(name).nbytes for name in tensors if name in self.device)

    def attach(self):
        """Tell the context to read and write here."""
        for name in [*self._plan.inputs, *self._plan.outputs]:
            if name in self.allocators:
                done = self._context.set_output_allocator(name, self.allocators[name])
            else:
                memory = self.device.get(name) or self.host[name]
                done = self._context.set_tensor_address(name, memory.pointer)
            if not done:
                raise Refused(self._plan.failure(f"TensorRT takes no memory for tensor {name!r}"))

    def upload(self, stream):
        for name in self._plan.inputs:
            if name in self.device:
                stream.to_device(self.device[name].pointer, self.host[name].pointer, self.array(name).nbytes)

    def download(self, stream):
        """Copy the outputs to the host; call it after the enqueue, which tells the shapes of the unknown ones."""
        for name, allocator in self.allocators.items():
            tensor = self._plan.outputs[name]
            self.shapes[name] = allocator.shape
            nbytes = int(np.prod(allocator.shape, dtype=np.int64)) * tensor.numpy_dtype.itemsize
            if name not in self.host or self.host[name].nbytes < nbytes:
                self.host[name] = cuda.PinnedMemory(nbytes)
            self.device[name] = allocator.memory
        for name in self._plan.outputs:
            if name in self.device:
                stream.to_host(self.host[name].pointer, self.device[name].pointer, self.array(name).nbytes)
