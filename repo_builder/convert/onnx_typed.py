"""An ONNX graph prepared for a change of precision: functions inlined, every node named, every tensor's type known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from repo_builder.convert import onnx_graph
from repo_builder.errors import ConversionError

if TYPE_CHECKING:
    from onnx import ModelProto


def load(path: Path) -> ModelProto:
    """The model with inferred types and its weights in memory.

    Inference sees the graph without external weights, so that it holds for graphs of any size.

    Raises:
        ConversionError: types contradict each other.
    """
    import onnx
    from onnx import external_data_helper, inliner, shape_inference

    model = onnx.load(str(path), load_external_data=False)
    if model.functions:
        model = inliner.inline_local_functions(model)
    name_nodes(model)
    try:
        model = shape_inference.infer_shapes(model)
    except Exception as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConversionError(
            f"the types of {path.name} cannot be inferred: {line}",
            mend="check it with onnx.checker, export it again",
        ) from error
    external_data_helper.load_external_data_for_model(model, str(path.parent))
    return model


def name_nodes(model: ModelProto) -> None:
    """Give nodes without a name, or with one that another node has, a name of their own: ``<operator>_<number>``."""
    graphs = list(onnx_graph.subgraphs(model.graph))
    taken = {node.name for graph in graphs for node in graph.node}
    seen: set[str] = {""}
    for graph in graphs:
        for number, node in enumerate(graph.node):
            name = node.name
            while name in seen or (not node.name and name in taken):
                name, number = f"{node.op_type}_{number}", number + 1
            node.name = name
            seen.add(name)
