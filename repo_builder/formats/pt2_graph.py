"""The JSON graph of a torch.export program: checked, because torch.export.load runs parts of it as Python.

What torch does with a graph (torch/_export/serde/serialize.py, torch/export/_unlift.py, torch/fx/graph.py): symbolic
expressions go through ``sympy.sympify``, which is ``eval``; guards and argument names become source code for ``exec``;
operator names are looked up below the ``torch`` module, ``torch.os`` included. So every string must have the form
that torch itself writes; one that has not is refused before torch sees it.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from repo_builder.errors import SourceCorruptError, UnsafeSourceError

_PLAIN = re.compile(r"[\w./:+@ -]*")
_IDENTIFIER = re.compile(r"\w*")
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|prim|quantized_decomposed|torchvision)\.(?P<op>\w+)(\.\w+)?"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|invert"
    r"|lshift|rshift|getitem)"
    r"|math\.(ceil|floor|trunc|sqrt|pow|log|log2|exp|sin|cos|tan|asin|acos|atan|sinh|cosh|tanh)"
    r"|torch\._?sym_\w+"
    r"|torch\.ops\.higher_order\.(cond|while_loop|map_impl|scan|associative_scan|wrap_with_set_grad_enabled"
    r"|wrap_with_autocast|flex_attention|invoke_subgraph|tag_activation_checkpoint)"
)
_FILE_OPS = {"save", "from_file", "load_tensor"}
_SYMPY_NAMES = """
Symbol Integer Float Rational Add Mul Pow Mod Max Min Abs And Or Not Eq Ne Lt Le Gt Ge Equality Unequality
StrictLessThan LessThan StrictGreaterThan GreaterThan Piecewise ExprCondPair floor ceiling true false oo
FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural
FloatPow FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat TruncToInt RoundToInt
RoundDecimal ToFloat Identity int_oo IntInfinity NegativeIntInfinity BooleanTrue BooleanFalse
"""
_SYMPY = set(_SYMPY_NAMES.split())
_GUARD_METHODS = {"size", "stride", "storage_offset", "dim", "item", "numel"}
_GUARD_NAMES = {"L", "math", "min", "max", "abs", "int", "float", "bool", "round", "inf"} | _SYMPY
_EXPRESSION = (
    *(ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.UnaryOp, ast.BinOp, ast.BoolOp),
    *(ast.Compare, ast.Tuple, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
_LEAVES = {"type", "context", "children_spec"}
_IMPORTING = {"collections.defaultdict", "collections.namedtuple"}
"""Structures whose context names a module that torch imports, or a class."""


class Graph:
    """A checked ``model.json``.

    Args:
        text: the JSON.
        where: what to call it in messages.

    Raises:
        SourceCorruptError: it is no exported program.
        UnsafeSourceError: a string in it is not of the form that torch writes.
    """

    def __init__(self, text: bytes, where: str) -> None:
        self.where = where
        try:
            self.program = json.loads(text)
            module = self.program["graph_module"]
            self.tensors: dict[str, Any] = module["graph"]["tensor_values"]
            self.signature: dict[str, Any] = module["signature"]
            self.calls: list[Any] = module["module_call_graph"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise SourceCorruptError(
                f"{where} is no exported program ({type(error).__name__}: {error})",
                expected="the JSON that torch.export.save writes",
                mend="save the program again with torch.export.save",
            ) from error
        self._walk(self.program, "")

    def _walk(self, value: Any, key: str) -> None:
        if isinstance(value, dict):
            for name, child in value.items():
                plain = _expression(name, _SYMPY) if key == "range_constraints" else bool(_PLAIN.fullmatch(name))
                self._require(plain, "key", name)
                if name not in ("metadata", "as_string", "as_strings"):
                    self._walk(child, name)
        elif isinstance(value, list):
            for child in value:
                self._walk(child, key)
        elif isinstance(value, str):
            self._string(value, key)

    def _string(self, value: str, key: str) -> None:
        if key in ("target", "as_operator"):
            found = _OPERATOR.fullmatch(value)
            self._require(bool(found and found["op"] not in _FILE_OPS), "operator", value)
        elif key == "expr_str":
            self._require(_expression(value, _SYMPY), "symbolic expression", value)
        elif key == "guards_code":
            self._require(_expression(value, _GUARD_NAMES, guard=True), "guard", value)
        elif key in ("in_spec", "out_spec"):
            self._require(_tree(value), "structure", value)
        elif key in ("name", "forward_arg_names"):
            self._require(bool(_IDENTIFIER.fullmatch(value)), "name", value)
        else:
            self._require(bool(_PLAIN.fullmatch(value)), f"value of {key}", value)

    def _require(self, fine: bool, what: str, value: str) -> None:
        if not fine:
            raise UnsafeSourceError(
                f"{self.where} holds the {what} {value[:80]!r}, which torch.export.load could run as Python code",
                expected="names, expressions and operators of PyTorch as torch.export.save writes them",
                mend="save the program again with torch.export.save; custom operators need a module.py:factory",
            )


def _expression(text: str, names: set[str], *, guard: bool = False) -> bool:
    """Whether a text is arithmetic over known names; in a guard also subscripts and sizes of the inputs ``L``."""
    if not text.isprintable() or "#" in text or "\\" in text:
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    methods = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)} if guard else set()
    for node in ast.walk(tree):
        if guard and isinstance(node, ast.Subscript):
            continue
        if guard and isinstance(node, ast.Attribute):
            of_math = isinstance(node.value, ast.Name) and node.value.id == "math"
            if id(node) not in methods or not (of_math or node.attr in _GUARD_METHODS) or node.attr.startswith("_"):
                return False
            continue
        if not isinstance(node, _EXPRESSION):
            return False
        if isinstance(node, ast.Name) and node.id not in names and not re.fullmatch(r"[suzf]+\d+", node.id):
            return False
        if isinstance(node, ast.Call) and not isinstance(node.func, (ast.Name, ast.Attribute)):
            return False
        if isinstance(node, ast.Constant) and not _plain_constant(node.value):
            return False
    return True


def _plain_constant(value: Any) -> bool:
    return value is None or isinstance(value, (int, float)) or (isinstance(value, str) and value.isidentifier())


def _tree(text: str) -> bool:
    """Whether a text is a pytree with plain keys, whose types are dotted names; torch takes registered ones alone."""
    try:
        version, root = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return False
    return isinstance(version, int) and _node(root)


def _node(node: Any) -> bool:
    if not isinstance(node, dict) or set(node) != _LEAVES or not isinstance(node["type"], (str, type(None))):
        return False
    kind = node["type"] or ""
    if not re.fullmatch(r"[\w.]*", kind) or kind in _IMPORTING:
        return False
    try:
        context = json.loads(node["context"]) if node["context"] else None
    except (ValueError, TypeError):
        return False
    children = node["children_spec"]
    return _plain_json(context) and isinstance(children, list) and all(_node(child) for child in children)


def _plain_json(context: Any) -> bool:
    """Whether a context is null, a number, or a list of plain keys; an object could name a module to import."""
    if isinstance(context, list):
        return all(_plain_json(item) for item in context)
    if isinstance(context, str):
        return bool(_PLAIN.fullmatch(context))
    return context is None or isinstance(context, (int, float))
