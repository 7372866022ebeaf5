"""Text, which no plan holds, is looked up by a step behind it; served here behind the same graph as an ONNX file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import ServerFactory
from onnx import TensorProto, helper

from repo_builder import client, spec, tasks, validate
from repo_builder.artifact import Artifact
from repo_builder.convert import string_tables, torch_to_onnx
from repo_builder.formats import batch, huggingface
from repo_builder.formats import onnx as onnx_format
from repo_builder.proof import Proof
from repo_builder.repository.plan import Unit
from repo_builder.repository.write import transaction
from repo_builder.tasks import string_lookup
from tests import tiny_transformers

pytestmark = [pytest.mark.server, pytest.mark.torch]
ANIMALS = ("cat", "größer", "")


def without_text(graph: Artifact, folder: Path) -> Artifact:
    """The engine as a plan would be: indices, and the tables among its facts."""
    made, tables = string_tables.split(graph, folder / "indices.onnx")
    return replace(made, facts={**made.facts, string_lookup.FACT: tables})


def classifier(folder: Path) -> Unit:
    source = tiny_transformers.save("bert", "sequence-classification", folder / "classifier")
    model = spec.from_flags(str(source), name="classifier", cpus=1).models[0]
    described = huggingface.describe(source)
    task, _ = tasks.choose(model, described)
    program = task.head(described, model)
    graph = torch_to_onnx.convert(program, folder / "model.onnx", opset=18, ir_version=8)
    engine = without_text(batch.prove_batch(graph, onnx_format.run), folder)
    assert str(engine.outputs[0]) == "labels INT64[batch, 3]"
    models = task.models(model, described, engine)
    return Unit("classifier", "key", models, task.proof(model, described, engine, program))


def tensors(folder: Path) -> Unit:
    """A user's ONNX file that names the largest of three numbers."""
    table = helper.make_tensor("names", TensorProto.STRING, [3], [name.encode() for name in ANIMALS])
    nodes = [
        helper.make_node("ArgMax", ["x"], ["best"], axis=-1, keepdims=0),
        helper.make_node("Gather", ["names", "best"], ["NAME"]),
        helper.make_node("Mul", ["x", "x"], ["SQUARE"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [
            helper.make_tensor_value_info("NAME", TensorProto.STRING, ["batch"]),
            helper.make_tensor_value_info("SQUARE", TensorProto.FLOAT, ["batch", 3]),
        ],
        [table],
    )
    path = folder / "animals.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    source = batch.prove_batch(onnx_format.describe(path), onnx_format.run)
    model = spec.from_flags(str(path), name="animals", cpus=1).models[0]
    task, _ = tasks.choose(model, source)
    engine = without_text(source, folder)
    return Unit("animals", "key", task.models(model, source, engine), task.proof(model, source, engine, None))


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> list[Unit]:
    return [make(tmp_path_factory.mktemp(make.__name__)) for make in (classifier, tensors)]


@pytest.fixture(scope="module")
def triton(
    units: list[Unit], server_factory: ServerFactory, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[client.Client]:
    repository = tmp_path_factory.mktemp("lookup") / "repository"
    with transaction(repository) as change:
        change.stage(units)
        change.commit()
    with client.connect(server_factory(repository).url) as connection:
        yield connection


def test_the_models_are_an_ensemble_that_ends_with_the_lookup(units: list[Unit]) -> None:
    names = [[model.name for model in unit.models] for unit in units]
    assert names == [
        ["classifier", "classifier_tokenizer", "classifier_encoder", "classifier_strings"],
        ["animals", "animals_engine", "animals_strings"],
    ]
    for unit in units:
        lookup = unit.models[-1].config
        assert (lookup.backend, lookup.instance_group[0].kind) == ("onnxruntime", 2)


@pytest.mark.parametrize("number", [0, 1])
def test_every_answer_is_the_sources(number: int, units: list[Unit], triton: client.Client) -> None:
    proof = units[number].proof
    assert isinstance(proof, Proof)
    report = validate.validate(triton, proof)
    assert report.passed, report.failures()
    assert report.outputs[("LABELS", "NAME")[number]]["max_abs_error"] == 0.0


def test_the_text_can_be_asked_alone(triton: client.Client) -> None:
    x = np.array([[3, 1, 2], [0, 5, 1], [0, 1, 9]], np.float32)
    assert triton.infer("animals", {"x": x}, outputs=["NAME"])["NAME"].tolist() == [[n.encode()] for n in ANIMALS]
