"""What the models of a repository need of the server, read from their config.pbtxt and their files.

A server sets options of a backend for all of its models, on its command line. What a model needs of them stands in its
config, as the parameters ``VERSION_COMPATIBLE`` and ``PLUGINS``: no backend reads these, and they travel with the model
wherever it goes. ``backend_options`` makes the command line of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from repo_builder.artifact import file_digest
from repo_builder.errors import RepositoryError

if TYPE_CHECKING:
    from tritonclient.grpc.model_config_pb2 import ModelConfig

_PLATFORMS = {"onnxruntime_onnx": "onnxruntime", "pytorch_libtorch": "pytorch", "tensorrt_plan": "tensorrt"}
_PLATFORMS["torch_aoti"] = "pytorch"  # on the embedded server a backend's name too
VERSION_COMPATIBLE = "backend-config.tensorrt.version-compatible"
"""Parameter of a version-compatible plan, ``"true"``: the server must be allowed to run the code that it carries."""
PLUGINS = "backend-config.tensorrt.plugins"
"""Parameter of a plan with plugins: names of the libraries in its version folders, with ``;`` between them."""

LLM_API = "llmapi"
"""Told as a backend of Python models on TensorRT-LLM's LLM API: those with ``model.yaml`` in a version folder."""
_FILES = {"model.onnx": "onnxruntime", "model.pt": "pytorch", "model.plan": "tensorrt", "model.py": "python"}


def backends(repository: Path, models: Sequence[str] = ()) -> frozenset[str]:
    """Names of the backends that ``models`` (default: all) and the steps of their ensembles need.

    A config that cannot be parsed adds nothing: the server says in its own words what is wrong with it.
    """
    found = set()
    for folder, config in _needed(repository, models):
        found.add(_backend(folder, config))
        if "model.yaml" in _version_files(folder) and _backend(folder, config) == "python":
            found.add(LLM_API)
    return frozenset(filter(None, found))


def backend_options(repository: Path, models: Sequence[str] = (), *, mounted: str | None = None) -> tuple[str, ...]:
    """Arguments without which ``tritonserver`` does not load the plans among ``models`` (default: all).

    ``--backend-config=tensorrt,version-compatible=true`` and ``--backend-config=tensorrt,plugins=/a.so;/b.so``: a
    setting an option, as the server splits at the first comma and the first equals sign (command_line_parser.cc,
    ParseBackendConfigOption), with semicolons between the libraries (tensorrt_backend, tensorrt.cc). A library that
    several models or versions have, to the byte, is named once.

    Args:
        mounted: where the server sees the repository (``/models`` in a container); default: where it lies.

    Raises:
        RepositoryError: a library that a config names is in no version folder, or two of one name differ.
    """
    plans = [one for one in _needed(repository, models) if _backend(*one) == "tensorrt"]
    plans.sort(key=lambda one: one[0].name)
    options = []
    if any(_parameter(config, VERSION_COMPATIBLE) == "true" for _, config in plans):
        options.append("--backend-config=tensorrt,version-compatible=true")
    libraries: dict[str, Path] = {}
    for library in (path for folder, config in plans for path in _libraries(folder, config)):
        known = libraries.setdefault(library.name, library)
        if known is not library and file_digest(known) != file_digest(library):
            raise RepositoryError(
                f"{known.relative_to(repository)} and {library.relative_to(repository)} are two libraries of one name",
                expected="one: all plans of a server share TensorRT's one registry of plugins",
                mend="build with one library everywhere, give one another name, or serve them apart",
            )
    if libraries:
        root = mounted or str(repository.absolute())
        paths = [f"{root.rstrip('/')}/{path.relative_to(repository)}" for path in libraries.values()]
        if wrong := next((path for path in paths if ";" in path), ""):
            raise RepositoryError(
                f"the path of the plugin library {wrong} has a semicolon",
                expected="a path without: the server's option puts semicolons between libraries",
                mend="move the repository to another folder",
            )
        options.append(f"--backend-config=tensorrt,plugins={';'.join(paths)}")
    return tuple(options)


def command_line(repository: Path) -> list[str]:
    """``tritonserver`` with all that the repository needs; ``shlex.join`` prints it. Raises as ``backend_options``."""
    return ["tritonserver", f"--model-repository={repository.absolute()}", *backend_options(repository)]


def of_plan(plan: Path) -> tuple[tuple[Path, ...], bool]:
    """Plugin libraries of a plan that lies in a repository, and whether it is version-compatible; as its config says.

    Raises:
        RepositoryError: a library is not beside the plan.
    """
    config = read_config(plan.absolute().parent.parent)
    if config is None or _backend(plan.absolute().parent.parent, config) != "tensorrt":
        return (), False
    found = tuple(plan.parent / name for name in _names(config))
    for path in found:
        if not path.is_file():
            raise _absent(path.name, plan.absolute().parent.parent)
    return found, _parameter(config, VERSION_COMPATIBLE) == "true"


def _needed(repository: Path, models: Sequence[str]) -> Iterator[tuple[Path, ModelConfig | None]]:
    """Folder and config of ``models`` (default: all) and of the steps of their ensembles."""
    folders = sorted(repository.iterdir()) if repository.is_dir() else []
    known = {folder.name: folder for folder in folders if folder.is_dir()}
    waiting, seen = list(models or known), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in known:
            continue
        seen.add(name)
        config = read_config(known[name])
        if config is not None:
            waiting.extend(step.model_name for step in config.ensemble_scheduling.step)
        yield known[name], config


def _libraries(folder: Path, config: ModelConfig | None) -> Iterator[Path]:
    versions = sorted((v for v in folder.iterdir() if v.is_dir() and v.name.isdigit()), key=lambda v: int(v.name))
    for name in _names(config):
        found = [version / name for version in versions if (version / name).is_file()]
        if not found:
            raise _absent(name, folder)
        yield from found


def _names(config: ModelConfig | None) -> list[str]:
    names = list(filter(None, _parameter(config, PLUGINS).split(";")))
    for name in names:
        if "/" in name or name in (".", ".."):
            raise RepositoryError(
                f"the parameter {PLUGINS} names {name!r}",
                expected="names of files in the model's version folder",
                mend="correct config.pbtxt, or build the model again",
            )
    return names


def _absent(name: str, folder: Path) -> RepositoryError:
    return RepositoryError(
        f"no version folder of {folder.name!r} holds the plugin library {name}, which its config names",
        expected=f"{folder.name}/1/{name}",
        mend="copy the library there, or build the model again",
    )


def _parameter(config: ModelConfig | None, key: str) -> str:
    return str(config.parameters[key].string_value) if config is not None and key in config.parameters else ""


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
        named = str(config.backend or config.platform)
        return _PLATFORMS.get(named, named)
    return next((_FILES[name] for name in _version_files(folder) if name in _FILES), "")


def _version_files(folder: Path) -> Iterable[str]:
    for version in sorted(folder.iterdir()):
        if version.is_dir() and version.name.isdigit():
            yield from sorted(entry.name for entry in version.iterdir())
