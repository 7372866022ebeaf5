"""Files beside the model with the engine: how the engine is built elsewhere, and how the server is started."""

from __future__ import annotations

import re
import shlex

from repo_builder import releases
from repo_builder.artifact import Artifact
from repo_builder.formats import tensorrt_llm_engine
from repo_builder.formats.engine_settings import EngineSettings
from repo_builder.llm import MOUNT, build_commands, launch
from repo_builder.llm.build_commands import CHECKPOINT, ENGINE, EXAMPLES, MODEL, Step
from repo_builder.llm.building import CONTAINER_EXAMPLES, EXAMPLES_VARIABLE
from repo_builder.llm.settings import FLAVOUR, check_version
from repo_builder.llm.source import LanguageModel
from repo_builder.render import render
from repo_builder.spec import ModelSpec

BUILD_SCRIPT, JOB, LAUNCH_SCRIPT, SET = (
    *("build_engine.sh", "build_engine.job.yaml", "launch.sh", "leader_worker_set.yaml"),
)
_SOURCE_MOUNT = "/huggingface"
_VARIABLES = {MODEL: '"$MODEL"', CHECKPOINT: '"$CHECKPOINT"', ENGINE: '"$PART"', EXAMPLES: '"$EXAMPLES"'}
_LONGEST_NAME = 40


def files(
    model: ModelSpec, source: Artifact, language: LanguageModel, settings: EngineSettings, release: releases.Release
) -> dict[str, bytes]:
    """By name: ``launch.sh``; ``build_engine.sh`` and ``build_engine.job.yaml`` where the source is no engine yet;
    ``leader_worker_set.yaml`` where the engine takes several machines.

    Raises:
        TargetError: the source is an engine that the target's TensorRT-LLM did not build.
        SpecError: see ``build_commands.recipe`` and ``launch.nodes``.
    """
    name = model.public_name
    engine_model = f"{name}_tensorrt_llm"
    machines = launch.nodes(settings, model.llm.launch)
    values = {
        "name": name,
        "resource": resource_name(name),
        "engine_model": engine_model,
        "image": image(release),
        "mount": MOUNT,
        "settings": settings,
        "nodes": machines,
        "gpus": min(settings.world_size, settings.gpus_per_node),
    }
    found: dict[str, str] = {}
    if source.format == tensorrt_llm_engine.NAME:
        check_version(settings, release)
    else:
        recipe = build_commands.recipe(model, language, settings)
        build = {
            "steps": [(step.name, shell(step)) for step in recipe.steps],
            "notes": recipe.notes,
            "version": ".".join(settings.version.split(".")[:3]),
            "examples": CONTAINER_EXAMPLES,
            "examples_variable": EXAMPLES_VARIABLE,
            "source_mount": _SOURCE_MOUNT,
        }
        found[BUILD_SCRIPT] = render("llm/build_engine.sh.j2", **values, **build)
        found[JOB] = render("llm/build_engine.job.yaml.j2", **values, **build)
    lines = [] if machines > 1 else launch_lines(engine_model, settings, model.llm.launch)
    found[LAUNCH_SCRIPT] = render("llm/launch.sh.j2", **values, lines=lines, endpoints=launch.WITHOUT_ENDPOINTS)
    if machines > 1:
        found[SET] = render("llm/leader_worker_set.yaml.j2", **values)
    return {file: text.encode() for file, text in found.items()}


def image(release: releases.Release) -> str:
    """The container that has TensorRT-LLM and Triton."""
    return f"nvcr.io/nvidia/tritonserver:{release.name}-{FLAVOUR}"


def resource_name(name: str) -> str:
    """A name that Kubernetes takes (RFC 1123), short enough for what it appends."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_LONGEST_NAME].strip("-")
    return plain or "model"


def launch_lines(engine_model: str, settings: EngineSettings, mode: launch.Mode) -> list[str]:
    """The command in shell, a line for each rank; arguments of the script go to the first rank."""
    started = launch.launch(engine_model, settings, mode)
    sections: list[list[str]] = [[]]
    for word in started.argv:
        sections[-1].append(shlex.quote(word))
        if word == ":":
            sections.append([])
    first = sections[0]
    first.insert(len(first) - (first[-1] == ":"), '"$@"')
    variables = [f"{name}={shlex.quote(value)}" for name, value in started.environment.items()]
    sections[0] = [*(["env", *variables] if variables else []), *first]
    return [" ".join(section) for section in sections]


def shell(step: Step) -> str:
    """A step in shell, with the script's variables for its places; a line for each option."""
    lines: list[list[str]] = [[]]
    for word in step.argv:
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(_word(word))
    return " \\\n    ".join(" ".join(line) for line in lines)


def _word(word: str) -> str:
    for place, variable in _VARIABLES.items():
        if word == place or word.startswith(f"{place}/"):
            rest = word[len(place) :]
            return variable + (shlex.quote(rest) if rest else "")
    return shlex.quote(word)
