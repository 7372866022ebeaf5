"""Ensembles: models wired by the names of their tensors, with dtypes and dims inferred and every gap refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from repo_builder.errors import SignatureError
from repo_builder.model_config import build
from repo_builder.planned import PlannedModel


@dataclass(frozen=True)
class Step:
    """One model of an ensemble.

    Attributes:
        model: its config names the tensors.
        renamed: a tensor's name in the model -> its name in the ensemble, where the two differ.
    """

    model: PlannedModel
    renamed: Mapping[str, str] = field(default_factory=dict)

    def outer(self, name: str) -> str:
        return self.renamed.get(name, name)


def ensemble(
    name: str,
    inputs: Sequence[Mapping[str, Any]],
    steps: Sequence[Step],
    outputs: Sequence[str],
    max_batch_size: int,
) -> PlannedModel:
    """The ensemble that feeds each step from ``inputs`` and earlier steps and gives ``outputs``.

    A tensor of a step that nobody reads is not mapped, so that the server does not ask the model for it.

    Args:
        inputs: the public inputs as fields of a ModelConfig.
        outputs: names of tensors that steps write, in the order in which clients see them.

    Raises:
        SignatureError: a step reads what nobody writes or in another dtype or shape, a tensor is written twice, or an
            output is not written. Triton's own words: "... is mapping to non-existing input", "output ... is not
            written", "inconsistent data type" (core, ensemble_utils.cc).
    """
    known: dict[str, Any] = {tensor.name: tensor for tensor in build({"input": list(inputs)}).input}
    inner = {step.outer(tensor.name) for step in steps for tensor in step.model.config.input}
    written_by_steps = [step.outer(tensor.name) for step in steps for tensor in step.model.config.output]
    if both := [shown for shown in outputs if shown in inner and shown in written_by_steps]:
        raise SignatureError(
            f"ensemble '{name}': {', '.join(both)} would be handed out and read by another step as well",
            expected="tensors of their own for clients: where a client does not ask for all outputs, Triton may leave "
            "out the step that writes such a tensor (core, ensemble_scheduler.cc: it prunes by counting outputs)",
            mend="let the step write the tensor twice, under two names",
            model=name,
        )
    read = inner | set(outputs)
    planned = []
    for step in steps:
        config = step.model.config
        for tensor in config.input:
            _check(name, config.name, tensor, step.outer(tensor.name), known)
        written = {tensor.name: step.outer(tensor.name) for tensor in config.output}
        for tensor in config.output:
            if written[tensor.name] in known:
                raise SignatureError(f"ensemble '{name}': '{written[tensor.name]}' is written twice", model=name)
            known[written[tensor.name]] = tensor
        planned.append(
            {
                "model_name": config.name,
                "model_version": -1,
                "input_map": {tensor.name: step.outer(tensor.name) for tensor in config.input},
                "output_map": {inner: outer for inner, outer in written.items() if outer in read},
            }
        )
    missing = [shown for shown in outputs if shown not in written_by_steps]
    if missing:
        raise SignatureError(
            f"ensemble '{name}': the outputs {', '.join(missing)} are not written",
            expected="outputs of its steps: " + ", ".join(written_by_steps),
            model=name,
        )
    fields = {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": max_batch_size,
        "input": list(inputs),
        "output": [_output(shown, known[shown]) for shown in outputs],
        "ensemble_scheduling": {"step": planned},
    }
    return PlannedModel(build(fields))


def _check(name: str, model: str, tensor: Any, outer: str, known: Mapping[str, Any]) -> None:
    if outer not in known:
        raise SignatureError(
            f"ensemble '{name}': step '{model}' reads '{outer}', which nothing before it writes",
            expected="one of " + ", ".join(known),
            model=name,
        )
    found = known[outer]
    fits = len(found.dims) == len(tensor.dims) and all(
        a == b or -1 in (a, b) for a, b in zip(found.dims, tensor.dims, strict=True)
    )
    if found.data_type != tensor.data_type or not fits:
        raise SignatureError(
            f"ensemble '{name}': step '{model}' reads '{outer}' as {_shown(tensor)}, but it is {_shown(found)}",
            expected="the same dtype and dims on both sides",
            model=name,
        )


def _output(shown: str, tensor: Any) -> dict[str, Any]:
    """A step's output as it leaves the step: its reshape is over by then (the server refuses one of the ensemble's own
    as "inconsistent shape"; core, ensemble_utils.cc)."""
    return {"name": shown, "data_type": _type(tensor), "dims": list(tensor.dims)}


def _shown(tensor: Any) -> str:
    return f"{_type(tensor)}{list(tensor.dims)}"


def _type(tensor: Any) -> str:
    return str(type(tensor).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[tensor.data_type].name)
