"""Strings of a torch.export graph: those that torch writes pass, those that would run do not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from repo_builder.errors import SourceCorruptError, UnsafeSourceError
from repo_builder.formats.pt2_graph import Graph

TREE = '[1, {"type": "builtins.tuple", "context": "null", "children_spec": []}]'


def program(**changes: Any) -> bytes:
    """A small program; ``changes`` set one of its strings."""
    size = {"as_expr": {"expr_str": changes.get("expr_str", "Symbol('s0', positive=True)"), "hint": None}}
    node = {"target": changes.get("target", "torch.ops.aten.relu.default"), "inputs": [], "metadata": {"a": "x = 'y'"}}
    root = {"in_spec": TREE, "out_spec": changes.get("out_spec", TREE), "forward_arg_names": [changes.get("name", "x")]}
    value = {
        "graph_module": {
            "graph": {"nodes": [node], "tensor_values": {"x": {"sizes": [size]}}},
            "signature": {},
            "module_call_graph": [{"fqn": "", "signature": root}],
        },
        "range_constraints": {changes.get("range", "s0"): {}},
        "guards_code": [changes.get("guards_code", "True")],
    }
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target", "torch.ops.aten.__and__.Tensor"),
        ("target", "_operator.floordiv"),
        ("target", "torch.ops.higher_order.cond"),
        ("target", "torch.sym_max"),
        ("expr_str", "s0"),
        ("expr_str", "FloorDiv(Symbol('s27', positive=True, integer=True), Integer(2))"),
        ("expr_str", "2*s0 + 1"),
        ("range", "2*s39"),
        ("guards_code", "(L['x'].size()[1] % 2) == 0"),
        ("guards_code", "not (L['x'].size()[1] // 2) != 1"),
        ("out_spec", '[1, {"type": "transformers.X", "context": "[\\"a\\", \\"b\\"]", "children_spec": []}]'),
    ],
)
def test_what_torch_writes_passes(key: str, value: str) -> None:
    Graph(program(**{key: value}), "m.pt2")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target", "torch.os.system"),
        ("target", "torch.ops.load_library"),
        ("target", "torch.ops.aten.save.default"),
        ("target", "torch.ops.aten.from_file.default"),
        ("target", "torch.ops.my_lib.op.default"),
        ("target", "torch.ops.aten.relu.default.__globals__"),
        ("target", "#extension"),
        ("target", "_operator.methodcaller"),
        ("expr_str", "__import__('os').system('id')"),
        ("expr_str", "Symbol('s0').__class__"),
        ("expr_str", "Add('__import__(1)', 1)"),
        ("expr_str", "[c for c in ()]"),
        ("expr_str", "(lambda: 1)()"),
        ("expr_str", "f'{1}'"),
        ("expr_str", "exec"),
        ("expr_str", "s0\n"),
        ("expr_str", "("),
        ("range", "__import__('os')"),
        ("guards_code", "__import__('os').system('id')"),
        ("guards_code", "L['x'].__class__"),
        ("guards_code", "L['x'].size.__globals__"),
        ("guards_code", "L['x'].size()[open('x')]"),
        ("guards_code", "True)\n  import os"),
        ("name", "x=print()"),
        ("out_spec", '[1, {"type": "collections.defaultdict", "context": "null", "children_spec": []}]'),
        ("out_spec", '[1, {"type": "builtins.dict", "context": "{\\"__enum__\\": 1}", "children_spec": []}]'),
        ("out_spec", '[1, {"type": "builtins.dict", "context": "[\\"a\\\\\\"b\\"]", "children_spec": []}]'),
    ],
)
def test_what_torch_would_run_is_refused(key: str, value: str) -> None:
    with pytest.raises(
        UnsafeSourceError, match=r"m.pt2 holds the .*, which torch.export.load could run as Python code"
    ):
        Graph(program(**{key: value}), "m.pt2")


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b"\xff", b'{"graph_module": 3}'])
def test_what_is_no_program(text: bytes) -> None:
    with pytest.raises(SourceCorruptError, match=r"m.pt2 is no exported program"):
        Graph(text, "m.pt2")
