from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from repo_builder import model_config, spec
from repo_builder.errors import SpecError
from repo_builder.spec import LONGEST_NAME, ModelSpec, Spec


def load(tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text(text, encoding="utf-8")
    return spec.load(path)


def refused(tmp_path, text):
    with pytest.raises(SpecError) as caught:
        load(tmp_path, text)
    error = caught.value
    assert error.stage == "spec"
    assert error.expected == "the keys of docs/spec.md"
    assert "`repo-builder build --schema`" in error.mend
    return error.found.replace(f"{tmp_path}/", "")


def test_a_whole_spec(tmp_path):
    found = load(
        tmp_path,
        """\
target: 24.10
models:
  - name: m
    source: org/name
    task: tensors
    engine: torchscript
    inputs: [{name: x, dtype: fp32, shape: [batch, 4]}]
    shapes: {batch: {min: 1, opt: 4, max: 8}}
    batching: {max_batch_size: 8, dynamic: false, preferred_batch_sizes: [4, 8], max_queue_delay_microseconds: 100}
    instances: {count: 2, kind: gpu, gpus: [0, 1]}
    config: {response_cache: {enable: true}}
    samples: {texts: [a, b], seed: 3}
    tolerances: {'*': {cosine: 0.999}, y: {max_abs_error: 1e-3}}
    trust_remote_code: true
""",
    )
    model = found.models[0]
    assert found.target == "24.10", "YAML reads 24.10 as the number 24.1"
    assert (model.name, model.source, model.engine, model.trust_remote_code) == ("m", "org/name", "torchscript", True)
    assert str(model.inputs[0].tensor()) == "x FP32[batch, 4]"
    assert model.batching.preferred_batch_sizes == (4, 8)
    assert model.instances.gpus == (0, 1)
    assert model.samples.texts == ("a", "b")
    assert model.tolerances["y"].max_abs_error == 1e-3


def test_defaults(tmp_path):
    model = load(tmp_path, "models: [{source: m.onnx}]\n").models[0]
    assert (model.engine, model.precision, model.task, model.exporter) == ("onnx", "fp32", None, None)
    assert model.batching.dynamic is True
    assert model.trust_remote_code is False


def test_a_spec_is_a_value(tmp_path):
    found = load(tmp_path, "models: [{source: m.onnx}]\n")
    with pytest.raises(ValidationError):
        found.models[0].name = "other"
    assert found == load(tmp_path, "models: [{source: m.onnx}]\n")


HEAD = "models:\n  - source: m.onnx\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEAD}    engin: onnx\n", "s.yaml:3: models.0.engin: unknown key (did you mean 'engine'?)"),
        (f"{HEAD}traget: 1\n", "s.yaml:3: traget: unknown key (did you mean 'target'?)"),
        (
            f"{HEAD}    batching: {{max_batch: 1}}\n",
            "s.yaml:3: models.0.batching.max_batch: unknown key (did you mean 'max_batch_size'?)",
        ),
        (
            f"{HEAD}    tolerances: {{y: {{cosin: 1}}}}\n",
            "s.yaml:3: models.0.tolerances.y.cosin: unknown key (did you mean 'cosine'?)",
        ),
        ("modls: []\n", "s.yaml:1: models: is missing; s.yaml:1: modls: unknown key (did you mean 'models'?)"),
        ("models:\n  - name: m\n", "s.yaml:2: models.0.source: is missing"),
        ("models:\n  - source:\n", "s.yaml:2: models.0.source: must be a string, found None"),
        ("models: []\n", "s.yaml:1: models: must not be empty, found []"),
        ("models: m.onnx\n", "s.yaml:1: models: must be a list, found 'm.onnx'"),
        ("models: [m.onnx]\n", "s.yaml:1: models.0: must be a mapping of keys to values, found 'm.onnx'"),
        ("[1, 2]\n", "s.yaml:1: must be a mapping of keys to values, found [1, 2]"),
        ("m.onnx\n", "s.yaml:1: must be a mapping of keys to values, found 'm.onnx'"),
        (
            f"{HEAD}    batching:\n      max_batch_size: '8'\n",
            "s.yaml:4: models.0.batching.max_batch_size: must be a number, found the string '8' (remove the quotes)",
        ),
        (
            f"{HEAD}    batching: {{max_batch_size: true}}\n",
            "s.yaml:3: models.0.batching.max_batch_size: must be a number, found the boolean true",
        ),
        (
            f"{HEAD}    samples: {{seed: 1.5}}\n",
            "s.yaml:3: models.0.samples.seed: must be a whole number, found 1.5",
        ),
        (
            f"{HEAD}    batching: {{dynamic: on}}\n",
            "s.yaml:3: models.0.batching.dynamic: must be true or false, found 'on'",
        ),
        (
            f"{HEAD}    trust_remote_code: yes\n",
            "s.yaml:3: models.0.trust_remote_code: must be true or false, found 'yes'",
        ),
        (f"{HEAD}    trust_remote_code: 1\n", "s.yaml:3: models.0.trust_remote_code: must be true or false, found 1"),
        (f"{HEAD}    name: 007\n", "s.yaml:3: models.0.name: must be a string, found 7"),
        (
            f"{HEAD}    shapes: {{batch: {{min: 4, opt: 2, max: 8}}}}\n",
            "s.yaml:3: models.0.shapes.batch: expected min <= opt <= max, found min 4, opt 2, max 8",
        ),
        (
            f"{HEAD}    inputs: [{{name: x, dtype: float33, shape: [4]}}]\n",
            "s.yaml:3: models.0.inputs.0.dtype: dtype float33, which Triton does not have; expected one of BOOL, ",
        ),
        (
            f"{HEAD}    inputs: [{{name: x, dtype: FP32, shape: [-1, 4]}}]\n",
            "s.yaml:3: models.0.inputs.0: the size -1 of 'x' is not a size; name a dynamic axis, e.g. batch",
        ),
        (
            f"{HEAD}    tolerances: {{y: {{cosine: .nan}}}}\n",
            "s.yaml:3: models.0.tolerances.y.cosine: Input should be ",
        ),
        (f"{HEAD}    engine: tensorflow\n", "s.yaml:3: models.0.engine: Input should be 'onnx'"),
        (f"{HEAD}    config: [1]\n", "s.yaml:3: models.0.config: must be a mapping of keys to values, found [1]"),
    ],
)
def test_mistakes_name_file_line_key_and_what_was_found(tmp_path, text, message):
    assert refused(tmp_path, text).startswith(message)


