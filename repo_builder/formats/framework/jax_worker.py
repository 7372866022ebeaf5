"""JAX: a factory of the user's gives a callable and example inputs; jax2onnx converts it.

``options``: ``factory``, the function's name. It returns ``(callable, examples)`` or ``(callable, examples, axes)``:
a JAX function, a flax nnx module or a bound linen module; arrays by position or by name; for every input the names of
its free axes (``{"x": {0: "batch"}}``).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import loop
import numpy as np

_NAMES = {"float32": "FP32", "float64": "FP64", "float16": "FP16", "bfloat16": "BF16", "bool": "BOOL"}
_NAMES.update({f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)})
_RETURNS = "(callable, examples) or (callable, examples, axes)"
_AXES = "for example {'x': {0: 'batch'}}: a name for every free axis of an input"


class Model:
    """What the factory gave: ``call(*arrays)``, and its inputs as JAX traces them."""

    def __init__(self, owner: str, call: Callable[..., Any], inputs: dict[str, Any], notes: list[str]) -> None:
        self.owner, self.call, self.inputs, self.notes = owner, call, inputs, notes
        self.jitted = jax.jit(lambda *arrays: jax.tree.leaves(call(*arrays)))


def open_model(source: str, kind: str, options: dict[str, Any]) -> Model:  # noqa: ARG001  one kind
    """Run the factory."""
    file, name = Path(source), options["factory"]
    owner = f"{file}:{name}"
    result = _called(file, name)
    if not isinstance(result, tuple) or len(result) not in (2, 3) or not callable(result[0]):
        given = ", ".join(type(r).__name__ for r in result) if isinstance(result, tuple) else type(result).__name__
        raise loop.Refused(f"{owner} returns ({given})", expected=_RETURNS, error="SpecError")
    target = _ready(result[0], owner)
    named, call = _examples(target, result[1], owner)
    notes: list[str] = []
    inputs = {one: _array(one, value, owner, notes) for one, value in named.items()}
    axes = _axes(result[2] if len(result) == 3 else None, inputs, owner)
    return Model(owner, call, _symbolic(inputs, axes, owner), notes)


def describe(model: Model) -> dict[str, Any]:
    """Outputs are found by tracing with every free axis open."""
    try:
        made = jax.eval_shape(lambda *arrays: model.call(*arrays), *model.inputs.values())
    except Exception as error:
        traceback.print_exc()
        raise loop.Refused(
            f"JAX does not trace {model.owner} with {_told(model.inputs)}: {_words(error)}",
            expected="a function that jax.jit takes at every size of its free axes",
            mend="give the axis that does not fit one size; evaluation mode for dropout and batch normalization; "
            "jax.lax.cond in place of `if` on an array",
            error="SignatureError",
        ) from error
    leaves, _ = jax.tree_util.tree_flatten_with_path(made)
    outputs = [_tensor(_output(path, place, len(leaves)), leaf, model) for place, (path, leaf) in enumerate(leaves)]
    inputs = [_tensor(name, spec, model) for name, spec in model.inputs.items()]
    versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "jax2onnx")}
    return {"inputs": inputs, "outputs": outputs, "versions": versions, "notes": model.notes}


def convert(model: Model, path: str, opset: int) -> dict[str, Any]:
    """jax2onnx's file, flat outputs in JAX's order."""
    import jax.numpy

    own = dict(vars(jax.numpy))
    import jax2onnx
    from jax2onnx.plugins import plugin_system

    plugin_system.import_all_plugins()
    for name, value in own.items():  # its cumsum would stay in place of JAX's, and takes no axis by position
        setattr(jax.numpy, name, value)
    plugin_system.apply_patches = _by_name(plugin_system.apply_patches)
    jax2onnx.to_onnx(
        lambda *arrays: tuple(jax.tree.leaves(model.call(*arrays))),
        inputs=list(model.inputs.values()),
        model_name="model",
        opset=opset,
        enable_double_precision=bool(jax.config.jax_enable_x64),
        return_mode="file",
        output_path=path,
    )
    return {"notes": []}


def run(model: Model, arrays: list[Any]) -> list[Any]:
    """JAX's own answers on the CPU."""
    return [np.asarray(leaf) for leaf in model.jitted(*arrays)]


