"""Builds from every kind of source to the served proof, with tiny models and the real server."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import repo_builder
from repo_builder import client, model_config, pipeline, proof
from repo_builder.errors import (
    ProofFailedError,
    RepositoryError,
    SignatureError,
    SomeModelsFailedError,
    SpecError,
    TargetError,
)
from tests import models

pytestmark = [pytest.mark.server, pytest.mark.torch]


def snapshot(*folders: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file: a file that is written again shows."""
    return {
        str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for folder in folders for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="module")
def many(folder: Path) -> tuple[pipeline.Result, Path]:
    """One spec with every kind of source, one of them broken; two built at once."""
    bert = models.bert_folder(folder / "bert")
    plain = models.bert_folder(folder / "plain", sentence=False, seed=1)
    models.linear_onnx(folder / "linear.onnx", external=True)
    models.linear_onnx(folder / "static.onnx", batch=2)
    models.torchscript(folder / "scripted.pt")
    models.exported_program(folder / "exported.pt2")
    models.factory_module(folder / "made.py")
    (folder / "broken.onnx").write_bytes((folder / "linear.onnx").read_bytes()[:60])
    np.savez(folder / "sample.npz", x=np.ones((1, 4), np.float32))
    signature = "[{name: %s, dtype: FP32, shape: [batch, 4]}]"
    (folder / "spec.yaml").write_text(
        f"""target: 24.10
models:
- source: {bert.name}
- {{source: {plain.name}, name: features, task: feature-extraction, batching: {{max_batch_size: 8}}}}
- {{source: linear.onnx, samples: {{arrays: [sample.npz]}}, config: {{parameters: {{intra_op_thread_count: 1}}}}}}
- {{source: static.onnx}}
- {{source: scripted.pt, inputs: {signature % "input"}}}
- {{source: scripted.pt, name: served_script, engine: torchscript, inputs: {signature % "input"}}}
- {{source: exported.pt2, inputs: {signature % "input"}, shapes: {{batch: {{min: 1, opt: 4, max: 6}}}}}}
- {{source: "made.py:factory"}}
- {{source: broken.onnx}}
""",
        encoding="utf-8",
    )
    out = folder / "repository"
    return pipeline.build(folder / "spec.yaml", out, jobs=2), out


def test_one_that_fails_does_not_stop_the_others(many: tuple[pipeline.Result, Path]) -> None:
    result, out = many
    assert set(result.failed) == {"broken"}, {n: str(e) for n, e in result.failed.items()}
    assert {n: r["passed"] for n, r in result.reports.items()} == dict.fromkeys(
        ["bert", "features", "linear", "static", "scripted", "served_script", "exported", "factory"], True
    )
    assert not (out / "broken").exists()
    with pytest.raises(SomeModelsFailedError, match=r"broken"):
        result.raise_failed()


def test_what_is_served_is_what_the_files_say(many: tuple[pipeline.Result, Path]) -> None:
    result, out = many
    configs = {p.parent.name: model_config.parse(p.read_text(encoding="utf-8")) for p in out.glob("*/config.pbtxt")}
    assert configs["linear"].max_batch_size == 32
    assert configs["linear"].parameters["intra_op_thread_count"].string_value == "1"
    assert (out / "linear" / "1" / "linear.onnx.data").is_file()
    assert configs["static"].max_batch_size == 0
    assert list(configs["static"].input[0].dims) == [2, 4]
    assert configs["exported"].max_batch_size == 6
    assert configs["served_script"].platform == "pytorch_libtorch"
    assert configs["features"].max_batch_size == 8
    assert [o.name for o in configs["features"].output] == ["LAST_HIDDEN_STATE", "ATTENTION_MASK"]
    assert (out / "bert" / "1" / ".keep").is_file()
    for name in ("scripted", "exported", "factory", "bert"):
        engine = result.reports[name]["engine"]
        assert engine["exporter"] in ("dynamo", "script", "trace")
        assert engine["opset"] <= 21
        assert engine["ir_version"] <= 10
        assert "onnx.checker accepted" in engine["checker"]


