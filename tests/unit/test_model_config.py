from __future__ import annotations

import math
from typing import Any

import jsonschema
import pytest
from random_configs import RandomConfigs, all_fields, as_fields

from repo_builder.errors import RepositoryError, SpecError
from repo_builder.model_config import apply_overrides, build, json_schema, parse, tensors
from repo_builder.model_config.fields import INTEGERS, KINDS, message_class
from repo_builder.tensors import TensorSpec

IDS = {"name": "ids", "data_type": "TYPE_INT64", "dims": [-1]}
MASK = {"name": "mask", "data_type": "TYPE_INT64", "dims": [-1]}
BASE = {
    "name": "encoder",
    "platform": "onnxruntime_onnx",
    "max_batch_size": 64,
    "input": [IDS, MASK],
    "output": [{"name": "vector", "data_type": "TYPE_FP32", "dims": [384]}],
    "dynamic_batching": {"preferred_batch_size": [8, 16], "max_queue_delay_microseconds": 100},
    "parameters": {"a": "1", "b": "2"},
    "version_policy": {"latest": {"num_versions": 2}},
}


def override(overrides: dict[str, Any]) -> Any:
    return apply_overrides(build(BASE), overrides)


def refused(overrides: Any, base: dict[str, Any] = BASE) -> str:
    with pytest.raises(SpecError) as caught:
        apply_overrides(build(base), overrides)
    return str(caught.value)


# Values.


def test_build_sets_every_kind_of_field():
    config = build(
        BASE
        | {
            "instance_group": [{"kind": "KIND_GPU", "count": 2, "gpus": (0, 1), "passive": True}],
            "model_metrics": {
                "metric_control": [{"histogram_options": {"buckets": [1, 0.5, float("inf"), float("nan")]}}]
            },
            "sequence_batching": None,
        }
    )
    assert config.instance_group[0].gpus == [0, 1]
    assert config.instance_group[0].kind == type(config.instance_group[0]).KIND_GPU
    buckets = config.model_metrics.metric_control[0].histogram_options.buckets
    assert buckets[:3] == [1.0, 0.5, math.inf]
    assert math.isnan(buckets[3])
    assert config.parameters["a"].string_value == "1"
    assert config.WhichOneof("scheduling_choice") == "dynamic_batching"


def test_every_kind_of_field_that_model_config_has_is_known():
    file = message_class().DESCRIPTOR.file.pool
    fields = [file.FindFieldByName(name) for name in all_fields()]
    assert len(fields) >= 186
    assert {f.cpp_type for f in fields if f.message_type is None} <= set(KINDS)
    assert not [f.full_name for f in fields if f.type == f.TYPE_BYTES]
    assert not [f.full_name for f in fields if f.message_type is None and f.has_presence and not f.containing_oneof]


def test_an_empty_mapping_sets_a_message():
    assert build({"dynamic_batching": {}}).HasField("dynamic_batching")


def test_the_config_that_is_overridden_stays_as_it_is():
    config = build(BASE)
    apply_overrides(config, {"name": "other", "input": [{"name": "ids", "dims": [3]}]})
    assert config == build(BASE)


@pytest.mark.parametrize(
    ("overrides", "field", "value"),
    [
        ({"max_batch_size": 0}, "max_batch_size", 0),
        ({"max_batch_size": None}, "max_batch_size", 0),
        ({"max_batch_size": 8.0}, "max_batch_size", 8),
        ({"platform": ""}, "platform", ""),
    ],
)
def test_an_explicit_zero_wins(overrides: dict[str, Any], field: str, value: Any):
    assert getattr(override(overrides), field) == value


def test_messages_merge_and_lists_replace():
    config = override({"dynamic_batching": {"preferred_batch_size": [4], "preserve_ordering": False}})
    assert config.dynamic_batching.preferred_batch_size == [4]
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    assert override({"dynamic_batching": {"preferred_batch_size": []}}).dynamic_batching.preferred_batch_size == []


def test_null_clears_a_message():
    assert not override({"dynamic_batching": None}).HasField("dynamic_batching")


def test_inputs_merge_by_name_in_their_order():
    config = override({"input": [{"name": "mask", "dims": [128]}]})
    assert [(i.name, list(i.dims)) for i in config.input] == [("ids", [-1]), ("mask", [128])]
    assert config.input[1].data_type == config.input[0].data_type


