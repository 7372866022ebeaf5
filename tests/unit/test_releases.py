"""The releases table: every value has its source, and a target refuses what its server cannot load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from repo_builder import releases
from repo_builder.errors import TargetError

ROOT = Path(__file__).parents[2]
DATA: dict[str, Any] = json.loads((ROOT / "repo_builder/releases/releases.json").read_text(encoding="utf-8"))


def config(text: str) -> Any:
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    return text_format.Parse(text, ModelConfig())


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(TargetError) as caught:
        call(*arguments)
    assert caught.value.expected
    assert caught.value.mend
    return str(caught.value)


def test_every_month_from_24_01_to_26_08_is_there_oldest_first() -> None:
    months = [f"{year}.{month:02d}" for year in (24, 25, 26) for month in range(1, 13)]
    assert releases.names() == tuple(months[: months.index("26.08") + 1])
    assert releases.newest().name == "26.08"
    assert (releases.embedded().name, releases.embedded().server) == ("24.10", "2.51.0")


def test_server_versions_are_the_release_branches() -> None:
    found = {name: releases.release(name).server for name in ("24.01", "25.06", "25.07", "26.08")}
    assert found == {"24.01": "2.42.0", "25.06": "2.59.0", "25.07": "2.59.1", "26.08": "2.72.0"}


@pytest.mark.parametrize("name", releases.names())
def test_every_value_has_a_source(name: str) -> None:
    release = DATA["releases"][name]
    known = {"server", "fields"} | {
        f"{flavour}.{key}"
        for flavour, image in release["images"].items()
        for key, value in image.items()
        if value is not None
    }
    assert known <= set(release["sources"])
    assert all(release["sources"].values())
    assert set(release["images"]) <= set(releases.FLAVOURS)


def test_limits_platforms_and_fields_have_a_source() -> None:
    for fact in (*DATA["onnxruntime"].values(), *DATA["platforms"].values(), *DATA["fields"]["added"].values()):
        assert fact["source"]


@pytest.mark.parametrize(
    ("version", "limits"),
    [
        ("1.16.3", (19, 9, 3)),
        ("1.17.3", (20, 9, 4)),
        ("1.19.2", (21, 10, 5)),
        ("1.22.0", (22, 10, 5)),
        ("1.23.0", (23, 11, 5)),
        ("1.24.4", (25, 13, 5)),
        ("1.28.0", (26, 13, 5)),
    ],
)
def test_onnx_limits(version: str, limits: tuple[int, int, int]) -> None:
    assert releases.onnx_limits(version) == limits


def test_every_release_has_onnx_limits_and_they_never_shrink() -> None:
    limits = [(r.max_opset, r.max_ir_version, r.max_ml_opset) for r in map(releases.release, releases.names())]
    assert limits == sorted(limits)
    assert limits[0] == (19, 9, 3)
    assert limits[-1] == (26, 13, 5)


def test_a_snapshot_of_onnxruntime_counts_as_the_release_before_it() -> None:
    assert releases.release("25.08").image("py3").onnxruntime == "1.23.0+1d1712fdaf"
    assert releases.release("25.08").max_ir_version == releases.release("25.07").max_ir_version


def test_unknown_onnxruntime_is_refused() -> None:
    text = refusal(releases.onnx_limits, "1.99.0")
    assert "the ONNX limits of ONNX Runtime 1.99.0 are unknown" in text


def test_the_installed_onnxruntime_loads_its_limits_and_no_more() -> None:
    import onnxruntime
    from onnx import TensorProto, helper

    try:
        opset, ir, ml_opset = releases.onnx_limits(onnxruntime.__version__)
    except TargetError:
        pytest.skip(f"ONNX Runtime {onnxruntime.__version__} is in no release of the table")

    def loads(ir: int, opset: int, ml_opset: int) -> bool:
        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
        imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", ml_opset)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=ir)
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
            return False
        return True

    assert loads(ir, opset, ml_opset)
    assert not loads(ir + 1, opset, ml_opset)
    assert not loads(ir, opset + 1, ml_opset)
    assert not loads(ir, opset, ml_opset + 1)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("26.7", "26.07?"),
        ("26.07 ", "26.07?"),
        ("2026.07", "26.07?"),
        ("26-07", "26.07?"),
        ("26.09", "26.08?"),
        ("23.10", "24.01?"),
        ("latest", "26.08?"),
        ("24.1", "24.01 or 24.10?"),
    ],
)
def test_an_unknown_release_names_the_nearest(typed: str, meant: str) -> None:
    text = refusal(releases.release, typed)
    assert f"Triton release '{typed}' is unknown" in text
    assert f"did you mean {meant}" in text


def test_a_missing_flavour_names_the_newest_release_with_it() -> None:
    text = refusal(releases.newest().image, "trtllm-python-py3")
    assert "no trtllm-python-py3 image is documented for release 26.08" in text
    assert "use release 26.07" in text


NEW_FIELDS = config(
    """name: "m" backend: "onnxruntime"
    input { name: "x" } input { name: "y" is_non_linear_format_io: true }
    parameters { key: "k" value { string_value: "v" } }
    ensemble_scheduling { max_inflight_requests: 2 }
    model_metrics { metric_control { metric_identifier { family: "f" } } }"""
)


@pytest.mark.parametrize(
    ("name", "unknown"),
    [
        (
            "24.07",
            ["input[1].is_non_linear_format_io", "ensemble_scheduling.max_inflight_requests", "model_metrics"],
        ),
        ("24.10", ["ensemble_scheduling.max_inflight_requests", "model_metrics"]),
        ("24.11", ["ensemble_scheduling.max_inflight_requests"]),
        ("25.11", []),
    ],
)
def test_unknown_fields(name: str, unknown: list[str]) -> None:
    assert releases.unknown_fields(releases.release(name), NEW_FIELDS) == unknown


def test_unknown_fields_looks_into_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    from repo_builder.releases import check

    known = check._known_fields("26.08") - {"ModelParameter.string_value"}
    monkeypatch.setattr(check, "_known_fields", lambda _: known)
    assert releases.unknown_fields(releases.newest(), NEW_FIELDS) == ["parameters['k'].string_value"]


def test_the_fields_of_the_table_are_fields_of_the_message() -> None:
    from tritonclient.grpc import model_config_pb2

    from repo_builder.releases import check

    def fields(message: Any) -> set[str]:
        if message.GetOptions().map_entry:
            return set()
        own = {f"{message.full_name.removeprefix('inference.')}.{field.name}" for field in message.fields}
        return own.union(*(fields(nested) for nested in message.nested_types))

    messages = model_config_pb2.DESCRIPTOR.message_types_by_name.values()
    assert check._known_fields("25.07") <= set().union(*map(fields, messages))


def test_check_config_refuses_unknown_fields_and_names_the_first_release_that_knows_them() -> None:
    text = refusal(releases.check_config, NEW_FIELDS, releases.release("24.10"))
    assert "m: release 24.10 (server 2.51.0) does not know" in text
    assert "ensemble_scheduling.max_inflight_requests, model_metrics" in text
    assert "target 25.11 or newer" in text
    releases.check_config(NEW_FIELDS, releases.release("25.11"))


@pytest.mark.parametrize(
    ("text", "name", "found", "mend"),
    [
        (
            'platform: "onnx"',
            "26.08",
            "platform 'onnx' is unknown to every release",
            "did you mean 'onnxruntime_onnx'?",
        ),
        (
            'platform: "torch_aoti"',
            "26.02",
            "release 26.02 does not know platform 'torch_aoti'",
            "target 26.03 or newer",
        ),
        ('backend: "onxruntime"', "26.08", "backend 'onxruntime', which no image", "did you mean 'onnxruntime'?"),
        ('platform: "tensorflow_savedmodel"', "25.03", "backend 'tensorflow', which no image", "from 24.01 to 25.02"),
    ],
)
def test_check_config_refuses_platforms_and_backends(text: str, name: str, found: str, mend: str) -> None:
    message = refusal(releases.check_config, config(f'name: "m" {text}'), releases.release(name))
    assert message.startswith("m: ")
    assert found in message
    assert mend in message


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('platform: "tensorflow_savedmodel"', "25.02"),
        ('platform: "torch_aoti"', "26.03"),
        ('platform: "ensemble"', "24.01"),
        ('backend: "vllm"', "26.08"),
        ('backend: "tensorrtllm"', "26.07"),
        ("", "24.01"),
    ],
)
def test_check_config_passes_what_the_release_loads(text: str, name: str) -> None:
    releases.check_config(config(f'name: "m" {text}'), releases.release(name))


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ('platform: "pytorch_libtorch"', "pytorch"),
        ('platform: "tensorrt_plan" backend: "tensorrt"', "tensorrt"),
        ('platform: "ensemble"', "ensemble"),
        ("", None),
    ],
)
def test_backend_of(text: str, backend: str | None) -> None:
    assert releases.backend_of(config(text)) == backend


@pytest.mark.parametrize(
    ("backends", "flavour"),
    [
        ((), "py3"),
        (("ensemble", "python"), "py3"),
        (("onnxruntime", "python", "pytorch", "tensorrt"), "py3"),
        (("python", "vllm"), "vllm-python-py3"),
        (("ensemble", "tensorrtllm"), "trtllm-python-py3"),
    ],
)
def test_flavour_for(backends: tuple[str, ...], flavour: str) -> None:
    assert releases.flavour_for(backends, releases.release("26.07")) == flavour


def test_two_flavours_are_refused_with_the_models_that_need_them() -> None:
    needs = {"onnxruntime": ["encoder", "ranker"], "vllm": ["chat"], "python": ["tokenizer"]}
    text = refusal(releases.flavour_for, needs, releases.newest())
    assert "no single image of release 26.08 has every backend" in text
    assert "models encoder, ranker need backend 'onnxruntime', in py3" in text
    assert "model chat needs backend 'vllm', in vllm-python-py3" in text
    assert "model tokenizer needs backend 'python', in py3 and vllm-python-py3" in text
    assert "build one repository per image flavour" in text


def test_a_backend_of_no_image_is_refused_with_its_model() -> None:
    text = refusal(releases.flavour_for, {"tensorflow": ["old"]}, releases.newest())
    assert "model old needs backend 'tensorflow', which no image of release 26.08 has" in text
    assert "target a release from 24.01 to 25.02" in text


def test_the_page_shows_the_table_and_what_came_later() -> None:
    page = (ROOT / "docs/targets.md").read_text(encoding="utf-8")
    later = {name.rsplit(".", 1)[1]: fact["since"] for name, fact in DATA["fields"]["added"].items()}
    later = {field: since for field, since in later.items() if since != "24.11"} | {"model_metrics": "24.11"}
    later |= {name: fact["since"] for name, fact in DATA["platforms"].items() if fact["since"] != "24.01"}
    rows = [line for line in page.splitlines() if line.startswith("| 2") and line.count("|") == 3]
    for name, since in later.items():
        assert any(row.startswith(f"| {since} |") and name in row for row in rows), name
    assert releases.table() in page, "python -m repo_builder.releases.facts prints the table that belongs there"


def test_reading_the_table_imports_no_heavy_package() -> None:
    program = (
        "import sys; from repo_builder import releases; releases.newest().max_opset; "
        "print(sorted({'tritonclient', 'google.protobuf', 'numpy', 'onnx', 'onnxruntime', 'yaml'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"
