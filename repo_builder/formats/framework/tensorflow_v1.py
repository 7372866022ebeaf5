"""Graphs of TensorFlow 1: frozen files, checkpoints, and SavedModels whose objects no longer load.

Each function gives (frozen GraphDef, input tensors, output tensors, names by tensor, notes).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import loop
import tensorflow as tf
import tensorflow_savers
from tensorflow.python.framework import convert_to_constants

v1 = tf.compat.v1
_NOT_OUTPUTS = {
    *("NoOp", "Assert", "Const", "Placeholder", "PlaceholderWithDefault", "Variable", "VariableV2", "VarHandleOp"),
    *(
        "SaveV2",
        "SaveSlices",
        "RestoreV2",
        "Switch",
        "Enter",
        "MergeSummary",
        "VarIsInitializedOp",
        "IsVariableInitialized",
        "Assign",
    ),
}
_CALLS = {"PartitionedCall", "StatefulPartitionedCall"}
_TRAINING = ("gradients", "save", "train_op", "report_uninitialized_variables", "init", "loss", "losses", "metrics")


def choose_signature(signatures: Any) -> str:
    """``serving_default``, or the only one."""
    names = sorted(name for name in signatures if not name.startswith("__"))
    if "serving_default" in names:
        return "serving_default"
    if len(names) == 1:
        return str(names[0])
    raise loop.Refused(
        "the SavedModel has the signatures " + (", ".join(names) or "(none)"),
        "serving_default, or one signature alone",
        "save it again: tf.saved_model.save(module, folder, signatures={'serving_default': module.call})",
        "SignatureError",
    )


def frozen_graph(path: str, asked: Sequence[str]) -> Any:
    graph = v1.GraphDef()
    with open(path, "rb") as file:
        graph.ParseFromString(file.read())
    graph, notes = _for_inference(graph)
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph, name="")
    outputs = _outputs(imported, path, asked)
    return graph, _placeholders(imported, outputs), outputs, {}, notes


def checkpoint(path: str, asked: Sequence[str]) -> Any:
    """Of ``x.meta`` with ``x.index`` and ``x.data-*`` beside it."""
    meta = v1.MetaGraphDef()
    with open(path, "rb") as file:
        meta.ParseFromString(file.read())
    prefix = path[: -len(".meta")]
    signatures = dict(meta.signature_def)
    with tf.Graph().as_default() as imported, v1.Session(graph=imported) as session:
        graph, _ = _for_inference(meta.graph_def, constants=False)
        meta.graph_def.CopyFrom(graph)
        tensorflow_savers.check(meta)
        for name in ("train_op", "losses", "summaries"):
            meta.collection_def.pop(name, None)
        saver = v1.train.import_meta_graph(meta, clear_devices=True)
        (saver or v1.train.Saver()).restore(session, prefix)
        return _frozen(session, {} if asked else signatures, path, asked)


def saved_model(folder: str) -> Any:
    with tf.Graph().as_default() as imported, v1.Session(graph=imported) as session:
        meta = v1.saved_model.loader.load(session, ["serve"], folder)
        signatures = dict(meta.signature_def)
        choose_signature(signatures)
        return _frozen(session, signatures, folder, ())


def _frozen(session: Any, signatures: Any, path: str, asked: Sequence[str]) -> Any:
    names: dict[str, str] = {}
    signatures = {k: v for k, v in signatures.items() if v.inputs and v.outputs}
    if signatures:
        chosen = signatures[choose_signature(signatures)]
        names = {told.name: name for side in (chosen.inputs, chosen.outputs) for name, told in side.items()}
        inputs = [chosen.inputs[name].name for name in sorted(chosen.inputs)]
        outputs = [chosen.outputs[name].name for name in sorted(chosen.outputs)]
    else:
        inputs, outputs = [], _outputs(session.graph, path, asked)
    graph = session.graph.as_graph_def()
    tensorflow_savers.check_outputs(graph, outputs)
    graph = v1.graph_util.convert_variables_to_constants(session, graph, [name.rpartition(":")[0] for name in outputs])
    graph, notes = _for_inference(graph)
    if {node.op for node in graph.node} & _CALLS:
        graph, inputs, outputs, names = _inlined(graph, inputs, outputs, names)
    if not inputs:
        with tf.Graph().as_default() as imported:
            tf.graph_util.import_graph_def(graph, name="")
        inputs = _placeholders(imported, outputs)
    return graph, inputs, outputs, names, notes


def _inlined(graph: Any, inputs: list[str], outputs: list[str], names: dict[str, str]) -> Any:
    """The graph without calls of its own functions, which tf2onnx does not follow; its tensors get new names."""

    def imported() -> None:
        tf.graph_util.import_graph_def(graph, name="")

    whole = v1.wrap_function(imported, [])
    sides = [[whole.graph.get_tensor_by_name(name) for name in side] for side in (inputs, outputs)]
    made = convert_to_constants.convert_variables_to_constants_v2(whole.prune(*sides), lower_control_flow=False)
    told = [[tensor.name for tensor in side] for side in (made.inputs, made.outputs)]
    pairs = zip([*inputs, *outputs], [*told[0], *told[1]], strict=True)
    return made.graph.as_graph_def(), told[0], told[1], {new: names.get(old, old) for old, new in pairs}


def _for_inference(graph: Any, constants: bool = True) -> tuple[Any, list[str]]:
    """The graph without what old files get wrong; switches between training and inference set to inference."""
    made, notes = v1.GraphDef(), []
    made.CopyFrom(graph)
    kept = [node for node in made.node if not node.name.startswith("gradients")]
    gone = len(made.node) - len(kept)
    while gone:  # and what needs them, the optimiser's updates
        there = {node.name for node in kept}
        whole = [node for node in kept if all(name.lstrip("^").split(":")[0] in there for name in node.input)]
        gone, kept = len(kept) - len(whole), whole
    del made.node[:]
    made.node.extend(kept)
    for node in made.node:
        node.attr.pop("_output_shapes", None)
        node.device = ""
    if constants:
        for node in made.node:
            if said := _fixed(node, made):
                notes.append(f"the input {node.name}, which switches training on, {said}")
    return made, notes


def _fixed(node: Any, graph: Any) -> str:
    """Fix a switch of training, which no server could be asked with: to inference, or to its own default; in words."""
    if node.op not in ("Placeholder", "PlaceholderWithDefault"):
        return ""
    kind, told = node.attr["dtype"].type, node.attr["shape"].shape
    name = node.name.rpartition("/")[2].lower()
    if kind == tf.bool.as_datatype_enum:
        switch, value = not told.dim and (not told.unknown_rank or _steers(node.name, graph)), False
    else:
        switch, value = kind == tf.float32.as_datatype_enum and not told.dim and "keep_prob" in name, 1.0
    if not switch:
        return ""
    if node.op == "PlaceholderWithDefault":
        default = next((n for n in graph.node if n.name == node.input[0].split(":")[0] and n.op == "Const"), None)
        node.op = "Identity"
        node.attr.clear()
        node.attr["T"].type = kind
        return "keeps its default" + (f" {tf.make_ndarray(default.attr['value'].tensor)}" if default else "")
    node.op = "Const"
    del node.input[:]
    node.attr.clear()
    node.attr["dtype"].type = kind
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.as_dtype(kind), shape=[]))
    return f"is fixed to {value}"


def _steers(name: str, graph: Any) -> bool:
    """Whether a tensor decides a branch, as only a scalar can."""
    todo = [name]
    for name in todo:
        for node in graph.node:
            places = [place for place, given in enumerate(node.input) if given.split(":")[0] == name]
            if (node.op == "Switch" and 1 in places) or (node.op in ("If", "StatelessIf") and 0 in places):
                return True
            if places and node.op in ("Identity", "LogicalNot", "PlaceholderWithDefault") and node.name not in todo:
                todo.append(node.name)
    return False


def _outputs(graph: Any, path: str, asked: Sequence[str]) -> list[str]:
    """The asked tensors; else the last ones that hold a batch (axis 0 is free), else those that nothing uses."""
    if asked:
        return [_tensor(graph, name, path) for name in asked]
    reached: dict[str, Any] = {}
    for operation in graph.get_operations():
        fed = operation.type in ("Placeholder", "PlaceholderWithDefault")
        if fed or any(tensor.op.name in reached for tensor in operation.inputs):
            reached[operation.name] = operation
    for batched in (True, False):
        found = [o for o in reached.values() if _ends(o) and (_batched(o) or not batched)]
        leads: set[str] = set()  # to another one
        todo = [tensor.op for operation in found for tensor in operation.inputs]
        while todo:
            operation = todo.pop()
            if operation.name not in leads:
                leads.add(operation.name)
                todo += [tensor.op for tensor in operation.inputs]
        if last := [operation for operation in found if operation.name not in leads]:
            return [tensor.name for operation in last for tensor in operation.outputs]
    raise loop.Refused(
        f"{path} has no tensor that depends on an input and that nothing uses",
        "a graph with its outputs",
        "name them in the spec: outputs: [NODE, ...]",
        "SignatureError",
    )


def _batched(operation: Any) -> bool:
    shapes = [tensor.shape for tensor in operation.outputs]
    return any(shape.rank and shape[0] is None for shape in shapes)


def _ends(operation: Any) -> bool:
    return (
        bool(operation.outputs)
        and operation.type not in _NOT_OUTPUTS
        and "Summary" not in operation.type
        and operation.name.split("/")[0] not in _TRAINING
    )


def _tensor(graph: Any, name: str, path: str) -> str:
    try:
        return str(graph.get_tensor_by_name(name if ":" in name else name + ":0").name)
    except (KeyError, ValueError):
        near = difflib.get_close_matches(name, [o.name for o in graph.get_operations()], n=3)
        raise loop.Refused(
            f"outputs names '{name}', which {path} does not have",
            "names of its nodes" + (", for example " + ", ".join(near) if near else ""),
            "correct the name in the spec",
            "SpecError",
        ) from None


def _placeholders(graph: Any, outputs: list[str]) -> list[str]:
    """The inputs that the outputs depend on, in the order of the file."""
    seen: set[str] = set()
    todo = [graph.get_tensor_by_name(name).op for name in outputs]
    while todo:
        operation = todo.pop()
        if operation.name not in seen:
            seen.add(operation.name)
            todo += [tensor.op for tensor in operation.inputs]
    return [o.outputs[0].name for o in graph.get_operations() if o.type == "Placeholder" and o.name in seen]
