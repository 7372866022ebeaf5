from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
from google.protobuf import text_format
from random_configs import RandomConfigs, all_fields

from repo_builder import render as rendering
from repo_builder.errors import TemplateError
from repo_builder.model_config import build
from repo_builder.model_config.fields import message_class
from repo_builder.render import render, render_config


def test_random_messages_over_every_field_parse_back_equal():
    configs = RandomConfigs(seed=0)
    for _ in range(1000):
        message = configs.message()
        back = text_format.Parse(render_config(message), message_class()())
        assert back.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)
    assert configs.exercised == all_fields()


def line(fields: dict[str, Any]) -> str:
    """What is printed after max_batch_size."""
    return render_config(build(fields)).split("max_batch_size: 0\n")[1]


def test_an_empty_config_says_that_it_does_not_batch():
    assert render_config(build({})) == "max_batch_size: 0\n"


def test_the_signature_leads_and_the_proto_orders_the_rest():
    text = render_config(
        build(
            {
                "parameters": {"x": "1"},
                "version_policy": {"all": {}},
                "output": [{"name": "o"}],
                "input": [{"name": "i"}],
                "max_batch_size": 4,
                "runtime": "r",
                "backend": "b",
                "platform": "p",
                "name": "n",
            }
        )
    )
    keys = [row.split()[0].rstrip(":") for row in text.splitlines() if row[0].isalpha()]
    assert keys == [
        "name", "platform", "backend", "runtime", "max_batch_size", "input", "output", "version_policy", "parameters"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"dynamic_batching": {}}, "dynamic_batching { }\n"),
        ({"version_policy": {"latest": {"num_versions": 3}}}, "version_policy { latest { num_versions: 3 } }\n"),
        (
            {"metric_tags": {"b": "2", "a": "1"}},
            'metric_tags { key: "a" value: "1" }\nmetric_tags { key: "b" value: "2" }\n',
        ),
        ({"metric_tags": {"": ""}}, 'metric_tags { key: "" value: "" }\n'),
        ({"parameters": {"x": 1}}, 'parameters { key: "x" value { string_value: "1" } }\n'),
        (
            {"sequence_batching": {"control_input": [{"control": [{"kind": "CONTROL_SEQUENCE_START"}]}]}},
            "sequence_batching {\n  control_input [\n    {\n      control [\n"
            "        { kind: CONTROL_SEQUENCE_START }\n      ]\n    }\n  ]\n}\n",
        ),
        ({"instance_group": [{}, {"gpus": [0, 1]}]}, "instance_group [\n  { },\n  { gpus: [ 0, 1 ] }\n]\n"),
        (
            {"dynamic_batching": {"priority_queue_policy": {10: {}, 9: {}}, "preserve_ordering": True}},
            "dynamic_batching {\n  preserve_ordering: true\n  priority_queue_policy { key: 9 value { } }\n"
            "  priority_queue_policy { key: 10 value { } }\n}\n",
        ),
        (
            {"model_warmup": [{"inputs": {"x": {"data_type": "TYPE_FP32", "zero_data": False}}}]},
            'model_warmup [\n  {\n    inputs {\n      key: "x"\n      value {\n        data_type: TYPE_FP32\n'
            "        zero_data: false\n      }\n    }\n  }\n]\n",
        ),
    ],
)
def test_layout(fields: dict[str, Any], text: str):
    assert line(fields) == text


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        ('a"b\\c', r'"a\"b\\c"'),
        ("a\nb\tc\r", r'"a\nb\tc\r"'),
        ("\0001\x1f\x7f", r'"\0001\037\177"'),
        ("Grüße 文字 🚀", '"Grüße 文字 🚀"'),
        ("\u0085\u2028\u202e\ufeff", r'"\302\205\342\200\250\342\200\256\357\273\277"'),
        ("{{ x }} ${y} # z", '"{{ x }} ${y} # z"'),
    ],
)
def test_strings_are_readable_and_hide_nothing(value: str, literal: str):
    assert line({"default_model_filename": value}) == f"default_model_filename: {literal}\n"


@pytest.mark.parametrize(
    ("value", "single", "double"),
    [
        (0.1, "0.1", "0.1"),
        (1 / 3, "0.33333334", "0.3333333333333333"),
        (1e-5, "1e-05", "1e-05"),
        (float("inf"), "inf", "inf"),
        (float("-inf"), "-inf", "-inf"),
        (float("nan"), "nan", "nan"),
        (-0.0, "-0.0", "-0.0"),
        (16777216.0, "1.6777216e+07", "16777216.0"),
    ],
)
def test_floats_are_the_shortest_that_come_back(value: float, single: str, double: str):
    direct = {"sequence_batching": {"direct": {"minimum_slot_utilization": value}}}
    assert line(direct) == f"sequence_batching {{ direct {{ minimum_slot_utilization: {single} }} }}\n"
    metrics = {"model_metrics": {"metric_control": [{"histogram_options": {"buckets": [value]}}]}}
    assert f"buckets: [ {double} ]" in line(metrics)


def test_an_enum_number_without_a_name_is_printed_as_the_number():
    config = build({"input": [{"name": "x"}]})
    config.input[0].data_type = 99
    assert "data_type: 99" in render_config(config)


def test_bytes_are_quoted():
    assert rendering.literal(b'a"\\\xff\n', None) == r'"a\042\134\377\012"'


@pytest.mark.parametrize(
    ("kind", "wrong", "text"),
    [
        ("bool", "false", "the rendered config of 'm' parses back to another message\n  expected: the same message"),
        ("bool", "maybe", 'the rendered config of \'m\', line 3, column 26: Expected "true" or "false"'),
    ],
)
def test_a_printer_that_lies_is_found_out(monkeypatch: pytest.MonkeyPatch, kind: str, wrong: str, text: str):
    config = build({"name": "m", "response_cache": {"enable": True}})
    monkeypatch.setitem(rendering._LITERALS, kind, lambda *_: wrong)
    with pytest.raises(TemplateError) as caught:
        render_config(config)
    assert str(caught.value).startswith(text)


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in folder of templates, beside a file that must stay out of reach."""
    folder = tmp_path / "templates"
    folder.mkdir()
    (tmp_path / "outside.j2").write_text("secret")
    monkeypatch.setattr(rendering._environment(), "loader", jinja2.FileSystemLoader(folder))
    rendering._environment().cache.clear()
    yield folder
    rendering._environment().cache.clear()


def test_templates_are_strict(templates: Path):
    (templates / "a.j2").write_text("x: {{ value }}\n")
    assert render("a.j2", value=1) == "x: 1\n"
    with pytest.raises(TemplateError, match=r"^a.j2: 'value' is undefined\n  expected: a value for every name$"):
        render("a.j2")


def test_a_broken_template_names_its_line(templates: Path):
    (templates / "a.j2").write_text("x\n{% if %}")
    with pytest.raises(TemplateError, match=r"^a.j2, line 2: Expected an expression"):
        render("a.j2")


@pytest.mark.parametrize("name", ["b.j2", "../outside.j2", "/etc/passwd"])
def test_templates_come_from_the_package_alone(templates: Path, name: str):
    (templates / "a.j2").write_text("")
    with pytest.raises(TemplateError) as caught:
        render(name)
    assert str(caught.value) == f"there is no template {name!r}\n  expected: one of a.j2"
