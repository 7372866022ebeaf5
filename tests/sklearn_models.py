"""Writes small estimators: ``python sklearn_models.py FOLDER``, run with the Python of the trees' environment.

Each is fitted on columns of the same few hundred rows; ``answers.json`` tells of each what it says of a few rows.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import sklearn
import skops.io
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier


def estimators() -> dict[str, Any]:
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((300, 5)).astype(np.float32)
    score = rows[:, 0] - rows[:, 1] * rows[:, 2] + 0.3 * rng.standard_normal(300)
    yes, three = (score > 0).astype(int), np.digitize(score, (-0.7, 0.7))
    names = np.array(["low", "middle", "high"])[three]
    lacking = rows.copy()
    lacking[rng.random(rows.shape) < 0.1] = np.nan
    table = pd.DataFrame(
        {
            "age": rng.integers(18, 80, 300).astype(float),
            "income": rng.lognormal(10, 1, 300),
            "city": rng.choice(["Paris", "Rome", "Köln"], 300),
            "size": rng.choice(["S", "M", "L"], 300),
        }
    )
    bought = ((table.age / 40 + (table.city == "Rome") + rng.standard_normal(300)) > 1.7).astype(int)
    texts = [" ".join(rng.choice(["cheap", "pills", "hello", "tomorrow", "buy", "Zoë"], 6)) for _ in range(150)]
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    columns = ColumnTransformer(
        [("n", numbers, ["age", "income"]), ("c", OneHotEncoder(handle_unknown="ignore"), ["city", "size"])]
    )
    coded = ColumnTransformer(
        [("n", "passthrough", ["age", "income"]), ("c", OrdinalEncoder(), ["city", "size"])], remainder="drop"
    )
    forest = {"n_estimators": 10, "max_depth": 6, "random_state": 0}
    made = {
        "logistic": LogisticRegression().fit(rows, names),
        "forest": RandomForestClassifier(**forest).fit(rows, yes),
        "forest-names": RandomForestClassifier(**forest).fit(rows.astype(float) * 1000 + 1 / 3, names),
        "forest-nan": RandomForestRegressor(**forest).fit(lacking, score),
        "histogram": HistGradientBoostingRegressor(max_iter=10).fit(rows, score),
        "isolation": IsolationForest(n_estimators=5, random_state=0).fit(rows),
        "two-targets": Ridge().fit(rows, np.stack([score, -score], axis=1)),
        "no-probabilities": LinearSVC().fit(rows, three),
        "pipeline": make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(lacking, yes),
        "scaled-forest": make_pipeline(StandardScaler(), RandomForestClassifier(**forest)).fit(rows, yes),
        "search": GridSearchCV(LogisticRegression(), {"C": [0.1, 1]}, cv=2).fit(rows, yes),
        "voting": VotingClassifier(
            [("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=3))], voting="soft"
        ).fit(rows, yes),
        "columns": make_pipeline(columns, LogisticRegression()).fit(table, bought),
        "coded": make_pipeline(coded, RandomForestRegressor(**forest)).fit(table, table.age + bought),
        "table": make_pipeline(StandardScaler(), LogisticRegression()).fit(table[["income", "age"]], bought),
        "text": make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, ["buy" in text for text in texts]),
        "clusters": KMeans(3, n_init=1, random_state=0).fit(rows),
        "mixture": GaussianMixture(2, random_state=0).fit(rows),
        "projection": PCA(2).fit(rows),
        "two-questions": MultiOutputClassifier(LogisticRegression()).fit(rows, np.stack([yes, three], axis=1)),
        "not-fitted": LogisticRegression(),
        "dict": {"model": LogisticRegression().fit(rows, yes), "threshold": 0.3},
    }
    return {**made, **_libraries(rows, lacking, score, yes, names, table, columns)}


def _libraries(rows: Any, lacking: Any, score: Any, yes: Any, names: Any, table: Any, columns: Any) -> dict[str, Any]:
    import catboost
    import lightgbm
    import xgboost

    light = {"n_estimators": 8, "n_jobs": 1, "verbose": -1}
    quiet = {"iterations": 5, "verbose": False, "allow_writing_files": False}
    return {
        "lightgbm": lightgbm.LGBMClassifier(**light).fit(lacking, names),
        "lightgbm-pipeline": make_pipeline(StandardScaler(), lightgbm.LGBMRegressor(**light)).fit(rows, score),
        "lightgbm-zero": lightgbm.LGBMClassifier(zero_as_missing=True, **light).fit(rows * (rows > -0.5), yes),
        "xgboost": xgboost.XGBClassifier(n_estimators=8, n_jobs=1).fit(lacking, yes),
        "xgboost-columns": make_pipeline(columns, xgboost.XGBRegressor(n_estimators=8, n_jobs=1)).fit(table, table.age),
        "booster": xgboost.XGBClassifier(n_estimators=2).fit(rows, yes).get_booster(),
        "catboost": catboost.CatBoostClassifier(**quiet).fit(rows, yes),
    }


def save(folder: Path) -> None:
    made = estimators()
    for name, estimator in made.items():
        joblib.dump(estimator, folder / f"{name}.joblib", compress=3 if name == "forest" else 0)
    (folder / "pipeline.pkl").write_bytes(pickle.dumps(made["pipeline"]))
    for name in ("columns", "histogram", "lightgbm"):
        skops.io.dump(made[name], folder / f"{name}.skops")
    old = (folder / "logistic.joblib").read_bytes()
    (folder / "old.joblib").write_bytes(old.replace(sklearn.__version__.encode(), b"1.3.2"))
    gone = (folder / "old.joblib").read_bytes()
    (folder / "gone.joblib").write_bytes(
        gone.replace(b"sklearn.linear_model._logistic", b"sklearn.linear_model._loggistc")
    )
    rows = pd.DataFrame({"age": [30.0, 70.0], "income": [1e4, 5e4], "city": ["Rome", "Oslo"], "size": ["S", "L"]})
    told = {"columns": made["columns"].predict_proba(rows).tolist()}
    (folder / "answers.json").write_text(json.dumps(told))


if __name__ == "__main__":
    save(Path(sys.argv[1]))
