"""How a folder's own library (transformers, sentence-transformers) turns a text into tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repo_builder.errors import (
    MissingDependencyError,
    PathEscapeError,
    RepoBuilderError,
    SourceCorruptError,
    SourceMissingError,
    SpecError,
    UnsafeSourceError,
    first_line,
)

if TYPE_CHECKING:
    from repo_builder.planned import Content

_NO_LIMIT = 10**20  # transformers writes 1e30 for "no limit": tokenization_utils_base.LARGE_INTEGER is its threshold
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model", "*.spm", "*.tiktoken", "tekken.json")
_FAST_CLASS = 'write "tokenizer_class": "PreTrainedTokenizerFast" into tokenizer_config.json'
_SENTENCE_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Position tables whose first padding_idx + 1 rows hold no position.
_OFFSET_POSITIONS = (
    *("camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke", "markuplm", "mpnet"),
    *("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
)


def transformer_folder(folder: Path) -> Path:
    """The folder of the transformer: the first module of a sentence-transformers folder, else ``folder`` itself.

    Raises:
        SourceCorruptError: ``modules.json`` is not a list of modules.
        PathEscapeError: it points outside the folder.
    """
    modules = _read_json(folder / "modules.json", list)
    if not modules:
        return folder
    home = folder / str(modules[0].get("path", ""))
    if not home.resolve().is_relative_to(folder.resolve()):
        raise PathEscapeError(
            f"modules.json in {folder} points to {modules[0]['path']!r}",
            expected="a path inside the folder",
            mend="copy the module into the folder",
        )
    return home


def source_tokenizer(folder: Path) -> Any:
    """The folder's fast ``transformers`` tokenizer, set up as its own library does; nothing is fetched, no code run.

    Raises:
        MissingDependencyError: transformers, or a package that the vocabulary needs, is not installed.
        SourceMissingError: the folder has no tokenizer.
        SourceCorruptError: its tokenizer does not load, or has no fast form.
        UnsafeSourceError: its tokenizer is code of its own.
    """
    home = transformer_folder(folder)
    if not any(any(home.glob(pattern)) for pattern in _VOCABULARIES):
        raise SourceMissingError(
            f"there is no tokenizer in {home}",
            expected=f"one of {', '.join(_VOCABULARIES)}",
            mend="save it beside the model: tokenizer.save_pretrained(folder); one without a vocabulary (ByT5, Canine) "
            "has no fast form",
        )
    _read_json(home / "tokenizer.json", dict)
    config = _sentence_config(home)
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingDependencyError(
            "the tokenizing step needs the package transformers, which is not installed",
            mend="pip install 'repo-builder[huggingface]'",
        ) from error
    arguments = {**config.get("tokenizer_args", {}), **config.get("processor_kwargs", {})}
    arguments |= {"local_files_only": True, "trust_remote_code": False}
    try:
        source = AutoTokenizer.from_pretrained(str(home), **arguments)
    except Exception as error:
        raise _not_loaded(home, error) from error
    if not source.is_fast:
        raise SourceCorruptError(
            f"the tokenizer in {home} ({type(source).__name__}) runs in Python alone, it has no fast form",
            expected="a tokenizer.json, or a vocabulary that transformers converts to one",
            mend=f"put a tokenizer.json of the tokenizers library with the same ids into the folder and {_FAST_CLASS}",
        )
    if config.get("do_lower_case"):
        _lower_case(source.backend_tokenizer)
    return source


def tokenizer_json(folder: Path, source: Any) -> Content:
    """The folder's ``tokenizer.json`` where ``source`` tokenizes exactly as it says, else ``source`` serialized.

    The two differ where transformers rebuilds a tokenizer from its vocabulary, adds tokens that only
    ``tokenizer_config.json`` names, or where sentence-transformers lower-cases.
    """
    used = _without_lengths(source.backend_tokenizer.to_str())
    own = transformer_folder(folder) / "tokenizer.json"
    if own.is_file() and _without_lengths(own.read_text(encoding="utf-8")) == used:
        return own.resolve()
    return used.encode()


def longest_text(folder: Path, source: Any, asked: int | None = None) -> int | None:
    """Tokens kept of a text, special tokens included; None where the source knows no limit.

    ``asked``, else ``max_seq_length`` as sentence-transformers reads it, else the tokenizer's ``model_max_length``
    capped by the model's positions.

    Raises:
        SpecError: ``asked`` leaves no room beside the special tokens, or the model has fewer positions.
    """
    home = transformer_folder(folder)
    positions, table = _positions(home)
    if asked is not None:
        special = source.num_special_tokens_to_add(pair=False)
        if asked <= special or (positions and asked > positions):
            raise SpecError(
                f"max_length {asked} for the model in {folder}",
                expected=f"more than its {special} special tokens" + (f", at most {positions}" if positions else ""),
                mend="leave max_length out to take the source's own",
            )
        return asked
    stated = _sentence_config(home).get("max_seq_length")
    limits = [stated] if stated is not None else [source.model_max_length, positions]
    if table:
        limits.append(positions)
    known = [int(limit) for limit in limits if limit is not None and limit <= _NO_LIMIT]
    return min(known, default=None)


def default_prompt(folder: Path) -> str:
    """What sentence-transformers puts in front of every text: the prompt that ``default_prompt_name`` names."""
    config = _read_json(folder / "config_sentence_transformers.json", dict) or {}
    return str((config.get("prompts") or {}).get(config.get("default_prompt_name")) or "")


def _positions(home: Path) -> tuple[int | None, bool]:
    """How many positions the model has, and whether they are a table with rows that hold none."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(home), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):  # code of its own, which a tokenizer never runs: what config.json says will do
        size = (_read_json(home / "config.json", dict) or {}).get("max_position_embeddings")
        return (size if isinstance(size, int) and size > 0 else None), False
    config = config.get_text_config()
    size = getattr(config, "max_position_embeddings", None)
    if not isinstance(size, int) or size < 1:
        return None, False
    if config.model_type in _OFFSET_POSITIONS:
        return size - (config.pad_token_id or 0) - 1, True
    return size, False


