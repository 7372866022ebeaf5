"""AOTInductor packages (.pt2): compiled machine code, looked at as a zip archive here; a process of its own runs it."""

from __future__ import annotations

import json
import platform
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import ConversionError, SignatureError, SourceCorruptError
from repo_builder.formats import framework_process, signature, source_file
from repo_builder.formats.framework_process import Framework, Progress
from repo_builder.formats.torch_archive import TorchArchive
from repo_builder.formats.torch_import import import_torch
from repo_builder.tensors import TensorSpec

NAME = "aoti"
TAKES = "an AOTInductor package (.pt2)"
# The package's own code compares dtypes and sizes with those that it was compiled for only when this is set.
FRAMEWORK = Framework("torch", (), "aoti_worker.py", variables={"AOTI_RUNTIME_CHECK_INPUTS": "1"})
RUNTIME = "torch's AOTInductor loader on the CPU, in a process of its own"
MODEL = "model"
"""The model in the package that Triton loads (pytorch_backend, src/pt2/model_state.hh: INDUCTOR_MODEL_NAME_DEFAULT)."""
UNBATCHED = "Triton's pytorch backend makes no batches for AOTInductor packages: every request runs as it comes"
_CODE = "data/aotinductor/"
_INPUT = re.compile(r"INPUT__(\d+)")


def matches(path: Path) -> bool:
    """A ``.pt2`` archive with compiled code in it."""
    if path.suffix.lower() != ".pt2" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(f"/{_CODE}" in f"/{name}" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        return False


def describe(path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
    """The artifact with the user's ``inputs``; outputs are told by ``opened``. Nothing of the package is loaded.

    Facts: ``compiled`` (device, platform, machine and instruction set that it was compiled for), ``unbatched``.

    Raises:
        SourceMissingError, SourceCorruptError, UnsafeSourceError: no whole package, or none with a model that Triton
            loads.
        SignatureError: ``inputs`` are not named ``INPUT__0``, ``INPUT__1``, ...
        ConversionError: it was compiled for a GPU.
    """
    source_file.refuse_stand_ins(path)
    with TorchArchive(path, str(path)) as archive:
        code = [name for name in archive.under(_CODE) if name.endswith(".so")]
        models = sorted({name.removeprefix(_CODE).split("/")[0] for name in code})
        if MODEL not in models:
            raise SourceCorruptError(
                f"{path} holds the models {', '.join(models) or 'none'}",
                expected=f"one that is named '{MODEL}', which Triton loads",
                mend="torch._inductor.aoti_compile_and_package(program, package_path='model.pt2')",
            )
        compiled = _compiled(archive, path)
    if compiled.get("device", "cpu") != "cpu":
        raise ConversionError(
            f"{path} was compiled for {compiled['device']} {compiled.get('compute_capability', '')}".rstrip(),
            expected="a package for the CPU: its reference is computed there",
            mend="for a GPU take engine onnx or tensorrt, or compile it for the CPU",
        )
    names = [spec.name for spec in inputs]
    if sorted(names) != sorted(f"INPUT__{i}" for i in range(len(names))):
        raise SignatureError(
            f"`inputs:` names {', '.join(names)} for {path.name}",
            expected="INPUT__0, INPUT__1, ...: the tensors in the order in which the package takes them",
        )
    signature.refuse_bf16(inputs, path.name)
    ordered = tuple(sorted(inputs, key=lambda spec: int(spec.name.rpartition("__")[2])))
    options = [{"name": s.name, "dtype": s.dtype, "shape": list(s.shape)} for s in ordered]
    facts = {"kind": NAME, "options": {"inputs": options}, "compiled": compiled, "unbatched": UNBATCHED}
    return Artifact(path, NAME, ordered, files=(path.name,), facts=facts)


def opened(artifact: Artifact, progress: Progress | None = None) -> Artifact:
    """The artifact with the outputs that running it tells. This runs the package's machine code.

    Raises:
        SignatureError: no ``inputs``, or inputs that the package does not take.
        ConversionError: it was compiled for another platform.
        FrameworkError: its process died.
    """
    if not artifact.inputs:
        raise SignatureError(
            "AOTInductor packages tell neither dtypes nor shapes; add `inputs:` to the spec",
            expected=f"dtype and shape of every tensor that {artifact.path.name} takes, in order",
            mend="for example: inputs: [{name: INPUT__0, dtype: FP32, shape: [batch, 4]}]",
        )
    told, here = artifact.facts["compiled"], (platform.system().lower(), platform.machine())
    there = (told.get("platform", here[0]), told.get("machine", here[1]))
    if there != here:
        raise ConversionError(
            f"{artifact.path.name} was compiled for {' '.join(there)}",
            expected=" ".join(here) + ", this machine",
            mend="build on a machine of that kind, or compile it here",
        )
    import_torch(artifact.path.name)
    found = framework_process.opened(FRAMEWORK, artifact, progress)
    return replace(found, facts={**artifact.facts, **found.facts})


def run(artifact: Artifact, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """The package's own answers by name."""
    return framework_process.of(FRAMEWORK, artifact).run(inputs)


def _compiled(archive: TorchArchive, path: Path) -> dict[str, str]:
    """What the package's metadata says that it was compiled for."""
    found: dict[str, str] = {}
    for name in archive.under(f"{_CODE}{MODEL}/"):
        if not name.endswith("_metadata.json"):
            continue
        try:
            told = dict(json.loads(archive.read(name)))
        except (ValueError, TypeError) as error:
            raise SourceCorruptError(f"{path}:{name} is no table", mend="compile the package again") from error
        for key, value in told.items():
            called = str(key).removeprefix("AOTI_").removesuffix("_KEY").lower()
            if found.setdefault(called, str(value)) != str(value):
                raise SourceCorruptError(
                    f"{path} was compiled for both {found[called]} and {value} ({key})",
                    expected="one kind of machine",
                    mend="compile the package again",
                )
    return {key: value for key, value in found.items() if value}