def _called(file: Path, name: str) -> Any:
    sys.path.insert(0, str(file.parent))
    spec = importlib.util.spec_from_file_location(f"repo_builder_factory_{file.stem}", file)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    loader = spec.loader
    _guarded(lambda: loader.exec_module(module), file, f"{file} does not import")
    factory = getattr(module, name, None)
    if not callable(factory):
        own = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
        raise loop.Refused(
            f"{file} has no function '{name}'",
            expected="one of " + ", ".join(own) if own else f"a function {name}",
            error="SpecError",
        )
    return _guarded(factory, file, f"{file}:{name} fails")


def _guarded(action: Callable[[], Any], file: Path, what: str) -> Any:
    try:
        return action()
    except loop.Refused:
        raise
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
        place = f"line {frames[-1].lineno} ({frames[-1].line}): " if frames else ""
        if isinstance(error, SyntaxError) and error.filename:
            place = f"line {error.lineno} of {error.filename}: "
        mend = "run the file with Python and correct it"
        if isinstance(error, ModuleNotFoundError):
            mend = (
                "name the package that has it at the top of the file: "
                f'# /// script, # dependencies = ["{error.name}"], # ///, each on a line of its own'
            )
        raise loop.Refused(
            f"{what}: {place}{_words(error)}",
            expected="a file that runs beside JAX, in an environment of its own",
            mend=mend,
            error="SpecError",
        ) from error


def _words(error: BaseException) -> str:
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said}".rstrip(": ")[:600]


def _ready(target: Any, owner: str) -> Any:
    """The callable in evaluation mode."""
    from flax import linen, nnx

    if isinstance(target, type):
        raise loop.Refused(
            f"{owner} returns the class {target.__name__}", expected=_RETURNS, mend="make one of it", error="SpecError"
        )
    if isinstance(target, linen.Module) and target.scope is None:
        raise loop.Refused(
            f"{owner} returns a linen module without its variables",
            expected=_RETURNS,
            mend="return module.bind(variables), or lambda x: module.apply(variables, x)",
            error="SpecError",
        )
    if isinstance(target, nnx.Module):
        target.eval()
    return target


def _examples(target: Any, examples: Any, owner: str) -> tuple[dict[str, Any], Callable[..., Any]]:
    """The examples by the name of the parameter, and what takes them by position."""
    if hasattr(examples, "dtype"):
        examples = (examples,)
    if not isinstance(examples, (tuple, list, Mapping)) or not examples:
        raise _misfit(f"the examples of {owner} are {type(examples).__name__}", "a tuple or dict of arrays")
    parameters = list(inspect.signature(target).parameters.values())
    try:
        keywords = examples if isinstance(examples, Mapping) else {}
        inspect.signature(target).bind(*([] if keywords else examples), **keywords)
    except TypeError as error:
        known = ", ".join(p.name for p in parameters)
        raise _misfit(f"the examples of {owner} do not fit its parameters ({error})", f"values for {known}") from error
    if isinstance(examples, Mapping):
        names = tuple(map(str, examples))
        return dict(examples), lambda *arrays: target(**dict(zip(names, arrays, strict=True)))
    by_position = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    by_position += [f"input_{i}" for i in range(len(by_position), len(examples))]
    return dict(zip(by_position, examples, strict=False)), target


def _array(name: str, value: Any, owner: str, notes: list[str]) -> Any:
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        raise _misfit(
            f"the example of '{name}' in {owner} is {type(value).__name__}",
            "an array",
            "bind what is no array (functools.partial), and give nested arrays as inputs of their own",
        )
    dtype = value.dtype
    if str(dtype) in _NAMES:
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    if dtype != value.dtype:
        notes.append(f"{name} is {value.dtype} in the example and {dtype} in JAX: jax_enable_x64 is not set")
    return jax.ShapeDtypeStruct(value.shape, dtype)


