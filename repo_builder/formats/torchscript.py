"""TorchScript files (.pt): the archive is looked at before torch opens it; dtypes and shapes come from the user."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import SignatureError, SourceCorruptError, UnsafeSourceError, first_line, nearest
from repo_builder.formats import output_shapes, pickle_scan, signature, source_file
from repo_builder.formats.torch_archive import TorchArchive
from repo_builder.formats.torch_import import import_torch
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.tensors import TensorSpec

NAME = "torchscript"
TAKES = "a TorchScript file (.pt)"
_GAP = r"(?:[\s\\]|#[^\n]*\n)*"
_FILE_OPS = re.compile(rf"\.{_GAP}(save|from_file|load_tensor)\b")
_GETATTR = re.compile(r"getattr\s*\((?![^)]*,\s*[\"'][\w.\-]*[\"']\s*\))|[\"'](?:save|from_file|load_tensor)[\"']\s*\)")
_SCRIPTED = re.compile(
    r"__torch__\..+|torch\.jit\._pickle\.\w+|torch\._utils\._rebuild_\w+|torch\.(\w+Storage|q\w*int\w+|per_\w+_affine\w*)"
)
"""Names in the pickles of a TorchScript archive: its own classes and what rebuilds tensors. torch reads these in C++,
where nothing but the program's classes and tensors can be made."""
_CONVENTION = re.compile(r".+__(\d+)")
_EXPORT = "save it with torch.export.save (.pt2) or torch.jit.save, or name a module.py:factory that builds the module"


def matches(path: Path) -> bool:
    """By suffix."""
    return path.suffix.lower() == ".pt"