def test_all_mistakes_are_named_at_once(tmp_path):
    found = refused(tmp_path, f"{HEAD}    engin: onnx\n    batching: {{dynamic: on}}\ntraget: 1\n")
    assert [line.split(": ")[1] for line in found.split("; ")] == [
        "models.0.batching.dynamic",
        "models.0.engin",
        "traget",
    ]


def test_many_mistakes_are_counted(tmp_path):
    text = "models:\n" + "".join(f"  - {{source: m.onnx, name: m{i}, bad: 1}}\n" for i in range(25))
    found = refused(tmp_path, text)
    assert found.count("unknown key") == 10
    assert found.endswith("; and 15 more")


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a b", "-x", "é", "a\n", "a\\b"])
def test_names_that_no_folder_can_have(tmp_path, name):
    text = f"models:\n  - source: m.onnx\n    name: {json.dumps(name)}\n"
    found = refused(tmp_path, text)
    assert f"name {name!r} has characters that a model's folder cannot have (use A-Z a-z 0-9 _ - .)" in found


def test_a_name_that_is_too_long():
    with pytest.raises(SpecError, match=rf"name '{'a' * 20}'... has 129 characters \(at most 128\)"):
        spec.from_flags("m.onnx", name="a" * (LONGEST_NAME + 1))
    assert spec.from_flags("m.onnx", name="a" * LONGEST_NAME).models[0].public_name == "a" * LONGEST_NAME


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("{source: m.onnx}", "{source: b/m.onnx}", "two models are named 'm'"),
        ("{source: x.onnx, name: m}", "{source: m.onnx}", "two models are named 'm'"),
        ("{source: a.onnx}", "{source: A.onnx}", "'a' and 'A' differ only by case"),
    ],
)
def test_two_models_of_one_name(tmp_path, first, second, message):
    found = refused(tmp_path, f"models:\n  - {first}\n  - {second}\n")
    assert found == f"s.yaml:1: {message}; give one of them another `name:`"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("m.onnx", "m"),
        ("a/b/my model (1).onnx", "my_model_1"),
        ("a/ResNet-50.pt2", "ResNet-50"),
        ("net.pth", "net"),
        ("a/resnet/model.onnx", "resnet"),
        ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
        ("folder/", "folder"),
        ("code/net.py:build", "build"),
        ("--x--.onnx", "x"),
        ("日本.onnx", "model"),
        (f"{'a' * 300}.onnx", "a" * LONGEST_NAME),
        ("/model.onnx", "model"),
    ],
)
def test_names_made_from_sources(source, name):
    model = ModelSpec(source=source)
    assert model.public_name == name
    assert ModelSpec(source=source, name=name).public_name == name, "a derived name may be given as well"