def test_reports_name_who_served_and_what_that_does_not_show(many: tuple[pipeline.Result, Path]) -> None:
    report = many[0].reports["bert"]
    assert report["server"]["version"] == "2.51.0"
    assert report["server"]["versions"]["onnxruntime"] == "1.19.2"
    assert "Python stand-ins served for the compiled backends onnxruntime" in report["limits"]
    assert "sentence-transformers" in report["reference"]
    assert report["outputs"]["EMBEDDING"]["max_abs_error"] <= 1e-5
    assert set(report["latency_ms"]) == {"p50", "p90", "p99", "mean"}


def test_a_build_with_nothing_to_do_imports_no_framework_and_writes_nothing(
    many: tuple[pipeline.Result, Path], folder: Path
) -> None:
    out = many[1]
    before = snapshot(out, Path(f"{out}.build"))
    code = (
        "import sys, json, repo_builder\n"
        "r = repo_builder.build(sys.argv[1], sys.argv[2], target='24.10', name='linear', task='tensors',"
        " samples={'arrays': [sys.argv[3]]}, config={'parameters': {'intra_op_thread_count': 1}})\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'tensorflow', 'onnxscript', 'tritonclient'}\n"
        "print(json.dumps([r.steps[0].unchanged, r.reports['linear']['passed'], sorted(heavy & set(sys.modules))]))"
    )
    arguments = [str(folder / "linear.onnx"), str(out), str(folder / "sample.npz")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, True, []]
    again = pipeline.build(folder / "spec.yaml", out)
    assert all(step.unchanged for step in again.steps)
    assert set(again.failed) == {"broken"}
    assert snapshot(out, Path(f"{out}.build")) == before


def test_validate_replays_the_proof_without_a_framework(many: tuple[pipeline.Result, Path]) -> None:
    result, out = many
    replayed = pipeline.validate(out)
    replayed.raise_failed()
    assert set(replayed.reports) == set(result.reports)
    assert replayed.reports["bert"]["target"] == "24.10"


