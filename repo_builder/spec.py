"""The spec: what the user asked for, from YAML or flags, validated and resolved once. Later code reads no raw YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from repo_builder import errors, spec_messages, tensors
from repo_builder.yaml_strict import Document, Number, read

EXPORTERS = ("dynamo", "script", "trace")
LLM_ENGINES = ("tensorrt-llm", "llmapi", "vllm")
"""Engines that serve the task ``text-generation``."""
LONGEST_NAME = 128
"""Characters; the steps of an ensemble add to it, and file systems end at 255."""
MEMORY_PER_CPU = 2
"""GiB taken for each core of a machine of which only the cores are told: the least that common servers have."""
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*\Z")


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, arbitrary_types_allowed=False)


def _dtype(name: str) -> str:
    try:
        return tensors.dtype(name.upper() if name.upper() in _TRITON else name).triton
    except errors.UnsupportedDtypeError as error:
        raise ValueError(f"{error.found}; expected {error.expected}") from error


_TRITON = {d.triton for d in tensors.DTYPES}


def _number(value: Any) -> Any:
    """A number with quotes around it is a mistake: say so instead of converting in silence."""
    if isinstance(value, str):
        raise ValueError(f"must be a number, found the string {value!r} (remove the quotes)")
    if isinstance(value, bool):
        raise ValueError(f"must be a number, found the boolean {str(value).lower()}")
    return value


def _boolean(value: Any) -> Any:
    """YAML 1.2 reads ``on`` and ``yes`` as strings: they are not taken for true."""
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, found {value!r}")
    return value


def _target(value: Any) -> Any:
    """YAML reads ``24.10`` as the number 24.1; the text as it was written is taken instead."""
    return value.text if isinstance(value, Number) else value


Int = Annotated[int, BeforeValidator(_number)]
Float = Annotated[float, BeforeValidator(_number)]
Bool = Annotated[bool, BeforeValidator(_boolean)]


class TensorDeclaration(_Value):
    """A tensor that the model file does not describe (TorchScript), or whose axes get names."""

    name: str = Field(min_length=1, description="Name of the tensor, as the model calls it.")
    dtype: Annotated[str, AfterValidator(_dtype)] = Field(description="Triton's dtype (FP32, INT64, BYTES, ...).")
    shape: tuple[int | str, ...] = Field(description="Sizes; a string names a dynamic axis: [batch, 3, 224, 224].")

    @model_validator(mode="after")
    def _sizes(self) -> TensorDeclaration:
        for size in self.shape:
            if isinstance(size, int) and size < 0:
                raise ValueError(f"the size {size} of '{self.name}' is not a size; name a dynamic axis, e.g. batch")
        return self

    def tensor(self) -> tensors.TensorSpec:
        return tensors.TensorSpec(self.name, self.dtype, self.shape)


class AxisRange(_Value):
    """Sizes of one named axis."""

    min: Int = Field(ge=1, description="Smallest size.")
    opt: Int = Field(ge=1, description="The size to optimize for.")
    max: Int = Field(ge=1, description="Largest size.")

    @model_validator(mode="after")
    def _ordered(self) -> AxisRange:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"expected min <= opt <= max, found min {self.min}, opt {self.opt}, max {self.max}")
        return self


class Batching(_Value):
    """How requests become batches."""

    max_batch_size: Int | None = Field(None, ge=0, description="Default: 32 where the model has a batch dimension.")
    dynamic: Bool = Field(True, description="Merge waiting requests in the server (dynamic_batching).")
    preferred_batch_sizes: tuple[Int, ...] = Field((), description="dynamic_batching.preferred_batch_size.")
    max_queue_delay_microseconds: Int = Field(0, ge=0, description="How long a request may wait for company.")


class Instances(_Value):
    """instance_group of the converted model."""

    count: Int = Field(ge=1, description="Instances per device.")
    kind: Literal["auto", "cpu", "gpu"] = Field("auto", description="Where they run.")
    gpus: tuple[Int, ...] = Field((), description="GPU ids, with kind gpu.")


class Samples(_Value):
    """Inputs of the proof. Default: built-in texts or images for tasks that take them, seeded random tensors."""

    texts: tuple[str | Mapping[str, str | tuple[str, ...]], ...] | str | None = Field(
        None,
        description="Texts (or for several inputs {NAME: text}), or a file: .txt (a text a line), .json (list).",
    )
    arrays: tuple[str, ...] = Field((), description=".npz files, one request each: an array for every input.")
    images: tuple[str, ...] = Field((), description="Image files for tasks of images; default: 64 made ones.")
    seed: Int = Field(0, ge=0, description="Seed of random tensors.")


def _both(value: Any) -> Any:
    return [value, value] if isinstance(value, int) and not isinstance(value, bool) else value


def _all_three(value: Any) -> Any:
    return [value] * 3 if isinstance(value, (int, float)) and not isinstance(value, bool) else value


_Edge = Annotated[int, BeforeValidator(_number), Field(ge=1)]


def _one_or(kind: str, count: int) -> WithJsonSchema:
    several = {"type": "array", "items": {"type": kind}, "minItems": count, "maxItems": count}
    return WithJsonSchema({"anyOf": [{"type": kind}, several]})


_Pair = Annotated[tuple[_Edge, _Edge], BeforeValidator(_both), _one_or("integer", 2)]
_Triple = Annotated[tuple[Float, Float, Float], BeforeValidator(_all_three), _one_or("number", 3)]


class ImageOptions(_Value):
    """What a model's input is made of: the steps from an encoded image to its pixels, in this order.

    A step that is left out is not taken. Pixels are whole numbers from 0 to 255 before they are rescaled.
    """

    size: _Pair | None = Field(None, description="Resize to [height, width]; one number for a square.")
    shortest_edge: _Edge | None = Field(None, description="Resize so that the shorter edge has this many pixels.")
    resample: Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"] = Field(
        "bilinear", description="Pillow's filter for resizing."
    )
    crop: _Pair | None = Field(None, description="Keep the middle, [height, width]; zeros around what is smaller.")
    rescale_factor: Float | None = Field(None, description="Pixels times this: 0.00392156862745098 is 1/255.")
    rescale_offset: Float | None = Field(None, description="And plus this.")
    channels: Literal["RGB", "BGR"] = Field("RGB", description="Their order; Caffe's nets mostly want BGR.")
    mean: _Triple | None = Field(None, description="Subtracted, a number for each of channels, in their order.")
    std: _Triple | None = Field(None, description="Then divided by, likewise; for a factor, one over it.")
    pad: _Pair | None = Field(None, description="Zeros below and to the right, up to [height, width].")
    layout: Literal["NCHW", "NHWC"] | None = Field(
        None, description="Axes of the model's input; default: where it has its 3 channels."
    )

    @model_validator(mode="after")
    def _one_size(self) -> ImageOptions:
        if self.size and self.shortest_edge:
            raise ValueError("size and shortest_edge exclude each other: leave one of them out")
        if not (self.size or self.crop or self.pad):
            raise ValueError("images of one size make a batch: name size, crop or pad ([height, width])")
        if self.pad and (made := self.crop or self.size) and (made[0] > self.pad[0] or made[1] > self.pad[1]):
            raise ValueError(f"pad {list(self.pad)} is smaller than the {list(made)} pixels that it would fill up")
        if self.std and 0 in self.std:
            raise ValueError("std has a 0, and pixels are divided by it")
        return self


class TensorRTOptions(_Value):
    """How a TensorRT plan is built."""

    profiles: tuple[Mapping[str, AxisRange], ...] = Field(
        (),
        description="Optimization profiles: ranges of named axes, each laid over shapes; default: one.",
    )
    keep_fp32: tuple[str, ...] | Literal["measure"] = Field(
        (),
        description="Nodes (names, patterns, operators) kept in fp32; 'measure' finds those that lose most.",
    )
    keep_io_types: Bool = Field(True, description="Inputs and outputs keep the source's dtypes.")
    optimization_level: Int | None = Field(None, ge=0, le=5, description="builder_optimization_level.")
    workspace: Int | None = Field(None, ge=1, description="MiB that the builder's tactics may use.")
    timing_cache: Bool = Field(True, description="Keep tactic timings per GPU and TensorRT version for the next build.")
    version_compatible: Bool = Field(
        False, description="A plan that later versions of TensorRT load too, by code of its own that the server runs."
    )
    hardware_compatible: Bool = Field(False, description="A plan that GPUs of other kinds (Ampere and newer) load too.")
    plugins: tuple[str, ...] = Field(
        (), description="Plugin libraries (.so); they go into the repository, beside the plan, and into the server."
    )

    @model_validator(mode="before")
    @classmethod
    def _servable(cls, data: Any) -> Any:
        for key in data if isinstance(data, Mapping) else ():
            if str(key).replace("_", "") in _UNSERVABLE:
                raise ValueError(f"{key}: Triton's tensorrt backend has no call for it; leave it out")
        return data

    @model_validator(mode="after")
    def _libraries(self) -> TensorRTOptions:
        seen: dict[str, str] = {}
        for path in self.plugins:
            name = Path(path).name
            if not _LIBRARY.fullmatch(name):
                raise ValueError(f"the plugin library {path!r} is no NAME.so (of A-Z a-z 0-9 _ - + and dots)")
            if name in seen:
                raise ValueError(f"two plugin libraries are named {name!r}: {seen[name]} and {path}")
            seen[name] = path
        return self


_LIBRARY = re.compile(r"[A-Za-z0-9_][\w+\-.]*\.so(\.\d+)*", re.ASCII)
_UNSERVABLE = ("refit", "refittable", "stripweights", "weightstripping", "weightstreaming", "dla", "dlacore")


class LlmOptions(_Value):
    """How a large language model is built and served (task text-generation; engines tensorrt-llm, llmapi, vllm)."""

    dtype: Literal["auto", "float16", "bfloat16", "float32"] = Field("auto", description="Arithmetic of the engine.")
    quantization: (
        Literal["fp8", "fp8_pc_pt", "nvfp4", "int8_sq", "int4_awq", "w4a8_awq", "int8_wo", "int4_wo"] | None
    ) = Field(None, description="Quantization of the weights; default: none.")
    kv_cache_dtype: Literal["int8", "fp8"] | None = Field(None, description="Of the KV cache; default: the engine's.")
    tp: Int = Field(1, ge=1, description="Tensor parallelism: GPUs that share every layer.")
    pp: Int = Field(1, ge=1, description="Pipeline parallelism: GPUs that have layers of their own.")
    gpus_per_node: Int = Field(8, ge=1, description="GPUs of one machine; tp * pp above it takes several.")
    max_input_len: Int | None = Field(None, ge=1, description="Longest prompt, in tokens.")
    max_seq_len: Int | None = Field(None, ge=1, description="Longest prompt and answer together, in tokens.")
    max_num_tokens: Int | None = Field(None, ge=1, description="Tokens of all requests in one step.")
    max_beam_width: Int = Field(1, ge=1, description="Beams of beam search.")
    kv_cache_fraction: Float | None = Field(None, gt=0, le=1, description="Of the GPU's free memory, for the KV cache.")
    decoupled: Bool = Field(True, description="Answers may come in parts (streaming).")
    launch: Literal["leader", "orchestrator"] = Field("leader", description="TensorRT-LLM: how ranks are started.")
    weights: str | None = Field(
        None, description="Where the server finds the model (a path there, or a hub id); default: in the repository."
    )
    tokenizer: str | None = Field(None, description="Hugging Face folder of an engine folder's tokenizer.")
    build_flags: tuple[str, ...] = Field((), description="Further flags of trtllm-build; those of 0.7 are translated.")
    parameters: Mapping[str, bool | int | float | str] = Field(
        {}, description="Parameters of the tensorrtllm backend (kv_cache_free_gpu_mem_fraction, ...)."
    )
    engine_args: Mapping[str, Any] = Field({}, description="Arguments of vLLM's AsyncEngineArgs, or of the LLM API.")


class ToleranceSpec(_Value):
    """Limits of one output against the source model."""

    max_abs_error: Float | None = Field(None, ge=0, description="Largest absolute difference.")
    max_rel_error: Float | None = Field(
        None, ge=0, description="The same, divided by the largest source value (at least 0.01)."
    )
    cosine: Float | None = Field(None, ge=-1, le=1, description="Smallest cosine of a case.")


class ModelSpec(_Value):
    """One model."""

    name: str = Field("", description="Name of the served model; default: from the source's name.")
    source: str = Field(min_length=1, description="A file or folder (docs/sources.md), a hub id, or module.py:factory.")
    task: str | None = Field(None, description="What the served model does; default: guessed from the source.")
    engine: Literal["onnx", "torchscript", "torch_aoti", "tensorrt", "tensorrt-llm", "llmapi", "vllm"] = Field(
        "onnx", description="What Triton runs."
    )
    llm: LlmOptions = Field(LlmOptions(), description="How a large language model is built and served.")
    precision: Literal["fp32", "tf32", "fp16", "bf16", "int8", "fp8"] = Field(
        "fp32", description="Arithmetic of the engine; others than fp32 need TensorRT. ONNX files keep their own."
    )
    tensorrt: TensorRTOptions = Field(TensorRTOptions(), description="How a TensorRT plan is built.")
    exporter: Literal["dynamo", "script", "trace"] | None = Field(
        None, description="Only this exporter; default: a chain."
    )
    inputs: tuple[TensorDeclaration, ...] = Field((), description="Inputs that the file does not tell (TorchScript).")
    outputs: tuple[str, ...] = Field((), description="Names for the outputs, in order.")
    shapes: Mapping[str, AxisRange] = Field(
        {}, description="Ranges of named axes: {sequence: {min: 1, opt: 64, max: 256}}."
    )
    batching: Batching = Field(Batching(), description="How requests become batches.")
    instances: Instances | None = Field(None, description="instance_group; default: one per core, on the CPU.")
    cpus: Int | None = Field(
        None, ge=1, description="CPU cores that the model may use where it is served; default: this machine's."
    )
    memory: Int | None = Field(
        None, ge=1, description="GiB of memory there; default: this machine's, or 2 per core where cpus is given."
    )
    config: Mapping[str, Any] = Field({}, description="Any ModelConfig field of the converted model, laid over ours.")
    step_configs: Mapping[str, Mapping[str, Any]] = Field(
        {}, description="The same for the other models of an ensemble: {ensemble: {...}, tokenizer: {...}}."
    )
    image: ImageOptions | None = Field(
        None, description="From an encoded image to pixels, for models whose files do not tell it."
    )
    labels: tuple[str, ...] | str = Field(
        (), description="Of such a model: a label for each value, in their order, or a file: .txt (a line each), .json."
    )
    scores: Literal["none", "softmax", "sigmoid"] = Field(
        "none", description="Of such a model: what makes scores of its output; none: it gives scores itself."
    )
    samples: Samples = Field(Samples(), description="Inputs of the proof.")
    tolerances: Mapping[str, ToleranceSpec] = Field({}, description="Limits by output name; '*' for all others.")
    trust_remote_code: Bool = Field(False, description="Run Python code that comes with a Hugging Face model.")
    trust_pickle: Bool = Field(False, description="Open a pickle of scikit-learn, which runs the code in it.")

    @model_validator(mode="after")
    def _named(self) -> ModelSpec:
        if self.name and not _NAME.match(self.name):
            raise ValueError(
                f"name {self.name!r} has characters that a model's folder cannot have (use A-Z a-z 0-9 _ - .)"
            )
        if len(self.name) > LONGEST_NAME:
            raise ValueError(f"name {self.name[:20]!r}... has {len(self.name)} characters (at most {LONGEST_NAME})")
        return self

    @model_validator(mode="after")
    def _fits_engine(self) -> ModelSpec:
        if self.llm != LlmOptions() and self.engine not in LLM_ENGINES:
            raise ValueError(f"llm: has no effect on the engine {self.engine}; set engine: {' or '.join(LLM_ENGINES)}")
        if self.engine != "tensorrt":
            if self.precision != "fp32":
                raise ValueError(f"precision {self.precision} needs engine: tensorrt (the engine is {self.engine})")
            if self.tensorrt != TensorRTOptions():
                raise ValueError(f"tensorrt: has no effect on the engine {self.engine}; set engine: tensorrt")
            return self
        if self.instances and self.instances.kind == "cpu":
            raise ValueError(
                "instances.kind is cpu, and a TensorRT plan runs on GPUs only; "
                "set kind: gpu, or serve on the CPU with engine: onnx"
            )
        if self.precision in ("fp32", "tf32") and (self.tensorrt.keep_fp32 or not self.tensorrt.keep_io_types):
            option = "keep_fp32" if self.tensorrt.keep_fp32 else "keep_io_types"
            raise ValueError(f"tensorrt.{option} has no effect on precision {self.precision}: nothing leaves fp32")
        return self

    @property
    def public_name(self) -> str:
        """The served model's name: ``name``, or one made from the source."""
        if self.name:
            return self.name
        path, _, factory = self.source.partition(".py:")
        stem = factory or Path(path.rstrip("/")).name
        for suffix in (".onnx", ".pt2", ".pt", ".pth", ".skops", ".joblib", ".pkl", ".pickle"):
            stem = stem.removesuffix(suffix)
        if stem in ("model", "") and not factory:
            stem = Path(path).resolve().parent.name
        return re.sub(r"[^A-Za-z0-9_\-]+", "_", stem).strip("_-")[:LONGEST_NAME] or "model"


