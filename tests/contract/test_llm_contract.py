"""Every config of the engine path against TensorRT-LLM's contract tables, and the check against its own blindness."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from repo_builder import releases
from repo_builder.formats.engine_settings import EngineSettings
from repo_builder.llm import contract, engine_configs, parameters
from repo_builder.model_config import parse
from repo_builder.render import render_config

TABLES = Path(contract.__file__).with_name("contracts")
VERSIONS = {"0.19.0": "25.05", "1.0.3": "25.11", "1.2.1": "26.07"}
"""TensorRT-LLM -> a release that carries it."""
SETTINGS = EngineSettings("", "LlamaForCausalLM", 8, 1024, 2048, dtype="bfloat16", logits_dtype="float16")
TYPES = {
    "${logits_datatype}": "TYPE_FP16",
    "${encoder_input_features_data_type}": "TYPE_BF16",
    "${prompt_embedding_table_data_type}": "TYPE_BF16",
}
OURS = {"bls": "messages", "preprocessing": "MESSAGES"}
PLATFORMS = {"ensemble": "", "tensorrt_llm": "tensorrtllm"}
GIVEN = {"kv_cache_free_gpu_mem_fraction": 0.8, "batch_scheduler_policy": "max_utilization"}
OWN = {"preprocessing": {"tokenizer_file"}, "postprocessing": {"tokenizer_file"}}
OWN["bls"] = {"chat_template", "preprocessing_model_name", "postprocessing_model_name"}


def rendered(version: str) -> dict[str, Any]:
    """Role -> the config as it stands in config.pbtxt."""
    made = engine_configs.configs(
        "chat",
        SETTINGS,
        contract=contract.of(version),
        max_batch_size=4,
        decoupled=True,
        parameters=parameters.check(GIVEN, version, SETTINGS),
        preprocessing={"tokenizer_file": "tokenizer.json"},
        postprocessing={"tokenizer_file": "tokenizer.json"},
        bls={"chat_template": "{{ messages }}"},
    )
    return {role: parse(render_config(config)) for role, config in made.items()}


def order(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:2]]


@cache
def table(role: str, version: str) -> dict[str, Any]:
    """The JSON of a role, read without the package's own reader, for that version and for text alone."""
    content = json.loads((TABLES / f"{'tensorrt_llm_bls' if role == 'bls' else role}.json").read_text("utf-8"))

    def holding(value: Any) -> Any:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            kept = [
                entry
                for entry in value
                if order(entry.get("since", "0.0")) <= order(version) < order(entry.get("until", "99.0"))
                and "part" not in entry
            ]
            return [{key: holding(inner) for key, inner in entry.items()} for entry in kept]
        return value

    return {key: holding(value) for key, value in content.items()}


def tensor_row(tensor: Any, *, is_input: bool) -> tuple[Any, ...]:
    kind = type(tensor).DESCRIPTOR.fields_by_name["data_type"].enum_type
    reshape = list(tensor.reshape.shape) if tensor.HasField("reshape") else None
    row = (tensor.name, kind.values_by_number[tensor.data_type].name, list(tensor.dims), reshape)
    return (*row, tensor.optional, tensor.allow_ragged_batch) if is_input else row


def table_row(entry: Mapping[str, Any], *, is_input: bool) -> tuple[Any, ...]:
    data_type = TYPES.get(entry["data_type"], entry["data_type"])
    row = (entry["name"], data_type, entry["dims"], entry.get("reshape"))
    return (*row, entry.get("optional", False), entry.get("ragged", False)) if is_input else row


