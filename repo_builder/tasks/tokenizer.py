"""The tokenizing step of text repositories: text in, token ids out, as the source's own library makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from repo_builder.errors import SignatureError, SpecError
from repo_builder.model_config import build
from repo_builder.planned import Content, PlannedModel
from repo_builder.tasks import vendored
from repo_builder.tasks.tokenizer_source import default_prompt, longest_text, source_tokenizer, tokenizer_json
from repo_builder.tensors import TensorSpec, dtype

OUTPUTS = ("input_ids", "attention_mask", "token_type_ids")
EXTRA = ("special_tokens_mask", "offsets", "sequence_ids", "word_ids")
"""What a tokenizer gives on demand to whoever reads the answers; ``offsets`` has one more axis of size 2."""
MODEL = Path(__file__).parent.parent / "templates" / "tokenizer" / "model.py"


@dataclass(frozen=True)
class Layout:
    """What the public inputs are, and how they make sequences (see ``templates/tokenizer/model.py``).

    Attributes:
        kind: ``text``, ``pairs``, ``windows`` or ``labels``.
        inputs: name -> size of its axis behind the batch dimension, -1 where it is free.
        truncation: ``longest_first``, ``only_first`` or ``only_second``.
        stride: tokens that neighbouring windows share.
        hypothesis_template: holds ``{}``, which stands for a label.
    """

    kind: Literal["text", "pairs", "windows", "labels"] = "text"
    inputs: Mapping[str, int] = field(default_factory=lambda: {"TEXT": 1})
    truncation: Literal["longest_first", "only_first", "only_second"] = "longest_first"
    stride: int = 0
    hypothesis_template: str = ""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes of ``input_ids``."""
        middle = {"windows": ("windows",), "labels": ("labels",)}.get(self.kind, ())
        return ("batch", *middle, "sequence")

    def public(self) -> list[dict[str, Any]]:
        """The inputs as fields of a ModelConfig."""
        return [{"name": name, "data_type": "TYPE_STRING", "dims": [size]} for name, size in self.inputs.items()]

    def parameters(self) -> dict[str, str]:
        return {
            **({"layout": self.kind} if self.kind != "text" else {}),
            **({"truncation": self.truncation} if self.truncation != "longest_first" else {}),
            **({"stride": str(self.stride)} if self.stride else {}),
            **({"hypothesis_template": self.hypothesis_template} if self.hypothesis_template else {}),
        }


TEXT_LAYOUT = Layout()


@dataclass(frozen=True)
class TokenizerSettings:
    """What the source's library does with a text.

    Attributes:
        tokenizer: ``tokenizer.json``: the source's own file where the source's library uses it unchanged, else the
            bytes of what that library makes of the folder (slow vocabularies, added tokens, lower-casing).
        max_length: tokens kept of a text, special tokens included; None where the source has no limit.
        padding_side, truncation_side: ``left`` or ``right``.
        pad_id, pad_type_id: what fills ``input_ids`` and ``token_type_ids``.
        pad_token: None where the source has none; ``pad_id`` is then its end-of-text id or 0, fit only under a mask.
        split_special_tokens: special tokens that are written out in a text are split like other words.
        prompt: what sentence-transformers puts in front of every text by default.
        pad_to_multiple_of: the common length of a batch is rounded up to a multiple of it.
        pad_lengths: the common length is rounded up to the next of these, where one is long enough.
    """

    tokenizer: Content
    max_length: int | None
    padding_side: str = "right"
    truncation_side: str = "right"
    pad_id: int = 0
    pad_type_id: int = 0
    pad_token: str | None = None
    split_special_tokens: bool = False
    prompt: str = ""
    pad_to_multiple_of: int = 1
    pad_lengths: tuple[int, ...] = ()

    def parameters(self) -> dict[str, str]:
        """The config parameters that ``templates/tokenizer/model.py`` reads."""
        values = {
            "max_length": self.max_length,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "pad_id": self.pad_id,
            "pad_type_id": self.pad_type_id,
            "split_special_tokens": str(self.split_special_tokens).lower(),
            "prompt": self.prompt or None,
            "pad_to_multiple_of": self.pad_to_multiple_of if self.pad_to_multiple_of > 1 else None,
            "pad_lengths": ",".join(map(str, self.pad_lengths)) or None,
        }
        return {key: str(value) for key, value in values.items() if value is not None}


def settings(folder: Path, *, max_length: int | None = None) -> TokenizerSettings:
    """The settings of a Hugging Face or sentence-transformers folder, as its own library loads its tokenizer.

    Raises:
        MissingDependencyError, SourceMissingError, SourceCorruptError, UnsafeSourceError: see
            :func:`~repo_builder.tasks.tokenizer_source.source_tokenizer`.
        SpecError: ``max_length`` is too short or too long for the model.
    """
    source = source_tokenizer(folder)
    pad_id = source.pad_token_id if source.pad_token_id is not None else source.eos_token_id
    return TokenizerSettings(
        tokenizer=tokenizer_json(folder, source),
        max_length=longest_text(folder, source, max_length),
        padding_side=source.padding_side,
        truncation_side=source.truncation_side,
        pad_id=pad_id or 0,
        pad_type_id=source.pad_token_type_id,
        pad_token=source.pad_token,
        split_special_tokens=bool(source.split_special_tokens),
        prompt=default_prompt(folder),
    )