class Spec(_Value):
    """A whole build: one or many models and the release that will serve them."""

    models: tuple[ModelSpec, ...] = Field(min_length=1, description="The models.")
    target: Annotated[str | None, BeforeValidator(_target)] = Field(None, description="Triton release, e.g. '26.07'.")

    @model_validator(mode="after")
    def _unique(self) -> Spec:
        seen: dict[str, str] = {}
        for name in (model.public_name for model in self.models):
            other = seen.get(name.casefold())
            if other == name:
                raise ValueError(f"two models are named {name!r}; give one of them another `name:`")
            if other:
                raise ValueError(f"{other!r} and {name!r} differ only by case; give one of them another `name:`")
            seen[name.casefold()] = name
        return self


def is_spec(source: str) -> bool:
    return source.endswith((".yaml", ".yml"))


def load(path: Path) -> Spec:
    """Read a YAML spec; relative sources and sample files are taken from the spec's own folder.

    Raises:
        SpecError: with file, line, the key's path, what was found and the nearest known key.
    """
    document = read(path)
    return _validated(_anchored(document.data, path.parent), document)


def from_flags(source: str, **fields: Any) -> Spec:
    """A spec of one model from command-line values; ``None`` means not given."""
    target = fields.pop("target", None)
    given = {key: value for key, value in fields.items() if value is not None}
    return _validated({"models": [{"source": source, **given}], "target": target}, None)


