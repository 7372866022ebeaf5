"""Merging repositories of several GPUs. The plans are opaque bytes and all facts of GPUs are made up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from repo_builder import model_config, proof
from repo_builder.errors import RepositoryError, SourceMissingError, TargetError, UsageError
from repo_builder.pipeline.merging import merge, summary
from repo_builder.repository import manifest, write
from repo_builder.repository.layout import Layout
from tests import gpu_repositories as gpus
from tests.repository_units import listing, plain


def _configs(repository: Path, model: str) -> dict[str, Any]:
    found = sorted((repository / model).rglob("*.pbtxt"))
    return {str(p.relative_to(repository / model)): model_config.parse(p.read_text(encoding="utf-8")) for p in found}


@pytest.fixture
def h100(tmp_path: Path) -> Path:
    return gpus.build(tmp_path / "h100", "9.0")


@pytest.fixture
def a100(tmp_path: Path) -> Path:
    return gpus.build(tmp_path / "a100", "8.0")


def test_plans_of_two_gpus_become_one_model(h100: Path, a100: Path, tmp_path: Path) -> None:
    result = merge(h100, a100, tmp_path / "both")
    assert listing(tmp_path / "both/m_encoder/1") == {
        "model_sm80.plan": b"plan for 8.0",
        "model_sm90.plan": b"plan for 9.0",
    }
    (config,) = _configs(tmp_path / "both", "m_encoder").values()
    assert dict(config.cc_model_filenames) == {"8.0": "model_sm80.plan", "9.0": "model_sm90.plan"}
    assert config.default_model_filename == ""
    assert listing(tmp_path / "both/m") == listing(h100 / "m")
    assert (tmp_path / "both/m_encoder/labels.txt").read_bytes() == b"a\nb\n"
    assert (result.gpus, result.unchanged) == ({"m": ("8.0", "9.0")}, False)
    assert summary(result)["models"] == [{"model": "m", "compute capabilities": "8.0, 9.0"}]


def test_manifest_proof_and_the_reports_of_each_side_are_carried(h100: Path, a100: Path, tmp_path: Path) -> None:
    merge(h100, a100, tmp_path / "both")
    layout = Layout.of(tmp_path / "both")
    record = manifest.load(tmp_path / "both").units["m"]
    assert {c: told["key"] for c, told in record.facts["gpus"].items()} == {"8.0": "key of 8.0", "9.0": "key of 9.0"}
    assert record.facts["gpus"]["9.0"]["engine"]["tensorrt"] == "10.0.1.6"
    assert layout.proof("m").read_bytes() == Layout.of(h100).proof("m").read_bytes()
    report = json.loads(layout.report("m").read_text(encoding="utf-8"))
    assert report["passed"] is True
    assert report["gpus"]["9.0"]["limits"] == ["measured on 9.0"]
    assert "loads on GPUs of compute capability 8.0, 9.0 alone" in report["limits"]


def test_the_order_does_not_count_and_a_second_time_writes_nothing(h100: Path, a100: Path, tmp_path: Path) -> None:
    merge(h100, a100, tmp_path / "one")
    merge(a100, h100, tmp_path / "two")
    assert listing(tmp_path / "one") == listing(tmp_path / "two")
    assert listing(tmp_path / "one.build") == listing(tmp_path / "two.build")
    before = (tmp_path / "one").stat().st_ino
    assert merge(h100, a100, tmp_path / "one").unchanged
    assert merge(tmp_path / "one", a100, tmp_path / "one").unchanged
    assert (tmp_path / "one").stat().st_ino == before


def test_a_merged_repository_is_merged_with_a_third(h100: Path, a100: Path, tmp_path: Path) -> None:
    ada = gpus.build(tmp_path / "l4", "8.9")
    merge(merge(h100, a100, tmp_path / "two").repository, ada, tmp_path / "left")
    merge(h100, merge(ada, a100, tmp_path / "other").repository, tmp_path / "right")
    assert listing(tmp_path / "left") == listing(tmp_path / "right")
    assert listing(tmp_path / "left.build") == listing(tmp_path / "right.build")
    (config,) = _configs(tmp_path / "left", "m_encoder").values()
    assert sorted(config.cc_model_filenames) == ["8.0", "8.9", "9.0"]


def test_a_repository_can_take_another_in(h100: Path, a100: Path) -> None:
    merge(h100, a100, h100)
    assert sorted(listing(h100 / "m_encoder/1")) == ["model_sm80.plan", "model_sm90.plan"]


def test_configs_that_differ_are_kept_for_each_gpu_and_the_smallest_is_the_default(h100: Path, tmp_path: Path) -> None:
    small = gpus.build(tmp_path / "t4", "7.5", encoder={"max_batch_size": 2}, tokenizer={"max_batch_size": 2})
    result = merge(h100, small, tmp_path / "both", names={"9.0": "h100"})
    for model in ("m", "m_encoder"):
        configs = _configs(tmp_path / "both", model)
        sizes = {path: config.max_batch_size for path, config in configs.items()}
        assert sizes == {"config.pbtxt": 2, "configs/h100.pbtxt": 8, "configs/sm75.pbtxt": 2}
    named = _configs(tmp_path / "both", "m_encoder")["configs/h100.pbtxt"]
    assert dict(named.cc_model_filenames) == {"7.5": "model_sm75.plan", "9.0": "model_sm90.plan"}
    assert "--model-config-name, one of sm75 (7.5), h100 (9.0)" in result.reports["m"]["limits"][-1]
    third = gpus.build(tmp_path / "a100", "8.0")
    merge(tmp_path / "both", third, tmp_path / "three")
    sizes = {path: config.max_batch_size for path, config in _configs(tmp_path / "three", "m_encoder").items()}
    assert sizes == {"config.pbtxt": 2, "configs/h100.pbtxt": 8, "configs/sm75.pbtxt": 2, "configs/sm80.pbtxt": 8}


def test_only_models_whose_configs_differ_get_variants(h100: Path, tmp_path: Path) -> None:
    two = gpus.build(tmp_path / "b", "8.0", encoder={"instance_group": [{"count": 2, "kind": "KIND_GPU"}]})
    merge(h100, two, tmp_path / "both")
    assert sorted(_configs(tmp_path / "both", "m_encoder")) == [
        "config.pbtxt",
        "configs/sm80.pbtxt",
        "configs/sm90.pbtxt",
    ]
    assert sorted(_configs(tmp_path / "both", "m")) == ["config.pbtxt"]


def test_a_hardware_compatible_plan_is_the_default_for_other_gpus(h100: Path, tmp_path: Path) -> None:
    wide = gpus.build(tmp_path / "wide", "8.0", engine={"hardware_compatible": True})
    result = merge(h100, wide, tmp_path / "both")
    assert _configs(tmp_path / "both", "m_encoder")["config.pbtxt"].default_model_filename == "model_sm80.plan"
    assert not any("alone" in limit for limit in result.reports["m"]["limits"])


def test_proofs_that_round_apart_give_one_with_the_wider_tolerances(h100: Path, tmp_path: Path) -> None:
    other = gpus.build(tmp_path / "b", "8.0", proven=gpus.proof(error=1e-6, tolerance=5e-2))
    merge(h100, other, tmp_path / "both")
    stored = proof.load(Layout.of(tmp_path / "both").proof("m"))
    assert stored.tolerances["y"].max_abs_error == 5e-2
    assert stored.cases[0].outputs["y"][0, 0] == pytest.approx(2 + 1e-6, abs=1e-7)
    with pytest.raises(RepositoryError, match="have other inputs"):
        merge(h100, gpus.build(tmp_path / "c", "8.0", proven=gpus.proof(value=3)), tmp_path / "no")


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"labels": b"a\nc\n"}, "h100 and other differ in m_encoder/labels.txt"),
        (
            {"encoder": {"input": [{"name": "x", "data_type": "TYPE_FP16", "dims": [4]}]}},
            "the configs of 'm_encoder' for compute capability 8.0 and 9.0 differ in input ([name:",
        ),
        ({"encoder": {"output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [5]}]}}, "differ in output ([name:"),
        ({"encoder": {"max_batch_size": 0}}, "differ in max_batch_size (0 against 8)"),
        ({"tokenizer": {"parameters": {"longest": 9}}}, "the configs of 'm' for compute capability 8.0 and 9.0 differ"),
        ({"changed": {"source": {"sha256": "another"}}}, "the source is made-up in h100 and another in other"),
        ({"changed": {"task": {"name": "reranking"}}}, "the task is tensors in h100 and reranking in other"),
    ],
)
def test_what_differs_is_refused_by_name(h100: Path, tmp_path: Path, fields: dict[str, Any], found: str) -> None:
    other = gpus.build(tmp_path / "other", "8.0", **fields)
    with pytest.raises(RepositoryError) as caught:
        merge(h100, other, tmp_path / "both")
    assert found in caught.value.found
    assert not (tmp_path / "both").exists()


def test_models_without_plans_are_carried_when_they_are_equal(tmp_path: Path) -> None:
    net = plain("net", b"onnx", proven=True)
    sides = [gpus.build(tmp_path / c, c, beside=[net]) for c in ("8.0", "9.0")]
    assert merge(*sides, tmp_path / "both").gpus == {"m": ("8.0", "9.0"), "net": ()}
    assert listing(tmp_path / "both/net") == listing(tmp_path / "9.0/net")
    assert manifest.load(tmp_path / "both").units["net"] == manifest.load(tmp_path / "9.0").units["net"]
    assert merge(*sides, tmp_path / "both").unchanged
    wider = gpus.build(tmp_path / "c", "7.5", beside=[plain("net", b"onnx", width=5, proven=True)])
    with pytest.raises(RepositoryError, match="the configs of net differ in input"):
        merge(sides[0], wider, tmp_path / "no")
    with pytest.raises(RepositoryError, match=r"'net' is only in 8\.0"):
        merge(sides[0], gpus.build(tmp_path / "d", "7.5"), tmp_path / "no")
    for folder in ("e", "f"):
        gpus.build(tmp_path / folder, "8.0", encoder={"backend": "onnxruntime", "platform": "onnxruntime_onnx"})
    with pytest.raises(RepositoryError, match="neither repository has a TensorRT plan"):
        merge(tmp_path / "e", tmp_path / "f", tmp_path / "no")


def test_repositories_of_several_versions_are_refused(h100: Path, tmp_path: Path) -> None:
    net = plain("net", b"onnx")
    two = gpus.build(tmp_path / "two", "8.0", beside=[net])
    with write.transaction(two) as change:
        change.stage([plain("net", b"newer")], new_version=True)
        change.commit()
    with pytest.raises(RepositoryError, match="'net' in two has the versions 1, 2") as caught:
        merge(h100, two, tmp_path / "no")
    assert "without --new-version" in caught.value.mend


def test_another_plan_for_the_same_compute_capability_is_refused(h100: Path, tmp_path: Path) -> None:
    again = gpus.build(tmp_path / "again", "9.0", b"another plan")
    with pytest.raises(RepositoryError, match=r"both have a plan of 'm_encoder' for compute capability 9\.0, and they"):
        merge(h100, again, tmp_path / "both")
    same = shutil.copytree(h100, tmp_path / "same")
    shutil.copytree(tmp_path / "h100.build", tmp_path / "same.build")
    assert merge(h100, same, tmp_path / "one").gpus == {"m": ("9.0",)}
    other = gpus.build(tmp_path / "counts", "9.0", encoder={"instance_group": [{"count": 2, "kind": "KIND_GPU"}]})
    with pytest.raises(
        RepositoryError, match=r"the configs of m_encoder for compute capability 9\.0 differ in instance_"
    ):
        merge(h100, other, tmp_path / "both")


def test_releases_and_versions_that_no_server_loads_together_are_refused(h100: Path, tmp_path: Path) -> None:
    for number, (fields, found) in enumerate(
        [
            ({"changed": {"target": "26.07"}}, "the target is 24.10 in h100 and 26.07 in other"),
            (
                {"engine": {"tensorrt": "10.3.0"}},
                r"TensorRT 10\.3\.0 \(compute capability 8\.0\), 10\.0\.1\.6 \(compute",
            ),
        ]
    ):
        other = gpus.build(tmp_path / str(number) / "other", "8.0", **fields)
        with pytest.raises(TargetError, match=found):
            merge(h100, other, tmp_path / "both")
    newer = gpus.build(tmp_path / "newer", "9.0", engine={"tensorrt": "10.3.0"})
    able = gpus.build(tmp_path / "able", "8.0", engine={"version_compatible": True})
    assert merge(newer, able, tmp_path / "both").gpus["m"] == ("8.0", "9.0")


def test_a_release_whose_tensorrt_is_known_loads_no_plans_of_another(tmp_path: Path) -> None:
    sides = [
        gpus.build(tmp_path / c, c, changed={**gpus.facts(c, tensorrt="8.6.1"), "target": "24.05"})
        for c in ("8.0", "9.0")
    ]
    with pytest.raises(TargetError) as caught:
        merge(*sides, tmp_path / "both")
    assert caught.value.expected == "TensorRT 10.0.1.6, which release 24.05 carries"


def test_configs_for_each_gpu_need_a_release_that_has_them(tmp_path: Path) -> None:
    target = {"target": "24.04"}
    sides = [
        gpus.build(
            tmp_path / c, c, changed={**gpus.facts(c, tensorrt="8.6.3.1"), **target}, encoder={"max_batch_size": size}
        )
        for c, size in (("8.0", 4), ("9.0", 8))
    ]
    with pytest.raises(TargetError, match=r"release 24\.04 takes one config for all") as caught:
        merge(*sides, tmp_path / "both")
    assert "24.05 or newer" in caught.value.expected


def test_repositories_that_no_build_left_so_are_refused(h100: Path, a100: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceMissingError, match="there is no folder"):
        merge(h100, tmp_path / "nothing", tmp_path / "both")
    (tmp_path / "bare").mkdir()
    with pytest.raises(RepositoryError, match=r"bare\.build beside .* holds no manifest"):
        merge(h100, tmp_path / "bare", tmp_path / "both")
    (a100 / "stray").mkdir()
    with pytest.raises(RepositoryError, match="a100 holds models that no build wrote: stray"):
        merge(h100, a100, tmp_path / "both")
    (a100 / "stray").rmdir()
    (a100 / "m/1/notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RepositoryError, match=r"files that no build wrote: m/1/notes\.txt"):
        merge(h100, a100, tmp_path / "both")
    (a100 / "m/1/notes.txt").unlink()
    (a100 / "m_encoder/1/model.plan").write_bytes(b"cut")
    with pytest.raises(RepositoryError, match=r"changed since they were built: m_encoder/1/model\.plan"):
        merge(h100, a100, tmp_path / "both")


def test_names_and_gpus_that_nobody_told_are_refused(h100: Path, a100: Path, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"no plan is for compute capability '7\.5'") as caught:
        merge(h100, a100, tmp_path / "both", names={"7.5": "t4"})
    assert caught.value.expected == "one of 8.0, 9.0"
    with pytest.raises(UsageError, match=r"the config name of compute capability 9\.0 is 'an h100'"):
        merge(h100, a100, tmp_path / "both", names={"9.0": "an h100"})
    with pytest.raises(RepositoryError, match=r"8\.0 and 9\.0 both have the config name 'sm80'"):
        merge(h100, a100, tmp_path / "both", names={"9.0": "sm80"})
    silent = gpus.build(tmp_path / "silent", "8.0", engine={"compute_capability": None})
    with pytest.raises(RepositoryError, match="tells of no GPU that the plan of 'm' was built on"):
        merge(h100, silent, tmp_path / "both")


def test_the_parts_of_a_task_and_the_report_tell_the_gpu_too(h100: Path, tmp_path: Path) -> None:
    parts = {"compute_capability": None, "parts": {"encoder": {"compute_capability": "8.0"}}}
    assert merge(h100, gpus.build(tmp_path / "p", "8.0", engine=parts), tmp_path / "a").gpus["m"] == ("8.0", "9.0")
    reported = gpus.build(tmp_path / "r", "8.0", engine={"compute_capability": None})
    path = Layout.of(reported).report("m")
    told = {**json.loads(path.read_text(encoding="utf-8")), "engine": {"compute_capability": "8.0"}}
    path.write_text(json.dumps(told), encoding="utf-8")
    assert merge(h100, reported, tmp_path / "b").gpus["m"] == ("8.0", "9.0")
    mixed = {"parts": {"encoder": {"compute_capability": "7.5"}}}
    with pytest.raises(RepositoryError, match=r"compute capabilities 7\.5, 8\.0"):
        merge(h100, gpus.build(tmp_path / "x", "8.0", engine=mixed), tmp_path / "c")
