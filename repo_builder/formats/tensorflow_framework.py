"""TensorFlow as a framework: one environment for SavedModels, graphs, checkpoints, Keras and TFLite files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.formats import framework_process
from repo_builder.formats.framework_process import Framework, Progress

# keras 3.13 and later need Python 3.11; the other pins are those that the converter was tried with.
FRAMEWORK = Framework(
    "tensorflow-2.21.0",
    (
        "tensorflow-cpu==2.21.0",
        "tf2onnx==1.17.0",
        "keras==3.15.1; python_version >= '3.11'",
        "keras==3.12.0; python_version < '3.11'",
        "numpy==2.2.6",
        "onnx==1.23.2",
        "protobuf==7.36.2",
        "h5py==3.14.0",
        "ml_dtypes==0.6.0",
    ),
    "tensorflow_worker.py",
    # Which kernels TensorFlow takes by default depends on the processor; newer ones get oneDNN's.
    variables={"TF_ENABLE_ONEDNN_OPTS": "1"},
    otherwise={"TF_ENABLE_ONEDNN_OPTS": "0"},
)
RUNTIME = "TensorFlow 2.21 on the CPU, in a process of its own"
LITE_RUNTIME = "the TFLite interpreter of TensorFlow 2.21, in a process of its own"


def opened(artifact: Artifact, progress: Progress | None = None) -> Artifact:
    """The artifact with the signature that TensorFlow tells."""
    return framework_process.opened(FRAMEWORK, artifact, progress)


def run(artifact: Artifact, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """TensorFlow's own answers by name."""
    return framework_process.of(FRAMEWORK, artifact).run(inputs)
