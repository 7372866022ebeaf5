"""XGBoost, LightGBM and CatBoost: native files answered by their libraries, served and proved by the real server."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from repo_builder import formats, pipeline, toolchain
from repo_builder.convert import framework_to_onnx
from repo_builder.errors import ConversionError, RepoBuilderError, SourceCorruptError
from repo_builder.formats import framework_process, tree_ensembles

pytestmark = pytest.mark.slow

Make = Callable[[str, str], Path]
_CLASSES = {"binary": 2, "multi": 3}


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """``make(kind, suffix)``: a file that the framework wrote, once each."""
    framework = tree_ensembles.FRAMEWORK
    python = toolchain.ensure(framework.name, framework.requirements)
    script = Path(__file__).parents[1] / "tree_models.py"
    folder = tmp_path_factory.mktemp("trees")

    def made(kind: str, suffix: str) -> Path:
        path = folder / f"{kind}{suffix}"
        if not path.exists():
            done = subprocess.run([python, script, kind, path], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr[-2000:]
        return path

    yield made
    framework_process.close_all()


@pytest.mark.parametrize("task", ["regression", "binary", "multi"])
@pytest.mark.parametrize(
    ("framework", "suffix"), [("xgboost", ".json"), ("xgboost", ".ubj"), ("lightgbm", ".txt"), ("catboost", ".cbm")]
)
def test_a_file_converts_with_equal_answers(make: Make, tmp_path: Path, framework: str, suffix: str, task: str) -> None:
    name, path = formats.detect(str(make(f"{framework}-{task}", suffix)))
    assert name == framework
    source = formats.opened(formats.get(name).describe(path))
    made = framework_to_onnx.convert(source, tmp_path / "model.onnx", opset=20, ir_version=9)
    label = "label BYTES[batch]" if (framework, task) == ("catboost", "multi") else "label INT64[batch]"
    classes = [label, f"probabilities FP32[batch, {_CLASSES.get(task)}]"]
    assert [str(spec) for spec in made.inputs] == ["features FP32[batch, 6]"]
    assert [str(spec) for spec in made.outputs] == (["prediction FP32[batch, 1]"] if task == "regression" else classes)
    assert made.provenance["cases"] == 7
    assert max(made.provenance["max_abs_error"].values()) < 1e-6


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        *((f"lightgbm-{task}", ".txt") for task in ("zeros", "nan", "nonan", "doubles", "codes")),
        *((f"xgboost-{task}", ".json") for task in ("zeros", "nan", "codes", "names")),
        *((f"catboost-{task}", ".cbm") for task in ("zeros", "nan")),
    ],
)
def test_answers_are_equal_at_the_thresholds(make: Make, tmp_path: Path, kind: str, suffix: str) -> None:
    name, path = formats.detect(str(make(kind, suffix)))
    source = formats.opened(formats.get(name).describe(path))
    cases = tree_ensembles.examples(source)
    values = np.concatenate([case["features"].reshape(-1) for case in cases])
    assert np.isnan(values).any()
    assert (values == 0).any()
    if kind == "lightgbm-zeros":
        assert {1e-35, -1e-35} <= {float(f"{value:.4g}") for value in values}
    made = framework_to_onnx.convert(source, tmp_path / "model.onnx", opset=20, ir_version=9)
    assert made.provenance["cases"] == len(cases) == 7
    assert max(made.provenance["max_abs_error"].values()) < 1e-6
    if kind == "xgboost-names":
        assert source.facts["notes"] == ["the columns of features are, in order: age, in come, c, d, e, f"]


@pytest.mark.parametrize(
    ("kind", "suffix", "text"),
    [
        ("lightgbm-zeromissing", ".txt", "takes 0 for a missing value"),
        ("lightgbm-forest", ".txt", "is a random forest"),
        ("lightgbm-linear", ".txt", "leaves are linear"),
        ("lightgbm-sigmoid", ".txt", "sigmoid other than 1"),
        ("xgboost-dart", ".json", "booster is dart"),
        ("xgboost-linear", ".json", "booster is gblinear"),
        ("xgboost-forest", ".json", "is a forest"),
    ],
)
def test_what_onnx_cannot_carry_is_refused(make: Make, kind: str, suffix: str, text: str) -> None:
    name, path = formats.detect(str(make(kind, suffix)))
    with pytest.raises(ConversionError, match=text):
        formats.opened(formats.get(name).describe(path))


@pytest.mark.server
@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("lightgbm-nan", ".txt"),
        ("xgboost-multi", ".json"),
        ("lightgbm-binary", ".txt"),
        ("catboost-multi", ".cbm"),
        ("catboost-regression", ".cbm"),
    ],
)
def test_served_answers_equal_the_frameworks(make: Make, tmp_path: Path, kind: str, suffix: str) -> None:
    result = pipeline.build(make(kind, suffix), tmp_path / "repository", name="trees", cpus=1)
    result.raise_failed()
    report = result.reports["trees"]
    assert report["passed"]
    assert report["reference"].endswith("on the CPU, in a process of its own")
    assert all(told["max_abs_error"] < 1e-6 for name, told in report["outputs"].items() if name != "label")
    assert "max_batch_size: 32" in (tmp_path / "repository" / "trees" / "config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("xgboost-multi", ".json"), ("xgboost-multi", ".ubj"), ("lightgbm-binary", ".txt"), ("catboost-multi", ".cbm")],
)
def test_truncated_files_are_refused(make: Make, tmp_path: Path, kind: str, suffix: str) -> None:
    whole = make(kind, suffix).read_bytes()
    for length in (len(whole) // 3, len(whole) // 2, len(whole) - len(whole) // 4):
        path = tmp_path / f"cut{suffix}"
        path.write_bytes(whole[:length])
        name, found = formats.detect(str(path))
        with pytest.raises(RepoBuilderError) as caught:
            formats.opened(formats.get(name).describe(found))
        assert isinstance(caught.value, SourceCorruptError)