def _sentence_config(home: Path) -> dict[str, Any]:
    for name in _SENTENCE_CONFIGS:
        if config := _read_json(home / name, dict):
            return dict(config)
    return {}


def _lower_case(backend: Any) -> None:
    """What sentence-transformers does for ``do_lower_case``: Lowercase first, where no step lower-cases yet."""
    from tokenizers.normalizers import Lowercase, Sequence

    several: Any = Sequence
    normalizer = backend.normalizer
    steps = list(normalizer) if isinstance(normalizer, several) else [normalizer] if normalizer else []
    if not any(isinstance(step, Lowercase) for step in steps):
        backend.normalizer = Sequence([Lowercase(), *steps])


def _without_lengths(text: str) -> str:
    """A tokenizer.json as the library writes it, without padding and truncation."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return str(tokenizer.to_str())


def _read_json(path: Path, kind: type) -> Any:
    """The file's content, None where there is no such file."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _corrupt(path, str(error)) from error
    if not isinstance(content, kind):
        raise _corrupt(path, f"it holds a {type(content).__name__}")
    return content


def _corrupt(path: Path, why: str) -> SourceCorruptError:
    return SourceCorruptError(
        f"{path} is not what its name says: {why}",
        expected="the JSON that the model was published with",
        mend="fetch or save the model's folder again",
    )


def _not_loaded(home: Path, error: Exception) -> RepoBuilderError:
    if isinstance(error, ImportError):
        return MissingDependencyError(
            f"the tokenizer in {home} needs a package that is not installed: {first_line(error)}",
            mend=f"install it; or put a tokenizer.json into the folder and {_FAST_CLASS}",
        )
    if "trust_remote_code" in str(error):
        return UnsafeSourceError(
            f"the tokenizer in {home} is code of its own",
            expected="a tokenizer class of transformers",
            mend="where you trust that code, save the fast tokenizer and take auto_map out of tokenizer_config.json",
        )
    return SourceCorruptError(
        f"the tokenizer in {home} does not load: {first_line(error)}",
        expected="files that transformers' AutoTokenizer loads",
        mend="fetch or save the model's folder again",
    )
