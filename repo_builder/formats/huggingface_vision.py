"""Vision models of Hugging Face folders: loaded with pixels as their only input, and their image processor."""

from __future__ import annotations

import inspect
from typing import Any

from repo_builder.artifact import Artifact
from repo_builder.errors import MissingDependencyError, SignatureError, SourceCorruptError, first_line
from repo_builder.formats import huggingface_model
from repo_builder.formats.examples import example_inputs
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.tensors import Shape, TensorSpec

PIXELS = "pixel_values"
_EXAMPLE_SIZES = {"batch": 2, "height": 64, "width": 96}


def processor(artifact: Artifact) -> Any:
    """transformers' image processor of the folder, the one that computes with Pillow and numpy.

    Where a folder names the other one (``...Fast``, torchvision's), this is the same class's Pillow version.

    Raises:
        MissingDependencyError: transformers or Pillow is not installed.
        SourceCorruptError: transformers does not load it.
    """
    try:
        import PIL  # noqa: F401
        import transformers
    except ImportError as error:
        raise MissingDependencyError(
            f"reading the image processor of {artifact.path.name} needs {error.name}",
            mend="pip install 'repo-builder[huggingface]'",
        ) from error
    slow: dict[str, Any] = (
        {"use_fast": False} if int(transformers.__version__.split(".")[0]) < 5 else {"backend": "pil"}
    )
    trust = bool(artifact.facts.get("trust_remote_code", False))
    try:
        with huggingface_model.quiet():
            return transformers.AutoImageProcessor.from_pretrained(
                artifact.path, local_files_only=True, trust_remote_code=trust, **slow
            )
    except Exception as error:
        raise SourceCorruptError(
            f"transformers does not load the image processor of {artifact.path}: {first_line(error)[:200]}",
            expected="a preprocessor_config.json that AutoImageProcessor.from_pretrained takes",
            mend="save the image processor again with save_pretrained",
        ) from error


def load(artifact: Artifact, auto_class: str, shape: Shape) -> TorchProgram:
    """The transformers model, called with ``pixel_values`` alone; ``module.model`` is the model itself.

    Args:
        artifact: from :func:`repo_builder.formats.huggingface.describe`.
        auto_class: name of the transformers class that picks the architecture.
        shape: channels, height and width of an image (``"height"`` and ``"width"`` where they are free); the batch
            dimension in front is dynamic.

    Raises:
        MissingDependencyError, SourceCorruptError: see :func:`huggingface_model.pretrained`.
        SignatureError: it takes no ``pixel_values``, or not in this shape.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingDependencyError(
            f"loading {artifact.path.name} needs {error.name}", mend="pip install 'repo-builder[huggingface]'"
        ) from error
    model = huggingface_model.pretrained(getattr(transformers, auto_class), artifact)
    if PIXELS not in inspect.signature(model.forward).parameters:
        raise SignatureError(
            f"{type(model).__name__} takes {', '.join(inspect.signature(model.forward).parameters)}, not {PIXELS}",
            expected="a model of images alone",
            mend="name a module.py:factory that builds the module with its example inputs",
        )
    spec = TensorSpec(PIXELS, "FP32", ("batch", *shape))
    examples = tuple(torch.from_numpy(a) for a in example_inputs([spec], _EXAMPLE_SIZES).values())

    class VisionModel(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: Any) -> Any:
            return self.model(pixel_values=pixel_values, return_dict=True)

    module = VisionModel().eval()
    try:
        with torch.no_grad():
            outputs = tuple(name for name, value in module(*examples).items() if isinstance(value, torch.Tensor))
    except Exception as error:
        raise SignatureError(
            f"{type(model).__name__} does not take images of {' x '.join(map(str, shape))}: {first_line(error)[:200]}",
            expected="a preprocessor_config.json that makes images of the size that config.json asks for",
            mend="correct size or crop_size in preprocessor_config.json",
        ) from error
    return TorchProgram(module, "eager", (spec,), outputs, examples)
