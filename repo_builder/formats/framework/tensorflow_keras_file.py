"""What stands in a Keras file, looked at before Keras does: code, foreign classes, links out of the file."""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import h5py
import loop

_PACKAGES = ("keras", "tensorflow.keras", "tensorflow.python.keras", "tf_keras", "keras_core")
_PARTS = {
    *("layers", "models", "activations", "initializers", "regularizers", "constraints", "losses", "metrics"),
    *("optimizers", "ops", "random", "dtype_policies", "quantizers", "engine", "mixed_precision"),
}
"""What a model is made of; other parts of Keras read files, or change what it allows."""
_CODE = {"Lambda", "__lambda__", "PyFunc", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}


def check(path: str) -> None:
    """Refuse what would run code or reach out of the file, and a file of weights alone.

    Keras goes by the suffix, so this does: a file may be HDF5 and a zip archive at once.
    """
    if path.endswith(".keras"):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            config = json.loads(archive.read("config.json"))
            for name in names:
                if name.endswith(".h5"):
                    with h5py.File(io.BytesIO(archive.read(name)), "r") as weights:
                        _links(weights)
    else:
        with h5py.File(path, "r") as file:
            _links(file)
            text = file.attrs.get("model_config")
            if text is None:
                raise loop.Refused(
                    "the file holds weights alone, not the model's layers",
                    "what model.save('model.keras') writes",
                    "build the model, load the weights into it, and save all of it",
                    "SourceCorruptError",
                )
            config = json.loads(text)
    _classes(config, "")


def _classes(value: Any, place: str) -> None:
    if isinstance(value, list):
        for item in value:
            _classes(item, place)
    if not isinstance(value, dict):
        return
    name, module = value.get("class_name"), value.get("module")
    config = value.get("config")
    called = config.get("name") if isinstance(config, dict) else None
    place = str(called or place)
    if name in _CODE:
        raise loop.Refused(
            f"the layer '{place}' is a {name}: it carries Python code, which loading it would run",
            "layers of Keras alone",
            "replace it by layers (keras.layers.Rescaling, keras.ops in a layer of your own) and export a SavedModel",
            "UnsafeSourceError",
        )
    known = module is None or module == "builtins" or _own(str(module))
    if isinstance(config, dict) and isinstance(config.get("vocabulary"), str):
        raise loop.Refused(
            f"the layer '{place}' reads its vocabulary from the file {config['vocabulary']}",
            "a vocabulary inside the model",
            "save the model again with the words themselves",
            "PathEscapeError",
        )
    if name is not None and (not known or (module == "builtins" and name != "function" and name[:2] != "__")):
        raise loop.Refused(
            f"the layer '{place}' is of the class {module}.{name}, which is not of Keras",
            "layers of Keras alone",
            "export it as a SavedModel where its code is: model.export(folder)",
            "UnsafeSourceError",
        )
    for item in value.values():
        _classes(item, place)


def _own(module: str) -> bool:
    """Whether a module is one of those of Keras that layers are made of: ``keras.src.layers.core.dense``."""
    for package in _PACKAGES:
        if module == package:
            return True
        if module.startswith(package + "."):
            parts = [part for part in module[len(package) + 1 :].split(".") if part != "src"]
            return not parts or parts[0] in _PARTS
    return False


def _links(group: Any) -> None:
    for name in group:
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise loop.Refused(
                f"the HDF5 file links from '{name}' to something else", "weights inside the file", "", "PathEscapeError"
            )
        value = group[name]
        if isinstance(value, h5py.Group):
            _links(value)
        elif getattr(value, "external", None) or getattr(value, "is_virtual", False):
            raise loop.Refused(
                f"the weights '{name}' lie in another file", "weights inside the file", "", "PathEscapeError"
            )
