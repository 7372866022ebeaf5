"""torch.export programs (.pt2): described from their JSON without torch, loaded only after every member was checked."""

from __future__ import annotations

import functools
import importlib
import json
import re
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import SignatureError, SourceCorruptError, UnsupportedDtypeError, first_line
from repo_builder.formats import pt2_archive, signature, source_file
from repo_builder.formats.pt2_graph import Graph
from repo_builder.formats.torch_import import import_torch
from repo_builder.formats.torch_program import TorchProgram, output_names
from repo_builder.tensors import TensorSpec, dtype

NAME = "exported_program"
TAKES = "a torch.export program (.pt2)"

# Source: torch/_export/serde/schema.py: ScalarType.
_SCALARS = {
    **{1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64"},
    **{9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16"},
    **{29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz", 33: "float8_e8m0fnu"},
    **{34: "uint32", 35: "uint64"},
}
_SYMBOL = re.compile(r"Symbol\('(\w+)'[^()]*\)|(\w+)")


def matches(path: Path) -> bool:
    """By suffix."""
    return path.suffix.lower() == ".pt2"


def describe(path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
    """The artifact of a .pt2 file; torch is not imported.

    Symbolic dims bear the program's symbols (``s31``), which ``inputs`` may rename; an output dim that is computed
    from one is ``<output>_dim<axis>``. Outputs are named by their keys where the program returns a dict, else
    ``output`` or ``output_<i>``. Facts: ``torch_version``, ``schema_version``, ``opset_version``, ``ranges`` (symbol ->
    [min, max]), ``sizes`` (symbol -> size in the exported example), ``parameters``, ``parameter_bytes``.

    Raises:
        UnsafeSourceError: a member or a string in it would run code.
        SourceMissingError, SourceCorruptError: no whole .pt2 file.
        SignatureError: inputs or outputs that are not plain tensors, or ``inputs`` that contradict the file.
        UnsupportedDtypeError: a dtype that Triton lacks.
    """
    graph = pt2_archive.read(path)
    try:
        told, outputs, facts = _inputs(graph, path), _outputs(graph, path), _facts(graph)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise SourceCorruptError(
            f"{path} has a graph of another form ({type(error).__name__}: {error})",
            expected="the JSON that torch.export.save writes",
            mend="save the program again with the installed torch",
        ) from error
    given, became = signature.refine(told, inputs, path.name)
    outputs = tuple(TensorSpec(o.name, o.dtype, signature.apply(o.shape, became)) for o in outputs)
    for table in ("ranges", "sizes"):
        facts[table] = {became.get(s, s): v for s, v in facts[table].items() if isinstance(became.get(s, s), str)}
    return Artifact(path, NAME, given, outputs, files=(path.name,), facts=facts)


def load(artifact: Artifact) -> TorchProgram:
    """The ExportedProgram. The last two files are kept as long as they do not change.

    Raises:
        UnsafeSourceError, SourceCorruptError: as :func:`describe`; or torch does not load it.
    """
    torch = import_torch(artifact.path.name)

    from repo_builder.formats.examples import example_inputs

    signature.refuse_bf16(artifact.inputs, artifact.path.name)
    program = _program(str(artifact.path), source_file.stamp(artifact.folder, artifact.files))
    arrays = example_inputs(artifact.inputs, artifact.facts.get("sizes", {}))
    examples = tuple(torch.from_numpy(array) for array in arrays.values())
    return TorchProgram(program, "exported", artifact.inputs, tuple(o.name for o in artifact.outputs), examples)


def run(artifact: Artifact, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs by name, computed by PyTorch on the CPU.

    Raises:
        SignatureError: the arrays do not fit, or the model fails on them.
    """
    return load(artifact).run_named(inputs, artifact.path.name)


@functools.lru_cache(maxsize=2)
def _program(path: str, stamp: object) -> Any:  # noqa: ARG001 - part of the cache's key
    torch = import_torch(path)
    graph = pt2_archive.read(Path(path))
    try:
        if any("transformers." in call["signature"]["out_spec"] for call in graph.calls if call["signature"]):
            importlib.import_module("transformers.modeling_outputs")
        return torch.export.load(path)
    except Exception as error:
        raise SourceCorruptError(
            f"torch {torch.__version__} does not load {path}: {first_line(error)}",
            expected=TAKES,
            mend="save it again with the installed torch, or install the torch that wrote it",
        ) from error


def _inputs(graph: Graph, path: Path) -> tuple[TensorSpec, ...]:
    arguments = [s["user_input"]["arg"] for s in graph.signature["input_specs"] if "user_input" in s]
    root = graph.calls[0]["signature"]
    tree = json.loads(root["in_spec"])[1] if root else None
    positional, keywords = tree["children_spec"] if tree else ({}, {})
    if not tree or keywords["children_spec"] or any(child["type"] for child in positional["children_spec"]):
        raise SignatureError(
            f"{path.name} takes nested or keyword inputs",
            expected="positional tensors",
            mend="export a module whose forward takes each tensor as a positional argument",
        )
    names = root.get("forward_arg_names") or []
    if len(names) != len(arguments):
        names = [argument.get("as_tensor", {}).get("name", f"input_{i}") for i, argument in enumerate(arguments)]
    return tuple(_tensor(graph, n, a, path) for n, a in zip(names, arguments, strict=True))


def _outputs(graph: Graph, path: Path) -> tuple[TensorSpec, ...]:
    arguments = [s["user_output"]["arg"] for s in graph.signature["output_specs"] if "user_output" in s]
    arguments = [argument for argument in arguments if "as_none" not in argument]
    root = graph.calls[0]["signature"]
    tree = json.loads(root["out_spec"])[1]
    keys = json.loads(tree["context"] or "null")
    keyed = isinstance(keys, list) and all(isinstance(key, str) for key in keys) and len(keys) == len(arguments)
    names = tuple(keys) if keyed and keys else output_names(len(arguments))
    return tuple(_tensor(graph, n, a, path) for n, a in zip(names, arguments, strict=True))


def _tensor(graph: Graph, name: str, argument: Mapping[str, Any], path: Path) -> TensorSpec:
    if "as_tensor" not in argument:
        raise SignatureError(
            f"'{name}' of {path.name} is no tensor ({next(iter(argument), 'none').removeprefix('as_')})",
            expected="tensors alone: Triton serves nothing else",
            mend="make it a constant of the module, or a tensor",
        )
    meta = graph.tensors[argument["as_tensor"]["name"]]
    scalar = _SCALARS.get(meta["dtype"], f"ScalarType {meta['dtype']}")
    try:
        kind = dtype(scalar).triton
    except UnsupportedDtypeError as error:
        error.found = f"tensor '{name}' of {path.name} has dtype {scalar}, which Triton does not have"
        raise
    return TensorSpec(name, kind, tuple(_dim(name, axis, size) for axis, size in enumerate(meta["sizes"])))


def _dim(name: str, axis: int, size: Mapping[str, Any]) -> int | str:
    if "as_int" in size:
        return int(size["as_int"])
    found = _SYMBOL.fullmatch(size["as_expr"]["expr_str"])
    return (found[1] or found[2]) if found else f"{name}_dim{axis}"


def _facts(graph: Graph) -> dict[str, Any]:
    program = graph.program
    specs = graph.signature["input_specs"]
    names = [spec[kind]["arg"]["name"] for spec in specs for kind in spec if kind in ("parameter", "buffer")]
    weights = [graph.tensors[name] for name in names]
    counts = [prod(int(size["as_int"]) for size in weight["sizes"]) for weight in weights]
    sizes: dict[str, int] = {}
    for meta in graph.tensors.values():
        for size in meta["sizes"]:
            expression = size.get("as_expr") or {}
            found = _SYMBOL.fullmatch(expression.get("expr_str", ""))
            if found and expression.get("hint"):
                sizes[found[1] or found[2]] = int(expression["hint"]["as_int"])
    version = program["schema_version"]
    return {
        "torch_version": program.get("torch_version", ""),
        "schema_version": f"{version['major']}.{version['minor']}",
        "opset_version": dict(program["opset_version"]),
        "ranges": {s: [r["min_val"], r["max_val"]] for s, r in sorted(program["range_constraints"].items())},
        "sizes": dict(sorted(sizes.items())),
        "parameters": sum(counts),
        "parameter_bytes": sum(n * _item_bytes(w["dtype"]) for n, w in zip(counts, weights, strict=True)),
    }


def _item_bytes(scalar: int) -> int:
    bits = re.search(r"\d+", _SCALARS.get(scalar, ""))
    return max(1, int(bits.group()) // 8) if bits else 1
