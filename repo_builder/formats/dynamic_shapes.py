"""``dynamic_shapes`` in the forms of ``torch.export.export``, read as a name for each dynamic axis of each input.

Source: the docstring of ``torch.export.export``: by parameter name or position; per axis a ``Dim``, a hint
(``Dim.AUTO``, ``Dim.DYNAMIC``, ``Dim.STATIC``), an int or None; or a ``ShapesCollection``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from repo_builder.errors import SignatureError

_EXPECTED = "what torch.export.export takes: {'x': {0: Dim('batch')}} or ({0: Dim('batch')}, None)"


def axis_names(shapes: Any, inputs: Sequence[str], module: Any, owner: str) -> dict[str, dict[int, str]]:
    """For each input the names of its dynamic axes.

    Args:
        shapes: the user's ``dynamic_shapes``; None means that all is static.
        inputs: names of the inputs in order.
        module: the module, whose forward's ``*args`` parameter may be a key of ``shapes``.
        owner: the factory, for messages.

    Raises:
        SignatureError: another form, an unknown input, or two names for one.
    """
    if shapes is None:
        return {name: {} for name in inputs}
    if isinstance(shapes, Mapping):
        by_input = _variadic(dict(shapes), inputs, module)
        for name in by_input:
            if name not in inputs:
                raise _wrong(f"names '{name}', which is no input", owner, "the inputs " + ", ".join(inputs))
    elif isinstance(shapes, (tuple, list)):
        if len(shapes) > len(inputs):
            raise _wrong(f"has {len(shapes)} entries for {len(inputs)} inputs", owner)
        by_input = dict(zip(inputs, shapes, strict=False))
    else:
        raise _wrong(f"is a {type(shapes).__name__}", owner)
    return {name: _axes(by_input.get(name), name, owner) for name in inputs}


def _variadic(shapes: dict[str, Any], inputs: Sequence[str], module: Any) -> dict[str, Any]:
    import inspect

    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind == parameter.VAR_POSITIONAL and isinstance(shapes.get(parameter.name), (tuple, list)):
            entries = shapes.pop(parameter.name)
            shapes.update(zip([n for n in inputs if n not in shapes][-len(entries) :], entries, strict=False))
    return shapes


def _axes(entry: Any, name: str, owner: str) -> dict[int, str]:
    if entry is None:
        return {}
    if isinstance(entry, (tuple, list)):
        entry = dict(enumerate(entry))
    if not isinstance(entry, Mapping) or not all(isinstance(axis, int) and axis >= 0 for axis in entry):
        raise _wrong(f"says {entry!r} of '{name}'", owner)
    named = {axis: _dim(dim, name, axis, owner) for axis, dim in entry.items()}
    return {axis: dim for axis, dim in named.items() if dim}


def _dim(dim: Any, name: str, axis: int, owner: str) -> str:
    if dim is None or isinstance(dim, int):
        return ""
    if isinstance(dim, str):
        return dim
    hint = getattr(getattr(dim, "type", None), "name", "") or getattr(dim, "name", "")
    if hint in ("AUTO", "DYNAMIC"):
        return f"{name}_dim{axis}"
    if hint == "STATIC":
        return ""
    called = getattr(dim, "__name__", None)
    if not isinstance(called, str):
        raise _wrong(f"says {dim!r} of axis {axis} of '{name}'", owner)
    return called


def _wrong(what: str, owner: str, expected: str = _EXPECTED) -> SignatureError:
    return SignatureError(f"dynamic_shapes of {owner} {what}", expected=expected)
