"""scikit-learn: pickles that are trusted, skops files; estimators answered by scikit-learn, served and proved."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from repo_builder import client, formats, pipeline, server, toolchain
from repo_builder.artifact import Artifact
from repo_builder.convert import framework_to_onnx
from repo_builder.errors import ConversionError, RepoBuilderError, UnsafeSourceError
from repo_builder.formats import framework_process, sklearn, tree_ensembles

pytestmark = pytest.mark.slow
F = "features FP32[batch, 5]"
COLUMNS = ["age FP32[batch, 1]", "income FP32[batch, 1]", "city BYTES[batch, 1]", "size BYTES[batch, 1]"]
LABEL, NAME = "label INT64[batch]", "label BYTES[batch]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    framework = sklearn.FRAMEWORK
    python = toolchain.ensure(framework.name, framework.requirements)
    found = tmp_path_factory.mktemp("sklearn")
    script = Path(__file__).parents[1] / "sklearn_models.py"
    done = subprocess.run([python, "-W", "ignore", script, found], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    yield found
    framework_process.close_all()


def opened(path: Path) -> Artifact:
    return formats.opened(sklearn.describe(path, trust_pickle=True))


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("logistic.joblib", [F], [NAME, "probabilities FP32[batch, 3]"]),
        ("forest.joblib", [F], [LABEL, "probabilities FP32[batch, 2]"]),
        ("forest-names.joblib", [F], [NAME, "probabilities FP32[batch, 3]"]),
        ("forest-nan.joblib", [F], ["prediction FP32[batch, 1]"]),
        ("histogram.joblib", [F], ["prediction FP32[batch, 1]"]),
        ("histogram.skops", [F], ["prediction FP32[batch, 1]"]),
        ("isolation.joblib", [F], [LABEL, "scores FP32[batch, 1]"]),
        ("two-targets.joblib", [F], ["prediction FP32[batch, 2]"]),
        ("no-probabilities.joblib", [F], [LABEL]),
        ("pipeline.pkl", [F], [LABEL, "probabilities FP32[batch, 2]"]),
        ("scaled-forest.joblib", [F], [LABEL, "probabilities FP32[batch, 2]"]),
        ("search.joblib", [F], [LABEL, "probabilities FP32[batch, 2]"]),
        ("voting.joblib", [F], [LABEL, "probabilities FP32[batch, 2]"]),
        ("columns.joblib", COLUMNS, [LABEL, "probabilities FP32[batch, 2]"]),
        ("columns.skops", COLUMNS, [LABEL, "probabilities FP32[batch, 2]"]),
        ("coded.joblib", COLUMNS, ["prediction FP32[batch, 1]"]),
        ("table.joblib", ["features FP32[batch, 2]"], [LABEL, "probabilities FP32[batch, 2]"]),
        ("text.joblib", ["text BYTES[batch, 1]"], [LABEL, "probabilities FP32[batch, 2]"]),
        ("clusters.joblib", [F], [LABEL, "distances FP32[batch, 3]"]),
        ("mixture.joblib", [F], [LABEL, "probabilities FP32[batch, 2]"]),
        ("projection.joblib", [F], ["transformed FP32[batch, 2]"]),
        ("lightgbm.joblib", [F], [NAME, "probabilities FP32[batch, 3]"]),
        ("lightgbm-pipeline.joblib", [F], ["prediction FP32[batch, 1]"]),
        ("xgboost.joblib", [F], [LABEL, "probabilities FP32[batch, 2]"]),
        ("xgboost-columns.joblib", COLUMNS, ["prediction FP32[batch, 1]"]),
    ],
)
def test_an_estimator_converts_with_equal_answers(
    folder: Path, tmp_path: Path, name: str, inputs: list[str], outputs: list[str]
) -> None:
    source = opened(folder / name)
    made = framework_to_onnx.convert(source, tmp_path / "model.onnx", opset=20, ir_version=9)
    assert [str(spec) for spec in made.inputs] == inputs
    assert [str(spec) for spec in made.outputs] == outputs
    assert made.provenance["cases"] == len(sklearn.examples(source)) >= 4
    assert max(made.provenance["max_abs_error"].values()) < 2e-5
    assert made.provenance["scikit-learn"] == tree_ensembles.SCIKIT_LEARN


@pytest.mark.parametrize("name", ["forest", "forest-nan", "histogram", "isolation", "scaled-forest", "lightgbm"])
def test_trees_are_tried_with_nan_and_zero(folder: Path, name: str) -> None:
    assert len(sklearn.examples(opened(folder / f"{name}.joblib"))) == 12, "seven of the thresholds, five as fitted"
    values = np.concatenate(
        [case["features"].reshape(-1) for case in sklearn.examples(opened(folder / f"{name}.joblib"))]
    )
    assert np.isnan(values).any()
    assert (values == 0).any()


def test_categories_are_tried_in_and_out_of_the_set(folder: Path) -> None:
    seen = {value for case in sklearn.examples(opened(folder / "columns.joblib")) for value in case["city"].reshape(-1)}
    assert seen == {b"Paris", b"Rome", "Köln".encode(), b"no such category", b""}
    coded = opened(folder / "coded.joblib")
    assert b"no such category" not in {v for case in sklearn.examples(coded) for v in case["city"].reshape(-1)}
    assert "scikit-learn refuses an unknown category" in coded.facts["notes"][0]


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("not-fitted.joblib", ConversionError, "the LogisticRegression is not fitted"),
        ("two-questions.joblib", ConversionError, "the model gives several labels"),
        ("dict.joblib", ConversionError, "holds a dict with model, threshold, not an estimator"),
        ("catboost.joblib", ConversionError, r"a CatBoostClassifier of catboost, .*\n.*\n.*save_model\('model.cbm'\)"),
        ("booster.joblib", ConversionError, r"a Booster of xgboost\n.*\n.*booster.save_model\('model.json'\)"),
        ("lightgbm-zero.joblib", ConversionError, "takes 0 for a missing value"),
        ("lightgbm.skops", UnsafeSourceError, "does not know as harmless: .*lightgbm.basic.Booster"),
        (
            "gone.joblib",
            ConversionError,
            r"has not: No module named 'sklearn.linear_model._loggistc' .*scikit-learn 1\.3\.2",
        ),
    ],
)
def test_what_is_not_carried_is_refused(folder: Path, name: str, error: type[RepoBuilderError], text: str) -> None:
    with pytest.raises(error, match=text):
        opened(folder / name)


def test_the_version_that_wrote_a_pickle_is_told(folder: Path) -> None:
    assert opened(folder / "old.joblib").facts["notes"] == [
        f"written with scikit-learn 1.3.2, opened with {tree_ensembles.SCIKIT_LEARN}: check answers"
    ]
    assert opened(folder / "logistic.joblib").facts["notes"] == []
    assert opened(folder / "table.joblib").facts["notes"] == ["the columns of features are, in order: income, age"]


@pytest.mark.server
@pytest.mark.parametrize("name", ["forest.joblib", "columns.skops", "logistic.joblib", "text.joblib"])
def test_served_answers_equal_scikit_learns(folder: Path, tmp_path: Path, name: str) -> None:
    result = pipeline.build(folder / name, tmp_path / "repository", name="model", cpus=1, trust_pickle=True)
    result.raise_failed()
    report = result.reports["model"]
    assert report["passed"]
    assert report["reference"] == f"the sklearn file itself, in {sklearn.RUNTIME}"
    assert report["outputs"]["label"]["max_abs_error"] == 0
    assert report["cases"] >= 20


@pytest.mark.server
def test_a_table_is_asked_column_by_column(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    pipeline.build(folder / "columns.joblib", repository, name="risk", cpus=1, trust_pickle=True).raise_failed()
    rows = {
        "age": np.array([[30], [70]], np.float32),
        "income": np.array([[1e4], [5e4]], np.float32),
        "city": np.array([[b"Rome"], [b"Oslo"]], object),
        "size": np.array([[b"S"], [b"L"]], object),
    }
    with server.start(repository) as running, client.connect(running.url) as asked:
        found = asked.infer("risk", rows)
    wanted = json.loads((folder / "answers.json").read_text())["columns"]
    np.testing.assert_allclose(found["probabilities"], wanted, atol=1e-6)