def test_sources_are_taken_from_the_folder_of_the_spec(tmp_path, monkeypatch):
    (tmp_path / "bert").mkdir()
    monkeypatch.chdir("/")
    text = """\
models:
  - {source: m.onnx, samples: {arrays: [x.npz], texts: t.txt}}
  - {source: ./bert, name: b}
  - {source: bert, name: c}
  - {source: org/name}
  - {source: /abs/n.onnx}
  - {source: net.py:build}
  - {source: ../up.onnx}
"""
    found = load(tmp_path, text)
    assert [m.source.removeprefix(f"{tmp_path}/") for m in found.models] == [
        "m.onnx",
        "bert",
        "bert",
        "org/name",
        "/abs/n.onnx",
        "net.py:build",
        "../up.onnx",
    ]
    assert found.models[3].source == "org/name"
    assert found.models[0].samples.arrays == (str(tmp_path / "x.npz"),)
    assert found.models[0].samples.texts == str(tmp_path / "t.txt")


def test_flags():
    found = spec.from_flags("m.onnx", name="m", task=None, engine="torchscript", target="26.07")
    assert (found.target, found.models[0].engine, found.models[0].task) == ("26.07", "torchscript", None)


def test_mistakes_in_flags_name_no_line():
    with pytest.raises(SpecError) as caught:
        spec.from_flags("m.onnx", engine="caffe")
    known = "'onnx', 'torchscript', 'torch_aoti', 'tensorrt', 'tensorrt-llm', 'llmapi' or 'vllm'"
    assert caught.value.found == f"engine: Input should be {known}, found 'caffe'"
    assert caught.value.mend == "see `repo-builder build --help`"


