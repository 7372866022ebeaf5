"""Estimators and pipelines of scikit-learn, from a pickle that the user trusts or from a skops file."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import re
import warnings
from typing import Any

import lightgbm_float32
import loop
import numpy as np
import onnx
import sklearn
import sklearn_cases
import sklearn_onnx
import tree_cases
import trees_worker
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor
from sklearn_inputs import Inputs, last

_OPSET, _ML_OPSET = 17, 3
_HARMLESS = {"numpy.dtype"}
"""Types that skops asks about and that run nothing: SimpleImputer keeps one."""
_NATIVE = {
    "xgboost": "booster.save_model('model.json')",
    "lightgbm": "booster.save_model('model.txt')",
    "catboost": "model.save_model('model.cbm')",
}
_WRITTEN = re.compile(rb"_sklearn_version.{1,12}?(\d+\.\d+[\w.]*)", re.DOTALL)


class Model:
    """An estimator with its inputs; ``outputs`` are method, name, dtype and shape beyond the batch."""

    def __init__(self, estimator: Any, written: str) -> None:
        self.estimator, self.final, self.inputs = estimator, last(estimator), Inputs(estimator)
        self.notes = []
        if written and written != sklearn.__version__:
            self.notes.append(f"written with scikit-learn {written}, opened with {sklearn.__version__}: check answers")
        if self.inputs.columns and len(self.inputs.specs) == 1:
            self.notes.append("the columns of features are, in order: " + ", ".join(self.inputs.columns))
        if any(getattr(part, "handle_unknown", "") == "error" for part in _nested(estimator)):
            self.notes.append("scikit-learn refuses an unknown category; the served model answers as if it had none")
        self.methods = _methods(estimator)
        self.cases = self._cases()
        self.outputs = [_output(name, array) for name, array in zip(self.methods.values(), self._probe(), strict=True)]

    def _cases(self) -> list[list[Any]]:
        final, width = self.final, int(getattr(self.final, "n_features_in_", 0))
        found = _library_splits(final, width) or sklearn_cases.splits(final, width)
        cases = sklearn_cases.made(self.estimator, self.inputs, found)
        return tree_cases.taken(cases, lambda arrays: run(self, arrays))

    def _probe(self) -> list[Any]:
        if self.cases:
            return run(self, self.cases[0])
        run(self, sklearn_cases.made(self.estimator, self.inputs, None)[0])  # says why
        raise loop.Refused("the model answers none of the inputs that were made for it")


def open_model(source: str, kind: str, options: dict[str, Any]) -> Model:
    if kind == "skops":
        return Model(_estimator(_skops(source)), "")
    if options.get("trusted") is not True:
        raise loop.Refused("the pickle is not trusted", error="UnsafeSourceError")
    import joblib

    written = _written(source)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = joblib.load(source)
        except (ImportError, AttributeError) as error:
            raise loop.Refused(
                f"the pickle names what this environment has not: {error}"
                + (f" (it was written with scikit-learn {written})" if written else ""),
                expected=f"classes of scikit-learn {sklearn.__version__}, XGBoost or LightGBM",
                mend="fit and save it with these alone; a function or class of your own is not in the file",
            ) from error
    versions = [
        str(one.message.original_sklearn_version) for one in told if hasattr(one.message, "original_sklearn_version")
    ]
    return Model(_estimator(found), versions[0] if versions else written)


def describe(model: Model) -> dict[str, Any]:
    inputs = [
        {"name": name, "dtype": "BYTES" if text else "FP32", "shape": ["batch", width]}
        for name, text, width in model.inputs.specs
    ]
    versions = {name: importlib.metadata.version(name) for name in ("scikit-learn", "skl2onnx", "onnx")}
    return {"inputs": inputs, "outputs": model.outputs, "versions": versions, "notes": model.notes}


def convert(model: Model, path: str, opset: int) -> dict[str, Any]:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    types = [
        (name, (StringTensorType if text else FloatTensorType)([None, width]))
        for name, text, width in model.inputs.specs
    ]
    sklearn_onnx.prepare()
    estimator = copy.deepcopy(model.estimator)
    sklearn_onnx.to_float32(last(estimator))
    made = convert_sklearn(
        estimator,
        initial_types=types,
        options=sklearn_onnx.options(estimator),
        target_opset={"": min(opset, _OPSET), "ai.onnx.ml": _ML_OPSET},
    )
    del made.graph.output[len(model.outputs) :]  # scores in place of probabilities that the estimator has not
    sklearn_onnx.mend(made, model.final)
    onnx.save(made, path)
    return {"notes": []}


def run(model: Model, arrays: list[Any]) -> list[Any]:
    given = model.inputs.given(arrays)
    return [_plain(getattr(model.estimator, method)(given), name) for method, name in model.methods.items()]


def examples(model: Model) -> list[list[Any]]:
    return model.cases


def _plain(found: Any, name: str) -> Any:
    if isinstance(found, list):
        raise loop.Refused("the model answers several questions at once", expected="one", mend="save a model for each")
    found = np.asarray(found.toarray() if hasattr(found, "toarray") else found)
    if name == "label":
        if found.ndim != 1:
            raise loop.Refused(
                "the model gives several labels", expected="one label a row", mend="save a model for each"
            )
        return found.astype(np.int64) if found.dtype.kind in "iubf" else found
    return found.astype(np.float32).reshape(len(found), -1)


def _output(name: str, array: Any) -> dict[str, Any]:
    dtype = {"i": "INT64", "f": "FP32"}.get(array.dtype.kind, "BYTES")
    return {"name": name, "dtype": dtype, "shape": ["batch", *array.shape[1:]]}


def _methods(estimator: Any) -> dict[str, str]:
    """The methods that are served, in the order of skl2onnx, and what their answers are called."""
    if is_classifier(estimator):
        return {
            "predict": "label",
            **({"predict_proba": "probabilities"} if hasattr(estimator, "predict_proba") else {}),
        }
    if is_outlier_detector(estimator):
        return {"predict": "label", "decision_function": "scores"}
    if is_clusterer(estimator) and hasattr(estimator, "predict"):
        return {"predict": "label", **({"transform": "distances"} if hasattr(estimator, "transform") else {})}
    if hasattr(estimator, "predict_proba"):  # mixtures
        return {"predict": "label", "predict_proba": "probabilities"}
    if is_regressor(estimator):
        return {"predict": "prediction"}
    if hasattr(estimator, "transform"):
        return {"transform": "transformed"}
    raise loop.Refused(
        f"a {type(estimator).__name__} answers nothing for new rows",
        expected="an estimator with predict or transform",
    )


def _estimator(found: Any) -> Any:
    """The fitted estimator that was saved."""
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    found = getattr(found, "best_estimator_", found)
    if native := not hasattr(found, "fit") and _NATIVE.get(_library(found)):
        raise loop.Refused(
            f"the file holds a {type(found).__name__} of {_library(found)}",
            expected="an estimator of scikit-learn's kind",
            mend=f"save the library's own file with {native} and build from it, without a pickle",
        )
    if not (hasattr(found, "fit") and hasattr(found, "get_params")):
        keys = f" with {', '.join(map(str, list(found)[:8]))}" if isinstance(found, dict) else ""
        raise loop.Refused(
            f"the file holds a {type(found).__name__}{keys}, not an estimator",
            expected="one fitted estimator or pipeline",
            mend="save that alone, with its preprocessing steps in a Pipeline",
        )
    for part in _nested(found):
        if _library(part) == "catboost":
            raise loop.Refused(
                f"the model holds a {type(part).__name__} of catboost, which skl2onnx does not carry",
                expected="scikit-learn, XGBoost or LightGBM",
                mend=f"save the library's own file with {_NATIVE['catboost']} and build from it",
            )
    try:
        check_is_fitted(found)
    except NotFittedError as error:
        raise loop.Refused(f"the {type(found).__name__} is not fitted", expected="a fitted estimator") from error
    for part in _nested(found):
        if hasattr(part, "flatten_transform"):  # of VotingClassifier, for its transform alone
            part.flatten_transform = False
    final = last(found)
    if np.any(getattr(final, "is_categorical_", None) or False):
        raise loop.Refused("the model's trees split by categories, which skl2onnx does not carry", "numeric features")
    if _library(final) == "xgboost":
        booster = final.get_booster()
        trees_worker.refuse_booster(json.loads(booster.save_config())["learner"])
        booster.feature_names = None
    if _library(final) == "lightgbm" and (why := lightgbm_float32.refused(final.booster_)):
        raise loop.Refused(*why)
    return found


def _nested(estimator: Any) -> list[Any]:
    parts = getattr(estimator, "get_params", dict)(deep=True).values() if hasattr(estimator, "get_params") else ()
    return [estimator, *(part for part in parts if hasattr(part, "get_params"))]


def _library(estimator: Any) -> str:
    return type(estimator).__module__.partition(".")[0]


def _library_splits(final: Any, width: int) -> Any:
    if _library(final) not in ("xgboost", "lightgbm"):
        return None
    kind, booster = _library(final), final
    if kind == "lightgbm":
        booster = final.booster_
    return trees_worker.splits(trees_worker.Model(kind, booster, width, None))


def _skops(source: str) -> Any:
    import skops.io

    named = set(skops.io.get_untrusted_types(file=source))
    if unknown := sorted(named - _HARMLESS):
        raise loop.Refused(
            f"the file names types that skops does not know as harmless: {', '.join(unknown[:8])}",
            expected="types of scikit-learn and numpy",
            mend="save a pickle, if you trust it, and build with --trust-pickle",
            error="UnsafeSourceError",
        )
    return skops.io.load(source, trusted=sorted(named))


def _written(source: str) -> str:
    """The version that wrote an uncompressed pickle, read from its bytes."""
    with open(source, "rb") as file:
        found = _WRITTEN.search(file.read(1 << 28))
    return found[1].decode() if found else ""


if __name__ == "__main__":
    loop.main(open_model, describe, convert, run, examples)
