"""MXNet: ``NAME-symbol.json`` with ``NAME-0000.params``, looked at here without MXNet; MXNet itself runs them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact, file_digest
from repo_builder.errors import SignatureError, SourceMissingError, nearest
from repo_builder.formats import framework_process, mxnet_params, mxnet_symbol, source_file
from repo_builder.formats.framework_names import legal
from repo_builder.formats.framework_process import Framework, Progress
from repo_builder.formats.mxnet_symbol import Variable
from repo_builder.tensors import TensorSpec

NAME = "mxnet"
TAKES = "an MXNet model (NAME-symbol.json with NAME-0000.params beside it, or a folder with such a pair)"
# numpy 1.24 and onnx 1.19 removed names that MXNet 1.9.1, the last of all, uses.
FRAMEWORK = Framework(
    "mxnet-1.9.1", ("mxnet==1.9.1", "numpy==1.23.5", "onnx==1.18.0", "protobuf==4.25.8"), "mxnet_worker.py", opset=13
)
RUNTIME = "MXNet 1.9.1 on the CPU, in a process of its own"
_SYMBOL, _PARAMS = "-symbol.json", ".params"
_EPOCH = re.compile(r"-(\d{4,})\.params$")


def matches(path: Path) -> bool:
    """By the end of the name; a folder by having a file of either kind."""
    if path.is_dir():
        return any(path.glob("*" + _SYMBOL)) and any(path.glob("*" + _PARAMS))
    return path.name.endswith((_SYMBOL, _PARAMS))


def describe(path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
    """The artifact of a pair; ``path`` becomes the symbol's. Outputs are told by ``opened``.

    Facts: ``kind``, ``options`` (for the worker), ``params``, ``layers``, ``parameters``, ``inputs`` (their names).

    Args:
        inputs: needed where the symbol does not tell the shapes of its inputs, as most do not.

    Raises:
        SourceMissingError, SourceCorruptError: a file is missing, truncated, or does not fit the other.
        UnsafeSourceError: an operator that runs code from outside.
        SignatureError: ``inputs`` name what the symbol does not have.
    """
    symbol, params = pair(path)
    nodes = mxnet_symbol.read(symbol)
    shapes = mxnet_params.read(params)
    found, labels = mxnet_symbol.split(nodes, shapes, symbol, params)
    told = [_told(variable, place, inputs) for place, variable in enumerate(found)]
    served = [legal(variable.name, f"input_{place}") for place, variable in enumerate(found)]
    for given in inputs:
        if given.name not in served:
            raise SignatureError(
                f"`inputs:` names '{given.name}', which {symbol.name} does not have{nearest(given.name, served)}",
                expected="one of " + ", ".join(served),
            )
    options = {
        "params": params.name,
        "digest": file_digest(params),
        "labels": list(labels),
        "inputs": [{"name": n, "dtype": s.dtype, "shape": list(s.shape)} for n, s in told if s],
    }
    facts = {
        "kind": NAME,
        "options": options,
        "params": params.name,
        "layers": sum(node.op != "null" for node in nodes),
        "parameters": sum(int(np.prod(shape, dtype=object)) for shape in shapes.values()),
        "inputs": served,
    }
    known = tuple(spec for _, spec in told if spec)
    return Artifact(symbol, NAME, known, files=(symbol.name, params.name), facts=facts)


def opened(artifact: Artifact, progress: Progress | None = None) -> Artifact:
    """The artifact with the outputs that MXNet tells.

    Raises:
        SignatureError: an input's shape is not known, or MXNet does not take it.
        ToolchainError, FrameworkError: MXNet's environment, or its process.
    """
    known = [spec.name for spec in artifact.inputs]
    if unknown := [name for name in artifact.facts["inputs"] if name not in known]:
        raise SignatureError(
            f"{artifact.path.name} does not tell the shape of its input {', '.join(map(repr, unknown))}",
            expected="`inputs:` of the spec with the name, dtype and shape of every input",
            mend=f"for images of 224 pixels: {{name: {unknown[0]}, dtype: FP32, shape: [batch, 3, 224, 224]}}",
        )
    return framework_process.opened(FRAMEWORK, artifact, progress)


def run(artifact: Artifact, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """MXNet's own answers by name."""
    return framework_process.of(FRAMEWORK, artifact).run(inputs)


def pair(path: Path) -> tuple[Path, Path]:
    """The symbol and the weights that ``path`` names: one of the two, or their folder; of several epochs the last.

    Raises:
        SourceMissingError: one is not there, or which one is meant is not clear.
    """
    if path.is_dir():
        symbols = sorted(path.glob("*" + _SYMBOL))
        if len(symbols) != 1:
            raise SourceMissingError(
                f"{path} holds several symbols: {', '.join(one.name for one in symbols[:5])}",
                expected="one model",
                mend="name the symbol that you mean",
            )
        return pair(symbols[0])
    source_file.refuse_stand_ins(path)
    if path.name.endswith(_PARAMS):
        symbol = path.with_name(_EPOCH.sub("", path.name).removesuffix(_PARAMS) + _SYMBOL)
        if not symbol.is_file():
            raise SourceMissingError(
                f"{path} holds weights alone: there is no {symbol.name} beside it",
                expected="both files of net.export or mx.model.save_checkpoint",
                mend="in Gluon: load the weights, hybridize the net, call it once, and net.export('name')",
            )
        return symbol, path
    prefix = path.name.removesuffix(_SYMBOL)
    beside = [one for one in path.parent.iterdir() if one.name.endswith(_PARAMS)]
    own = [one for one in beside if _EPOCH.sub("", one.name).removesuffix(_PARAMS) == prefix]
    if not own:
        there = ", ".join(sorted(one.name for one in beside)) or "no .params file"
        raise SourceMissingError(
            f"{path} has no weights",
            expected=f"{prefix}-0000.params beside it, where there is {there}",
            mend="copy the .params file of the same export there",
        )
    return path, max(own, key=_epoch)


def _epoch(params: Path) -> int:
    found = _EPOCH.search(params.name)
    return int(found[1]) if found else -1


def _told(variable: Variable, place: int, inputs: Sequence[TensorSpec]) -> tuple[str, TensorSpec | None]:
    """The symbol's own name, and the tensor as served; None where nobody tells its shape."""
    name = legal(variable.name, f"input_{place}")
    given = next((spec for spec in inputs if spec.name == name), None)
    if given or not variable.shape:
        return variable.name, given
    shape = tuple(size or ("batch" if not axis else f"{name}_dim{axis}") for axis, size in enumerate(variable.shape))
    return variable.name, TensorSpec(name, variable.dtype, shape)