def test_validate_fails_when_the_weights_change(many: tuple[pipeline.Result, Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(many[1], tmp_path / "r")
    shutil.copytree(f"{many[1]}.build", tmp_path / "r.build")
    models.linear_onnx(tmp_path / "linear.onnx", external=True, seed=5)
    for file, name in (("linear.onnx", "model.onnx"), ("linear.onnx.data", "linear.onnx.data")):
        (tmp_path / "r" / "linear" / "1" / name).unlink()
        shutil.copy(tmp_path / file, tmp_path / "r" / "linear" / "1" / name)
    result = pipeline.validate(tmp_path / "r")
    assert set(result.failed) == {"linear"}
    assert isinstance(result.failed["linear"], ProofFailedError)
    assert "max abs error" in str(result.failed["linear"])


def test_validate_with_the_source_computes_the_reference_again(
    many: tuple[pipeline.Result, Path], folder: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(many[1], tmp_path / "r")
    shutil.copytree(f"{many[1]}.build", tmp_path / "r.build")
    models.linear_onnx(tmp_path / "linear.onnx", seed=7)
    result = pipeline.validate(tmp_path / "r", source=str(tmp_path / "linear.onnx"))
    assert set(result.failed) == {"linear"}
    result = pipeline.validate(tmp_path / "r", source=str(folder / "linear.onnx"))
    assert not result.failed


def test_infer_on_a_repository_and_on_a_server(
    many: tuple[pipeline.Result, Path], server_factory: Callable[..., Any], tmp_path: Path
) -> None:
    out = many[1]
    answer = pipeline.infer(str(out), "bert", texts=["hello", "there"])
    assert answer["EMBEDDING"].shape[0] == 2
    running = server_factory(out, onnxruntime="1.19.2", models=["linear"])
    np.save(tmp_path / "x.npy", np.ones((3, 4), np.float32))
    answer = pipeline.infer(f"grpc://{running.url}", "linear", tensors=[f"x={tmp_path / 'x.npy'}"])
    assert answer["y"].shape == (3, 3)


def test_a_server_that_reads_the_repository_itself_proves_in_place(
    tmp_path: Path, server_factory: Callable[..., Any]
) -> None:
    out = tmp_path / "repository"
    models.linear_onnx(tmp_path / "linear.onnx")
    repo_builder.build(tmp_path / "linear.onnx", out, target="24.10", verify=False)
    running = server_factory(out, onnxruntime="1.19.2", models=["linear"])
    models.linear_onnx(tmp_path / "linear.onnx", seed=3)
    result = pipeline.build(tmp_path / "linear.onnx", out, target="24.10", server=running.url)
    result.raise_failed()
    assert result.reports["linear"]["server"]["kind"] == "url"
    with client.connect(running.url) as connection:
        answer = connection.infer("linear", {"x": np.ones((1, 4), np.float32)})["y"]
    random = np.random.default_rng(3)
    w, b = (random.standard_normal(shape).astype(np.float32) for shape in ((4, 3), (3,)))
    np.testing.assert_allclose(answer, np.ones((1, 4), np.float32) @ w + b, rtol=1e-5)


def test_versions_are_replaced_or_appended(tmp_path: Path) -> None:
    out, source = tmp_path / "repository", tmp_path / "linear.onnx"
    models.linear_onnx(source)
    repo_builder.build(source, out, target="24.10")
    first = (
        (out / "linear" / "1" / "model.onnx").read_bytes() if (out / "linear" / "1" / "model.onnx").exists() else b""
    )
    first = first or (out / "linear" / "1" / "linear.onnx").read_bytes()
    models.linear_onnx(source, seed=1)
    result = pipeline.build(source, out, target="24.10", new_version=True)
    result.raise_failed()
    assert sorted(p.name for p in (out / "linear").iterdir() if p.is_dir()) == ["1", "2"]
    assert (out / "linear" / "1" / "model.onnx").read_bytes() == first
    models.linear_onnx(source, seed=2)
    repo_builder.build(source, out, target="24.10", verify=False)
    assert sorted(p.name for p in (out / "linear").iterdir() if p.is_dir()) == ["1", "2"]


def test_a_proof_that_fails_leaves_the_old_repository(tmp_path: Path) -> None:
    """A model that adds fresh noise to its answers can never be proven."""
    out, source = tmp_path / "repository", tmp_path / "linear.onnx"
    models.linear_onnx(source)
    repo_builder.build(source, out, target="24.10").raise_failed()
    before = snapshot(out)
    models.noisy_onnx(source)
    result = pipeline.build(source, out, target="24.10")
    assert isinstance(result.failed["linear"], ProofFailedError)
    assert snapshot(out) == before


def test_batching_that_the_model_cannot_have_is_refused(tmp_path: Path) -> None:
    models.linear_onnx(tmp_path / "static.onnx", batch=2)
    result = pipeline.build(tmp_path / "static.onnx", tmp_path / "out", batching={"max_batch_size": 4})
    with pytest.raises(SignatureError, match="max_batch_size 4 was asked for, but the model has no batch dimension"):
        result.raise_failed()
    assert not (tmp_path / "out").exists()


def test_a_target_that_lacks_a_field_refuses_before_serving(tmp_path: Path) -> None:
    models.linear_onnx(tmp_path / "linear.onnx")
    config = {"model_metrics": {"metric_control": [{"metric_identifier": {"family": "x"}}]}}
    result = pipeline.build(tmp_path / "linear.onnx", tmp_path / "out", target="24.10", config=config)
    with pytest.raises(TargetError, match="model_metrics"):
        result.raise_failed()
    assert not (tmp_path / "out").exists()


def test_fields_that_the_embedded_server_lacks_are_left_out_and_the_report_says_so(tmp_path: Path) -> None:
    models.linear_onnx(tmp_path / "linear.onnx")
    config = {"model_metrics": {"metric_control": [{"metric_identifier": {"family": "nv_x"}, "histogram_options": {}}]}}
    result = pipeline.build(tmp_path / "linear.onnx", tmp_path / "out", target="26.07", config=config)
    result.raise_failed()
    assert "model_metrics" in (tmp_path / "out" / "linear" / "config.pbtxt").read_text(encoding="utf-8")
    said = "linear: Triton 24.10 does not know model_metrics; served without, to be proven on the target"
    assert said in result.reports["linear"]["limits"]
    told: list[str] = []
    with pipeline.serve(tmp_path / "out", target=None, ports=(0, 0, 0), progress=told.append) as running:
        with client.connect(running.url) as connection:
            assert connection.infer("linear", {"x": np.zeros((1, 4), np.float32)})["y"].shape == (1, 3)
        started = next(line for line in told if line.startswith("starting"))
        view = Path(started.removeprefix("starting tritonserver on "))
        assert view.is_dir()
    assert not view.exists()
    assert "linear is served without model_metrics, which this server does not know" in told


def test_an_axis_that_the_model_lacks_is_named(tmp_path: Path) -> None:
    models.linear_onnx(tmp_path / "linear.onnx")
    result = pipeline.build(tmp_path / "linear.onnx", tmp_path / "out", shapes={"bach": {"min": 1, "opt": 2, "max": 4}})
    with pytest.raises(SpecError, match=r"no dynamic axis 'bach' \(did you mean 'batch'\?\)"):
        result.raise_failed()


def test_a_proof_that_was_swapped_is_not_replayed(tmp_path: Path) -> None:
    models.linear_onnx(tmp_path / "linear.onnx")
    repo_builder.build(tmp_path / "linear.onnx", tmp_path / "r", verify=False)
    stored = proof.load(tmp_path / "r.build" / "proof" / "linear.npz")
    loose = dataclasses.replace(stored, tolerances={"y": proof.Tolerance(max_abs_error=1e9)})
    proof.save(loose, tmp_path / "r.build" / "proof" / "linear.npz")
    with pytest.raises(RepositoryError, match="is not the proof that the build wrote"):
        pipeline.validate(tmp_path / "r")


def test_a_build_that_waited_does_not_build_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find something to do before either holds the lock; the second then finds it done."""
    out = tmp_path / "r"
    models.linear_onnx(tmp_path / "linear.onnx")
    first_look = pipeline._step

    def look(*arguments: Any) -> pipeline.Step:
        step = first_look(*arguments)
        monkeypatch.setattr(pipeline, "_step", first_look)
        pipeline.build(tmp_path / "linear.onnx", out, verify=False).raise_failed()
        return step

    monkeypatch.setattr(pipeline, "_step", look)
    second = pipeline.build(tmp_path / "linear.onnx", out, verify=False)
    assert [step.unchanged for step in second.steps] == [True]
    assert set(second.reports) == {"linear"}


def test_a_strange_neighbour_does_not_stop_a_build(tmp_path: Path) -> None:
    (tmp_path / "r" / "foreign").mkdir(parents=True)
    (tmp_path / "r" / "foreign" / "config.pbtxt").write_text("name: ${name}\n", encoding="utf-8")
    models.linear_onnx(tmp_path / "linear.onnx")
    result = pipeline.build(tmp_path / "linear.onnx", tmp_path / "r", target="24.10")
    result.raise_failed()
    assert result.reports["linear"]["passed"] is True


def test_weights_that_a_factory_reads_from_elsewhere_count(tmp_path: Path) -> None:
    text = models.FACTORY.replace("torch.manual_seed(0)", "torch.manual_seed(int(open(SEED).read()))")
    (tmp_path / "seed").write_text("0", encoding="utf-8")
    made = models.factory_module(tmp_path / "made.py", f"SEED = {str(tmp_path / 'seed')!r}\n{text}")
    code = (
        "import sys; from repo_builder import pipeline\n"
        "r = pipeline.build(sys.argv[1], sys.argv[2], verify=False); r.raise_failed(); print(r.steps[0].unchanged)"
    )

    def unchanged() -> str:
        command = [sys.executable, "-c", code, f"{made}:factory", str(tmp_path / "r")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert [unchanged(), unchanged()] == ["False", "True"]
    (tmp_path / "seed").write_text("1", encoding="utf-8")
    assert unchanged() == "False"


def test_models_of_another_origin_stay(tmp_path: Path) -> None:
    out = tmp_path / "repository"
    (out / "linear" / "1").mkdir(parents=True)
    (out / "linear" / "config.pbtxt").write_text('name: "linear"\n', encoding="utf-8")
    models.linear_onnx(tmp_path / "linear.onnx")
    with pytest.raises(RepositoryError, match=r"holds what no build wrote so: linear/config\.pbtxt"):
        repo_builder.build(tmp_path / "linear.onnx", out, target="24.10")
    assert (out / "linear" / "config.pbtxt").read_text(encoding="utf-8") == 'name: "linear"\n'