def deviations(role: str, config: Any, version: str) -> list[str]:
    """What of the config is not as the table has it."""
    expected = table(role, version)
    inputs = [table_row(entry, is_input=True) for entry in expected["inputs"]]
    if role in OURS:
        inputs.append((OURS[role], "TYPE_STRING", [1], None, True, False))
    pairs: list[tuple[str, Any, Any]] = [
        ("name", config.name, "chat" if role == "bls" else f"chat_{role}"),
        ("backend", config.backend, PLATFORMS.get(role, "python")),
        ("platform", config.platform, "ensemble" if role == "ensemble" else ""),
        ("max_batch_size", config.max_batch_size, 4),
        ("decoupled", config.model_transaction_policy.decoupled, role in ("bls", "tensorrt_llm")),
        ("batched", config.HasField("dynamic_batching"), role not in ("bls", "ensemble")),
        ("inputs", [tensor_row(tensor, is_input=True) for tensor in config.input], inputs),
        (
            "outputs",
            [tensor_row(tensor, is_input=False) for tensor in config.output],
            [table_row(entry, is_input=False) for entry in expected["outputs"]],
        ),
        ("parameters", parameter_faults(role, config, expected["parameters"]), []),
        (
            "steps",
            [(s.model_name, s.model_version, dict(s.input_map), dict(s.output_map)) for s in steps_of(config)],
            [
                (f"chat_{step['model']}", -1, joined(step["input_map"]), joined(step["output_map"]))
                for step in expected.get("steps", ())
            ],
        ),
    ]
    return [f"{role}.{what}: {found} is not {wanted}" for what, found, wanted in pairs if found != wanted]


def steps_of(config: Any) -> Any:
    return config.ensemble_scheduling.step


def joined(maps: list[dict[str, str]]) -> dict[str, str]:
    return {entry["inner"]: entry["outer"] for entry in maps}


def parameter_faults(role: str, config: Any, known: list[dict[str, Any]]) -> list[str]:
    found = {key: value.string_value for key, value in config.parameters.items()}
    allowed = {entry["name"] for entry in known} | OWN.get(role, set())
    faults = [f"{name} is unknown" for name in found if name not in allowed]
    for entry in known:
        name, value = entry["name"], entry.get("value", "")
        if entry.get("required") and name not in found:
            faults.append(f"{name} must exist")
        if name in found and value and not value.startswith("${") and found[name] != value:
            faults.append(f"{name} is {found[name]}")
        if "${" in found.get(name, ""):
            faults.append(f"{name} was not filled")
    return faults


