"""Task ``feature-extraction``: text in, one vector per token out (the encoder's last hidden state)."""

from __future__ import annotations

from typing import Any

from repo_builder.artifact import Artifact
from repo_builder.formats import huggingface, huggingface_model
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.planned import PlannedModel
from repo_builder.proof import Case, Proof, Tolerance
from repo_builder.spec import ModelSpec
from repo_builder.tasks import samples, text, tokenizer
from repo_builder.tasks.tolerances import tolerances

NAME = "feature-extraction"
SOURCES = frozenset({"huggingface"})
OUTPUT, MASK = "LAST_HIDDEN_STATE", "ATTENTION_MASK"
_HIDDEN = "last_hidden_state"


def head(source: Artifact, model: ModelSpec) -> TorchProgram:
    program = huggingface.load(source)
    import torch

    class LastHiddenState(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.encoder = program.module

        def forward(self, *inputs: Any) -> Any:
            return self.encoder(*inputs)[0]

    return TorchProgram(LastHiddenState().eval(), "eager", program.inputs, (_HIDDEN,), program.examples)


def models(model: ModelSpec, source: Artifact, engine: Artifact) -> tuple[PlannedModel, ...]:
    return text.text_ensemble(model, source, engine, {OUTPUT: _HIDDEN}, shown=(MASK,))


def proof(model: ModelSpec, source: Artifact, engine: Artifact, program: TorchProgram | None) -> Proof:
    """Each text alone through the source's own tokenizer and transformers' AutoModel.

    Left out are texts without a single token, which such models refuse.
    """
    import torch
    import transformers

    folder = source.path / str(source.facts.get("transformer", ""))
    trust = bool(source.facts.get("trust_remote_code", False))
    with huggingface_model.quiet():
        encoder = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust, dtype=torch.float32
        ).eval()
    texts = samples.texts(model)
    encoded = tokenizer.encode(tokenizer.settings(source.path, max_length=text.longest(model)), source.path, texts)
    cases = []
    for row, sample in enumerate(texts):
        real = encoded["attention_mask"][row] == 1
        if not real.any():
            continue
        tokens = {name: array[row][real][None] for name, array in encoded.items()}
        with torch.no_grad():
            hidden = encoder(**{t.name: torch.from_numpy(tokens[t.name]) for t in engine.inputs})[0]
        cases.append(
            Case(samples.request({"TEXT": (sample,)}), {OUTPUT: hidden.numpy(), MASK: tokens["attention_mask"]})
        )
    allowed = tolerances(model, {OUTPUT: Tolerance(1e-4, cosine=0.99999), MASK: Tolerance()})
    reference = f"transformers {transformers.__version__} AutoModel on torch {torch.__version__}, each text alone"
    return Proof(model.public_name, tuple(cases), True, allowed, {OUTPUT: MASK, MASK: MASK}, reference)