def test_flags_win_over_the_file(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("target: 24.10\nmodels: [{source: a.onnx, task: tensors}, {source: b.onnx}]\n", encoding="utf-8")
    found = spec.override(spec.load(path), target=None, engine="torchscript", task=None)
    assert found.target == "24.10"
    assert [m.engine for m in found.models] == ["torchscript"] * 2
    assert [m.task for m in found.models] == ["tensors", None]
    assert spec.override(found, target="26.07").target == "26.07"


def test_override_changes_nothing_else(tmp_path):
    found = load(
        tmp_path,
        "models: [{source: a.onnx, inputs: [{name: x, dtype: FP32, shape: [b, 4]}], tolerances: {y: {cosine: 0.9}}}]\n",
    )
    assert spec.override(found) == found


def test_is_spec():
    assert [spec.is_spec(s) for s in ("s.yaml", "s.yml", "m.onnx", "yaml")] == [True, True, False, False]


def test_schema_and_loader_agree(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    schema = spec.json_schema(model_config.json_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    good = {"models": [{"source": "m.onnx", "batching": {"max_batch_size": 4}, "config": {"max_batch_size": 3}}]}
    jsonschema.validate({**good, "target": 24.1}, schema)
    assert Spec.model_validate(good).models[0].batching.max_batch_size == 4
    for bad in (
        {},
        {"models": []},
        {"models": [{}]},
        {"models": [{"source": "m", "engin": "onnx"}]},
        {"models": [{"source": "m", "batching": {"dynamic": "on"}}]},
        {"models": [{"source": "m", "batching": {"max_batch_size": "8"}}]},
        {"models": [{"source": "m", "config": {"max_batch_siz": 3}}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)


@pytest.mark.parametrize("options", [{"keep_fp32": ["Softmax"]}, {"keep_fp32": "measure"}, {"keep_io_types": False}])
def test_what_fp32_cannot_keep_is_refused(options):
    for precision in ("fp32", "tf32"):
        with pytest.raises(SpecError) as caught:
            spec.from_flags("m.onnx", engine="tensorrt", precision=precision, tensorrt=options)
        assert f"tensorrt.{next(iter(options))} has no effect on precision {precision}" in caught.value.found
    assert spec.from_flags("m.onnx", engine="tensorrt", precision="fp16", tensorrt=options).models[0].tensorrt


@pytest.mark.parametrize(
    ("plugins", "found"),
    [
        (["/a/libmine.so", "/b/libmine.so"], "two plugin libraries are named 'libmine.so': /a/libmine.so and /b/"),
        (["libmine.a"], "the plugin library 'libmine.a' is no NAME.so"),
        (["a;b.so"], "the plugin library 'a;b.so' is no NAME.so"),
        (["-l.so"], "the plugin library '-l.so' is no NAME.so"),
    ],
)
def test_plugin_libraries_have_names_that_a_repository_and_the_servers_option_take(plugins, found):
    with pytest.raises(SpecError) as caught:
        spec.from_flags("m.onnx", engine="tensorrt", tensorrt={"plugins": plugins})
    assert found in caught.value.found
    fine = spec.from_flags("m.onnx", engine="tensorrt", tensorrt={"plugins": ["a/libmine.so.8.6", "b.so"]})
    assert fine.models[0].tensorrt.plugins == ("a/libmine.so.8.6", "b.so")


def test_options_of_tensorrt_belong_to_its_engine():
    with pytest.raises(SpecError, match="precision fp16 needs engine: tensorrt"):
        spec.from_flags("m.onnx", precision="fp16")
    with pytest.raises(SpecError, match="tensorrt: has no effect on the engine onnx"):
        spec.from_flags("m.onnx", tensorrt={"workspace": 64})
    for key in ("refit", "strip_weights", "weight_streaming", "dla"):
        with pytest.raises(SpecError, match=f"{key}: Triton's tensorrt backend has no call for it"):
            spec.from_flags("m.onnx", engine="tensorrt", tensorrt={key: True})


def test_options_of_language_models_need_an_engine_that_serves_them():
    with pytest.raises(SpecError, match="llm: has no effect on the engine onnx"):
        spec.from_flags("folder", llm={"tp": 2})
    model = spec.from_flags("folder", engine="vllm", llm={"tp": 2}).models[0]
    assert (model.llm.tp, model.llm.pp) == (2, 1)


def test_flags_lie_over_the_file_s_options_one_by_one():
    file = spec.from_flags("folder", engine="vllm", llm={"tp": 2, "dtype": "float16"}, batching={"max_batch_size": 4})
    over = spec.override(file, llm={"dtype": "bfloat16"}, batching={"dynamic": False}).models[0]
    assert (over.llm.tp, over.llm.dtype) == (2, "bfloat16")
    assert (over.batching.max_batch_size, over.batching.dynamic) == (4, False)