def test_inputs_are_taken_as_they_are_where_there_are_none():
    assert [i.name for i in apply_overrides(build({}), {"input": [MASK, IDS]}).input] == ["mask", "ids"]


def test_null_clears_all_inputs():
    assert not override({"input": None}).input


def test_an_unknown_input_is_refused():
    assert refused({"input": [{"name": "id", "dims": [1]}]}) == (
        "config.input names 'id', which the model does not have (did you mean 'ids'?)\n  expected: one of ids, mask"
    )


@pytest.mark.parametrize("element", [{"dims": [1]}, {"name": None}, {"name": 1}, "ids"])
def test_an_input_without_a_name_is_refused(element: Any):
    assert refused({"input": [element]}).startswith(
        "config.input[0] has no name\n  expected: a mapping with the key name"
    )


def test_an_input_that_stands_twice_is_refused():
    assert refused({"input": [IDS, IDS]}).startswith("config.input has 'ids' twice")


# Maps.


def test_maps_merge_by_key_and_null_removes_a_key():
    config = override({"parameters": {"a": None, "c": {"string_value": "3"}}})
    assert {k: v.string_value for k, v in config.parameters.items()} == {"b": "2", "c": "3"}


class Written(float):
    text = "24.10"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (True, "true"),
        (False, "false"),
        (0.1, "0.1"),
        (1e-5, "1e-05"),
        ("x", "x"),
        (Written("24.10"), "24.10"),
    ],
)
def test_parameters_take_plain_scalars(value: Any, text: str):
    assert override({"parameters": {"x": value}}).parameters["x"].string_value == text
    accelerator = {"name": "tensorrt", "parameters": {"x": value}}
    config = override({"optimization": {"execution_accelerators": {"gpu_execution_accelerator": [accelerator]}}})
    assert config.optimization.execution_accelerators.gpu_execution_accelerator[0].parameters["x"] == text


@pytest.mark.parametrize("key", [3, "3"])
def test_integer_keys_may_be_digits(key: Any):
    config = build({"dynamic_batching": {"priority_queue_policy": {key: {"max_queue_size": 9}}}})
    assert config.dynamic_batching.priority_queue_policy[3].max_queue_size == 9


def test_values_of_maps_merge():
    base = build({"dynamic_batching": {"priority_queue_policy": {"3": {"max_queue_size": 9}}}})
    new = {"dynamic_batching": {"priority_queue_policy": {"3": {"allow_timeout_override": True}}}}
    policy = apply_overrides(base, new).dynamic_batching.priority_queue_policy[3]
    assert (policy.max_queue_size, policy.allow_timeout_override) == (9, True)


# Alternatives.


def test_another_scheduler_needs_the_present_one_cleared():
    assert refused({"sequence_batching": {}}) == (
        "config sets sequence_batching, but the model has dynamic_batching\n"
        "  expected: at most one of dynamic_batching, sequence_batching, ensemble_scheduling\n"
        "  to mend it: to replace it, clear it beside the new one: {dynamic_batching: null, sequence_batching: ...}"
    )
    for cleared in (
        {"dynamic_batching": None, "sequence_batching": {}},
        {"sequence_batching": {}, "dynamic_batching": None},
    ):
        assert override(cleared).WhichOneof("scheduling_choice") == "sequence_batching"


def test_inner_alternatives_follow_the_same_rule():
    assert refused({"version_policy": {"specific": {"versions": [1]}}}).startswith(
        "config.version_policy sets specific, but the model has latest\n  expected: at most one of latest, all"
    )
    policy = override({"version_policy": {"latest": None, "specific": {"versions": [1]}}}).version_policy
    assert list(policy.specific.versions) == [1]


def test_two_alternatives_at_once_are_refused():
    assert refused({"dynamic_batching": {}, "sequence_batching": {}}).startswith(
        "config sets dynamic_batching and sequence_batching\n  expected: at most one of dynamic_batching, "
    )


# Errors.


