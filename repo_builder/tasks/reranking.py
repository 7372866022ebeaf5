"""Task ``reranking``: pairs of texts in (query and passage), a score for each out; the activation inside the graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from repo_builder.artifact import Artifact
from repo_builder.errors import UnknownTaskError
from repo_builder.formats import huggingface, sentence_transformers_model
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Case, Proof, Tolerance
from repo_builder.spec import ModelSpec
from repo_builder.tasks import calibration, samples, text, tokenizer
from repo_builder.tasks.tolerances import tolerances

NAME = "reranking"
SOURCES = frozenset({"huggingface"})
PAIRS, SCORE, SCORES, LOGITS = "PAIRS", "SCORE", "SCORES", "LOGITS"
LAYOUT = tokenizer.Layout("pairs", {PAIRS: 2})
_BEHIND = {"Pooling", "Dense", "Normalize", "LayerNorm", "Dropout"}
"""Modules of sentence-transformers that may stand behind an encoder and make its scores."""


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    """The classifier (or encoder and the source's own further modules), then the source's activation function.

    Raises:
        UnknownTaskError: the source scores with the logits of a language model, writes its pairs into a chat template,
            or has modules of another kind.
        MissingDependencyError: sentence-transformers is not installed.
    """
    behind = _modules_behind(source)
    pipeline = sentence_transformers_model.load(source, "CrossEncoder")
    if "message" in pipeline[0].modality_config:
        raise _other(f"{source.path.name} writes its pairs into a chat template")
    program = huggingface.load(source, "AutoModel" if behind else "AutoModelForSequenceClassification")
    import torch

    names = [tensor.name for tensor in program.inputs]

    class Reranker(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = program.module
            self.after = torch.nn.ModuleList(list(pipeline)[1:])
            self.activation = pipeline.activation_fn

        def forward(self, *inputs: Any) -> Any:
            logits = self.encoder(*inputs)[0]
            if behind:
                features = {**dict(zip(names, inputs, strict=True)), "token_embeddings": logits}
                for module in self.after:
                    features = module(features)
                logits = features["scores"]
            return self.activation(logits), logits

    outputs = ("score" if pipeline.num_labels == 1 else "scores", "logits")
    return TorchProgram(Reranker().eval(), "eager", program.inputs, outputs, program.examples)


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    outputs = {tensor.name.upper(): tensor.name for tensor in engine.outputs}
    return text.text_ensemble(model, source, engine, outputs, layout=LAYOUT)


def asked(model: ModelSpec, source: Artifact) -> calibration.Asked:
    """Pairs: single texts would never show what stands behind the separator."""
    settings = tokenizer.settings(source.path, max_length=text.longest(model))
    return calibration.Asked(settings, LAYOUT, samples.rows(model, LAYOUT, neighbours))


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    """Each pair alone through ``CrossEncoder.predict``, with the source's activation function and without."""
    pipeline = sentence_transformers_model.load(source, "CrossEncoder")
    import sentence_transformers
    import torch

    if limit := text.longest(model):
        pipeline.max_seq_length = limit
    score = SCORE if pipeline.num_labels == 1 else SCORES
    none = torch.nn.Identity()
    cases = []
    for row in samples.rows(model, LAYOUT, neighbours):
        pair = tuple(row[PAIRS])
        found = {score: pipeline.predict([pair]), LOGITS: pipeline.predict([pair], activation_fn=none)}
        cases.append(Case(samples.request(row), {name: array.reshape(1, -1) for name, array in found.items()}))
    allowed = tolerances(model, {score: Tolerance(1e-4), LOGITS: Tolerance(max_rel_error=1e-4)})
    versions = f"sentence-transformers {sentence_transformers.__version__} CrossEncoder on torch {torch.__version__}"
    return Proof(model.public_name, tuple(cases), True, allowed, {}, f"{versions}, each pair alone")


def neighbours(texts: Sequence[str]) -> Iterator[samples.Row]:
    """Every text with the one after it, and the longest with itself."""
    longest = max(texts, key=len)
    for pair in (*zip(texts, [*texts[1:], *texts[:1]], strict=True), (longest, longest)):
        yield {PAIRS: pair}


def _modules_behind(source: Artifact) -> bool:
    """Whether modules of sentence-transformers make the scores; else the transformer's own classifier does."""
    folder = source.facts.get("sentence_transformers") or {}
    kinds = [str(module["kind"]) for module in folder.get("modules", ())]
    written = [str(name) for name in source.facts.get("architectures") or ()]
    generates = "LogitScore" in kinds or (not kinds and any(name.endswith("ForCausalLM") for name in written))
    other = sorted(set(kinds[1:]) - _BEHIND)
    if generates:
        raise _other(f"{source.path.name} scores with the logits of a language model")
    if other:
        raise _other(f"{source.path.name} has the module {other[0]}")
    return len(kinds) > 1


def _other(found: str) -> UnknownTaskError:
    return UnknownTaskError(
        found,
        expected="an encoder with a classification head, or with " + ", ".join(sorted(_BEHIND)) + " behind it",
        mend=f"choose another cross-encoder for the task {NAME}",
    )
