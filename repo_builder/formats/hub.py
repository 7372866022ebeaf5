"""Fetching a model from the Hugging Face hub into its own cache: configuration, tokenizer and weights, no code."""

from __future__ import annotations

from pathlib import Path

from repo_builder.errors import MissingDependencyError, SourceMissingError, first_line

_WANTED = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors", "*.spm", "*.tiktoken"]
_UNWANTED = ["onnx/*", "openvino/*", "original/*", "flax_model*", "tf_model*", "rust_model*"]


def fetch(model_id: str) -> Path:
    """The folder of a hub model (``org/name``), fetched or from the cache.

    ``pytorch_model*.bin`` comes only where the repository has no safetensors.

    Raises:
        SourceMissingError: no such model, no network, or no permission; with huggingface_hub's own words.
        MissingDependencyError: huggingface_hub is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingDependencyError(
            f"fetching '{model_id}' needs huggingface_hub", mend="pip install 'repo-builder[huggingface]'"
        ) from error
    try:
        folder = Path(huggingface_hub.snapshot_download(model_id, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
        if not any(folder.rglob("*.safetensors")):
            huggingface_hub.snapshot_download(model_id, allow_patterns=["pytorch_model*.bin"])
    except Exception as error:
        raise SourceMissingError(
            f"there is no path '{model_id}' here, and the Hugging Face hub did not give it: {first_line(error)}",
            expected="a file or folder, or a hub id that can be reached",
            mend="check the name and the network (HF_TOKEN for gated models), or download it with "
            f"`hf download {model_id} --local-dir FOLDER` elsewhere and name the folder",
        ) from error
    return folder
