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
from repo_builder.tasks.engine_model import engine_model, tensor_fields
from repo_builder.tasks.ensemble import Step, ensemble
from repo_builder.tasks.image_settings import ImageSettings
from repo_builder.tasks.text import overridden
from repo_builder.tensors import TensorSpec

MODEL = Path(__file__).parent.parent / "templates" / "image" / "model.py"
IMAGE = "IMAGE"
SIZES = "image_sizes"
"""Height and width of each image, turned as its orientation says, before it is resized."""
LABEL_FILE = "labels.txt"
CPUS_PER_PREPROCESSOR = 8
"""A process decodes on as many threads; Pillow lets go of the interpreter's lock while it decodes and resizes."""


def preprocess(
    name: str,
    pixels: TensorSpec,
    settings: ImageSettings,
    *,
    max_batch_size: int,
    instances: int = 1,
    sizes: bool = False,
) -> PlannedModel:
    """The Triton model that makes ``pixels`` of IMAGE (with ``sizes`` also ``SIZES``), Pillow in its version folder.

    Args:
        pixels: FP32 [rows, 3, height, width], or [rows, height, width, 3] where the settings say so.

    Raises:
        MissingDependencyError, TargetError, ToolchainError: see :func:`vendored_pillow.library`.
    """
    library = vendored_pillow.library()
    files: dict[str, Content] = {"model.py": MODEL}
    outputs = [pixels, *([TensorSpec(SIZES, "INT32", (pixels.shape[0], 2))] if sizes else [])]
    files |= {f"vendor/{path}": file for path, file in library.files.items()}
    config = build(
        {
            "name": name,
            "backend": "python",
            "max_batch_size": max_batch_size,
            "input": [_public(pixels, max_batch_size)],
            "output": [tensor_fields(spec, max_batch_size) for spec in outputs],
            "instance_group": [{"kind": "KIND_CPU", "count": instances}],
            **({"dynamic_batching": {}} if max_batch_size else {}),
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
    inner: Mapping[str, str] | None = None,
    behind: Mapping[str, Step] | None = None,
    sizes: bool = False,
) -> tuple[PlannedModel, ...]:
    """The ensemble, its preprocessing, its engine, and the models behind that: one that makes text of a plan's indices
    if there is one, and ``behind``.

    Args:
        outputs: public name -> name of the engine's output.
        labels: public name of an output with a number for each label -> the labels: Triton's classification extension
            then answers with them.
        inner: the engine's own tensor -> its name in the ensemble, where others could bear it.
        behind: models that read the engine's answers, by their names in ``step_configs``; they give the public outputs.
        sizes: those also read ``SIZES``.
    """
    name = model.public_name
    encoder = engine_model(f"{name}_encoder", model, engine)
    size = encoder.config.max_batch_size
    entry = engine.inputs[0]
    pixels = preprocess(
        f"{name}_preprocess",
        TensorSpec(entry.name, "FP32", (entry.shape[0], *settings.axes())),
        settings,
        max_batch_size=size,
        instances=max(1, (model.cpus or 1) // CPUS_PER_PREPROCESSOR),
        sizes=sizes,
    )
    after = dict(behind or {})
    own = inner or {}
    named = {one: public for public, one in outputs.items()}
    strings = string_lookup.planned(f"{name}_strings", engine, size)
    told = own if after else named
    steps = [Step(pixels, own), Step(encoder, {**told, **own, **string_lookup.indices(engine)})]
    steps += [Step(strings, told)] if strings else []
    public = _public(entry, size)
    whole = ensemble(name, [public], [*steps, *after.values()], list(outputs), size)
    planned = {"ensemble": whole, "preprocess": pixels, "encoder": encoder}
    if strings:
        planned["strings"] = strings
    planned |= {step: one.model for step, one in after.items()}
    for shown, names in (labels or {}).items():
        planned["ensemble"] = labelled(planned["ensemble"], shown, names)
        writer = next(reversed(after)) if after else "encoder"
        planned[writer] = labelled(planned[writer], outputs[shown], names)
    if not model.batching.dynamic:
        for step in planned.keys() - {"ensemble", "encoder"}:
            planned[step] = overridden(planned[step], {"dynamic_batching": None})
    for step, fields in model.step_configs.items():
        planned[step] = overridden(planned[step], fields)
    return tuple(planned.values())


def check_parameters(model: ModelSpec, settings: ImageSettings) -> None:
    """Refuse parameters of ``step_configs`` that the preprocessing would never look at.

    Raises:
        SpecError: sizes beside ``shortest_edge``, which goes before them.
    """
    given = model.step_configs.get("preprocess", {}).get("parameters") or {}
    merged = {key: value for key, value in {**settings.parameters(), **given}.items() if value is not None}
    if "shortest_edge" in merged and (useless := sorted({"height", "width"} & merged.keys())):
        raise SpecError(
            f"step_configs.preprocess.parameters: {' and '.join(useless)} has no effect beside shortest_edge",
            expected="height and width, or shortest_edge",
            mend="clear the other with null",
        )


def _public(rows: TensorSpec, max_batch_size: int) -> dict[str, object]:
    """The input for clients, one encoded image a row; ``rows``: a tensor with as many rows."""
    return tensor_fields(TensorSpec(IMAGE, "BYTES", (rows.shape[0], 1)), max_batch_size)


def labelled(planned: PlannedModel, output: str, names: Sequence[str]) -> PlannedModel:
    """The model with ``label_filename`` on an output: a label a line, in the order of the numbers."""
    config = apply_overrides(planned.config, {"output": [{"name": output, "label_filename": LABEL_FILE}]})
    content = "".join(" ".join(name.split()) + "\n" for name in names).encode()
    return PlannedModel(config, planned.version_files, {**planned.model_files, LABEL_FILE: content})
