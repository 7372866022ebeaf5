"""Task ``text2text-generation``: text in, generated text out (T5, BART, Marian, ...), by greedy search or sampling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import SignatureError, SpecError, UnknownTaskError
from repo_builder.formats import huggingface_model
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.model_config import build
from repo_builder.planned import Content, PlannedModel
from repo_builder.proof import Case, Proof, Tolerance
from repo_builder.spec import ModelSpec
from repo_builder.tasks import generation_rules, samples, seq2seq_heads, text, vendored
from repo_builder.tasks.engine_model import dynamic_batching, engine_model
from repo_builder.tasks.seq2seq_heads import DECODER, ENCODER
from repo_builder.tasks.seq2seq_tokens import Tokens, tokens
from repo_builder.tasks.tokenizer import TEXT_LAYOUT
from repo_builder.tasks.tolerances import tolerances

NAME = "text2text-generation"
SOURCES = frozenset({"huggingface"})
ENGINES = (ENCODER, DECODER)
"""The programs of the head; ``models`` and ``proof`` take their engines by these names."""

OUTPUT, IDS, MASK = "GENERATED_TEXT", "OUTPUT_IDS", "OUTPUT_MASK"
MAX_NEW_TOKENS, DO_SAMPLE = "MAX_NEW_TOKENS", "DO_SAMPLE"
TEMPLATE = Path(__file__).parent.parent / "templates" / "generate"
PROOF_TOKENS = 16
"""New tokens of a case of the proof; every ``_UNLIMITED``-th case goes to the folder's own limit."""
_UNLIMITED = 16

_OPTIONS = {
    MAX_NEW_TOKENS: "TYPE_INT32",
    DO_SAMPLE: "TYPE_BOOL",
    "TEMPERATURE": "TYPE_FP32",
    "TOP_K": "TYPE_INT32",
    "TOP_P": "TYPE_FP32",
    "SEED": "TYPE_INT64",
}


def head(source: Artifact, model: ModelSpec) -> dict[str, TorchProgram]:
    """Encoder and decoder step, by name.

    Raises:
        UnknownTaskError: the folder holds no encoder-decoder model.
        SpecError, SourceCorruptError: see :func:`~repo_builder.tasks.generation_rules.rules`.
    """
    _check_positions(model, _folder_rules(source))
    tokens(_home(source), text.longest(model))
    return seq2seq_heads.programs(_pretrained(source))


def models(model: ModelSpec, source: Artifact, engines: Mapping[str, Artifact]) -> tuple[PlannedModel, ...]:
    """The generating model (public, Python backend), the encoder and the decoder.

    Raises:
        SignatureError: an engine has no batch dimension.
    """
    for part in ENGINES:
        if engines[part].batch is None:
            raise SignatureError(
                f"the {part} of {source.path} has no batch dimension: {engines[part].facts.get('batch_refused', '')}",
                expected="rows that do not depend on each other",
                mend="build it without a text task, its parts by module.py:factory",
            )
    name = model.public_name
    # The generating model merges requests; a queue in front of every step of the decoder would only delay it.
    alone = model.model_copy(update={"batching": model.batching.model_copy(update={"dynamic": False})})
    parts = {part: engine_model(f"{name}_{part}", alone, engines[part]) for part in ENGINES}
    batching = {"dynamic_batching": dynamic_batching(model)} if model.batching.dynamic else {}
    planned = {"generate": _generating(name, model, source, parts, batching), **parts}
    for step, overrides in model.step_configs.items():
        planned[step] = text.overridden(planned[step], overrides)
    return tuple(planned.values())


def proof(
    model: ModelSpec,
    source: Artifact,
    engines: Mapping[str, Artifact],
    programs: Mapping[str, TorchProgram] | None,
) -> Proof:
    """Each text alone through transformers' own ``generate(do_sample=False, num_beams=1)``."""
    import torch
    import transformers

    rules = _folder_rules(source)
    encode, generator = tokens(_home(source), text.longest(model)), _pretrained(source)
    sampling = "do_sample" in rules.parameters or text.parameter(model, "generate", "do_sample") is not None
    cases = []
    with huggingface_model.quiet():
        for number, sample in enumerate(samples.texts(model)):
            limit = None if number % _UNLIMITED == 0 else PROOF_TOKENS
            cases.append(_case(generator, encode, sample, limit, sampling))
    allowed = tolerances(model, {name: Tolerance() for name in (OUTPUT, IDS, MASK)})
    reference = (
        f"transformers {transformers.__version__} generate() on torch {torch.__version__}, greedy, each text alone"
    )
    note = f" ({rules.not_served})" if rules.not_served else ""
    return Proof(model.public_name, tuple(cases), True, allowed, {IDS: MASK, MASK: MASK}, reference + note)


