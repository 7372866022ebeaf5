"""Steps and parameters of ``step_configs``: what would have no effect is refused before anything is converted."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from repo_builder import tasks
from repo_builder.artifact import Artifact
from repo_builder.errors import SpecError
from repo_builder.spec import ModelSpec
from repo_builder.tasks import steps

TEMPLATES = Path(__file__).parents[3] / "templates"


def choose(task: str, **step_configs: Any) -> str:
    model = ModelSpec(source="x", task=task, step_configs=step_configs)
    return tasks.choose(model, Artifact(Path("x"), "huggingface"))[0].NAME


def read_by(template: str) -> set[str]:
    """The parameters that the template's code asks for by name."""
    found: set[str] = set()
    for file in (TEMPLATES / template).glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            match node:
                case ast.Subscript(value=ast.Name(id="parameters"), slice=ast.Constant(value=str(name))):
                    found.add(name)
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="parameters"), attr="get"),
                    args=[ast.Constant(value=str(name)), *_],
                ):
                    found.add(name)
                case ast.Call(func=ast.Name(id="_one_of" | "_number"), args=[_, ast.Constant(value=str(name)), *_]):
                    found.add(name)
                case ast.Assign(targets=[ast.Name(id="FIELDS" | "SAMPLING")], value=value):
                    constants = (one.value for one in ast.walk(value) if isinstance(one, ast.Constant))
                    found.update(one for one in constants if isinstance(one, str))
    return found


OWN = {"llm"}
"""Folders whose models take what their layout gives them, and any further parameter of a config's."""


@pytest.mark.parametrize("template", sorted({folder.name for folder in TEMPLATES.iterdir() if folder.is_dir()} - OWN))
def test_the_known_parameters_are_those_that_the_template_reads(template: str) -> None:
    by_the_task = {"masks": {"top_k"}}
    assert set(steps.PARAMETERS[template]) == read_by(template) | by_the_task.get(template, set())


def test_every_task_has_its_steps() -> None:
    assert set(steps.STEPS) == set(tasks.TASKS) - {"tensors", "text-generation"}
    for task, known in steps.STEPS.items():
        source = inspect.getsource(importlib.import_module(tasks.TASKS[task]))
        made = re.findall(r'postprocess\.planned\(\s*model, engine, "(\w+)"', source)
        assert [known[step] for step in known if step == "postprocess"] == made


@pytest.mark.parametrize(
    ("task", "step", "parameters", "message"),
    [
        ("fill-mask", "postprocess", {"top_kk": "3"}, "top_kk has no effect: the model reads no such parameter "),
        ("fill-mask", "postprocess", {"top_kk": "3"}, "(did you mean 'top_k'?)"),
        ("token-classification", "postprocess", {"strategy": "max"}, "(did you mean 'aggregation_strategy'?)"),
        ("question-answering", "tokenizer", {"strides": 3}, "step_configs.tokenizer.parameters.strides has no effect"),
        ("text2text-generation", "generate", {"max_position": "9"}, "(did you mean 'max_positions'?)"),
        ("reranking", "tokenizer", {"EXECUTION_ENV": "/e"}, "(did you mean 'EXECUTION_ENV_PATH'?)"),
        ("reranking", "tokenizer", {"MAX_BATCH_VOLUME": "9"}, "MAX_BATCH_VOLUME has no effect"),
    ],
)
def test_a_parameter_that_nothing_reads_is_refused(
    task: str, step: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as refused:
        choose(task, **{step: {"parameters": parameters}})
    assert message in str(refused.value)
    assert refused.value.exit_code == 3


@pytest.mark.parametrize(
    ("task", "step", "parameters"),
    [
        ("fill-mask", "postprocess", {"top_k": {"string_value": "3"}}),
        ("sentence-embedding", "tokenizer", {"EXECUTION_ENV_PATH": "/e.tar.gz", "FORCE_CPU_ONLY_INPUT_TENSORS": "no"}),
        ("sentence-embedding", "tokenizer", {"TRITON_BATCH_STRATEGY_PATH": "/b.so", "MAX_BATCH_VOLUME": "9"}),
        ("sentence-embedding", "tokenizer", {"tokenizers_version": None}),
        ("sentence-embedding", "ensemble", {"owner": "us"}),
        ("text2text-generation", "decoder", {"intra_op_thread_count": "2"}),
    ],
)
def test_parameters_that_someone_reads_are_taken(task: str, step: str, parameters: dict[str, Any]) -> None:
    assert choose(task, **{step: {"parameters": parameters}}) == task


@pytest.mark.parametrize(
    ("task", "step", "message"),
    [
        ("sentence-embedding", "tokeniser", "there is no step 'tokeniser' (did you mean 'tokenizer'?)"),
        ("sentence-embedding", "postprocess", "one of ensemble, tokenizer (`config:` is the converted model's)"),
        ("text2text-generation", "tokenizer", "one of generate, encoder, decoder\n"),
    ],
)
def test_an_unknown_step_names_the_nearest(task: str, step: str, message: str) -> None:
    with pytest.raises(SpecError) as refused:
        choose(task, **{step: {}})
    assert message in str(refused.value)
