"""What the spec asks for and the build of this model could not do: refused, never left out in silence."""

from __future__ import annotations

from repo_builder.artifact import Artifact
from repo_builder.errors import SpecError
from repo_builder.spec import ModelSpec


def check(model: ModelSpec, source: Artifact, task: str) -> None:
    """Refuse options without any effect on this source and task.

    Raises:
        SpecError: names the first of them, and why it has none.
    """
    taken = f"the {source.format} file is served as it is, nothing is exported"
    one = f"the task {task} makes one model, whose config is `config:`"
    for option, asked, why in (
        ("exporter", model.exporter and source.format == model.engine, taken),
        ("outputs", model.outputs and source.format == model.engine, "its file names the outputs"),
        ("outputs", model.outputs and task != "tensors", f"the task {task} names the outputs"),
        ("step_configs", model.step_configs and task == "tensors", one),
        ("samples.texts", model.samples.texts is not None and task == "tensors", f"the task {task} takes no texts"),
        ("samples.arrays", model.samples.arrays and task != "tensors", f"the task {task} takes texts"),
    ):
        if asked:
            raise SpecError(
                f"{option} has no effect here: {why}",
                expected="only what this model's build can do",
                mend=f"leave {option} out" + (", or choose the task 'tensors'" if option == "samples.arrays" else ""),
            )
