"""Task ``sparse-embedding``: text in, weights of vocabulary entries out (SPLADE); pooling and top k in the graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import UnknownTaskError
from repo_builder.formats import huggingface, sentence_transformers_model
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Case, Proof, Ranking, Tolerance
from repo_builder.spec import ModelSpec
from repo_builder.tasks import samples, text
from repo_builder.tasks.tolerances import tolerances

NAME = "sparse-embedding"
SOURCES = frozenset({"huggingface"})
EMBEDDING, INDICES, VALUES, TOKENS = "EMBEDDING", "INDICES", "VALUES", "TOKENS"
ENTRIES = 1024
"""The most entries of ``INDICES``, where the source does not say: more than trained SPLADE models have for a text."""
NONE = -1
_OUTPUTS = {EMBEDDING: "sentence_embedding", INDICES: "indices", VALUES: "values", TOKENS: "tokens"}


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    """The masked language model, SPLADE pooling as the source's own module is set, and its largest entries.

    Raises:
        UnknownTaskError: the source is neither a masked language model nor one with SpladePooling alone behind it.
        MissingDependencyError: sentence-transformers is not installed.
    """
    pipeline = _sparse_encoder(source)
    program = huggingface.load(source, "AutoModelForMaskedLM")
    import torch

    pooling, limit = pipeline[1], pipeline.max_active_dims
    mask = [tensor.name for tensor in program.inputs].index("attention_mask")
    with torch.no_grad():
        width = int(program.module(*program.examples)[0].shape[-1])
    kept = min(width, limit or ENTRIES)

    class Splade(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = program.module

        def forward(self, *inputs: Any) -> Any:
            pooled = _pooled(pooling, self.encoder(*inputs)[0], inputs[mask])
            best, places = torch.topk(pooled, kept, dim=-1)
            if limit:
                pooled = torch.zeros_like(pooled).scatter(-1, places, best)
            real = best > 0
            return pooled, torch.where(real, places, NONE), best, torch.where(real, places, width)

    tokens = _names(pipeline.tokenizer, range(width))
    return TorchProgram(
        Splade().eval(),
        "eager",
        program.inputs,
        tuple(_OUTPUTS.values()),
        program.examples,
        {"tokens": (*tokens, "")},
        {"indices": "values", "tokens": "values"},
    )


def _pooled(pooling: Any, logits: Any, mask: Any) -> Any:
    """What ``SpladePooling.forward`` gives, without its loop over chunks, which no exporter takes at free lengths."""
    import torch

    active = torch.relu(logits * mask.unsqueeze(-1).to(logits.dtype))
    if pooling.pooling_strategy == "max":  # log1p grows with its argument: after the maximum it has less to do
        active = active.amax(1)
    active = torch.log1p(active)
    if pooling.activation_function == "log1p_relu":
        active = torch.log1p(active)
    return active.sum(1) if pooling.pooling_strategy == "sum" else active


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    return text.text_ensemble(model, source, engine, _OUTPUTS)


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    """Each text alone through ``SparseEncoder.encode``: dense, and as a sparse tensor of the largest entries."""
    pipeline = _sparse_encoder(source)
    import sentence_transformers
    import torch

    if limit := text.longest(model):
        pipeline.max_seq_length = limit
    kept = next(int(tensor.shape[-1]) for tensor in engine.outputs if tensor.name == _OUTPUTS[INDICES])
    cases = []
    for sample in samples.texts(model):
        dense = pipeline.encode([sample], convert_to_sparse_tensor=False, show_progress_bar=False)
        largest = pipeline.encode([sample], max_active_dims=kept, show_progress_bar=False)[0].coalesce()
        order = torch.sort(largest.values(), descending=True, stable=True).indices
        indices = largest.indices()[0][order].tolist()
        rest = kept - len(indices)
        tokens = [token.encode() for token in _names(pipeline.tokenizer, indices)]
        outputs = {
            EMBEDDING: dense.numpy(),
            INDICES: np.array([indices + [NONE] * rest], dtype=np.int64),
            VALUES: np.array([largest.values()[order].tolist() + [0.0] * rest], dtype=np.float32),
            TOKENS: np.array([tokens + [b""] * rest], dtype=object),
        }
        cases.append(Case(samples.request({"TEXT": (sample,)}), outputs))
    summed = pipeline[1].pooling_strategy == "sum"
    weights = Tolerance(max_rel_error=1e-4) if summed else Tolerance(1e-4)
    allowed = tolerances(model, {EMBEDDING: weights, VALUES: weights, INDICES: Tolerance(), TOKENS: Tolerance()})
    versions = f"sentence-transformers {sentence_transformers.__version__} SparseEncoder on torch {torch.__version__}"
    ranked = dict.fromkeys((INDICES, TOKENS), Ranking(VALUES))
    return Proof(model.public_name, tuple(cases), True, allowed, {}, f"{versions}, each text alone", ranked)


def _names(tokenizer: Any, indices: Iterable[int]) -> list[str]:
    """Entries of the vocabulary; U+2400 for a NUL, at which ONNX Runtime's Python would end the string."""
    found = tokenizer.convert_ids_to_tokens(list(indices))
    return [str(token or "").replace("\0", "\u2400") for token in found]


def _sparse_encoder(source: Artifact) -> Any:
    """The folder in sentence-transformers; masked language models get its default, max pooling.

    Raises:
        UnknownTaskError: see :func:`head`.
        MissingDependencyError: sentence-transformers is not installed.
    """
    folder = source.facts.get("sentence_transformers") or {}
    kinds = [str(module["kind"]) for module in folder.get("modules", ())]
    written = [str(name) for name in source.facts.get("architectures") or ()]
    if kinds[1:] != ["SpladePooling"] if kinds else not any(name.endswith("ForMaskedLM") for name in written):
        raise UnknownTaskError(
            f"{source.path.name} has the modules {', '.join(kinds)}"
            if kinds
            else f"{source.path.name} is {', '.join(written) or 'of no known class'}",
            expected="a masked language model, alone or with SpladePooling behind it",
            mend=f"choose a SPLADE model for the task {NAME}",
        )
    return sentence_transformers_model.load(source, "SparseEncoder")
