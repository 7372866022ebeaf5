"""Writes one small ensemble: ``python tree_models.py KIND PATH``, run with the Python of the trees' environment."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

HARD = ("zeros", "nan", "nonan", "doubles", "codes", "names", "zeromissing", "forest", "linear", "sigmoid", "dart")


def save(kind: str, path: str) -> None:
    framework, task = kind.split("-")
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((400, 6)).astype(np.float32)
    score = rows[:, 0] - rows[:, 1] * rows[:, 2] + 0.3 * rng.standard_normal(400)
    wanted = {"regression": score, "binary": score > 0, "multi": np.digitize(score, (-0.7, 0.7))}
    if task in HARD:
        hard(framework, task, path, rows, score, rng)
        return
    told = wanted[task] if task == "regression" else wanted[task].astype(int)
    if framework == "xgboost":
        import xgboost

        sort = xgboost.XGBRegressor if task == "regression" else xgboost.XGBClassifier
        sort(n_estimators=12, max_depth=4, n_jobs=1).fit(rows, told).save_model(path)
    elif framework == "lightgbm":
        import lightgbm

        sort = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
        sort(n_estimators=12, n_jobs=1, verbose=-1).fit(rows, told).booster_.save_model(path)
    else:
        import catboost

        settings = {"iterations": 12, "depth": 4, "thread_count": 1, "verbose": False, "allow_writing_files": False}
        if task == "regression":
            catboost.CatBoostRegressor(**settings).fit(rows, told).save_model(path)
        else:
            told = np.array(["low", "middle", "high"])[told] if task == "multi" else told
            catboost.CatBoostClassifier(**settings).fit(rows, told).save_model(path)


def hard(framework: str, task: str, path: str, rows: Any, score: Any, rng: Any) -> None:
    """What converters get wrong, or are easily wrong about."""
    told = (score > 0).astype(int)
    if task in ("nan", "nonan"):
        rows[rng.random(rows.shape) < 0.2] = np.nan
    elif task in ("zeros", "zeromissing"):
        rows[rng.random(rows.shape) < 0.3] = 0
    elif task == "codes":
        rows[:, 3] = rng.integers(0, 12, len(rows))
        told = (score + np.where(np.isin(rows[:, 3], (1, 4, 5, 9)), 2, -1) > 0).astype(int)
    if framework == "lightgbm":
        import lightgbm

        settings: dict[str, Any] = {
            "nonan": {"use_missing": False},
            "zeromissing": {"zero_as_missing": True},
            "forest": {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.7},
            "linear": {"linear_tree": True},
            "sigmoid": {"sigmoid": 2.0},
            "codes": {"min_data_per_group": 5},
        }.get(task, {})
        given = rows.astype(np.float64) + 1e-9 if task == "doubles" else rows
        model = lightgbm.LGBMClassifier(n_estimators=12, n_jobs=1, verbose=-1, **settings)
        columns = [3] if task == "codes" else "auto"
        model.fit(given, told, categorical_feature=columns).booster_.save_model(path)
    elif framework == "xgboost":
        import pandas
        import xgboost

        settings = {"dart": {"booster": "dart", "rate_drop": 0.3}, "forest": {"num_parallel_tree": 3}}.get(task, {})
        if task == "linear":
            settings = {"booster": "gblinear"}
        table = pandas.DataFrame(rows, columns=["age", "in come", "c", "d", "e", "f"])
        if task == "codes":
            table["d"] = table["d"].astype(int).astype("category")
        model = xgboost.XGBClassifier(
            n_estimators=12, max_depth=4, n_jobs=1, enable_categorical=task == "codes", **settings
        )
        model.fit(table if task in ("codes", "names") else rows, told).save_model(path)
    else:
        import catboost

        settings = {"iterations": 12, "depth": 4, "thread_count": 1, "verbose": False, "allow_writing_files": False}
        mode = "Max" if task == "nan" else "Min"
        catboost.CatBoostClassifier(nan_mode=mode, **settings).fit(rows, told).save_model(path)


if __name__ == "__main__":
    save(*sys.argv[1:])
