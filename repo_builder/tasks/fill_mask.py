"""Task ``fill-mask``: text with mask tokens in, the likeliest tokens for each of them out; top k in the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import SpecError, UnknownTaskError
from repo_builder.formats import huggingface, huggingface_model
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Case, Proof, Ranking, Tolerance
from repo_builder.spec import ModelSpec
from repo_builder.tasks import calibration, postprocess, samples, text, tokenizer, tokenizer_source
from repo_builder.tasks.tolerances import tolerances
from repo_builder.tensors import dtype

NAME = "fill-mask"
SOURCES = frozenset({"huggingface"})
DEFAULT_TOP_K = 5
_FILLING: dict[str, tuple[str, str]] = {
    "TOKENS": ("token", "TYPE_INT64"),
    "TOKEN_STRINGS": ("token_str", "TYPE_STRING"),
    "SEQUENCES": ("sequence", "TYPE_STRING"),
    "SCORES": ("score", "TYPE_FP32"),
    "LOGITS": ("", "TYPE_FP32"),
}
"""Public name -> the pipeline's key and Triton's dtype."""


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    """The ``top_k`` tokens of every position: no tensor as wide as the vocabulary leaves the graph."""
    tokenizer_with_mask(source)
    program = huggingface.load(source, "AutoModelForMaskedLM")
    import torch

    k = top_k(model, int(program.module.model.config.vocab_size))

    class FillMask(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = program.module

        def forward(self, *inputs: Any) -> Any:
            logits = self.model(*inputs)[0]
            best, tokens = torch.topk(logits, k, dim=-1)
            return tokens, torch.exp(best - torch.logsumexp(logits, dim=-1, keepdim=True)), best

    outputs = ("tokens", "scores", "logits")
    ranked = {"tokens": "logits"}
    return TorchProgram(FillMask().eval(), "eager", program.inputs, outputs, program.examples, ranked=ranked)


def top_k(model: ModelSpec, vocabulary: int | None = None) -> int:
    """How many tokens are given for a mask.

    Raises:
        SpecError: it is not a number from 1 to the size of the vocabulary.
    """
    asked = text.parameter(model, "postprocess", "top_k") or str(DEFAULT_TOP_K)
    if not asked.isdecimal() or not 1 <= int(asked) <= (vocabulary or int(asked)):
        raise SpecError(
            f"step_configs: postprocess: top_k is {asked!r}",
            expected="a number from 1" + (f" to {vocabulary}, the size of the vocabulary" if vocabulary else ""),
            mend="correct it in the spec",
        )
    return int(asked)


def tokenizer_with_mask(source: Artifact) -> Any:
    """The source's tokenizer.

    Raises:
        UnknownTaskError: it has no mask token.
    """
    found = tokenizer_source.source_tokenizer(source.path)
    if found.mask_token_id is None:
        raise UnknownTaskError(
            f"the tokenizer in {source.path.name} has no mask token",
            expected=f"a masked language model for the task {NAME}",
            mend="choose another task, or name mask_token in tokenizer_config.json",
        )
    return found


def parameters(own: Any, settings: tokenizer.TokenizerSettings, k: int) -> dict[str, str]:
    """What ``templates/masks/model.py`` reads, from the source's tokenizer.

    Its ``decode`` cleans spaces up where it is told to, but not after byte pairs (TokenizersBackend.decode).
    """
    byte_pairs = type(own.backend_tokenizer.model).__name__ == "BPE"
    forced = bool(getattr(own, "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", False))
    return {
        "top_k": str(k),
        "mask_token": str(own.mask_token),
        "mask_id": str(own.mask_token_id),
        "clean_up_spaces": str(bool(own.clean_up_tokenization_spaces) and (forced or not byte_pairs)).lower(),
        **({"pad_id": str(own.pad_token_id)} if own.pad_token_id is not None else {}),
        **({"max_length": str(settings.max_length)} if settings.max_length is not None else {}),
    }


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    own, settings, k = tokenizer_with_mask(source), _settings(model, source), top_k(model)
    types = {spec.name: dtype(spec.dtype).config for spec in (*engine.inputs, *engine.outputs)}
    inputs = [
        {"name": "input_ids", "data_type": types["input_ids"], "dims": [-1]},
        {"name": "attention_mask", "data_type": types.get("attention_mask", "TYPE_INT32"), "dims": [-1]},
        {"name": "tokens", "data_type": types["tokens"], "dims": [-1, k]},
        {"name": "scores", "data_type": types["scores"], "dims": [-1, k]},
        {"name": "logits", "data_type": types["logits"], "dims": [-1, k]},
    ]
    outputs = [{"name": name, "data_type": kind, "dims": [-1, k]} for name, (_, kind) in _FILLING.items()]
    return text.text_ensemble(
        model,
        source,
        engine,
        {},
        extra=("attention_mask",),
        settings=settings,
        postprocess=postprocess.planned(
            model, engine, "masks", settings, inputs, outputs, parameters(own, settings, k)
        ),
    )


def asked(model: ModelSpec, source: Artifact) -> calibration.Asked:
    """Texts with masks, as clients send them."""
    own, settings = tokenizer_with_mask(source), _settings(model, source)
    cut = {"truncation": settings.max_length is not None, "max_length": settings.max_length}

    def masks(sample: str) -> int:
        return list(own(sample, **cut)["input_ids"]).count(own.mask_token_id)

    rows = samples.rows(model, tokenizer.TEXT_LAYOUT, lambda texts: masked(texts, str(own.mask_token), masks))
    return calibration.Asked(settings, tokenizer.TEXT_LAYOUT, rows)


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    """Each text alone through ``transformers.pipeline``.

    Raises:
        SpecError: a sample of the spec has no mask token.
    """
    import torch
    import transformers

    k, limit = top_k(model), _settings(model, source).max_length
    cut = {"truncation": limit is not None, "max_length": limit}
    fill = huggingface_model.pipeline(NAME, source)
    mask = fill.tokenizer.mask_token_id

    def masks(sample: str) -> int:
        return list(fill.tokenizer(sample, **cut)["input_ids"]).count(mask)

    cases = []
    for row in samples.rows(model, tokenizer.TEXT_LAYOUT, lambda own: masked(own, fill.tokenizer.mask_token, masks)):
        sample = row["TEXT"][0]
        if not masks(sample):
            raise SpecError(
                f"samples.texts has {sample[:60]!r}, which has no mask token",
                expected=f"{fill.tokenizer.mask_token} in every text" + (f", among {limit} tokens" if limit else ""),
                mend="put it into the text, or leave samples out",
                stage="proof",
            )
        ran = fill.forward(fill.preprocess(sample, tokenizer_kwargs=cut))
        found = fill.postprocess(ran, top_k=k)
        rows = [found] if isinstance(found[0], dict) else found
        logits = ran["logits"][0][ran["input_ids"][0] == mask]
        best = logits.topk(k).values.numpy()
        cases.append(Case(samples.request(row), {**_arrays(rows), "LOGITS": best[None]}))
    exact = dict.fromkeys(("TOKENS", "TOKEN_STRINGS", "SEQUENCES"), Tolerance())
    allowed = tolerances(model, {**exact, "SCORES": Tolerance(1e-4), "LOGITS": Tolerance(max_rel_error=1e-4)})
    versions = f"transformers {transformers.__version__} pipeline({NAME!r}, top_k={k}) on torch {torch.__version__}"
    masks_of, ranked = dict.fromkeys(_FILLING, "SCORES"), dict.fromkeys(exact, Ranking("SCORES"))
    return Proof(model.public_name, tuple(cases), True, allowed, masks_of, f"{versions}, each text alone", ranked)


def masked(texts: Sequence[str], mask: str, masks: Any) -> list[samples.Row]:
    """The texts with one mask in place of a word (of a character, where nothing parts words), every third with two.

    Args:
        masks: how many masks the tokenizer finds in a text; where it cuts all of them off, the text gets one in front,
            or else at its end.
    """
    made: list[samples.Row] = []
    for number, sample in enumerate(texts):
        words = sample.split(" ") if " " in sample else list(sample)
        joint = " " if " " in sample else ""
        for count in range(1 + (number % 3 == 2)):
            if words:
                words[(number * 5 + count * 3) % min(len(words), 12)] = mask
        tried = (joint.join(words), f"{mask} {sample}", f"{sample} {mask}")
        made.append({"TEXT": [next((one for one in tried if masks(one)), tried[0])]})
    return made


def _settings(model: ModelSpec, source: Artifact) -> tokenizer.TokenizerSettings:
    """Padding goes to the right, whatever the source pads: no token's place, and so no position, depends on it."""
    found = tokenizer.settings(source.path, max_length=text.longest(model))
    return replace(found, padding_side="right", prompt="")


def _arrays(rows: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, np.ndarray[Any, Any]]:
    """The pipeline's fillings of every mask of one text, as the tensors of a batch of one."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, (key, kind) in _FILLING.items():
        if key:
            values = [[one[key] for one in row] for row in rows]
            strings = [[value.encode() for value in row] for row in values] if kind == "TYPE_STRING" else None
            arrays[name] = np.array(
                [strings or values], dtype={"TYPE_FP32": np.float32, "TYPE_INT64": np.int64}.get(kind, object)
            )
    return arrays
