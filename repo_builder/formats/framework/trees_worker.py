"""Tree ensembles of XGBoost, LightGBM and CatBoost: labels and probabilities, or predictions, as tensors."""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

import lightgbm_float32
import loop
import numpy as np
import onnx
import tree_cases

_OPSET = 15
_INPUT = "features"


class Model:
    """An opened ensemble: ``features`` columns; ``classes`` names them, or None where it predicts numbers."""

    def __init__(self, kind: str, object_: Any, features: int, classes: Any, names: Any = ()) -> None:
        self.kind, self.object, self.features, self.classes = kind, object_, features, classes
        self.notes = [f"the columns of features are, in order: {', '.join(map(str, names))}"] if names else []


def open_model(source: str, kind: str, options: dict[str, Any]) -> Model:  # noqa: ARG001  none
    """Load a native file; what it predicts is told by its objective."""
    return {"xgboost": _xgboost, "lightgbm": _lightgbm, "catboost": _catboost}[kind](source)


def describe(model: Model) -> dict[str, Any]:
    inputs = [{"name": _INPUT, "dtype": "FP32", "shape": ["batch", model.features]}]
    if model.classes is None:
        outputs = [{"name": "prediction", "dtype": "FP32", "shape": ["batch", 1]}]
    else:
        text = model.classes.dtype.kind not in "iu"
        outputs = [
            {"name": "label", "dtype": "BYTES" if text else "INT64", "shape": ["batch"]},
            {"name": "probabilities", "dtype": "FP32", "shape": ["batch", len(model.classes)]},
        ]
    packages = (model.kind if model.kind != "xgboost" else "xgboost-cpu", "onnxmltools", "onnx")
    versions = {name.removesuffix("-cpu"): importlib.metadata.version(name) for name in packages}
    return {"inputs": inputs, "outputs": outputs, "versions": versions, "notes": model.notes}


def convert(model: Model, path: str, opset: int) -> dict[str, Any]:
    if model.kind == "catboost":
        model.object.save_model(path, format="onnx")
        made = onnx.load(path)
    else:
        from onnxmltools import convert_lightgbm, convert_xgboost
        from onnxmltools.convert.common.data_types import FloatTensorType

        types = [(_INPUT, FloatTensorType([None, model.features]))]
        if model.kind == "xgboost":
            made = convert_xgboost(model.object, initial_types=types, target_opset=min(opset, _OPSET))
        else:
            rounded = lightgbm_float32.rounded(model.object)
            made = convert_lightgbm(rounded, initial_types=types, target_opset=min(opset, _OPSET), zipmap=False)
    _without_maps(made.graph)
    if model.classes is None:  # CatBoost declares one axis and gives two
        value = made.graph.output[0]
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, ["batch", 1]))
    if not any(one.domain in ("", "ai.onnx") for one in made.opset_import):
        made.opset_import.append(onnx.helper.make_opsetid("", min(opset, _OPSET)))
    onnx.save(made, path)
    return {"notes": []}


def run(model: Model, arrays: list[Any]) -> list[Any]:
    rows = np.ascontiguousarray(arrays[0])
    if model.classes is None:
        return [np.asarray(model.object.predict(rows), np.float32).reshape(-1, 1)]
    if model.kind == "lightgbm":
        found = np.asarray(model.object.predict(rows))
        found = np.stack([1 - found, found], axis=1) if found.ndim == 1 else found
    else:
        found = model.object.predict_proba(rows)
    labels = model.classes[found.argmax(axis=1)]
    return [labels if labels.dtype.kind not in "iu" else labels.astype(np.int64), found.astype(np.float32)]


def examples(model: Model) -> list[list[Any]]:
    cases = [[matrix] for matrix in tree_cases.drawn(splits(model))]
    return tree_cases.taken(cases, lambda arrays: run(model, arrays))


def splits(model: Model) -> tree_cases.Splits:
    """What its nodes compare with."""
    found = tree_cases.Splits(model.features)
    if model.kind == "xgboost":
        trees = [json.loads(tree) for tree in model.object.get_booster().get_dump(dump_format="json")]
        _walk(trees, "split", "split_condition", found)
    elif model.kind == "lightgbm":
        trees = [tree["tree_structure"] for tree in model.object.dump_model()["tree_info"]]
        _walk(trees, "split_feature", "threshold", found)
    else:
        for column, borders in model.object.get_borders().items():
            found.thresholds[column].update(borders)
    return found