def model(
    name: str,
    folder: Path,
    encoder_inputs: Sequence[TensorSpec],
    settings: TokenizerSettings,
    *,
    max_batch_size: int,
    instances: int = 1,
    layout: Layout = TEXT_LAYOUT,
    extra: Sequence[str] = (),
    vendor: bool = True,
) -> PlannedModel:
    """The Triton model that feeds ``encoder_inputs``: inputs of ``layout``, outputs of their names and dtypes.

    Args:
        folder: the source, named in errors.
        instances: processes; one feeds about eight cores that run short texts.
        extra: what is given as well: names of ``EXTRA``, as INT32; or any output's name in upper case, for clients.
        vendor: put the ``tokenizers`` library into the version folder, so that the server's Python needs only numpy;
            its version and digest become config parameters.

    Raises:
        SignatureError: the encoder wants what a tokenizer does not make, or padding that nothing masks.
        SpecError: ``max_batch_size`` is 0.
        MissingDependencyError, TargetError: see :func:`~repo_builder.tasks.vendored.library`.
    """
    _check_encoder(folder, encoder_inputs, settings, layout)
    if max_batch_size < 1:
        raise SpecError(
            f"max_batch_size is {max_batch_size}",
            expected="1 or more: texts are served in batches",
            mend="export the model with a batch dimension",
            model=name,
        )
    parameters = {**settings.parameters(), **layout.parameters()}
    files: dict[str, Content] = {"model.py": MODEL, "tokenizer.json": settings.tokenizer}
    if vendor:
        library = vendored.library("tokenizers")
        files |= {f"vendor/{path}": file for path, file in library.files.items()}
        parameters |= {"tokenizers_version": library.version, "tokenizers_sha256": library.digest}
    free = [-1] * (len(layout.axes) - 1)
    outputs = [{"name": t.name, "data_type": dtype(t.dtype).config, "dims": free} for t in encoder_inputs]
    types = {t.name: dtype(t.dtype).config for t in encoder_inputs}
    for given in dict.fromkeys(extra):
        inner = given.lower()
        if given not in types:
            dims = [*free, 2] if inner == "offsets" else free
            outputs.append({"name": given, "data_type": types.get(inner, "TYPE_INT32"), "dims": dims})
    config = build(
        {
            "name": name,
            "backend": "python",
            "max_batch_size": max_batch_size,
            "input": layout.public(),
            "output": outputs,
            "instance_group": [{"kind": "KIND_CPU", "count": instances}],
            "dynamic_batching": {},
            "parameters": parameters,
        }
    )
    return PlannedModel(config, version_files=files)


def encode(settings: TokenizerSettings, folder: Path, texts: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """The reference: ``texts`` as the source's own library encodes them: int64 [texts, tokens], padded together.

    Where no text has a token, one padding token stands for it, as in the served model: no encoder takes an axis of
    size 0. Loads the tokenizer anew at every call (about 0.1 s for BERT's vocabulary).
    """
    source = source_tokenizer(folder)
    if source.pad_token is None:
        source.pad_token = source.convert_ids_to_tokens(settings.pad_id)
    found = source(
        [settings.prompt + text for text in texts],
        padding=True,
        truncation=settings.max_length is not None,
        max_length=settings.max_length,
        return_attention_mask=True,
        return_token_type_ids=True,
    )
    if not any(found["input_ids"]):
        fill = {"input_ids": settings.pad_id, "attention_mask": 0, "token_type_ids": settings.pad_type_id}
        return {name: np.full((len(texts), 1), fill[name], dtype=np.int64) for name in OUTPUTS}
    return {name: np.array(found[name], dtype=np.int64) for name in OUTPUTS}


def _check_encoder(
    folder: Path, encoder_inputs: Sequence[TensorSpec], settings: TokenizerSettings, layout: Layout
) -> None:
    for spec in encoder_inputs:
        if spec.name not in OUTPUTS or spec.dtype not in ("INT64", "INT32") or len(spec.shape) != len(layout.axes):
            raise SignatureError(
                f"the model in {folder} has the input {spec}",
                expected=f"only {', '.join(OUTPUTS)}, as INT64 or INT32 of shape [{', '.join(layout.axes)}]",
                mend="export it with these inputs alone, or build it without a text task",
            )
    names = [spec.name for spec in encoder_inputs]
    if "input_ids" not in names:
        raise SignatureError(
            f"the model in {folder} has the inputs {', '.join(names) or '(none)'}",
            expected="input_ids among them",
            mend="build it without a text task",
        )
    if settings.pad_token is None and "attention_mask" not in names:
        raise SignatureError(
            f"the tokenizer in {folder} has no padding token and the model has no input attention_mask",
            expected="a padding token, or a mask that hides the padding of batches",
            mend="name a pad_token in tokenizer_config.json, or export the model with attention_mask",
        )
