"""The commands that build an engine: a checkpoint of the Hugging Face folder, then the engine of the checkpoint.

Sources: TensorRT-LLM examples/models/*/*/convert_checkpoint.py, examples/quantization/quantize.py,
tensorrt_llm/commands/build.py, 0.19 to 1.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from repo_builder.errors import SpecError
from repo_builder.formats.engine_settings import EngineSettings
from repo_builder.llm import architectures, build_flags
from repo_builder.llm.settings import flags_of
from repo_builder.llm.source import LanguageModel
from repo_builder.spec import ModelSpec

MODEL, CHECKPOINT, ENGINE, EXAMPLES = "<model>", "<checkpoint>", "<engine>", "<examples>"
"""Places in the words of a command: the Hugging Face folder, the checkpoint, the engine, TensorRT-LLM's examples."""
PYTHON = "python3"
BUILD = "trtllm-build"
_NOT_ON_BLACKWELL = ("int8_wo", "int4_wo", "int8_sq")
_WEIGHT_ONLY = {"int8_wo": "int8", "int4_wo": "int4"}


@dataclass(frozen=True)
class Step:
    """One command; ``name`` is what messages and logs call it."""

    name: str
    argv: tuple[str, ...]

    def filled(self, places: Mapping[str, str]) -> tuple[str, ...]:
        """The words with each place (alone, or before a ``/``) as the folder that ``places`` gives for it."""
        return tuple(_filled(word, places) for word in self.argv)


@dataclass(frozen=True)
class Recipe:
    """The steps in order, and notes for the user."""

    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()


def recipe(model: ModelSpec, language: LanguageModel, settings: EngineSettings) -> Recipe:
    """How the engine is built.

    Raises:
        UnknownTaskError: no script converts the architecture.
        SpecError: a quantization that its tools cannot do, or a flag that trtllm-build does not have.
    """
    flags, notes = flags_of(model, settings.version)
    further, found = architectures.further_flags(language)
    calibrated = model.llm.kv_cache_dtype or (model.llm.quantization and model.llm.quantization not in _WEIGHT_ONLY)
    if calibrated:
        first = _quantize(model, language, settings)
        found += ("quantize.py calibrates on the data set cnn_dailymail, which it fetches from the hub",)
    else:
        first = _convert(model, language, settings, further)
    if model.llm.quantization in _NOT_ON_BLACKWELL or model.llm.kv_cache_dtype == "int8":
        found += ("INT8 and INT4 engines do not build for Blackwell GPUs (SM 100); fp8 and nvfp4 do",)
    return Recipe((first, _build(settings, flags)), (*notes, *found))


def _convert(model: ModelSpec, language: LanguageModel, settings: EngineSettings, further: tuple[str, ...]) -> Step:
    script = architectures.script(language)
    words = [PYTHON, f"{EXAMPLES}/models/{script.folder}/convert_checkpoint.py", *further]
    words += ["--model_dir", MODEL, "--output_dir", CHECKPOINT, "--dtype", settings.dtype]
    if settings.tensor_parallel > 1:
        words += [script.tensor_flag, str(settings.tensor_parallel)]
    if settings.pipeline_parallel > 1:
        words += ["--pp_size", str(settings.pipeline_parallel)]
    if model.llm.quantization in _WEIGHT_ONLY:
        words += ["--use_weight_only", "--weight_only_precision", _WEIGHT_ONLY[str(model.llm.quantization)]]
    return Step("convert_checkpoint", tuple(words))


def _quantize(model: ModelSpec, language: LanguageModel, settings: EngineSettings) -> Step:
    options = model.llm
    asked = options.quantization or f"kv_cache_dtype {options.kv_cache_dtype}"
    if not architectures.script(language).quantizes:
        raise SpecError(
            f"TensorRT-LLM's quantize.py does not know {language.architectures[0]}, and {asked} was asked for",
            expected="int8_wo, int4_wo, or no quantization, for this architecture",
            mend="set llm.quantization to one of these, and leave llm.kv_cache_dtype out",
        )
    words = [PYTHON, f"{EXAMPLES}/quantization/quantize.py", "--model_dir", MODEL, "--output_dir", CHECKPOINT]
    words += ["--dtype", settings.dtype, "--qformat", options.quantization or "full_prec"]
    if options.kv_cache_dtype:
        words += ["--kv_cache_dtype", options.kv_cache_dtype]
    if settings.tensor_parallel > 1:
        words += ["--tp_size", str(settings.tensor_parallel)]
    if settings.pipeline_parallel > 1:
        words += ["--pp_size", str(settings.pipeline_parallel)]
    return Step("quantize", tuple(words))


def _build(settings: EngineSettings, flags: Mapping[str, build_flags.Value]) -> Step:
    """Sizes always, so that the engine is what the configs say; others only where they are set."""
    sizes: dict[str, build_flags.Value] = {
        "max_batch_size": settings.max_batch_size,
        "max_input_len": settings.max_input_len,
        "max_seq_len": settings.max_seq_len,
        "max_beam_width": settings.max_beam_width,
    }
    if settings.max_num_tokens:
        sizes["max_num_tokens"] = settings.max_num_tokens
    if settings.world_size > 1:
        sizes["workers"] = min(settings.world_size, settings.gpus_per_node)
    words = [BUILD, "--checkpoint_dir", CHECKPOINT, "--output_dir", ENGINE]
    return Step(BUILD, (*words, *build_flags.argv({**sizes, **flags})))


def _filled(word: str, places: Mapping[str, str]) -> str:
    for place, folder in places.items():
        if word == place or word.startswith(f"{place}/"):
            return folder + word[len(place) :]
    return word
