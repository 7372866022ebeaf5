"""The tokenizer.json of a version folder, read by the `tokenizers` library that travels with it."""

import json
import os
import sys


def library(folder):
    """The `tokenizers` package; what else is in ``vendor`` can be imported afterwards."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    vendor = str(folder / "vendor")
    if os.path.isdir(vendor) and vendor not in sys.path:  # noqa: PTH112 - one name for both
        sys.path.insert(0, vendor)
    import tokenizers

    return tokenizers


def load(folder):
    with open(folder / "tokenizer.json", encoding="utf-8") as handle:
        return made(library(folder), handle.read())


def made(tokenizers, text):
    tokenizer = tokenizers.Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def flag(parameters, name, default):
    """A switch of the config: what TensorRT-LLM's own models take for true and false, else the default."""
    value = parameters.get(name, "").lower()
    if value in ("true", "1", "t", "y", "yes"):
        return True
    return False if value in ("false", "0", "f", "n", "no") else default


def parameters(config):
    return {key: value["string_value"] for key, value in config.get("parameters", {}).items()}


def number(parameters, name):
    """A whole number, None where there is none."""
    return json.loads(parameters[name]) if parameters.get(name) else None