@pytest.mark.parametrize(
    ("fields", "found", "expected", "mend"),
    [
        (
            {"inputs": []},
            "config has the key 'inputs', but ModelConfig has no such field (did you mean 'input'?)",
            "one of name, platform, ",
            "",
        ),
        (
            {"maxBatchSize": 1},
            "config has the key 'maxBatchSize', but ModelConfig has no such field (did you mean 'max_batch_size'?)",
            "one of name, platform, ",
            "",
        ),
        (
            {True: 1},
            "config has the key True, but ModelConfig has no such field",
            "one of name, platform, ",
            "",
        ),
        (
            {"instance_group": [{"kinds": "KIND_GPU"}]},
            "config.instance_group[0] has the key 'kinds', but ModelInstanceGroup has no such field"
            " (did you mean 'kind'?)",
            "one of name, kind, ",
            "",
        ),
        ({"max_batch_size": "8"}, "config.max_batch_size is the text '8'", "an integer", "write it without quotes: 8"),
        ({"max_batch_size": "many"}, "config.max_batch_size is the text 'many'", "an integer", ""),
        ({"max_batch_size": True}, "config.max_batch_size is the boolean true", "an integer", ""),
        ({"max_batch_size": 8.5}, "config.max_batch_size is the number 8.5", "an integer", ""),
        ({"max_batch_size": math.nan}, "config.max_batch_size is the number nan", "an integer", ""),
        (
            {"max_batch_size": 2147483648},
            "config.max_batch_size is 2147483648",
            "an integer from -2147483648 to 2147483647 (int32)",
            "",
        ),
        (
            {"dynamic_batching": {"max_queue_delay_microseconds": -1}},
            "config.dynamic_batching.max_queue_delay_microseconds is -1",
            "an integer from 0 to 18446744073709551615 (uint64)",
            "",
        ),
        ({"name": 1}, "config.name is the number 1", "text", 'put it in quotes: "1"'),
        ({"name": True}, "config.name is the boolean true", "text", 'put it in quotes: "true"'),
        ({"runtime": Written("24.10")}, "config.runtime is the number 24.10", "text", 'put it in quotes: "24.10"'),
        ({"name": ["a"]}, "config.name is a list", "text", ""),
        ({"name": "\ud800"}, "config.name is '\\ud800', which is not valid Unicode", "text that UTF-8 can hold", ""),
        (
            {"parameters": {"x": {"string_value": 1}}},
            "config.parameters['x'].string_value is the number 1",
            "text",
            'put it in quotes: "1"',
        ),
        ({"parameters": {1: "x"}}, "key config.parameters[1] is the number 1", "text", 'put it in quotes: "1"'),
        (
            {"parameters": {"x": ["y"]}},
            "config.parameters['x'] is a list",
            "text, a number or a boolean",
            "a parameter is text: write the value as text, for example as JSON in quotes",
        ),
        (
            {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": [{"parameters": {"x": {}}}]}}},
            "config.optimization.execution_accelerators.gpu_execution_accelerator[0].parameters['x'] is a mapping",
            "text, a number or a boolean",
            "a parameter is text: write the value as text, for example as JSON in quotes",
        ),
        ({"parameters": [1]}, "config.parameters is a list", "a mapping", ""),
        (
            {"parameters": {"aa": None}},
            "config.parameters['aa'] is null, but there is no such key to remove (did you mean 'a'?)",
            "one of a, b",
            "",
        ),
        (
            {"metric_tags": {"aa": None}},
            "config.metric_tags['aa'] is null, but there is no such key to remove",
            "a value; the map is empty",
            "",
        ),
        ({"metric_tags": {"a": 1}}, "config.metric_tags['a'] is the number 1", "text", 'put it in quotes: "1"'),
        (
            {"dynamic_batching": {"priority_queue_policy": {"x": {}}}},
            "key config.dynamic_batching.priority_queue_policy['x'] is the text 'x'",
            "an integer",
            "",
        ),
        (
            {"dynamic_batching": True},
            "config.dynamic_batching is the boolean true",
            "a mapping of fields",
            "write {} to set it with its defaults",
        ),
        (
            {"response_cache": {"enable": "yes"}},
            "config.response_cache.enable is the text 'yes'",
            "true or false",
            "write true or false, without quotes",
        ),
        (
            {"response_cache": {"enable": 1}},
            "config.response_cache.enable is the number 1",
            "true or false",
            "write true or false, without quotes",
        ),
        (
            {"input": [{"name": "ids", "dims": 384}]},
            "config.input['ids'].dims is the number 384",
            "a list",
            "write it as a list: [384]",
        ),
        ({"input": [{"name": "ids", "dims": [None]}]}, "config.input['ids'].dims[0] is null", "an integer", ""),
        ({"input": {"ids": {}}}, "config.input is a mapping", "a list", ""),
        ({"instance_group": ["gpu"]}, "config.instance_group[0] is the text 'gpu'", "a mapping of fields", ""),
        (
            {"input": [{"name": "ids", "data_type": "FP32"}]},
            "config.input['ids'].data_type is 'FP32' (did you mean 'TYPE_FP32'?)",
            "one of TYPE_INVALID, TYPE_BOOL, ",
            "",
        ),
        (
            {"input": [{"name": "ids", "data_type": 11}]},
            "config.input['ids'].data_type is the number 11",
            "one of TYPE_INVALID, TYPE_BOOL, ",
            "",
        ),
        (
            {"model_metrics": {"metric_control": [{"histogram_options": {"buckets": ["1e-5"]}}]}},
            "config.model_metrics.metric_control[0].histogram_options.buckets[0] is the text '1e-5'",
            "a number",
            "write it as a number, without quotes",
        ),
        (
            {"dynamic_batching": None, "sequence_batching": {"direct": {"minimum_slot_utilization": 1e39}}},
            "config.sequence_batching.direct.minimum_slot_utilization is 1e+39",
            "a number that a float can hold",
            "",
        ),
        ([], "config is a list", "a mapping of fields", ""),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(fields: Any, found: str, expected: str, mend: str):
    with pytest.raises(SpecError) as caught:
        apply_overrides(build(BASE), fields)
    assert (caught.value.found, caught.value.mend) == (found, mend)
    assert caught.value.expected.startswith(expected)


@pytest.mark.parametrize("kind", INTEGERS)
def test_integers_reach_their_limits_and_no_further(kind: str):
    field = {
        "int32": lambda v: {"max_batch_size": v},
        "int64": lambda v: {"version_policy": {"specific": {"versions": [v]}}},
        "uint32": lambda v: {"model_warmup": [{"batch_size": v}]},
        "uint64": lambda v: {"dynamic_batching": {"priority_levels": v}},
    }[kind]
    low, high = INTEGERS[kind]
    for value in (low, high):
        assert str(value) in str(build(field(value))) or value == 0
    for value in (low - 1, high + 1):
        assert f"({kind})" in refused(field(value), {})


# Text.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'name: "m"\ninputs { }',
            'm/config.pbtxt, line 2, column 1: Message type "inference.ModelConfig" has no field named "inputs" '
            "(did you mean 'input'?)\n  expected: a ModelConfig in text format",
        ),
        (
            "input {\n  data_type: TYPE_FLOAT32\n}",
            'm/config.pbtxt, line 2, column 14: Enum type "inference.DataType" has no value named TYPE_FLOAT32 '
            "(did you mean 'TYPE_FP32'?)",
        ),
        (
            "max_batch_size: ${triton_max_batch_size}",
            "m/config.pbtxt, line 1, column 17: ${triton_max_batch_size} is an unfilled template\n  expected: a value\n"
            "  to mend it: fill the template: put a value in the place of every ${triton_max_batch_size}",
        ),
        ("${scheduler} { }", "m/config.pbtxt, line 1, column 1: ${scheduler} is an unfilled template"),
        ("instance_group [ { count: $count } ]", "m/config.pbtxt, line 1, column 27: $count is an unfilled template"),
        ('max_batch_size: "3"', 'm/config.pbtxt, line 1, column 17: Couldn\'t parse integer: "3"'),
        ("max_batch_size: 99999999999", "m/config.pbtxt, line 1, column 17: Value out of range: 99999999999"),
        ('name: "a', "m/config.pbtxt, line 1, column 7: String missing ending quote"),
        ("input [\n  {", 'm/config.pbtxt, line 2, column 3: Expected "}"'),
        ('name: "\\377"', "m/config.pbtxt, line 1, column 13: Couldn't parse string"),
        ("dynamic_batching { } sequence_batching { }", 'm/config.pbtxt, line 1, column 22: Field "sequence_batching"'),
        ('name: "\ud800"', "m/config.pbtxt"),
    ],
)
def test_text_that_is_no_config_is_refused_with_its_place(text: str, message: str):
    with pytest.raises(RepositoryError) as caught:
        parse(text, "m/config.pbtxt")
    assert str(caught.value).startswith(message)