@pytest.fixture(scope="module", params=VERSIONS)
def made(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return request.param, rendered(request.param)


def test_every_config_is_as_the_table_has_it(made: tuple[str, dict[str, Any]]) -> None:
    version, configs = made
    assert set(configs) == {"bls", "ensemble", "preprocessing", "tensorrt_llm", "postprocessing"}
    assert [fault for role, config in configs.items() for fault in deviations(role, config, version)] == []


def test_the_release_loads_every_config(made: tuple[str, dict[str, Any]]) -> None:
    version, configs = made
    release = releases.release(VERSIONS[version])
    assert contract.family(str(release.image("trtllm-python-py3").tensorrt_llm)) == contract.family(version)
    for config in configs.values():
        releases.check_config(config, release)


def test_the_ensemble_is_closed_and_its_tensors_agree(made: tuple[str, dict[str, Any]]) -> None:
    """Triton's own rules (core, ensemble_utils.cc): nothing read that nothing writes, data types equal on both sides,
    every output written, and a required inner input has a required or written tensor."""
    _, configs = made
    ensemble = configs["ensemble"]
    known = {tensor.name: tensor for tensor in ensemble.input}
    written = set()
    for step in ensemble.ensemble_scheduling.step:
        model = configs[step.model_name.removeprefix("chat_")]
        inputs, outputs = ({t.name: t for t in tensors} for tensors in (model.input, model.output))
        for inner, outer in step.input_map.items():
            assert (inputs[inner].data_type, outer) == (known[outer].data_type, outer)
            if hasattr(known[outer], "optional") and known[outer].optional:
                assert inputs[inner].optional, inner
        assert {name for name, tensor in inputs.items() if not tensor.optional} <= set(step.input_map)
        for inner, outer in step.output_map.items():
            assert outer not in known
            assert outer not in written
            known[outer] = outputs[inner]
            written.add(outer)
    for tensor in ensemble.output:
        assert (known[tensor.name].data_type, list(known[tensor.name].dims)) == (tensor.data_type, list(tensor.dims))
        assert tensor.name in written


def test_the_tables_are_whole() -> None:
    """Counted in the shipped files: inputs, outputs, parameters of 0.19.0 and of 1.2."""
    counted = {
        role: [
            tuple(len(getattr(contract.of(version).models[role], of)) for of in ("inputs", "outputs", "parameters"))
            for version in ("0.19.0", "1.2.1")
        ]
        for role in contract.ROLES
    }
    assert counted == {
        "preprocessing": [(13, 20, 5), (14, 20, 6)],
        "tensorrt_llm": [(60, 19, 46), (62, 21, 47)],
        "postprocessing": [(2, 1, 2), (2, 1, 2)],
        "ensemble": [(34, 17, 0), (36, 19, 0)],
        "tensorrt_llm_bls": [(40, 17, 4), (42, 19, 4)],
        "llmapi": [(15, 4, 0), (17, 16, 0)],
    }


def mutations(config: Any) -> Iterator[tuple[str, Any]]:
    """One change each: of every tensor's name, data type, dims and flags, every parameter, every map."""

    def changed() -> Any:
        copy = type(config)()
        copy.CopyFrom(config)
        return copy

    for of in ("input", "output"):
        for index, tensor in enumerate(getattr(config, of)):
            for what in ("name", "data_type", "dims", "reshape", *(("optional", "ragged") if of == "input" else ())):
                copy = changed()
                target = getattr(copy, of)[index]
                if what == "name":
                    target.name += "x"
                elif what == "data_type":
                    target.data_type = 11 if tensor.data_type != 11 else 12
                elif what == "dims":
                    target.dims[-1] = 7
                elif what == "reshape" and tensor.HasField("reshape"):
                    target.ClearField("reshape")
                elif what == "reshape":
                    target.reshape.SetInParent()
                elif what == "optional":
                    target.optional = not tensor.optional
                else:
                    target.allow_ragged_batch = not tensor.allow_ragged_batch
                yield f"{of} {tensor.name}: {what}", copy
            copy = changed()
            del getattr(copy, of)[index]
            yield f"{of} {tensor.name}: gone", copy
    for key in config.parameters:
        copy = changed()
        copy.parameters[key + "x"].CopyFrom(copy.parameters[key])
        yield f"parameter {key}: a second one", copy
    for key in ("gpt_model_type", "tokenizer_dir", "guided_decoding_backend", "xgrammar_tokenizer_info_path"):
        if key in config.parameters:
            copy = changed()
            del copy.parameters[key]
            yield f"parameter {key}: gone", copy
    for index, step in enumerate(config.ensemble_scheduling.step):
        for of in ("input_map", "output_map"):
            for inner in getattr(step, of):
                copy = changed()
                getattr(copy.ensemble_scheduling.step[index], of)[inner] += "x"
                yield f"{of} {inner}: elsewhere", copy
                copy = changed()
                del getattr(copy.ensemble_scheduling.step[index], of)[inner]
                yield f"{of} {inner}: gone", copy
    for field, value in (("name", "x"), ("backend", "x"), ("platform", "x"), ("max_batch_size", 5)):
        copy = changed()
        setattr(copy, field, value)
        yield field, copy
    copy = changed()
    copy.model_transaction_policy.decoupled = not config.model_transaction_policy.decoupled
    yield "decoupled", copy


def test_the_check_sees_every_change() -> None:
    configs = rendered("1.2.1")
    count = 0
    for role, config in configs.items():
        for what, mutant in mutations(config):
            count += 1
            assert deviations(role, mutant, "1.2.1"), f"{role} {what}"
    assert count > 1000


def test_a_config_of_one_version_is_not_that_of_another() -> None:
    configs = rendered("0.19.0")
    roles = {role for role, config in configs.items() if deviations(role, config, "1.2.1")}
    assert roles == {"bls", "ensemble", "tensorrt_llm"}