def _case(generator: Any, encode: Tokens, sample: str, limit: int | None, sampling: bool) -> Case:
    import torch

    asked = {} if limit is None else {"max_new_tokens": limit}
    ids = torch.tensor([encode.ids(sample)])
    with torch.no_grad():
        found = generator.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            num_beams=1,
            num_return_sequences=1,
            return_dict_in_generate=False,
            **asked,
        )
    inputs = samples.request({"TEXT": [sample]})
    if limit is not None:
        inputs[MAX_NEW_TOKENS] = np.array([[limit]], dtype=np.int32)
    if sampling:
        inputs[DO_SAMPLE] = np.array([[False]])
    answer = found.numpy().astype(np.int64)
    generated = np.array([[encode.text(answer[0].tolist()).encode("utf-8")]], dtype=object)
    return Case(inputs, {OUTPUT: generated, IDS: answer, MASK: np.ones_like(answer)})


def _generating(
    name: str, model: ModelSpec, source: Artifact, parts: Mapping[str, PlannedModel], batching: Mapping[str, Any]
) -> PlannedModel:
    encode = tokens(_home(source), text.longest(model))
    library = vendored.library("tokenizers")
    parameters = {
        **{part: planned.name for part, planned in parts.items()},
        **encode.parameters,
        **_folder_rules(source).parameters,
        "tokenizers_version": library.version,
        "tokenizers_sha256": library.digest,
    }
    files: dict[str, Content] = {file: TEMPLATE / file for file in ("model.py", "search.py", "texts.py", "charsmap.py")}
    files |= encode.files
    files |= {f"vendor/{path}": file for path, file in library.files.items()}
    decoder = parts[DECODER].config
    options = [{"name": n, "data_type": t, "dims": [1], "optional": True} for n, t in _OPTIONS.items()]
    config = build(
        {
            "name": name,
            "backend": "python",
            "max_batch_size": decoder.max_batch_size,
            "input": [*TEXT_LAYOUT.public(), *options],
            "output": [
                {"name": OUTPUT, "data_type": "TYPE_STRING", "dims": [1]},
                {"name": IDS, "data_type": "TYPE_INT64", "dims": [-1]},
                {"name": MASK, "data_type": "TYPE_INT64", "dims": [-1]},
            ],
            "instance_group": [
                {"kind": "KIND_CPU", "count": max(1, sum(group.count for group in decoder.instance_group))}
            ],
            **batching,
            "parameters": dict(sorted(parameters.items())),
        }
    )
    return PlannedModel(config, files)


def _folder_rules(source: Artifact) -> generation_rules.GenerationRules:
    return generation_rules.rules(_home(source), trust_remote_code=bool(source.facts.get("trust_remote_code", False)))


def _check_positions(model: ModelSpec, rules: generation_rules.GenerationRules) -> None:
    """Refuse a limit of tokens that the folder's own answers pass, or that the model has no positions for."""
    asked, most = text.parameter(model, "generate", "max_positions"), rules.max_positions
    if asked is None:
        return
    if not asked.isdecimal() or not rules.max_length <= int(asked) <= (most or int(asked)):
        raise SpecError(
            f"step_configs.generate.parameters.max_positions is {asked!r}",
            expected=f"{rules.max_length} (the default length of an answer)"
            + (f" to {most} (the model's positions)" if most else " or more"),
            mend="correct it in the spec",
        )


def _home(source: Artifact) -> Path:
    return source.path / str(source.facts.get("transformer", ""))


def _pretrained(source: Artifact) -> Any:
    import transformers

    trust = bool(source.facts.get("trust_remote_code", False))
    config = transformers.AutoConfig.from_pretrained(_home(source), local_files_only=True, trust_remote_code=trust)
    own = "AutoModelForSeq2SeqLM" in (getattr(config, "auto_map", None) or {})
    if not own and type(config) not in transformers.AutoModelForSeq2SeqLM._model_mapping:
        raise UnknownTaskError(
            f"{source.path} holds a model of the type {config.model_type}, which is no encoder-decoder of texts",
            expected="a model that transformers' AutoModelForSeq2SeqLM takes (T5, BART, Marian, ...)",
            mend="choose another task",
        )
    return huggingface_model.pretrained(transformers.AutoModelForSeq2SeqLM, source)
