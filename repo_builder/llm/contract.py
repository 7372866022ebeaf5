"""What TensorRT-LLM's own Triton models look like to a server, per version: tensors, parameters, ensemble maps.

The tables lie in ``contracts/ROLE.json``, read from the configs that TensorRT-LLM ships, each with its source. An
entry with ``since`` or ``until`` holds from that version on, or before it; a value ``${name}`` is filled per model.
``part`` says what an entry belongs to that a model of text alone does not have: ``image``, ``video``, ``decoder`` (of
encoder-decoder models).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from repo_builder.errors import TargetError

ROLES = ("preprocessing", "tensorrt_llm", "postprocessing", "ensemble", "tensorrt_llm_bls", "llmapi")
VERSIONS = ("0.19", "0.20", "0.21", "1.0", "1.1", "1.2")
"""The versions that the tables tell, without their patches."""
RENAMED = {
    "min_length": "min_tokens",
    "random_seed": "seed",
    "sampling_param_beam_width": "sampling_param_best_of",
    "return_kv_cache_reuse_stats": "return_perf_metrics",
    "visual_model_path": "multimodal_model_path",
}
"""Older names of tensors and parameters: the last two until 0.18, the others until 0.19 (0.20 has the new ones)."""


@dataclass(frozen=True)
class Tensor:
    """An input or output; ``reshape`` is None where there is none (``()`` drops the only axis)."""

    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool = False
    ragged: bool = False
    reshape: tuple[int, ...] | None = None
    part: str = ""

    def fields(self, types: Mapping[str, str]) -> dict[str, Any]:
        """As fields of a ModelConfig.

        Args:
            types: what fills ``${name}``: ``{"logits_datatype": "TYPE_FP32", ...}``.
        """
        fields: dict[str, Any] = {"name": self.name, "data_type": self.filled(types), "dims": list(self.dims)}
        if self.reshape is not None:
            fields["reshape"] = {"shape": list(self.reshape)}
        if self.optional:
            fields["optional"] = True
        if self.ragged:
            fields["allow_ragged_batch"] = True
        return fields

    def filled(self, types: Mapping[str, str]) -> str:
        name = _placeholder(self.data_type)
        return types[name] if name else self.data_type


@dataclass(frozen=True)
class Parameter:
    """A config parameter; ``value`` as shipped (often ``${name}``); ``required``: the model does not load without."""

    name: str
    value: str = ""
    required: bool = False
    part: str = ""

    @property
    def placeholder(self) -> str:
        """The name of the template's variable, empty where the value is fixed."""
        return _placeholder(self.value)


@dataclass(frozen=True)
class Step:
    """One step of the ensemble: the role of its model, and inner tensor -> tensor of the ensemble."""

    model: str
    input_map: Mapping[str, str]
    output_map: Mapping[str, str]


@dataclass(frozen=True)
class Model:
    """One model of the contract, whole or for text alone."""

    role: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: tuple[Parameter, ...]
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Contract:
    """The contract of one version.

    Attributes:
        version: as it was asked for (``1.2.1``).
        models: by role, whole.
        text: by role, without what belongs to images, video and encoder-decoder models. The role ``tensorrt_llm``
            stays whole: its backend is TensorRT-LLM's own.
    """

    version: str
    models: Mapping[str, Model]
    text: Mapping[str, Model] = field(repr=False)

    @property
    def family(self) -> str:
        """The version of the tables: ``1.2`` of ``1.2.1``."""
        return family(self.version)


def family(version: str) -> str:
    """``1.0`` of ``1.0.3.2510``.

    Raises:
        TargetError: no table tells this version.
    """
    found = re.match(r"v?(\d+)\.(\d+)(?![\d])", version)
    name = f"{int(found[1])}.{int(found[2])}" if found else ""
    if name in VERSIONS:
        return name
    if found and _order(name) > _order(VERSIONS[-1]):
        found_text = f"TensorRT-LLM {version} has no known contract for engines: its TensorRT backend was removed"
        mend = "target a release up to 26.07 (TensorRT-LLM 1.2.1), or choose the engine llmapi"
    elif found:
        found_text = f"the Triton models of TensorRT-LLM {version} differ from those that are known here"
        mend = "build the engine with TensorRT-LLM 0.19 or newer and target release 25.05 or newer"
    else:
        found_text, mend = f"{version!r} is no version of TensorRT-LLM", "write it as 1.2.1"
    raise TargetError(found_text, expected="one of " + ", ".join(f"{v}.x" for v in VERSIONS), mend=mend)


def of(version: str) -> Contract:
    """The contract of that version of TensorRT-LLM.

    Raises:
        TargetError: no table tells this version.
    """
    whole, text = _models(family(version))
    return Contract(version, whole, text)


@cache
def _models(family: str) -> tuple[Mapping[str, Model], Mapping[str, Model]]:
    whole = {role: _model(role, family, text=False) for role in ROLES}
    text = {role: _model(role, family, text=True) for role in ROLES}
    return MappingProxyType(whole), MappingProxyType(text)


def _model(role: str, family: str, *, text: bool) -> Model:
    table = json.loads(Path(__file__).with_name("contracts").joinpath(f"{role}.json").read_text(encoding="utf-8"))

    def of(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for entry in entries:
            plain = {key: value for key, value in entry.items() if key not in ("since", "until")}
            holds = _order(entry.get("since", "0.0")) <= _order(family) < _order(entry.get("until", "9.0"))
            if holds and not (text and "part" in entry):
                yield plain

    steps = (
        Step(
            step["model"],
            {entry["inner"]: entry["outer"] for entry in of(step["input_map"])},
            {entry["inner"]: entry["outer"] for entry in of(step["output_map"])},
        )
        for step in table.get("steps", ())
    )
    return Model(
        role,
        tuple(_tensor(entry) for entry in of(table["inputs"])),
        tuple(_tensor(entry) for entry in of(table["outputs"])),
        tuple(Parameter(**entry) for entry in of(table["parameters"])),
        tuple(steps),
    )


def _tensor(entry: dict[str, Any]) -> Tensor:
    reshape = tuple(entry["reshape"]) if "reshape" in entry else None
    return Tensor(**{**entry, "dims": tuple(entry["dims"]), "reshape": reshape})


def _placeholder(value: str) -> str:
    found = re.fullmatch(r"\$\{(\w+)\}", value)
    return found[1] if found else ""


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