def _axes(told: Any, inputs: dict[str, Any], owner: str) -> dict[str, dict[int, str]]:
    """For each input the names of its free axes; those of symbolic shapes in the examples are their own."""
    if isinstance(told, (tuple, list)) and len(told) <= len(inputs):
        told = dict(zip(inputs, told, strict=False))
    if told is not None and not (isinstance(told, Mapping) and set(told) <= set(inputs)):
        raise _misfit(f"the axes of {owner} are {told!r}", "by the inputs " + ", ".join(inputs), _AXES)
    found: dict[str, dict[int, str]] = {}
    for name, spec in inputs.items():
        entry = (told or {}).get(name) or {}
        entry = dict(enumerate(entry)) if isinstance(entry, (tuple, list)) else entry
        if not isinstance(entry, Mapping) or not all(isinstance(a, int) and 0 <= a < len(spec.shape) for a in entry):
            raise _misfit(f"the axes of '{name}' in {owner} are {entry!r}", f"axes of {list(spec.shape)}", _AXES)
        own = {axis: str(size) for axis, size in enumerate(spec.shape) if not isinstance(size, int)}
        found[name] = {**own, **{axis: str(called) for axis, called in entry.items() if called is not None}}
        for called in found[name].values():
            if not called.isidentifier():
                raise _misfit(f"an axis of '{name}' in {owner} is called {called!r}", "a name of letters and _", _AXES)
    return found


def _symbolic(inputs: dict[str, Any], axes: dict[str, dict[int, str]], owner: str) -> dict[str, Any]:
    scope, made = jax.export.SymbolicScope(), {}
    sizes: dict[str, Any] = {}
    for name, spec in inputs.items():
        dims = [axes[name].get(axis, size) for axis, size in enumerate(spec.shape)]
        for dim, size in zip(dims, spec.shape, strict=True):
            if isinstance(dim, str) and isinstance(size, int) and sizes.setdefault(dim, size) != size:
                raise _misfit(f"the examples of {owner} give '{dim}' both {sizes[dim]} and {size}", "one size")
        shape = jax.export.symbolic_shape(", ".join(map(str, dims)) + ",", scope=scope) if dims else ()
        made[name] = jax.ShapeDtypeStruct(shape, spec.dtype)
    return made


def _output(path: Any, place: int, count: int) -> str:
    parts = [str(getattr(step, "key", getattr(step, "name", getattr(step, "idx", place)))) for step in path]
    if parts and not parts[-1].isdigit():
        return "_".join(parts)
    return "output" if count == 1 else f"output_{place}"


def _tensor(name: str, spec: Any, model: Model) -> dict[str, Any]:
    if str(spec.dtype) not in _NAMES:
        raise loop.Refused(
            f"'{name}' of {model.owner} is {spec.dtype}",
            expected="a dtype that Triton has: " + ", ".join(_NAMES),
            mend="keep it inside the function (a random key), or give its parts (real and imaginary)",
            error="UnsupportedDtypeError",
        )
    free = [d if isinstance(d, int) else str(d) if str(d).isidentifier() else f"{name}_dim{a}" for a, d in
            enumerate(spec.shape)]  # fmt: skip
    return {"name": name, "dtype": _NAMES[str(spec.dtype)], "shape": free}


def _told(inputs: dict[str, Any]) -> str:
    return ", ".join(f"{name} {spec.dtype}[{', '.join(map(str, spec.shape))}]" for name, spec in inputs.items())


def _misfit(found: str, expected: str, mend: str = "") -> loop.Refused:
    return loop.Refused(found, expected=expected, mend=mend, error="SignatureError")


def _by_name(apply: Callable[..., Any]) -> Callable[..., Any]:
    """jax2onnx's patches of functions (max_pool, avg_pool) take by keyword what the functions take by position too."""

    def taking(original: Any, patched: Any) -> Any:
        def call(first: Any, *more: Any, **named: Any) -> Any:
            names = list(inspect.signature(original).parameters)[1:]
            return patched(first, **dict(zip(names, more, strict=False)), **named)

        return call

    def mended(specs: list[Any]) -> Any:
        for spec in specs:
            if spec.attr in ("max_pool", "avg_pool", "min_pool") and hasattr(spec, "make_value"):
                spec.make_value = lambda original, make=spec.make_value: taking(original, make(original))
        return apply(specs)

    return mended


if __name__ == "__main__":
    loop.main(open_model, describe, convert, run)