def override(spec: Spec, **fields: Any) -> Spec:
    """The spec with command-line values laid over every model; ``None`` means not given."""
    target = fields.pop("target", None)
    given = {key: value for key, value in fields.items() if value is not None}
    data = spec.model_dump(exclude_unset=True)
    return _validated(
        {**data, "models": [_laid_over(m, given) for m in data["models"]], "target": target or spec.target}, None
    )


def _laid_over(model: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of flags over those of the file; in ``llm`` and ``batching`` option by option."""
    options = {key: {**model.get(key, {}), **value} for key, value in given.items() if isinstance(value, Mapping)}
    return {**model, **given, **options}


def json_schema(config_schema: Mapping[str, Any]) -> dict[str, Any]:
    """JSON Schema of a spec file; ``config_schema`` describes ``config:`` (from the protobuf descriptor)."""
    schema = Spec.model_json_schema()
    definitions = schema["$defs"]
    config = dict(config_schema)
    definitions.update(config.pop("$defs", {}))
    config.pop("$schema", None)
    definitions["ModelConfig"] = config
    reference = {"$ref": "#/$defs/ModelConfig"}
    properties = definitions["ModelSpec"]["properties"]
    properties["config"] = {"description": properties["config"]["description"], **reference}
    properties["step_configs"]["additionalProperties"] = reference
    schema["properties"]["target"] = {
        "anyOf": [{"type": "string"}, {"type": "number"}, {"type": "null"}],
        "description": "Triton release, e.g. 26.07 (with or without quotes).",
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "repo_builder spec"}


_FILES = (".onnx", ".pt", ".pt2", ".pth", ".py")
"""Suffixes of files; a hub id may have a dot too (``BAAI/bge-small-en-v1.5``)."""


def _anchored(data: Any, folder: Path) -> Any:
    """Relative sources and sample files, from the folder of the spec."""
    if not isinstance(data, dict) or not isinstance(data.get("models"), list):
        return data
    models = [dict(m) if isinstance(m, dict) else m for m in data["models"]]
    for model in (m for m in models if isinstance(m, dict)):
        source = model.get("source")
        if isinstance(source, str) and not Path(source).is_absolute():
            there = (folder / source.partition(".py:")[0]).with_suffix(".py") if ".py:" in source else folder / source
            if there.exists() or source.startswith(".") or Path(source.partition(":")[0]).suffix in _FILES:
                model["source"] = str(folder / source)
        samples = model.get("samples")
        if isinstance(samples, dict):
            samples = dict(samples)
            if isinstance(samples.get("texts"), str):
                samples["texts"] = str(folder / samples["texts"])
            for files in ("arrays", "images"):
                if isinstance(samples.get(files), list):
                    samples[files] = [str(folder / a) if isinstance(a, str) else a for a in samples[files]]
            model["samples"] = samples
        if isinstance(model.get("labels"), str):
            model["labels"] = str(folder / model["labels"])
        if isinstance(llm := model.get("llm"), dict) and isinstance(llm.get("tokenizer"), str):
            model["llm"] = {**llm, "tokenizer": str(folder / llm["tokenizer"])}
        options = model.get("tensorrt")
        if isinstance(options, dict) and isinstance(options.get("plugins"), list):
            plugins = [str(folder / p) if isinstance(p, str) else p for p in options["plugins"]]
            model["tensorrt"] = {**options, "plugins": plugins}
    return {**data, "models": models}


def _validated(data: Any, document: Document | None) -> Spec:
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        raise spec_messages.readable(error, document, _keys) from error


_MODELS: dict[str, type[_Value]] = {
    "batching": Batching,
    "instances": Instances,
    "image": ImageOptions,
    "samples": Samples,
    "inputs": TensorDeclaration,
    "tolerances": ToleranceSpec,
    "shapes": AxisRange,
    "tensorrt": TensorRTOptions,
    "llm": LlmOptions,
    "profiles": AxisRange,
    "models": ModelSpec,
}


def _keys(location: tuple[Any, ...]) -> list[str]:
    """The keys that are known at the place of an unknown one."""
    owner: type[_Value] = Spec
    for part in location[:-1]:
        owner = _MODELS.get(str(part), owner)
    return list(owner.model_fields)