def _walk(nodes: list[Any], feature: str, threshold: str, splits: tree_cases.Splits) -> None:
    while nodes:
        node = nodes.pop()
        nodes += [*node.get("children", ()), *(node[side] for side in ("left_child", "right_child") if side in node)]
        if feature not in node:
            continue
        column, found = int(str(node[feature]).removeprefix("f")), node[threshold]
        if node.get("decision_type") == "==":
            splits.codes[column].update(map(float, str(found).split("||")))
        elif isinstance(found, list):
            splits.codes[column].update(map(float, found))
        else:
            splits.thresholds[column].add(float(found))


def _xgboost(source: str) -> Model:
    import xgboost

    booster = xgboost.Booster(model_file=source)
    learner = json.loads(booster.save_config())["learner"]
    objective = learner["objective"]["name"]
    refuse_booster(learner)
    sort = {"binary": xgboost.XGBClassifier, "multi": xgboost.XGBClassifier, "reg": xgboost.XGBRegressor}
    if objective.split(":")[0] not in sort or objective in ("binary:hinge", "binary:logitraw", "reg:logistic"):
        raise _objective(objective, "binary:logistic, multi:softprob, multi:softmax, reg:... but reg:logistic")
    model = sort[objective.split(":")[0]]()
    model.load_model(source)
    names = booster.feature_names
    model.get_booster().feature_names = None  # the converter knows columns by number
    classes = np.arange(model.n_classes_) if isinstance(model, xgboost.XGBClassifier) else None
    return Model("xgboost", model, booster.num_features(), classes, names)


def refuse_booster(learner: Any) -> None:
    """Refuse what the converter gets wrong, by an XGBoost model's configuration."""
    booster = learner["gradient_booster"]
    if booster["name"] != "gbtree":
        raise loop.Refused(f"the model's booster is {booster['name']}, which is not converted", expected="gbtree")
    if booster["gbtree_model_param"]["num_parallel_tree"] != "1":
        raise loop.Refused(
            "the model is a forest (num_parallel_tree), which converts wrongly", expected="1 tree a round"
        )
    if learner["learner_model_param"].get("num_target", "1") != "1":
        raise loop.Refused("the model predicts several targets", expected="one target", mend="train a model for each")


def _lightgbm(source: str) -> Model:
    import lightgbm

    booster = lightgbm.Booster(model_file=source)
    if why := lightgbm_float32.refused(booster):
        raise loop.Refused(*why)
    objective = booster.dump_model(num_iteration=1).get("objective", "").split(" ")[0]
    if objective == "multiclass":
        classes = np.arange(booster.num_model_per_iteration())
    elif objective == "binary":
        classes = np.arange(2)
    elif objective in ("regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank"):
        classes = None
    else:
        raise _objective(objective or "none", "binary, multiclass, regression")
    return Model("lightgbm", booster, booster.num_feature(), classes)


def _catboost(source: str) -> Model:
    import catboost

    model = catboost.CatBoost().load_model(source)
    if model.get_cat_feature_indices() or model.get_text_feature_indices():
        raise loop.Refused(
            "the model has categorical or text features, which CatBoost does not write to ONNX",
            expected="numeric features",
            mend="encode them as numbers before training",
        )
    loss = model.get_all_params().get("loss_function", "")
    if loss in ("Logloss", "CrossEntropy", "MultiClass"):
        model = catboost.CatBoostClassifier().load_model(source)
        return Model("catboost", model, len(model.feature_names_), np.asarray(model.classes_))
    if loss not in ("RMSE", "MAE", "Quantile", "Huber", "MAPE", "LogCosh"):
        raise _objective(loss, "Logloss, MultiClass, RMSE")
    return Model("catboost", model, len(model.feature_names_), None)


def _objective(found: str, expected: str) -> loop.Refused:
    return loop.Refused(f"the model's objective is {found}, whose answers are not converted", expected=expected)


def _without_maps(graph: Any) -> None:
    """A list of maps from label to probability becomes the tensor that it is made of."""
    for node in [n for n in graph.node if n.op_type == "ZipMap"]:
        graph.node.remove(node)
        for place, value in enumerate(graph.output):
            if value.name == node.output[0]:
                made = onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, ["batch", None])
                graph.output[place].CopyFrom(made)


if __name__ == "__main__":
    loop.main(open_model, describe, convert, run, examples)
