"""Writes one small ensemble: ``python tree_models.py KIND PATH``, run with the Python of the trees' environment."""

from __future__ import annotations

import sys

import numpy as np


def save(kind: str, path: str) -> None:
    framework, task = kind.split("-")
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((400, 6)).astype(np.float32)
    score = rows[:, 0] - rows[:, 1] * rows[:, 2] + 0.3 * rng.standard_normal(400)
    wanted = {"regression": score, "binary": score > 0, "multi": np.digitize(score, (-0.7, 0.7))}
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


if __name__ == "__main__":
    save(*sys.argv[1:])
