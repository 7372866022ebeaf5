"""Labels of a classifier, in the order of its logits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from repo_builder.errors import SourceCorruptError
from repo_builder.tasks import label_names


def config(**id2label: object) -> SimpleNamespace:
    known = {int(key.removeprefix("i")): value for key, value in id2label.items()}
    return SimpleNamespace(num_labels=len(known), id2label=known)


def test_labels_come_in_the_order_of_the_logits_and_as_text() -> None:
    assert label_names.names(config(i1="größer", i0=3)) == ("3", "größer")


def test_a_logit_without_a_label_is_named() -> None:
    with pytest.raises(SourceCorruptError) as caught:
        label_names.names(config(i1="a", i2="b"))
    assert str(caught.value) == (
        "id2label in config.json has the keys 1, 2\n"
        "  expected: 0 to 1, one for each of the model's 2 logits\n"
        "  to mend it: name every label in config.json, or leave id2label and label2id out"
    )


def test_transformers_names_the_labels_of_a_config_without_any() -> None:
    transformers = pytest.importorskip("transformers")
    assert label_names.names(transformers.BertConfig(num_labels=3)) == ("LABEL_0", "LABEL_1", "LABEL_2")
