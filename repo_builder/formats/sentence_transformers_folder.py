"""What sentence-transformers writes beside a model, as plain JSON: modules, pooling, normalisation, maximum length.

Source of the layout: sentence-transformers' own ``SentenceTransformer.save``: ``modules.json`` lists the modules with
their folders; each folder has a ``config.json``; the first module's ``sentence_bert_config.json`` has
``max_seq_length``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repo_builder.artifact import tree_files
from repo_builder.errors import SignatureError, SourceCorruptError, UnsafeSourceError
from repo_builder.formats import safetensors_weights, source_file

MODULES = "modules.json"
_TRANSFORMERS = ("Transformer", "MLMTransformer")
"""Modules that hold a transformer; the second is what sentence-transformers before 5.4 wrote for SPLADE."""
_SETTINGS = ("sentence_bert_config.json", "config_sentence_transformers.json")


@dataclass(frozen=True)
class Folder:
    """The sentence-transformers part of a folder.

    Attributes:
        facts: ``modules`` (list of ``kind``, ``type``, ``path``, ``config``), ``pooling`` (its config, or None),
            ``normalize`` (whether a Normalize module is there), ``max_seq_length`` (or None), ``settings``.
        transformer: the transformer's folder relative to the model's, ``""`` for the folder itself.
        files: relative names of everything of this part.
    """

    facts: dict[str, Any]
    transformer: str
    files: tuple[str, ...]


def read(folder: Path, *, trust_remote_code: bool = False) -> Folder | None:
    """The sentence-transformers part of a folder, None where there is no ``modules.json``.

    Raises:
        UnsafeSourceError: a module's type is code that the folder or the hub brings.
        SignatureError: the first module of sentence-transformers is no transformer (Router, StaticEmbedding, ...).
        PathEscapeError: a module's folder lies outside.
        SourceCorruptError, SourceMissingError: a file that does not parse or is missing.
    """
    if not (folder / MODULES).exists():
        return None
    modules: list[dict[str, Any]] = []
    files = [MODULES]
    for entry in source_file.read_json(folder / MODULES, list):
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), str) for k in ("type", "path")):
            raise SourceCorruptError(
                f"{folder / MODULES} lists {str(entry)[:80]}", expected="objects with `type` and `path`"
            )
        if not entry["type"].startswith("sentence_transformers.") and not trust_remote_code:
            raise UnsafeSourceError(
                f"{folder / MODULES} names the module type {entry['type']}, which is code from outside",
                expected="types of sentence_transformers itself",
                mend="read that code, then allow it with trust_remote_code",
            )
        module, its_files = _module(folder, entry)
        modules.append(module)
        files += its_files
    _refuse_other(folder, modules[:1])
    transformer = next((m["path"] for m in modules if m["kind"] in _TRANSFORMERS), "")
    settings = {}
    for name in _SETTINGS:
        place = folder / transformer / name if (folder / transformer / name).exists() else folder / name
        if place.exists():
            settings[name.removesuffix(".json")] = source_file.read_json(place)
            files.append(place.relative_to(folder).as_posix())
    return Folder(_facts(modules, settings), transformer, tuple(sorted(set(files))))


def _refuse_other(folder: Path, first: list[dict[str, Any]]) -> None:
    for module in first:
        if module["type"].startswith("sentence_transformers.") and module["kind"] not in _TRANSFORMERS:
            raise SignatureError(
                f"{folder / MODULES} begins with the module {module['kind']}",
                expected=" or ".join(_TRANSFORMERS) + ": one transformer that reads the text",
                mend="choose a model without routes or static embeddings, or save the transformer alone",
            )


def _module(folder: Path, entry: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    path = entry["path"].strip("/") if entry["path"] != "/" else entry["path"]
    home = source_file.inside(folder, path, owner=MODULES)
    kind = entry["type"].rsplit(".", 1)[-1]
    config = None
    files: list[str] = []
    if kind not in _TRANSFORMERS and (home / "config.json").exists():
        config = source_file.read_json(home / "config.json")
        files.append((home / "config.json").relative_to(folder).as_posix())
    if kind not in _TRANSFORMERS and home.is_dir() and home.resolve() != folder.resolve():
        owned = [home / name for name in tree_files(home)]
        files += [file.relative_to(folder).as_posix() for file in owned if file.is_file()]
    if kind == "Dense":
        safetensors_weights.find(home)
    return {"kind": kind, "type": entry["type"], "path": path, "config": config}, files


def _facts(modules: list[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    pooling = [m["config"] for m in modules if m["kind"] == "Pooling"]
    return {
        "modules": modules,
        "pooling": pooling[0] if pooling else None,
        "normalize": any(m["kind"] == "Normalize" for m in modules),
        "max_seq_length": settings.get("sentence_bert_config", {}).get("max_seq_length"),
        "settings": settings,
    }