def describe(path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
    """The artifact of a TorchScript file; its outputs (``OUTPUT__0``, ...) are found by running it.

    ``inputs`` are named as the forward's arguments, or ``<name>__<index>`` by position. Facts: ``arguments``,
    ``takes`` and ``returns`` (their types), ``sizes`` (sizes of the symbolic dims that were tried and work),
    ``parameters``, ``parameter_bytes``.

    Raises:
        UnsafeSourceError: a pickle, or a program with operators that read or write files.
        SourceCorruptError: a state_dict, a torch.export program, a truncated or foreign file.
        SignatureError: no ``inputs``, or inputs that do not fit the forward.
    """
    check(path)
    stamp = source_file.stamp(path.parent, [path.name])
    module = _module(str(path), stamp)
    arguments = _arguments(module, path)
    specs = _ordered(arguments, inputs, path)
    signature.refuse_bf16(specs, path.name)
    program = TorchProgram(module, "script", specs, (), ())
    sizes = output_shapes.working_sizes(program, path.name)
    count = len(output_shapes.run(program, sizes, path.name))
    names = [f"OUTPUT__{i}" for i in range(count)]
    weights = [*module.parameters(), *module.buffers()]
    facts = {
        "arguments": arguments,
        "takes": [str(argument.type) for argument in module.forward.schema.arguments[1:]],
        "returns": str(module.forward.schema.returns[0].type),
        "sizes": sizes,
        "parameters": sum(int(w.numel()) for w in weights),
        "parameter_bytes": sum(int(w.numel()) * int(w.element_size()) for w in weights),
    }
    outputs = output_shapes.find_outputs(program, names, sizes, path.name)
    return Artifact(path, NAME, specs, outputs, files=(path.name,), facts=facts)


def load(artifact: Artifact) -> TorchProgram:
    """The ScriptModule in eval mode on the CPU. The last two files are kept as long as they do not change.

    Raises:
        UnsafeSourceError, SourceCorruptError: as :func:`describe`.
    """
    import torch

    from repo_builder.formats.examples import example_inputs

    stamp = source_file.stamp(artifact.folder, artifact.files)
    arrays = example_inputs(artifact.inputs, artifact.facts.get("sizes", {}))
    examples = tuple(torch.from_numpy(array) for array in arrays.values())
    outputs = tuple(spec.name for spec in artifact.outputs)
    return TorchProgram(_module(str(artifact.path), stamp), "script", artifact.inputs, outputs, examples)


def run(artifact: Artifact, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs by name, computed by PyTorch on the CPU.

    Raises:
        SignatureError: the arrays do not fit, or the model fails on them.
    """
    return load(artifact).run_named(inputs, artifact.path.name)


def check(path: Path) -> None:
    """Check a ``.pt`` file without torch. See :func:`describe` for the errors."""
    source_file.refuse_stand_ins(path)
    with open(path, "rb") as handle:
        head = handle.read(2)
    if head[:1] == b"\x80":
        _refuse_pickle(path, _legacy_names(path))
    with TorchArchive(path, str(path)) as archive:
        if any(name in archive for name in ("archive_format", "serialized_exported_program.json")):
            raise SourceCorruptError(
                f"{path} is a torch.export program, not TorchScript", expected=TAKES, mend="rename it to .pt2"
            )
        if any(name in archive for name in (".data/extern_modules", ".data/python_version")):
            raise UnsafeSourceError(f"{path} is a torch.package: it brings Python code", expected=TAKES, mend=_EXPORT)
        if "constants.pkl" not in archive or not archive.under("code/"):
            if "data.pkl" in archive:
                _refuse_pickle(path, archive.pickled_names())
            raise SourceCorruptError(f"{path} is a zip archive, but no TorchScript", expected=TAKES, mend=_EXPORT)
        archive.check_pickles(_scripted)
        for name in archive.under("code/"):
            if name.endswith(".py"):
                _check_code(archive.read(name).decode("utf-8", "replace"), f"{path}:{name}")


def _scripted(name: str) -> bool:
    return bool(_SCRIPTED.fullmatch(name)) or pickle_scan.tensors_only(name)


def _check_code(code: str, where: str) -> None:
    found = _FILE_OPS.search(code) or _GETATTR.search(code)
    if found:
        raise UnsafeSourceError(
            f"{where} uses '{found.group().strip()}': TorchScript operators of that name read or write files",
            expected="a program that only computes",
            mend="export the model again without it",
        )


def _legacy_names(path: Path) -> list[str]:
    with open(path, "rb") as handle:
        first = pickle_scan.names(handle, str(path))
        try:
            return first + [name for _ in range(4) for name in pickle_scan.names(handle, str(path))]
        except SourceCorruptError:
            return first


def _refuse_pickle(path: Path, names: list[str]) -> None:
    code = [name for name in names if not pickle_scan.tensors_only(name)]
    if code:
        raise UnsafeSourceError(
            f"{path} is a pickled Python object, no program: loading it would run {code[0]}",
            expected=TAKES,
            mend=_EXPORT,
        )
    raise SourceCorruptError(
        f"{path} holds tensors alone (a state_dict), without the model that uses them",
        expected=TAKES,
        mend="name a module.py:factory that builds the module and loads this state_dict",
    )


@functools.lru_cache(maxsize=2)
def _module(path: str, stamp: object) -> Any:  # noqa: ARG001 - part of the cache's key
    torch = import_torch(path)
    check(Path(path))
    try:
        return torch.jit.load(path, map_location="cpu").eval()
    except Exception as error:
        raise SourceCorruptError(
            f"torch {torch.__version__} does not load {path}: {first_line(error)}",
            expected=TAKES,
            mend="save it again with the installed torch, or install the torch that wrote it",
        ) from error


def _arguments(module: Any, path: Path) -> list[str]:
    needed = [a for a in module.forward.schema.arguments[1:] if not a.has_default_value()]
    for argument in needed:
        if str(argument.type) != "Tensor":
            raise SignatureError(
                f"argument '{argument.name}' of {path.name} is {argument.type}",
                expected="tensors alone",
                mend="script a module whose forward takes each tensor as an argument of its own",
            )
    return [argument.name for argument in module.forward.schema.arguments[1:]]


def _ordered(arguments: list[str], given: Sequence[TensorSpec], path: Path) -> tuple[TensorSpec, ...]:
    if not given:
        raise SignatureError(
            "TorchScript files carry no dtypes or shapes; add `inputs:` to the spec",
            expected=f"dtype and shape of {', '.join(arguments)} ({path.name})",
            mend="for example: inputs: [{name: "
            + (arguments[0] if arguments else "x")
            + ", dtype: FP32, shape: [batch, 4]}]",
        )
    names = [spec.name for spec in given]
    by_index = [_CONVENTION.fullmatch(name) for name in names]
    if all(by_index) and not set(names) & set(arguments):
        place = {spec.name: int(m.group(1)) for spec, m in zip(given, by_index, strict=True) if m}
    else:
        for name in names:
            if name not in arguments:
                raise SignatureError(
                    f"`inputs:` names '{name}', no argument of {path.name}{nearest(name, arguments)}",
                    expected="the arguments " + ", ".join(arguments) + ", or <name>__<index> by position",
                )
        place = {name: arguments.index(name) for name in names}
    if sorted(place.values()) != list(range(len(given))) or len(given) > len(arguments):
        raise SignatureError(
            f"`inputs:` gives {', '.join(names)} for {path.name}",
            expected="each of the arguments once, in order from the first: " + ", ".join(arguments),
        )
    return tuple(sorted(given, key=lambda spec: place[spec.name]))
