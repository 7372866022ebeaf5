"""What skl2onnx needs before it converts, and what is mended in the graphs that it writes."""

from __future__ import annotations

from typing import Any

import lightgbm_float32
import numpy as np
import onnx
from sklearn.base import is_classifier
from sklearn_inputs import last

_LOCALE = "C.UTF-8"
_PYTHON_WORDS, _WORDS = r"(?u)\b\w\w+\b", r"[\pL\pN_][\pL\pN_]+"


def prepare() -> None:
    """Make skl2onnx carry XGBoost's and LightGBM's wrappers, and histogram trees with current protobuf."""
    from skl2onnx.common import tree_ensemble

    _register()
    add_node = tree_ensemble.add_node
    if hasattr(add_node, "__wrapped__"):
        return

    def with_integers(*given: Any, nodes_missing_value_tracks_true: Any = False, **more: Any) -> Any:
        return add_node(*given, nodes_missing_value_tracks_true=int(nodes_missing_value_tracks_true), **more)

    with_integers.__wrapped__ = add_node  # type: ignore[attr-defined]
    tree_ensemble.add_node = with_integers


def to_float32(final: Any) -> None:
    """Round an estimator's thresholds so that float32 values lie on the same side of them as before; in place."""
    if type(final).__module__.startswith("lightgbm"):
        final._Booster = lightgbm_float32.rounded(final.booster_)
    for predictor in np.ravel(np.array(getattr(final, "_predictors", ()), object)):
        exact = predictor.nodes["num_threshold"]
        near = exact.astype(np.float32)
        predictor.nodes["num_threshold"] = np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)


def options(estimator: Any) -> dict[int, dict[str, Any]]:
    """Probabilities as a tensor; words as Python's regular expressions find them."""
    found: dict[int, dict[str, Any]] = {}
    final = last(estimator)
    if is_classifier(final) and hasattr(final, "predict_proba"):
        found[id(final)] = {"zipmap": False}
    for _, step in getattr(estimator, "steps", ()):
        if getattr(step, "token_pattern", None) == _PYTHON_WORDS and hasattr(step, "vocabulary_"):
            found[id(step)] = {"tokenexp": _WORDS}
    return found


def mend(model: Any, final: Any) -> None:
    """Send NaN where scikit-learn's trees send it, lower case in a locale that every system has, flatten labels."""
    for node in model.graph.node:
        if node.op_type == "StringNormalizer":
            kept = [one for one in node.attribute if one.name != "locale"]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("locale", _LOCALE)])
    _missing(model.graph, final)
    value = model.graph.output[0]
    if value.type.tensor_type.elem_type == onnx.TensorProto.INT64 and len(value.type.tensor_type.shape.dim) == 2:
        flat = onnx.helper.make_tensor_value_info(f"{value.name}_flat", onnx.TensorProto.INT64, ["batch"])
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([-1]), "flat_shape"))
        model.graph.node.append(onnx.helper.make_node("Reshape", [value.name, "flat_shape"], [flat.name]))
        value.CopyFrom(flat)


def _missing(graph: Any, final: Any) -> None:
    trees = [final] if hasattr(final, "tree_") else list(np.ravel(getattr(final, "estimators_", ())))
    trees = [one.tree_ for one in trees if hasattr(one, "tree_")]
    found = [node for node in graph.node if node.op_type.startswith("TreeEnsemble")]
    owned = [trees] if len(found) == 1 else [[tree] for tree in trees]
    for node, own in zip(found, owned, strict=False):
        attributes = {one.name: one for one in node.attribute}
        places = list(zip(attributes["nodes_treeids"].ints, attributes["nodes_nodeids"].ints, strict=True))
        if not own or len(places) != sum(tree.node_count for tree in own):
            return
        split = [mode == b"BRANCH_LEQ" for mode in attributes["nodes_modes"].strings]
        told = [int(own[tree].missing_go_to_left[at]) for tree, at in places]
        chosen = [one if is_split else 0 for one, is_split in zip(told, split, strict=True)]
        attributes["nodes_missing_value_tracks_true"].ints[:] = chosen


def _register() -> None:
    """XGBoost's and LightGBM's wrappers, so that skl2onnx carries them inside pipelines."""
    import lightgbm
    import xgboost
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm
    from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    for library, converter in ((lightgbm, convert_lightgbm), (xgboost, convert_xgboost)):
        short = {"lightgbm": "LGBM", "xgboost": "XGB"}[library.__name__]
        for kind, shapes in (
            ("Classifier", calculate_linear_classifier_output_shapes),
            ("Regressor", calculate_linear_regressor_output_shapes),
        ):
            wrapper = getattr(library, short + kind)
            given = {"options": options} if kind == "Classifier" else {}
            update_registered_converter(wrapper, f"{short}{kind}", shapes, converter, **given)
