"""The values of an input shape tensor under an optimization profile, as far as TensorRT's Python tells them.

This file stands alone: the backend directory of the server has a copy of it for the tensorrt stand-in.
"""

from __future__ import annotations


def profile_values(engine, name, index):
    """[min, opt, max], each the values in the tensor's flat order; None for a value that is not told.

    TensorRT 10 and 11 tell all, and take the profile's index first, whatever their documentation says. 8.6's
    ``get_profile_shape_input`` tells as many values as the tensor has dimensions, not elements (NVIDIA/TensorRT,
    ``python/src/infer/pyCore.cpp``, ``engine_get_profile_shape_input``): the first alone of a 1-D tensor.
    """
    if hasattr(engine, "get_tensor_profile_values"):
        return [[int(value) for value in values] for values in engine.get_tensor_profile_values(index, name)]
    count = 1
    for size in engine.get_tensor_shape(name):
        count *= int(size)
    told = [[int(value) for value in values] for values in engine.get_profile_shape_input(index, name)]
    return [values + [None] * (count - len(values)) for values in told or [[], [], []]]
