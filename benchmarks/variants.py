"""The built repository with other buckets, batching and instances, to see what each is good for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from repo_builder import model_config, render

POWERS = "8,16,32,64,128,256"


Configs = Mapping[str, Any]
"""ModelConfigs of the steps ``tokenizer`` and ``encoder``."""


def _buckets(key: str, value: str) -> Callable[[Configs], None]:
    def change(configs: Configs) -> None:
        for old in ("pad_to_multiple_of", "pad_lengths"):
            configs["tokenizer"].parameters.pop(old, None)
        configs["tokenizer"].parameters[key].string_value = value

    return change


def _unbatched(configs: Configs) -> None:
    configs["encoder"].ClearField("dynamic_batching")


def _ahead(configs: Configs) -> None:
    configs["encoder"].dynamic_batching.ClearField("default_queue_policy")


def _one_instance(configs: Configs) -> None:
    encoder = configs["encoder"]
    encoder.parameters["intra_op_thread_count"].string_value = str(encoder.instance_group[0].count)
    encoder.instance_group[0].count = 1


def _as_built(_configs: Configs) -> None:
    pass


VARIANTS: dict[str, Callable[[Configs], None]] = {
    "as built": _as_built,
    "one instance, all threads": _one_instance,
    "encoder without dynamic batching": _unbatched,
    "batches made ahead (Triton's default)": _ahead,
    "no buckets": _buckets("pad_to_multiple_of", "1"),
    "multiples of 8": _buckets("pad_to_multiple_of", "8"),
    "multiples of 16": _buckets("pad_to_multiple_of", "16"),
    "multiples of 32": _buckets("pad_to_multiple_of", "32"),
    "powers of two": _buckets("pad_lengths", POWERS),
}


def write(folder: Path, repository: Path, name: str) -> Path:
    """A copy of links, with the configs of variant ``name``."""
    shutil.copytree(repository, folder, copy_function=os.link)
    paths = {step: folder / f"minilm_{step}" / "config.pbtxt" for step in ("tokenizer", "encoder")}
    configs = {step: model_config.parse(path.read_text(encoding="utf-8"), str(path)) for step, path in paths.items()}
    VARIANTS[name](configs)
    for step, path in paths.items():
        path.unlink()
        path.write_text(render.render_config(configs[step]), encoding="utf-8")
    return folder