def test_a_hole_inside_quotes_is_text():
    assert parse('name: "${x}"').name == "${x}"


def test_tensors_as_clients_see_them():
    inputs, outputs = tensors(build(BASE))
    assert inputs[0] == TensorSpec("ids", "INT64", ("batch", "ids_1"))
    assert outputs == (TensorSpec("vector", "FP32", ("batch", 384)),)
    text = {"name": "text", "data_type": "TYPE_STRING", "dims": [1, -1]}
    assert tensors(build({"input": [text]}))[0] == (TensorSpec("text", "BYTES", (1, "text_1")),)


def test_a_tensor_without_a_type_is_refused():
    with pytest.raises(RepositoryError, match=r"^m: tensor 'x' has no data_type\n  expected: one such as TYPE_FP32$"):
        tensors(build({"name": "m", "input": [{"name": "x"}]}))


# Schema.

NESTED = {"name": "tensorrt", "parameters": {"x": 1}}
VALID: list[Any] = [
    {},
    BASE,
    BASE | {"dynamic_batching": None, "sequence_batching": {"direct": {"minimum_slot_utilization": 0.5}}},
    {"parameters": {"x": 1, "y": True, "z": {"string_value": "s"}}},
    {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": [NESTED]}}},
    {"dynamic_batching": {"priority_queue_policy": {"1": {"timeout_action": "DELAY"}}}},
    {"model_warmup": [{"name": "w", "inputs": {"x": {"dims": [1], "zero_data": True}}}]},
    {"max_batch_size": 8.0, "input": None, "metric_tags": {}},
]
INVALID: list[Any] = [
    [],
    {"inputs": []},
    {"maxBatchSize": 1},
    {"max_batch_size": "8"},
    {"max_batch_size": True},
    {"max_batch_size": 2**31},
    {"max_batch_size": 8.5},
    {"name": 1},
    {"response_cache": {"enable": 1}},
    {"response_cache": True},
    {"input": [{"dims": [1]}]},
    {"input": [{"name": None}]},
    {"input": [{"name": "x", "dims": 3}]},
    {"input": [{"name": "x", "dims": [None]}]},
    {"input": [{"name": "x", "data_type": "FP32"}]},
    {"input": [{"name": "x", "data_type": 11}]},
    {"input": {}},
    {"parameters": {"x": []}},
    {"parameters": {"x": {"string_value": 1}}},
    {"metric_tags": {"x": 1}},
    {"dynamic_batching": {"priority_queue_policy": {"x": {}}}},
    {"dynamic_batching": {}, "sequence_batching": {}},
    {"version_policy": {"latest": {}, "all": {}}},
    {"model_metrics": {"metric_control": [{"histogram_options": {"buckets": ["1"]}}]}},
]


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("fields", VALID)
def test_the_schema_takes_what_build_takes(validator: jsonschema.Draft202012Validator, fields: Any):
    build(fields)
    assert not list(validator.iter_errors(fields))


@pytest.mark.parametrize("fields", INVALID)
def test_the_schema_refuses_what_build_refuses(validator: jsonschema.Draft202012Validator, fields: Any):
    with pytest.raises(SpecError):
        build(fields)
    assert not validator.is_valid(fields)


def test_random_fields_build_their_message_and_fit_the_schema(validator: jsonschema.Draft202012Validator):
    configs = RandomConfigs(seed=1)
    for _ in range(100):
        message = configs.message()
        for index, tensor in enumerate((*message.input, *message.output)):
            tensor.name = f"tensor {index}"
        fields = as_fields(message)
        assert build(fields).SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)
        assert validator.is_valid(fields)
    assert configs.exercised == all_fields()


def test_the_schema_has_every_field():
    schema = json_schema()
    definitions = {"ModelConfig": schema, **schema["$defs"]}
    named = {f"inference.{name}.{field}" for name, d in definitions.items() for field in d["properties"]}
    entries = {name for name in all_fields() if "Entry." in name}
    assert named == all_fields() - entries
