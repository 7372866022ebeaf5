"""What vision tasks share: the step that makes pixels of encoded images, and its ensemble with an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from repo_builder.artifact import Artifact
from repo_builder.errors import SpecError
from repo_builder.model_config import apply_overrides, build
from repo_builder.planned import Content, PlannedModel
from repo_builder.spec import ModelSpec
from repo_builder.tasks import string_lookup, vendored_pillow
from repo_builder.tasks.engine_model import engine_model
from repo_builder.tasks.ensemble import Step, ensemble
from repo_builder.tasks.image_settings import ImageSettings
from repo_builder.tasks.text import overridden
from repo_builder.tensors import TensorSpec

MODEL = Path(__file__).parent.parent / "templates" / "image" / "model.py"
IMAGE = "IMAGE"
PUBLIC = {"name": IMAGE, "data_type": "TYPE_STRING", "dims": [1]}
LABEL_FILE = "labels.txt"
CPUS_PER_PREPROCESSOR = 8
"""A process decodes on as many threads; Pillow lets go of the interpreter's lock while it decodes and resizes."""


def preprocess(
    name: str, pixels: TensorSpec, settings: ImageSettings, *, max_batch_size: int, instances: int = 1
) -> PlannedModel:
    """The Triton model that makes ``pixels`` (FP32 [batch, 3, height, width]) of IMAGE, Pillow in its version folder.

    Raises:
        SpecError: ``max_batch_size`` is 0.
        MissingDependencyError, TargetError, ToolchainError: see :func:`vendored_pillow.library`.
    """
    if max_batch_size < 1:
        raise SpecError(
            f"max_batch_size is {max_batch_size}",
            expected="1 or more: images are served in batches",
            mend="leave it out",
            model=name,
        )
    library = vendored_pillow.library()
    files: dict[str, Content] = {"model.py": MODEL}
    files |= {f"vendor/{path}": file for path, file in library.files.items()}
    config = build(
        {
            "name": name,
            "backend": "python",
            "max_batch_size": max_batch_size,
            "input": [PUBLIC],
            "output": [{"name": pixels.name, "data_type": "TYPE_FP32", "dims": list(pixels.shape[1:])}],
            "instance_group": [{"kind": "KIND_CPU", "count": instances}],
            "dynamic_batching": {},
            "parameters": {
                **settings.parameters(),
                "pillow_version": library.version,
                "pillow_sha256": library.digest,
            },
        }
    )
    return PlannedModel(config, version_files=files)


def image_ensemble(
    model: ModelSpec,
    engine: Artifact,
    settings: ImageSettings,
    outputs: Mapping[str, str],
    *,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> tuple[PlannedModel, ...]:
    """The ensemble, its preprocessing, its engine, and the model that makes text of a plan's indices if there is one.

    Args:
        outputs: public name -> name of the engine's output.
        labels: public name of an output with a number for each label -> the labels: Triton's classification extension
            then answers with them.
    """
    name = model.public_name
    encoder = engine_model(f"{name}_encoder", model, engine)
    size = encoder.config.max_batch_size
    pixels = preprocess(
        f"{name}_preprocess",
        engine.inputs[0],
        settings,
        max_batch_size=size,
        instances=max(1, (model.cpus or 1) // CPUS_PER_PREPROCESSOR),
    )
    named = {inner: public for public, inner in outputs.items()}
    strings = string_lookup.planned(f"{name}_strings", engine, size)
    steps = [Step(pixels), Step(encoder, {**named, **string_lookup.indices(engine)})]
    steps += [Step(strings, named)] if strings else []
    planned = {"ensemble": ensemble(name, [PUBLIC], steps, list(outputs), size), "preprocess": pixels}
    planned["encoder"] = encoder
    if strings:
        planned["strings"] = strings
    for public, names in (labels or {}).items():
        planned["ensemble"] = labelled(planned["ensemble"], public, names)
        planned["encoder"] = labelled(planned["encoder"], outputs[public], names)
    if not model.batching.dynamic:
        for step in planned.keys() & {"preprocess", "strings"}:
            planned[step] = overridden(planned[step], {"dynamic_batching": None})
    for step, fields in model.step_configs.items():
        planned[step] = overridden(planned[step], fields)
    return tuple(planned.values())


def labelled(planned: PlannedModel, output: str, names: Sequence[str]) -> PlannedModel:
    """The model with ``label_filename`` on an output: a label a line, in the order of the numbers."""
    config = apply_overrides(planned.config, {"output": [{"name": output, "label_filename": LABEL_FILE}]})
    content = "".join(" ".join(name.split()) + "\n" for name in names).encode()
    return PlannedModel(config, planned.version_files, {**planned.model_files, LABEL_FILE: content})
