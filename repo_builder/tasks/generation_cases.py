"""Cases of the proof of ``text-generation``: prompts and what transformers' own greedy search answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from repo_builder.artifact import Artifact
from repo_builder.errors import SpecError
from repo_builder.formats import huggingface_model
from repo_builder.llm.source import LanguageModel
from repo_builder.spec import ModelSpec
from repo_builder.tasks import samples
from repo_builder.tasks.llm_tokens import LlmTokens

PROMPTS = 16
"""Built-in texts that are asked where the spec names none."""
LONGEST_PROMPT = 200
"""Words of a built-in text that is asked."""
NEW_TOKENS, LONG_ANSWER, LONG_EVERY = 16, 48, 8
MARGINS = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.4}
"""Logits by which the best token must lead, so that rounding of the engine's dtype cannot choose another; an answer is
compared up to the first token that leads by less."""
_BROKEN = "�"


@dataclass(frozen=True)
class Answered:
    """One prompt and its greedy answer.

    Attributes:
        prompt: plain text; empty where ``messages`` are.
        messages: of a chat, ``({"role": ..., "content": ...}, ...)``.
        tokens: new tokens of the answer, the end token not among them; the request asks for so many.
        text: of the new tokens alone, special ones left out.
        continued: the same as what they add to the prompt's text: with the space in front that a tokenizer takes away
            at the start of a text.
    """

    prompt: str
    messages: tuple[dict[str, str], ...]
    tokens: tuple[int, ...]
    text: str
    continued: str


@dataclass(frozen=True)
class Answers:
    """``cut``: of how many answers not every token is compared, for a near tie."""

    cases: tuple[Answered, ...]
    cut: int
    reference: str


@dataclass(frozen=True)
class Limits:
    """What the engine takes.

    Attributes:
        dtype: what it computes in; says how near a tie may be (``MARGINS``).
        prompt: tokens of a prompt.
        whole: tokens of prompt and answer together.
        bos: text that the engine's own tokenizer puts in front of every prompt, rendered ones too; empty for none.
    """

    dtype: str
    prompt: int
    whole: int
    bos: str = ""


def answers(model: ModelSpec, source: Artifact, language: LanguageModel, tokens: LlmTokens, limits: Limits) -> Answers:
    """transformers' greedy answers in fp32, each prompt alone.

    Raises:
        SpecError: no prompt leaves anything to compare.
    """
    import torch
    import transformers

    generator = huggingface_model.pretrained(transformers.AutoModelForCausalLM, source)
    asked = samples.texts(model)
    if model.samples.texts is None:
        asked = [text for text in asked if 3 <= len(text.split()) <= LONGEST_PROMPT][:PROMPTS]
    wanted: list[tuple[str, tuple[dict[str, str], ...], list[int]]] = []
    for number, text in enumerate(asked):
        wanted.append((text, (), tokens.encode(text)))
        if language.chat_template and number < PROMPTS // 4:
            chat: tuple[dict[str, str], ...] = ({"role": "user", "content": text},)
            rendered = tokens.prompt(chat)
            if rendered.startswith(limits.bos):
                wanted.append(("", chat, tokens.encode(rendered, add_special_tokens=False)))
    found, cut = [], 0
    for number, (prompt, messages, ids) in enumerate(wanted):
        limit = min(LONG_ANSWER if number % LONG_EVERY == 0 else NEW_TOKENS, limits.whole - len(ids))
        if not ids or limit < 1 or len(ids) > limits.prompt:
            continue
        new, whole = _greedy(torch, generator, ids, limit, language.end_ids, MARGINS[limits.dtype])
        kept = _whole_characters(tokens, ids, new)
        cut += not whole
        if kept:
            text, continued = tokens.decode(kept), _continued(tokens, ids, kept)
            found.append(Answered(prompt, messages, tuple(kept), text, continued))
    if not found:
        raise SpecError(
            "no prompt has an answer that can be compared: all end at once, are too long, or begin with a near tie",
            expected=f"prompts of at most {min(limits.prompt, limits.whole - 1)} tokens with an answer",
            mend="name others (samples.texts), or build with --no-verify",
            stage="reference",
        )
    without = language.chat_template and not any(messages for _, messages, _ in wanted)
    said = f"transformers {transformers.__version__} on torch {torch.__version__}, fp32, greedy, each prompt alone"
    said += f"; {cut} answers compared up to a near tie" if cut else ""
    said += "; no chat: the engine puts a BOS in front that the chat template does not write" if without else ""
    return Answers(tuple(found), cut, said)


def _greedy(
    torch: Any, generator: Any, ids: Sequence[int], limit: int, ends: Sequence[int], margin: float
) -> tuple[list[int], bool]:
    """New tokens before the end token or the first near tie, and whether none was cut off."""
    prompt = torch.tensor([list(ids)])
    config = _plain(generator, limit, ends)
    with torch.no_grad(), huggingface_model.quiet():
        found = generator.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=config)
    new = found.sequences[0, len(ids) :].tolist()
    for place, logits in enumerate(found.logits):
        best = torch.topk(logits[0].float(), 2).values
        if float(best[0] - best[1]) < margin:
            return new[:place], False
        if new[place] in ends:
            return new[:place], True
    return new, True


def _plain(generator: Any, limit: int, ends: Sequence[int]) -> Any:
    """Greedy search and nothing else: the folder's own penalties are the client's to ask for."""
    from transformers import GenerationConfig

    pad = generator.config.get_text_config().pad_token_id
    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=limit,
        eos_token_id=list(ends) or None,
        pad_token_id=pad if pad is not None else (ends[0] if ends else 0),
        return_dict_in_generate=True,
        output_logits=True,
    )


def _whole_characters(tokens: LlmTokens, ids: Sequence[int], new: list[int]) -> list[int]:
    """The tokens up to the last that ends a character: engines differ in what they make of half of one."""
    while new and _continued(tokens, ids, new).endswith(_BROKEN):
        new = new[:-1]
    return new


def _continued(tokens: LlmTokens, ids: Sequence[int], new: Sequence[int]) -> str:
    before, whole = tokens.decode(list(ids)), tokens.decode([*ids, *new])
    return whole[len(before) :] if whole.startswith(before) else tokens.decode(list(new))
