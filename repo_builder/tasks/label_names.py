"""The labels of a classifier, in the order of its logits."""

from __future__ import annotations

from typing import Any

from repo_builder.artifact import Artifact
from repo_builder.errors import SourceCorruptError


def read(source: Artifact) -> tuple[str, ...]:
    """The labels of a Hugging Face folder; see :func:`names`."""
    import transformers

    folder = source.path / str(source.facts.get("transformer", ""))
    trust = bool(source.facts.get("trust_remote_code", False))
    return names(transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust))


def names(config: Any) -> tuple[str, ...]:
    """``id2label`` of a transformers config as text; one that names none is given LABEL_0, ... by transformers.

    Raises:
        SourceCorruptError: it does not name every logit.
    """
    known = config.id2label
    missing = [i for i in range(config.num_labels) if i not in known]
    if missing:
        raise SourceCorruptError(
            f"id2label in config.json has the keys {', '.join(map(str, sorted(known)))[:80]}",
            expected=f"0 to {config.num_labels - 1}, one for each of the model's {config.num_labels} logits",
            mend="name every label in config.json, or leave id2label and label2id out",
        )
    return tuple(str(known[i]) for i in range(config.num_labels))
