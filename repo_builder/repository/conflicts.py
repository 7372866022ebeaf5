"""What stands in the way of a build: files that it would lose, and old versions that its config would break."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from repo_builder.artifact import file_digest
from repo_builder.errors import RepositoryError
from repo_builder.planned import Content, PlannedModel
from repo_builder.repository import tree
from repo_builder.repository.layout import CONFIG
from repo_builder.repository.manifest import FileRecord, UnitRecord

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

SHOWN = 10


def check_same_signatures(
    repository: Path, name: str, models: Sequence[PlannedModel], record: UnitRecord, kept: set[int]
) -> None:
    """Refuse to give older versions, which share their model's ``config.pbtxt``, other models, inputs or outputs.

    Raises:
        RepositoryError: names what is new and what was there.
    """
    from repo_builder.model_config import parse

    versions = ", ".join(map(str, sorted(kept)))
    mend = f"build under another name, or remove the version folders {versions} of {', '.join(sorted(record.models))}"
    names = sorted(model.name for model in models)
    if names != sorted(record.models):
        raise RepositoryError(
            f"{name!r} now has the models {names}, while version {versions} stays",
            expected=f"the models {sorted(record.models)}, because old versions share their configs",
            mend=mend,
        )
    for model in models:
        written = repository / model.name / CONFIG
        if not written.is_file():
            continue
        old, new = _signature(parse(written.read_text(encoding="utf-8"))), _signature(model.config)
        if old != new:
            raise RepositoryError(
                f"model {model.name!r} now has {_listed(new - old)}, while version {versions} stays",
                expected=f"{_listed(old - new)}, because all versions share one {CONFIG}",
                mend=mend,
            )


def _listed(tensors: set[str]) -> str:
    return "; ".join(sorted(tensors)) or "no further input or output"


def _signature(config: ModelConfig) -> set[str]:
    tensors = {
        f"{side} {t.name!r} {_dtype(t)} {list(t.dims)}"
        for side, found in (("input", config.input), ("output", config.output))
        for t in found
    }
    return tensors | {"batching" if config.max_batch_size > 0 else "no batching"}


def _dtype(tensor: Any) -> str:
    kind = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type
    return str(kind.values_by_number[tensor.data_type].name)


def check_nothing_lost(
    repository: Path,
    model: str,
    written: Mapping[str, FileRecord],
    write: Mapping[str, Content] = MappingProxyType({}),
    keep: Collection[str] = (),
) -> None:
    """Refuse when making a model folder anew would lose, or carry on, something that no build wrote so.

    Args:
        model: the folder that is made anew, or removed.
        written: files as earlier builds wrote them, by path relative to the repository.
        write, keep: what the new folder will hold, by path relative to the repository.

    Raises:
        RepositoryError: names the files.
    """
    folder = repository / model
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise _in_the_way(repository, model, [f"{model} (not a folder)"])
    lost = []
    for name in tree.files(folder):
        path = f"{model}/{name}"
        known = written.get(path)
        if known is not None and known.matches(folder / name):
            continue
        if path not in write or not _equal(write[path], folder / name):
            lost.append(f"{path} ({'changed' if known else 'unknown'})")
    lost += [f"{path} (missing)" for path in keep if path.startswith(f"{model}/") and not (repository / path).exists()]
    if lost:
        raise _in_the_way(repository, model, lost)


def _equal(content: Content, path: Path) -> bool:
    if path.is_symlink() or not path.is_file():
        return False
    if isinstance(content, bytes):
        return path.read_bytes() == content
    return path.stat().st_size == content.stat().st_size and file_digest(path) == file_digest(content)


def _in_the_way(repository: Path, model: str, lost: list[str]) -> RepositoryError:
    shown = ", ".join(lost[:SHOWN]) + (f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else "")
    return RepositoryError(
        f"{repository.name} holds what no build wrote so: {shown}",
        expected="only files as a build wrote them in the folders that it replaces",
        mend=f"move them away, or remove the folder {repository / model}, and build again",
    )
