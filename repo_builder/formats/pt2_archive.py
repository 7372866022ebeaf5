"""Members of a .pt2 file: the layout of torch 2.8 and later, and the older one; no pickle but of plain tensors."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from repo_builder.errors import SourceCorruptError, UnsafeSourceError
from repo_builder.formats import source_file
from repo_builder.formats.pt2_graph import Graph
from repo_builder.formats.torch_archive import TorchArchive

# Sources: torch/export/pt2_archive/_package.py (layout with archive_format), torch/export/__init__.py: load (older).
_GRAPH = "models/model.json"
_OLD_GRAPH = "serialized_exported_program.json"
_PICKLES = re.compile(
    r"data/(sample_inputs|weights|constants)/\w+\.pt|serialized_(state_dict|constants|example_inputs)\.pt"
)
_CONFIGS = re.compile(r"data/(weights|constants)/\w+_(weights|constants)_config\.json")
_RAW = re.compile(r"data/weights/weight_\d+|data/constants/tensor_\d+")
_TEXT = re.compile(
    r"archive_format|archive_version|version|byteorder|\.data/\w+|extra(_files)?/.+|" + re.escape(_OLD_GRAPH)
)


def read(path: Path) -> Graph:
    """The checked graph of a .pt2 file. Nothing of torch is imported.

    Raises:
        SourceMissingError, SourceCorruptError: no whole .pt2 file.
        UnsafeSourceError: a pickle that names more than tensors, compiled code, or a graph that would run code.
    """
    source_file.refuse_stand_ins(path)
    with TorchArchive(path, str(path)) as archive:
        _refuse_compiled(archive)
        graph = _GRAPH if _GRAPH in archive else _OLD_GRAPH
        if graph not in archive:
            script = "code/" if archive.under("code/") else ""
            raise SourceCorruptError(
                f"{path} is a zip archive, but no torch.export program",
                expected=f"a member {_GRAPH}",
                mend="it is a TorchScript file: rename it to .pt" if script else "save it with torch.export.save",
            )
        pickled = _pickled_payloads(archive)
        for name in archive.members:
            if _PICKLES.fullmatch(name) or name in pickled:
                _check_tensors(archive, name)
            elif name != graph and not any(p.fullmatch(name) for p in (_CONFIGS, _RAW, _TEXT)):
                raise UnsafeSourceError(
                    f"{path} has the member {name}, which torch.export.save does not write",
                    expected="one program, its weights, constants and sample inputs",
                    mend="save the program again with torch.export.save",
                )
        return Graph(archive.read(graph), f"{path}:{graph}")


def _refuse_compiled(archive: TorchArchive) -> None:
    compiled = archive.under("data/aotinductor/") or [
        name for name in archive.members if name.endswith((".so", ".cubin", ".cpp", ".o"))
    ]
    if compiled:
        raise UnsafeSourceError(
            f"{archive.where} is an AOTInductor package: it holds compiled machine code ({compiled[0]})",
            expected="a program that torch.export.save wrote",
            mend="give the exported program itself: torch.export.save(program, 'model.pt2')",
        )


def _pickled_payloads(archive: TorchArchive) -> set[str]:
    """Members that torch would unpickle because a weights or constants table says so."""
    pickled: set[str] = set()
    for name in archive.members:
        if not _CONFIGS.fullmatch(name):
            continue
        folder = name.rsplit("/", 1)[0]
        try:
            table: dict[str, Any] = json.loads(archive.read(name))["config"]
            entries = [(str(e["path_name"]), bool(e["use_pickle"])) for e in table.values()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceCorruptError(
                f"{archive.where}:{name} is no table of tensors", mend="save the program again"
            ) from error
        for file, use_pickle in entries:
            if not _RAW.fullmatch(f"{folder}/{file}"):
                raise UnsafeSourceError(
                    f"{archive.where}:{name} names '{file}': a custom object, which torch unpickles",
                    expected="tensors alone",
                    mend="export a module whose constants are tensors",
                )
            if use_pickle:
                pickled.add(f"{folder}/{file}")
    return pickled


def _check_tensors(archive: TorchArchive, name: str) -> None:
    if archive.members[name].file_size == 0:
        return
    content = archive.read(name)
    if not content.startswith(b"PK"):
        raise UnsafeSourceError(
            f"{archive.where}:{name} is a bare pickle, which torch.export.load would run",
            expected="tensors as torch.save writes them",
            mend="save the program again with torch.export.save",
        )
    with TorchArchive(content, f"{archive.where}:{name}") as nested:
        if "data.pkl" not in nested or "constants.pkl" in nested:
            raise UnsafeSourceError(f"{nested.where} is no archive of tensors", expected="what torch.save writes")
        nested.check_pickles()
