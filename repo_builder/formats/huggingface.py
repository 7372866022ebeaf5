"""Hugging Face folders: described from their JSON files and weight headers without any framework, loaded by
transformers in fp32 with eager attention."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import SignatureError, UnsafeSourceError
from repo_builder.formats import safetensors_weights, sentence_transformers_folder, signature, source_file
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.tensors import TensorSpec

NAME = "huggingface"
TAKES = "a Hugging Face folder (config.json with weights) or hub id (org/name)"
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"),
    *("vocab.json", "merges.txt", "*.model", "*.spm", "*.tiktoken", "tekken.json", "chat_template.jinja"),
    *("sentence_*_config.json", "generation_config.json", "preprocessor_config.json"),
)
_CONFIG_FACTS = (
    *("architectures", "model_type", "hidden_size", "max_position_embeddings", "vocab_size", "type_vocab_size"),
    *("pad_token_id", "num_labels", "id2label", "problem_type"),
)
_CROSS_ENCODER = ("sentence_transformers", "sbert_ce_default_activation_function")
"""What sentence-transformers writes into the config.json of a CrossEncoder: since version 4, and before."""
_LEFT_OUT = ("added_tokens_decoder", "chat_template")


def matches(path: Path) -> bool:
    """A folder with ``config.json``, or with the ``modules.json`` of sentence-transformers."""
    return path.is_dir() and any((path / n).is_file() for n in ("config.json", sentence_transformers_folder.MODULES))


def describe(path: Path, inputs: Sequence[TensorSpec] = (), *, trust_remote_code: bool = False) -> Artifact:
    """The artifact of a folder; its tensors stay empty until a task decides what the model serves.

    Facts: ``architectures``, ``model_type`` and other fields of config.json; ``transformer`` (its folder, relative);
    ``tokenizer_json`` (bool), ``tokenizer_config``; ``sentence_transformers`` (see
    :class:`sentence_transformers_folder.Folder`) or None; ``cross_encoder`` (True where config.json bears the mark of
    a CrossEncoder); ``weights`` (``safetensors`` or ``pickle``),
    ``parameters``, ``parameter_bytes``, ``weight_dtypes``; ``trust_remote_code``.

    Weights in ``pytorch_model.bin`` are taken only where their pickles name tensors alone (transformers then opens
    them with ``weights_only=True``).

    Raises:
        UnsafeSourceError: remote code without ``trust_remote_code``, or a pickle that names more than tensors.
        SourceMissingError, SourceCorruptError, PathEscapeError: with the file.
        SignatureError: ``inputs`` were given.
    """
    if inputs:
        raise SignatureError(
            "`inputs:` is given for a Hugging Face folder", expected="no `inputs:`: the task decides what is served"
        )
    sentence = sentence_transformers_folder.read(path, trust_remote_code=trust_remote_code)
    home = path / (sentence.transformer if sentence else "")
    if not (home / "config.json").exists():
        raise source_file.missing(home / "config.json")
    config = source_file.read_json(home / "config.json")
    tokenizer_file = home / "tokenizer_config.json"
    tokenizer = source_file.read_json(tokenizer_file) if tokenizer_file.exists() else {}
    if not trust_remote_code:
        _refuse_code(config, home / "config.json")
        _refuse_code(tokenizer, tokenizer_file)
    weights = safetensors_weights.find(home)
    own = ["config.json", *weights.files, *(p.name for n in _TOKENIZER_FILES for p in home.glob(n))]
    if trust_remote_code:
        own += [p.name for p in home.glob("*.py")]
    for name in own:
        source_file.refuse_stand_ins(source_file.inside(home, name, owner=str(path)))
    files = {(home / name).relative_to(path).as_posix() for name in own} | set(sentence.files if sentence else ())
    facts = {name: config[name] for name in _CONFIG_FACTS if name in config}
    facts |= {
        "transformer": sentence.transformer if sentence else "",
        "tokenizer_json": (home / "tokenizer.json").exists(),
        "tokenizer_config": {k: v for k, v in tokenizer.items() if k not in _LEFT_OUT},
        "sentence_transformers": sentence.facts if sentence else None,
        "weights": weights.kind,
        "parameters": weights.parameters,
        "parameter_bytes": weights.bytes,
        "weight_dtypes": weights.dtypes,
        "trust_remote_code": trust_remote_code,
    }
    if any(config.get(name) for name in _CROSS_ENCODER):
        facts["cross_encoder"] = True
    return Artifact(path, NAME, files=tuple(sorted(files)), facts=facts)


def _refuse_code(config: Mapping[str, Any], path: Path) -> None:
    if config.get("auto_map"):
        raise UnsafeSourceError(
            f"{path} asks for code of its own (auto_map: {str(config['auto_map'])[:120]})",
            expected="an architecture that transformers itself has",
            mend="read that code, then allow it with trust_remote_code",
        )


def load(artifact: Artifact, auto_class: str = "AutoModel") -> TorchProgram:
    """The transformers model, called positionally with what its tokenizer gives and its forward takes.

    Symbolic dims are ``batch`` and ``sequence``. ``module.model`` is the transformers model itself.

    Args:
        artifact: from :func:`describe`.
        auto_class: name of the transformers class that picks the architecture.

    Raises:
        SourceCorruptError: transformers does not load it, or weights are missing from the files.
    """
    from repo_builder.formats import huggingface_model

    return huggingface_model.load(artifact, auto_class)


def run(artifact: Artifact, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """The base model's outputs (``last_hidden_state``, ...) by name. The last model is kept in memory."""
    stamp = source_file.stamp(artifact.folder, artifact.files)
    program = _program(str(artifact.path), stamp, bool(artifact.facts.get("trust_remote_code")))
    signature.check_arrays(program.inputs, inputs, artifact.path.name)
    return dict(zip(program.outputs, program.run(inputs), strict=True))


@functools.lru_cache(maxsize=1)
def _program(path: str, stamp: object, trust_remote_code: bool) -> TorchProgram:  # noqa: ARG001 - part of the key
    return load(describe(Path(path), trust_remote_code=trust_remote_code))
