"""Calling a user's factory: one clear error with file and line of the user's code, never our traceback."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from repo_builder.errors import RepoBuilderError, SignatureError, SpecError, nearest

_RETURNS = "(module, example_inputs) or (module, example_inputs, dynamic_shapes)"


def call(file: Path, name: str) -> tuple[Any, Any, Any]:
    """What ``name()`` of ``file`` returns: a ``torch.nn.Module``, example inputs, dynamic shapes (None if left out).

    While the file runs, its folder is first on ``sys.path``, as if Python ran it.

    Raises:
        SpecError: it does not run, has no such function, or returns something else.
    """
    import torch

    owner = f"{file}:{name}"
    sys.path.insert(0, str(file.resolve().parent))
    try:
        module = guarded(lambda: _imported(file), file, f"{file} does not import")
        factory = getattr(module, name, None)
        if not callable(factory):
            own = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == module.__name__]
            raise SpecError(
                f"{file} has no function '{name}'{nearest(name, own)}",
                expected="one of " + ", ".join(own) if own else "a function " + name,
            )
        result = guarded(factory, file, f"{owner} fails")
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(file.resolve().parent))
    if not isinstance(result, tuple) or len(result) not in (2, 3) or not isinstance(result[0], torch.nn.Module):
        kinds = ", ".join(type(r).__name__ for r in result) if isinstance(result, tuple) else type(result).__name__
        raise SpecError(
            f"{owner} returns ({kinds})",
            expected=f"{_RETURNS}, with a torch.nn.Module first",
            mend="a factory of JAX stands in a file that imports jax or flax, and not torch",
        )
    return result[0], result[1], result[2] if len(result) == 3 else None


def guarded(action: Callable[[], Any], file: Path, what: str) -> Any:
    """The action's result.

    Raises:
        SpecError: the action raised; the message names the deepest line in the user's file and the error.
    """
    try:
        return action()
    except RepoBuilderError:
        raise
    except (Exception, SystemExit) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
        text = f"{type(error).__name__}: {lines[0]}".rstrip(": ")
        raise SpecError(
            f"{what}: {_place(error, file)}{text}", mend="run the file with Python and correct it"
        ) from error


def _place(error: BaseException, file: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        return f"line {error.lineno} of {error.filename}: "
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == file.resolve()]
    return f"line {frames[-1].lineno} ({frames[-1].line}): " if frames else ""


def _imported(file: Path) -> Any:
    name = f"repo_builder_factory_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def named_inputs(module: Any, examples: Any, owner: str) -> tuple[dict[str, Any], Any]:
    """The examples by the name of the forward's parameter, and the module to call with them by position.

    Args:
        module: the user's module.
        examples: a tensor, a tuple or list of tensors, or a dict of tensors by parameter name.
        owner: the factory, for messages.

    Raises:
        SignatureError: the examples do not fit the forward, or are not tensors.
    """
    import torch

    if isinstance(examples, torch.Tensor):
        examples = (examples,)
    if not isinstance(examples, (tuple, list, Mapping)):
        raise SignatureError(
            f"the example inputs of {owner} are {type(examples).__name__}", expected="a tuple or dict of tensors"
        )
    parameters = list(inspect.signature(module.forward).parameters.values())
    by_position = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    variadic = any(p.kind == p.VAR_POSITIONAL for p in parameters)
    if isinstance(examples, Mapping):
        named = {str(key): value for key, value in examples.items()}
    else:
        names = by_position + [f"input_{i}" for i in range(len(by_position), len(examples))] * variadic
        if len(examples) > len(names):
            raise SignatureError(
                f"{owner} gives {len(examples)} example inputs, forward takes {len(names)}: {', '.join(names)}",
                expected="at most one example for each parameter",
            )
        named = dict(zip(names, examples, strict=False))
    _check(named, parameters, owner)
    if not isinstance(examples, Mapping) or list(named) == by_position[: len(named)]:
        return named, module
    ordered = {p.name: named[p.name] for p in parameters if p.name in named} | named
    return ordered, _by_name(module, tuple(ordered))


def _check(named: Mapping[str, Any], parameters: list[inspect.Parameter], owner: str) -> None:
    import torch

    if not named:
        raise SignatureError(f"{owner} gives no example inputs", expected="one tensor for each parameter of forward")
    for name, value in named.items():
        if not isinstance(value, torch.Tensor):
            raise SignatureError(
                f"the example of '{name}' in {owner} is {type(value).__name__}",
                expected="a torch.Tensor",
                mend="set what is not a tensor in the module itself",
            )
    known = [p.name for p in parameters]
    loose = any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)
    for name in named:
        if name not in known and not loose:
            raise SignatureError(
                f"forward of {owner} has no parameter '{name}'{nearest(name, known)}",
                expected="one of " + ", ".join(known),
            )
    for parameter in parameters:
        needed = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if needed and parameter.name not in named:
            raise SignatureError(
                f"{owner} gives no example for the parameter '{parameter.name}' of forward",
                expected="an example for " + ", ".join(known),
            )


def _by_name(module: Any, names: tuple[str, ...]) -> Any:
    import torch

    class ByName(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *inputs: Any) -> Any:
            return self.module(**dict(zip(names, inputs, strict=True)))

    return ByName().eval()
