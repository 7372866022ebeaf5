"""Task ``question-answering``: a question and a context in, the best answer out, over all windows of a long context."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import SpecError
from repo_builder.formats import huggingface
from repo_builder.formats.examples import example_inputs
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Case, Proof, Tolerance
from repo_builder.spec import ModelSpec
from repo_builder.tasks import calibration, older_transformers, postprocess, samples, text, tokenizer
from repo_builder.tasks.tokenizer_source import source_tokenizer
from repo_builder.tasks.tolerances import tolerances
from repo_builder.tensors import TensorSpec, dtype

NAME = "question-answering"
SOURCES = frozenset({"huggingface"})
QUESTION, CONTEXT = "QUESTION", "CONTEXT"
ANSWER, SCORE, START, END = "ANSWER", "SCORE", "START", "END"
AXES = ("batch", "windows", "sequence")
LONGEST_WINDOW, WIDEST_STRIDE = 384, 128
"""QuestionAnsweringPipeline.preprocess of transformers 5.2: max_seq_len and doc_stride are at most these."""
MAX_BATCH_SIZE = 8
"""Rows, each of several windows, in a request, where the spec does not say."""
_LOGITS = {"START_LOGITS": "start_logits", "END_LOGITS": "end_logits"}
_READ = ("attention_mask", "sequence_ids", "word_ids", "offsets")


def prepare(progress: Callable[[str], None]) -> None:
    """The environment of the reference, made before anything is converted."""
    older_transformers.python(progress)


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    """Logits of every token of every window: start and end apart [batch, windows, sequence], and ``logits`` with both
    on one more axis, for the step that reads them.

    An ensemble of Triton's skips a step none of whose public outputs a client asks for, even where another step reads
    them (core, ensemble_scheduler.cc), so what is read is not what is public.
    """
    _options(model, source, windows(model, source)[0])
    program = huggingface.load(source, "AutoModelForQuestionAnswering")
    import torch

    class Reader(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.reader = program.module

        def forward(self, *inputs: Any) -> Any:
            shape = inputs[0].shape
            found = self.reader(*(tensor.flatten(0, 1) for tensor in inputs))
            start, end = (found[name].reshape(shape) for name in _LOGITS.values())
            return start, end, torch.stack((start, end), dim=-1)

    inputs = tuple(TensorSpec(tensor.name, tensor.dtype, AXES) for tensor in program.inputs)
    arrays = example_inputs(inputs, dict(zip(AXES, (2, 3, 7), strict=True)))
    examples = tuple(torch.from_numpy(array) for array in arrays.values())
    return TorchProgram(Reader().eval(), "eager", inputs, (*_LOGITS.values(), "logits"), examples)


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    model = text.with_batch_size(model, MAX_BATCH_SIZE)
    settings, layout = windows(model, source)
    given = {tensor.name for tensor in engine.inputs}
    return text.text_ensemble(
        model,
        source,
        engine,
        _LOGITS,
        layout=layout,
        extra=[name for name in _READ if name not in given],
        settings=settings,
        postprocess=_postprocess(model, source, engine, layout),
    )


def windows(model: ModelSpec, source: Artifact) -> tuple[tokenizer.TokenizerSettings, tokenizer.Layout]:
    """How questions and contexts become windows, as ``QuestionAnsweringPipeline.preprocess`` has it.

    Windows have ``shapes.sequence.max`` tokens, else what the source takes and at most 384; they share the tokenizer
    parameter ``stride`` of the spec's ``step_configs``, else half of that and at most 128. The context goes first
    where the tokenizer pads on the left.

    Raises:
        SpecError: the stride leaves no room for a question and new tokens of the context.
    """
    settings = tokenizer.settings(source.path, max_length=text.longest(model))
    length = settings.max_length or LONGEST_WINDOW
    if not text.longest(model):
        length = min(length, LONGEST_WINDOW)
    asked = text.parameter(model, "tokenizer", "stride")
    stride = min(length // 2, WIDEST_STRIDE) if asked is None else _count("tokenizer", "stride", asked, 0)
    if stride > length - 6:
        raise SpecError(
            f"windows of {length} tokens that share {stride}",
            expected="room for a question, special tokens and new tokens of the context",
            mend="lower the tokenizer's parameter stride, or raise shapes.sequence.max",
        )
    left = settings.padding_side == "left"
    layout = tokenizer.Layout("windows", {QUESTION: 1, CONTEXT: 1}, "only_first" if left else "only_second", stride)
    return replace(settings, max_length=length), layout


def asked(model: ModelSpec, source: Artifact) -> calibration.Asked:
    """Windows of questions and contexts."""
    settings, layout = windows(model, source)
    rows = samples.rows(model, layout, lambda own: _rows(own, source, settings, layout))
    return calibration.Asked(settings, layout, rows)


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    """Each row alone through the pipeline of transformers 5.2, with what the spec asks for and else its defaults, and
    with the tokenizer as this transformers makes it."""
    settings, layout = windows(model, source)
    asked = samples.rows(model, layout, lambda own: _rows(own, source, settings, layout))
    rows = [{QUESTION: row[QUESTION][0], CONTEXT: row[CONTEXT][0]} for row in asked]
    for number, row in enumerate(rows):
        if not all(row.values()):
            raise SpecError(
                f"samples.texts[{number}] has an empty question or context",
                expected="both, as the pipeline refuses empty ones",
                stage="proof",
            )
    found = older_transformers.run(
        "question_answering.py",
        {
            "model": str((source.path / str(source.facts.get("transformer", ""))).resolve()),
            "tokenizer": source_tokenizer(source.path).backend_tokenizer.to_str(),
            "trust_remote_code": bool(source.facts.get("trust_remote_code", False)),
            "options": _options(model, source, settings),
            "rows": [{"question": row[QUESTION], "context": row[CONTEXT]} for row in rows],
        },
    )
    cases = [Case(samples.request(a), _outputs(one)) for a, one in zip(asked, found["answers"], strict=True)]
    exact = dict.fromkeys((ANSWER, START, END), Tolerance())
    allowed = tolerances(model, {**exact, SCORE: Tolerance(1e-4)})
    reference = (
        f"transformers {found['transformers']} pipeline({NAME!r}) on torch {found['torch']}, each question alone"
    )
    return Proof(model.public_name, tuple(cases), True, allowed, {}, reference)


def _postprocess(model: ModelSpec, source: Artifact, engine: Artifact, layout: tokenizer.Layout) -> PlannedModel:
    cls_id = source_tokenizer(source.path).cls_token_id
    types = {tensor.name: dtype(tensor.dtype).config for tensor in (*engine.inputs, *engine.outputs)}
    axes = {"logits": [-1, -1, 2], "offsets": [-1, -1, 2]}
    parameters = {"max_answer_len": "15", "align_to_words": "true", "handle_impossible_answer": "false"}
    parameters |= {"context": "first"} if layout.truncation == "only_first" else {}
    parameters |= {"cls_id": str(cls_id)} if cls_id is not None else {}
    public = {ANSWER: "TYPE_STRING", SCORE: "TYPE_FP32", START: "TYPE_INT32", END: "TYPE_INT32"}
    inputs = [
        {"name": CONTEXT, "data_type": "TYPE_STRING", "dims": [1]},
        *(
            {"name": name, "data_type": types.get(name, "TYPE_INT32"), "dims": axes.get(name, [-1, -1])}
            for name in ("logits", "input_ids", *_READ)
        ),
    ]
    outputs = [{"name": name, "data_type": kind, "dims": [1]} for name, kind in public.items()]
    # Windows and tokens differ from request to request, so there is next to nothing to merge.
    return postprocess.planned(model, engine, "answers", None, inputs, outputs, parameters, merged=False)


def _options(model: ModelSpec, source: Artifact, settings: tokenizer.TokenizerSettings) -> dict[str, Any]:
    """What the pipeline is told beyond its defaults: only what the spec asks for, and windows that the model takes."""
    options: dict[str, Any] = {}
    for name in ("max_answer_len", "align_to_words", "handle_impossible_answer"):
        value = text.parameter(model, "postprocess", name)
        if value is not None:
            options[name] = _count("postprocess", name, value, 1) if name == "max_answer_len" else _flag(name, value)
    stride = text.parameter(model, "tokenizer", "stride")
    if stride is not None:
        options["doc_stride"] = int(stride)
    if settings.max_length != min(source_tokenizer(source.path).model_max_length, LONGEST_WINDOW):
        options["max_seq_len"] = settings.max_length
    return options


def _outputs(found: dict[str, Any] | None) -> dict[str, np.ndarray[Any, Any]]:
    found = found or {"answer": "", "score": 0.0, "start": 0, "end": 0}
    return {
        ANSWER: np.array([[found["answer"].encode()]], dtype=object),
        SCORE: np.array([[found["score"]]], dtype=np.float32),
        START: np.array([[found["start"]]], dtype=np.int32),
        END: np.array([[found["end"]]], dtype=np.int32),
    }


def _rows(
    own: list[str], source: Artifact, settings: tokenizer.TokenizerSettings, layout: tokenizer.Layout
) -> Iterator[samples.Row]:
    """Contexts of one to many neighbouring texts; questions cut short enough for every window to have room."""
    encode = source_tokenizer(source.path)
    room = ((settings.max_length or LONGEST_WINDOW) - layout.stride - encode.num_special_tokens_to_add(pair=True)) // 2
    texts = [one for one in own if one]
    questions = [one for one in own if one.strip()]
    for number in range(len(texts)):
        count = 24 if number % 16 == 15 else (1, 2, 3, 5, 8)[number % 5]
        question = questions[(7 * number + 3) % len(questions)]
        while len(encode.tokenize(question)) > room and len(question) > 1:
            question = question[: len(question) * 3 // 4]
        yield {QUESTION: [question], CONTEXT: [" ".join((texts * 2)[number : number + count])]}


def _flag(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise SpecError(
            f"step_configs.postprocess.parameters.{name} is {value!r}",
            expected="'true' or 'false', in quotes",
            mend="correct it in the spec",
        )
    return value == "true"


def _count(step: str, name: str, value: str, lowest: int) -> int:
    if not value.isdecimal() or int(value) < lowest:
        raise SpecError(
            f"step_configs.{step}.parameters.{name} is {value!r}",
            expected=f"a number of tokens, {lowest} or more",
            mend="correct it in the spec",
        )
    return int(value)
