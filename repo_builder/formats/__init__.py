"""What we know of each kind of model file: one module per format, listed here and imported when it is asked for."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import SourceCorruptError, SourceMissingError, SpecError, nearest
from repo_builder.formats import source_file
from repo_builder.tensors import TensorSpec


class Format(Protocol):
    """What every module of ``FORMATS`` offers.

    The torch formats also have ``load(artifact) -> TorchProgram``. Those of other frameworks have ``FRAMEWORK``
    (:class:`~repo_builder.formats.framework_process.Framework`), ``RUNTIME`` (who computes the reference, in words)
    and, where only the framework knows the signature, ``opened(artifact, progress) -> Artifact``; where a file does not
    name its outputs, ``CHOOSES_OUTPUTS`` is true and ``describe`` takes ``outputs``, names of nodes.
    """

    NAME: str
    TAKES: str

    def matches(self, path: Path) -> bool:
        """Whether the name (for folders: the content) says that ``path`` is of this format. Opens no model."""
        ...

    def describe(self, path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
        """The artifact, checked without running anything that the file brings.

        Args:
            path: file or folder, as :func:`detect` returned it.
            inputs: the user's signature, for formats whose files do not tell it, and to replace what they tell.

        Raises:
            RepoBuilderError: one of its subclasses says what is wrong with the file.
        """
        ...

    def run(self, artifact: Artifact, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """The reference outputs by name, computed on the CPU."""
        ...


FORMATS: dict[str, str] = {
    "onnx": "repo_builder.formats.onnx",
    "torchscript": "repo_builder.formats.torchscript",
    "aoti": "repo_builder.formats.aoti",
    "exported_program": "repo_builder.formats.exported_program",
    "jax": "repo_builder.formats.jax",
    "factory": "repo_builder.formats.factory",
    "tf_checkpoint": "repo_builder.formats.tf_checkpoint",
    "tensorrt_llm_engine": "repo_builder.formats.tensorrt_llm_engine",
    "huggingface": "repo_builder.formats.huggingface",
    "tensorrt_plan": "repo_builder.formats.tensorrt_plan",
    "caffe": "repo_builder.formats.caffe",
    "mxnet": "repo_builder.formats.mxnet",
    "xgboost": "repo_builder.formats.xgboost",
    "lightgbm": "repo_builder.formats.lightgbm",
    "catboost": "repo_builder.formats.catboost",
    "sklearn": "repo_builder.formats.sklearn",
    "savedmodel": "repo_builder.formats.savedmodel",
    "frozen_graph": "repo_builder.formats.frozen_graph",
    "keras": "repo_builder.formats.keras",
    "tflite": "repo_builder.formats.tflite",
}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}")
_ELSEWHERE = {
    ".safetensors": "name the folder that holds it together with config.json",
    ".bin": "name the folder that holds it together with config.json",
    ".py": "name the factory too: module.py:factory",
    ".pth": "export the model with torch.export.save (.pt2) or name a module.py:factory that loads this state_dict",
    ".ckpt": "export the model with torch.export.save (.pt2) or name a module.py:factory that loads this checkpoint",
    ".ort": "name the .onnx file that this ORT-format file was made from",
}


def get(name: str) -> Format:
    """The module of a format.

    Raises:
        SpecError: there is no such format.
    """
    if name not in FORMATS:
        raise SpecError(
            f"there is no format '{name}'{nearest(name, list(FORMATS))}", expected="one of " + ", ".join(FORMATS)
        )
    return cast(Format, importlib.import_module(FORMATS[name]))


def opened(artifact: Artifact, progress: Callable[[str], None] | None = None) -> Artifact:
    """The artifact with its signature, which of some formats only the framework can tell; others come back as they are.

    Raises:
        RepoBuilderError: the framework's environment, its process, or the model.
    """
    module = get(artifact.format)
    return cast(Artifact, cast(Any, module).opened(artifact, progress)) if hasattr(module, "opened") else artifact


def detect(source: str) -> tuple[str, Path]:
    """The format's name and the path of what the user named.

    ``module.py:factory`` comes back as one path with the colon in it. A Hugging Face id (``org/name``) that is no
    path here is fetched, and its folder comes back.

    Raises:
        SourceMissingError: nothing is there, or the hub cannot be reached.
        SourceCorruptError: the file is empty, or a stand-in (git-lfs pointer, web page), or of a kind that no format
            takes.
    """
    path = Path(source).expanduser()
    for name in ("jax", "factory"):
        if get(name).matches(path):
            return name, path
    if not path.exists():
        if _HUB_ID.fullmatch(source) and not path.parent.exists() and not _ours(path):
            from repo_builder.formats import hub

            return "huggingface", hub.fetch(source)
        raise source_file.missing(path)
    if path.is_file():
        source_file.refuse_stand_ins(path)
    for name in FORMATS:
        if get(name).matches(path):
            return name, path
    raise _unknown(path)


def _ours(path: Path) -> bool:
    return any(get(name).matches(path) for name in FORMATS)


def _unknown(path: Path) -> SourceCorruptError | SourceMissingError:
    takes = "; ".join(get(name).TAKES for name in FORMATS)
    if not path.is_dir():
        mend = _ELSEWHERE.get(path.suffix.lower(), "export the model to one of these")
        return SourceCorruptError(f"no format takes {path}", expected=takes, mend=mend)
    if (path / "adapter_config.json").is_file():
        return SourceMissingError(
            f"{path} holds an adapter (adapter_config.json), not a model",
            expected=takes,
            mend="merge the adapter into its base model (peft: merge_and_unload) and save the result",
        )
    inside = sorted(p.name for p in path.iterdir() if p.is_file() and _ours(p))
    mend = f"name the file: {', '.join(str(path / n) for n in inside[:5])}" if inside else ""
    return SourceMissingError(f"the folder {path} holds no config.json", expected=takes, mend=mend)
