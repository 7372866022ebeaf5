"""Task ``sentence-embedding``: text in, one vector per text out; pooling and normalisation inside the graph."""

from __future__ import annotations

from typing import Any

from repo_builder.artifact import Artifact
from repo_builder.formats import huggingface, sentence_transformers_model
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Case, Proof, Tolerance
from repo_builder.spec import ModelSpec
from repo_builder.tasks import samples, text, tokenizer
from repo_builder.tasks.tolerances import tolerances

NAME = "sentence-embedding"
SOURCES = frozenset({"huggingface"})
OUTPUT = "EMBEDDING"
_EMBEDDING = "sentence_embedding"
_TOLERANCE = Tolerance(1e-5, cosine=0.99999)


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    """The encoder, then the source's own further modules (Pooling, Dense, Normalize), as one module."""
    pipeline = sentence_transformers_model.load(source, "SentenceTransformer")
    import torch

    program = huggingface.load(source)
    names = [t.name for t in program.inputs]

    class SentenceEmbedding(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = program.module
            self.after = torch.nn.ModuleList(list(pipeline)[1:])

        def forward(self, *inputs: Any) -> Any:
            features = {**dict(zip(names, inputs, strict=True)), "token_embeddings": self.encoder(*inputs)[0]}
            for module in self.after:
                features = module(features)
            return features[_EMBEDDING]

    return TorchProgram(SentenceEmbedding().eval(), "eager", program.inputs, (_EMBEDDING,), program.examples)


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    return text.text_ensemble(model, source, engine, {OUTPUT: _EMBEDDING})


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    """Each text alone through ``SentenceTransformer.encode``: the source's own tokenizer, pooling, normalisation.

    Left out are texts without a single token, which such models refuse.
    """
    pipeline = sentence_transformers_model.load(source, "SentenceTransformer")
    import sentence_transformers
    import torch

    if limit := text.longest(model):
        pipeline.max_seq_length = limit
    texts = samples.texts(model)
    encoded = tokenizer.encode(tokenizer.settings(source.path, max_length=text.longest(model)), source.path, texts)
    cases = tuple(
        Case(
            samples.request({"TEXT": (sample,)}),
            {OUTPUT: pipeline.encode([sample], batch_size=1, show_progress_bar=False)},
        )
        for sample, mask in zip(texts, encoded["attention_mask"], strict=True)
        if mask.any()
    )
    versions = f"sentence-transformers {sentence_transformers.__version__} on torch {torch.__version__}"
    allowed = tolerances(model, {OUTPUT: _TOLERANCE})
    return Proof(model.public_name, tuple(cases), True, allowed, {}, f"{versions}, each text alone")
