"""Loading a described Hugging Face folder with transformers: fp32, eager attention, nothing from the network."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

from repo_builder.artifact import Artifact
from repo_builder.errors import MissingDependencyError, SignatureError, SourceCorruptError, first_line
from repo_builder.formats import end_pooling, last_token_pooling
from repo_builder.formats.examples import example_inputs
from repo_builder.formats.torch_program import TorchProgram
from repo_builder.tensors import TensorSpec

_TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_EXAMPLE_SIZES = {"batch": 2, "sequence": 7}


def load(artifact: Artifact, auto_class: str) -> TorchProgram:
    """See :func:`repo_builder.formats.huggingface.load`."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingDependencyError(
            f"loading {artifact.path.name} needs {error.name}", mend="pip install 'repo-builder[huggingface]'"
        ) from error
    model = pretrained(getattr(transformers, auto_class), artifact)
    names = _input_names(transformers, model, artifact)
    inputs = tuple(TensorSpec(name, "INT64", ("batch", "sequence")) for name in names)
    examples = tuple(torch.from_numpy(a) for a in example_inputs(inputs, _EXAMPLE_SIZES).values())
    module = _positional(torch, model, names)
    with torch.no_grad():
        outputs = tuple(name for name, value in module(*examples).items() if isinstance(value, torch.Tensor))
    return TorchProgram(module, "eager", inputs, outputs, examples)


def pretrained(auto: Any, artifact: Artifact) -> Any:
    """The folder's model by one of transformers' Auto classes: fp32 on the CPU, eager attention, in eval mode.

    Raises:
        SourceCorruptError: transformers does not load it, or weights are missing from the files.
    """
    import torch

    options: dict[str, Any] = {
        "local_files_only": True,
        "trust_remote_code": bool(artifact.facts.get("trust_remote_code", False)),
        "use_safetensors": artifact.facts.get("weights") == "safetensors",
        "dtype": torch.float32,
        "attn_implementation": "eager",
        "output_loading_info": True,
    }
    folder = artifact.path / str(artifact.facts.get("transformer", ""))
    try:
        with quiet():
            model, info = auto.from_pretrained(folder, **options)
            missing = sorted(info["missing_keys"])
            if missing and all(key.startswith("pooler.") for key in missing):
                model, info = auto.from_pretrained(folder, add_pooling_layer=False, **options)
                missing = sorted(info["missing_keys"])
    except Exception as error:
        raise SourceCorruptError(
            f"transformers does not load {folder}: {first_line(error)}",
            expected=f"a folder that {auto.__name__}.from_pretrained takes",
            mend="save the model again with save_pretrained, or install the transformers version that wrote it",
        ) from error
    if missing:
        raise SourceCorruptError(
            f"the weights of {folder} lack {len(missing)} tensors of {type(model).__name__}: {', '.join(missing[:4])}",
            expected="every tensor in the weight files; transformers would make up the others at random",
            mend="take the folder of the trained model itself, or another task",
        )
    return model.eval()


def pipeline(task: str, artifact: Artifact) -> Any:
    """transformers' own pipeline on the folder: fp32 on the CPU; code of the folder runs only where it is trusted."""
    import torch
    import transformers

    folder = artifact.path / str(artifact.facts.get("transformer", ""))
    trust = bool(artifact.facts.get("trust_remote_code", False))
    with quiet():
        return transformers.pipeline(
            task, model=str(folder), device="cpu", dtype=torch.float32, trust_remote_code=trust
        )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """transformers without its progress bar and load report; its settings come back afterwards."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _input_names(transformers: Any, model: Any, artifact: Artifact) -> tuple[str, ...]:
    takes = inspect.signature(model.forward).parameters
    gives: tuple[str, ...] = _TEXT_INPUTS[:2]
    if artifact.facts.get("tokenizer_json") or artifact.facts.get("tokenizer_config"):
        folder = artifact.path / str(artifact.facts.get("transformer", ""))
        trust = bool(artifact.facts.get("trust_remote_code", False))
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=trust
            )
        except Exception as error:
            raise SourceCorruptError(
                f"transformers does not load the tokenizer of {folder}: {first_line(error)[:200]}",
                expected="a tokenizer that AutoTokenizer.from_pretrained takes",
                mend="save the tokenizer again with save_pretrained",
            ) from error
        gives = tuple(tokenizer.model_input_names)
    names = tuple(name for name in _TEXT_INPUTS if name in gives and name in takes)
    if "input_ids" not in names:
        raise SignatureError(
            f"{type(model).__name__} takes {', '.join(takes)}, not input_ids",
            expected="a text model",
            mend="name a module.py:factory that builds the module with its example inputs",
        )
    if "attention_mask" not in takes:
        raise SignatureError(
            f"{type(model).__name__} takes no attention_mask: its answers would change with the padding of a batch",
            expected="a model that can tell padding from text",
            mend="choose another architecture",
        )
    return names


def _positional(torch: Any, model: Any, names: tuple[str, ...]) -> Any:
    fixed = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    if end_pooling.needed(model):
        end_pooling.pool_row_by_row(model)
    elif last_token_pooling.needed(model):
        last_token_pooling.pool_by_mask(model)

    class TextModel(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            return self.model(**dict(zip(names, inputs, strict=True)), **fixed, return_dict=True)

    return TextModel().eval()
