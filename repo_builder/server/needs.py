"""Which backends the models of a repository need, read from their config.pbtxt and their files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

_PLATFORMS = {"onnxruntime_onnx": "onnxruntime", "pytorch_libtorch": "pytorch", "tensorrt_plan": "tensorrt"}
_FILES = {"model.onnx": "onnxruntime", "model.pt": "pytorch", "model.plan": "tensorrt", "model.py": "python"}


def backends(repository: Path, models: Sequence[str] = ()) -> frozenset[str]:
    """Names of the backends that ``models`` (default: all) and the steps of their ensembles need.

    A config that cannot be parsed adds nothing: the server says in its own words what is wrong with it.
    """
    known = {folder.name: folder for folder in sorted(repository.iterdir()) if folder.is_dir()}
    waiting, seen, found = list(models or known), set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in known:
            continue
        seen.add(name)
        config = read_config(known[name])
        if config is not None:
            waiting.extend(step.model_name for step in config.ensemble_scheduling.step)
        backend = _backend(known[name], config)
        if backend:
            found.add(backend)
    return frozenset(found)


def read_config(folder: Path) -> ModelConfig | None:
    """The ``config.pbtxt`` of a model's folder; None where there is none or it is not a ModelConfig."""
    path = folder / "config.pbtxt"
    if not path.is_file():
        return None
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError):
        return None


def _backend(folder: Path, config: ModelConfig | None) -> str:
    if config is not None and (config.backend or config.platform):
        return str(config.backend or _PLATFORMS.get(config.platform, config.platform))
    return next((_FILES[name] for name in _version_files(folder) if name in _FILES), "")


def _version_files(folder: Path) -> Iterable[str]:
    for version in sorted(folder.iterdir()):
        if version.is_dir() and version.name.isdigit():
            yield from sorted(entry.name for entry in version.iterdir())
