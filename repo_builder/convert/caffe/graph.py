"""The ONNX graph that a Caffe net becomes, while it is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from repo_builder.formats.caffe_net import Layer
from repo_builder.formats.caffe_rules import Shape

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

_ODD = re.compile(r"[^A-Za-z0-9_./-]+")


@dataclass(frozen=True)
class Step:
    """One layer to write.

    Attributes:
        values: the names of its bottoms in the graph.
        bottoms, tops: their shapes; -1 for a size that follows the batch.
        weights: its weights, in Caffe's shapes and order.
    """

    layer: Layer
    values: Sequence[str]
    bottoms: Sequence[Shape]
    tops: Sequence[Shape]
    weights: Sequence[np.ndarray[Any, Any]]

    @property
    def rank(self) -> int:
        return len(self.bottoms[0])


@dataclass
class Graph:
    """Nodes and constants so far; names derive from the layer that is being written."""

    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    layer: str = ""
    _names: set[str] = field(default_factory=set)

    def node(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node with one output and give the output's name."""
        return self.nodes_outputs(op, inputs, 1, **attributes)[0]

    def nodes_outputs(self, op: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Append a node and give the names of its outputs."""
        import onnx

        outputs = [self._name(op) for _ in range(count)]
        self.nodes.append(onnx.helper.make_node(op, list(inputs), outputs, name=outputs[0], **attributes))
        return outputs

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        """A constant's name; ``dtype`` is float32, or int64 for axes and sizes."""
        from onnx import numpy_helper

        name = self._name("weight" if dtype is np.float32 else "sizes")
        self.constants.append(
            numpy_helper.from_array(np.ascontiguousarray(values, dtype=dtype).reshape(np.shape(values)), name)
        )
        return name

    def integers(self, values: Sequence[int]) -> str:
        return self.constant(list(values), np.int64)

    def affine(self, value: str, scale: float, shift: float) -> str:
        """scale * value + shift, without what does nothing."""
        if scale != 1:
            value = self.node("Mul", [value, self.constant(scale)])
        return self.node("Add", [value, self.constant(shift)]) if shift else value

    def reshaped(self, value: str, shape: Shape) -> str:
        """``value`` in this shape, in which one size at most is -1."""
        return self.node("Reshape", [value, self.integers(shape)])

    def _name(self, what: str) -> str:
        base = f"{_ODD.sub('_', self.layer)}/{what}"
        name, number = base, 1
        while name in self._names:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        return name


Writer = Callable[[Graph, Step], "list[str]"]
"""Writes a layer and gives the names of its tops."""
