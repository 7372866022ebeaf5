"""What TorchScript must give and take to be served as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from repo_builder.artifact import Artifact
from repo_builder.convert import as_it_is
from repo_builder.errors import ConversionError
from repo_builder.tensors import TensorSpec

X = TensorSpec("x", "FP32", ("batch", 4))


def source(returns: str, takes: tuple[str, ...] = ("Tensor",)) -> Artifact:
    return Artifact(Path("net.pt"), "torchscript", (X,), facts={"returns": returns, "takes": list(takes)})


@pytest.mark.parametrize("returns", ["Tensor", "Tuple[Tensor]", "Tuple[Tensor, Tensor]"])
def test_tensors_and_flat_tuples_are_taken(returns: str) -> None:
    made = as_it_is.convert(source(returns), Path("out"))
    assert (made.path, made.provenance) == (Path("net.pt"), {"exporter": "none: taken as it is"})


@pytest.mark.parametrize(
    "returns",
    [
        "List[Tensor]",
        "Dict[str, Tensor]",
        "Optional[Tensor]",
        "Tuple[Tensor, Optional[Tensor]]",
        "Tuple[Tensor, Tuple[Tensor, Tensor]]",
        "__torch__.Output",
    ],
)
def test_what_the_backend_cannot_answer_with_is_refused_before_it_is_served(returns: str) -> None:
    with pytest.raises(ConversionError) as caught:
        as_it_is.convert(source(returns), Path("out"))
    assert caught.value.found == f"forward of net.pt returns {returns}"
    assert "engine onnx" in caught.value.mend


@pytest.mark.parametrize(
    ("takes", "found"),
    [
        (("Tensor", "int"), "takes int, if only by default"),
        (("Tensor", "Optional[Tensor]"), "takes Optional[Tensor], if only by default"),
        (("Tensor", "Tensor"), "takes 2 tensors, `inputs:` gives 1"),
    ],
)
def test_every_argument_must_be_a_tensor_that_is_given(takes: tuple[str, ...], found: str) -> None:
    with pytest.raises(ConversionError) as caught:
        as_it_is.convert(source("Tensor", takes), Path("out"))
    assert found in caught.value.found
