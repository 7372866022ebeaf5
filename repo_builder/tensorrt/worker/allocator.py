"""Memory for outputs whose size is known only once their data is; the stand-in backend has a copy of this file."""


def output_allocator(trt, memory):
    """An ``IOutputAllocator`` with what it gave out last: ``memory`` and ``shape``.

    Args:
        memory: what makes GPU memory of a number of bytes (``cuda.DeviceMemory``).
    """

    class Allocator(trt.IOutputAllocator):
        def __init__(self):
            trt.IOutputAllocator.__init__(self)
            self.memory, self.shape = memory(1), ()

        def reallocate_output(self, tensor_name, given, size, alignment):  # noqa: ARG002 (TensorRT's interface)
            if size > self.memory.nbytes:
                self.memory.close()
                self.memory = memory(size)
            return self.memory.pointer

        def reallocate_output_async(self, tensor_name, given, size, alignment, stream):  # noqa: ARG002
            return self.reallocate_output(tensor_name, given, size, alignment)

        def notify_shape(self, tensor_name, shape):  # noqa: ARG002
            self.shape = tuple(shape)

    return Allocator()
