"""ONNX files: described with the ``onnx`` package without their external weights, run by ONNX Runtime on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import SignatureError, SourceCorruptError, first_line
from repo_builder.formats import onnx_external, onnx_stamp, onnx_text, signature, source_file
from repo_builder.tensors import Shape, TensorSpec, from_onnx

NAME = "onnx"
TAKES = "an ONNX file (.onnx)"
_OLDEST = 7
_STANDARD_DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}


def matches(path: Path) -> bool:
    """By suffix."""
    return path.suffix.lower() == ".onnx"


def describe(path: Path, inputs: Sequence[TensorSpec] = ()) -> Artifact:
    """The artifact of an ONNX file.

    Facts: ``opset``, ``opset_ml``, ``domains`` (beyond the standard ones, with their versions), ``functions``,
    ``ir_version``, ``producer``, ``nodes``, ``parameters`` (count), ``parameter_bytes``. Symbolic dims keep the file's
    names; an unnamed one is called ``<tensor>_dim<axis>``. An input may have an axis of size 0 (no axes to reduce).

    Raises:
        SourceMissingError, SourceCorruptError, PathEscapeError: the file or its external data.
        SignatureError: sequence, optional or map types, unknown ranks, outputs that are always empty, ``inputs`` that
            contradict the file.
        UnsupportedDtypeError: a dtype that Triton lacks.
    """
    model = _read(path)
    files = (path.name, *onnx_external.check_files(model, path))
    constants = {t.name for t in model.graph.initializer} | {t.values.name for t in model.graph.sparse_initializer}
    told = _specs((i for i in model.graph.input if i.name not in constants), path)
    outputs = _specs(_with_shapes(model).output, path)
    if not told:
        raise SignatureError(f"{path} has no inputs", expected="at least one", mend="export the model with its inputs")
    _refuse_empty(outputs, path)
    given, became = signature.refine(told, inputs, path.name)
    outputs = tuple(TensorSpec(o.name, o.dtype, signature.apply(o.shape, became)) for o in outputs)
    return Artifact(path, NAME, given, outputs, files=files, facts=_facts(model))


def check(path: Path) -> None:
    """Run onnx.checker with shape inference over a file and its external data.

    Raises:
        SourceCorruptError: with the checker's own words.
    """
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:
        raise SourceCorruptError(
            f"onnx.checker {onnx.__version__} refuses {path.name}: {first_line(error)}", mend="export the model again"
        ) from error


def run(artifact: Artifact, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs by name from ONNX Runtime (CPU, deterministic kernels); strings come back as bytes.

    The sessions of the last two files are kept, as long as their files do not change.

    Raises:
        SignatureError: the arrays do not fit, ONNX Runtime fails on them, or an answer has not the declared shape.
        SourceCorruptError: ONNX Runtime does not load the file.
        UnsupportedDtypeError: a BF16 input or output, which numpy cannot hold.
    """
    signature.refuse_bf16((*artifact.inputs, *artifact.outputs), artifact.path.name)
    signature.check_arrays(artifact.inputs, inputs, artifact.path.name)
    session = _session(str(artifact.path), source_file.stamp(artifact.folder, artifact.files))
    feeds = {name: _text(a) if a.dtype.kind in "OS" else np.asarray(a, order="C") for name, a in inputs.items()}
    names = [spec.name for spec in artifact.outputs]
    try:
        results = session.run(names, feeds)
    except Exception as error:
        raise SignatureError(
            f"ONNX Runtime failed on {artifact.path.name} with inputs "
            f"{', '.join(f'{n} {list(a.shape)}' for n, a in inputs.items())}: {first_line(error)}",
            expected="inputs that fit " + "; ".join(map(str, artifact.inputs)),
        ) from error
    for spec, result in zip(artifact.outputs, results, strict=True):
        signature.check_answer(spec, result.shape, artifact.path.name)
    return {n: _as_bytes(r) if r.dtype.kind in "OU" else r for n, r in zip(names, results, strict=True)}


def _read(path: Path) -> Any:
    import google.protobuf.message
    import onnx

    source_file.refuse_stand_ins(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (google.protobuf.message.DecodeError, ValueError, RuntimeError) as error:
        raise SourceCorruptError(
            f"{path} does not parse as ONNX ({first_line(error)})",
            expected="a whole ONNX ModelProto",
            mend="the file is truncated or no ONNX file: export or copy it again",
        ) from error
    graph = model.graph
    made = {name for node in graph.node for name in node.output}
    made |= {i.name for i in graph.input} | {t.name for t in graph.initializer}
    lacks = [
        what
        for what, there in (
            ("a graph", model.HasField("graph")),
            ("nodes", graph.node),
            ("outputs", graph.output),
            ("an opset", model.opset_import),
            ("an IR version", model.ir_version),
            ("the nodes that make its outputs", all(o.name in made for o in graph.output)),
        )
        if not there
    ]
    if lacks:
        raise SourceCorruptError(
            f"{path} parses, but has no {lacks[0].removeprefix('a ').removeprefix('an ')}",
            expected="an ONNX model with a graph, nodes, outputs and an opset",
            mend="the file is truncated or no ONNX file: export or copy it again",
        )
    onnx_text.check(model, path)
    return model


def _with_shapes(model: Any) -> Any:
    """The graph, with output types filled in by ONNX shape inference where the file leaves them out."""
    import onnx

    def known(value: Any) -> bool:
        kind = value.type.WhichOneof("value")
        return bool(kind) and (kind != "tensor_type" or value.type.tensor_type.HasField("shape"))

    if all(known(value) for value in model.graph.output):
        return model.graph
    try:
        return onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # noqa: BLE001 - what stays unknown is refused by _specs
        return model.graph


def _specs(values: Iterable[Any], path: Path) -> tuple[TensorSpec, ...]:
    return tuple(_spec(value, path) for value in values)


def _spec(value: Any, path: Path) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        is_a = {"sequence_type": "a sequence", "optional_type": "an optional", "map_type": "a map"}
        raise SignatureError(
            f"'{value.name}' of {path.name} is {is_a.get(kind, 'of the type ' + (kind or 'none'))}",
            expected="a tensor: Triton serves nothing else",
            mend="turn it into a tensor inside the model (for classifiers from scikit-learn: zipmap=False)",
        )
    tensor = value.type.tensor_type
    dtype = from_onnx(tensor.elem_type, value.name)
    if not tensor.HasField("shape"):
        raise SignatureError(
            f"'{value.name}' of {path.name} has no shape, and ONNX shape inference finds none",
            expected="a known rank",
            mend="declare the shape when exporting (symbolic sizes are fine)",
        )
    return TensorSpec(value.name, dtype.triton, _shape(value.name, tensor.shape.dim))


def _shape(name: str, dims: Iterable[Any]) -> Shape:
    shape: list[int | str] = []
    for axis, dim in enumerate(dims):
        size = dim.dim_value if dim.WhichOneof("value") == "dim_value" else -1
        shape.append(size if size >= 0 else dim.dim_param or f"{name}_dim{axis}")
    return tuple(shape)


def _refuse_empty(outputs: Sequence[TensorSpec], path: Path) -> None:
    for spec in outputs:
        if 0 in spec.shape:
            raise SignatureError(
                f"axis {spec.shape.index(0)} of the output '{spec.name}' in {path.name} has size 0",
                expected="outputs that hold something: a size of 1 or more, or a symbolic dim",
                mend="export the model with a symbolic dim there",
            )


def _facts(model: Any) -> dict[str, Any]:
    opsets = {o.domain: o.version for o in model.opset_import}
    weights = [*model.graph.initializer, *(s.values for s in model.graph.sparse_initializer)]
    return {
        "opset": opsets.get("", opsets.get("ai.onnx", 0)),
        "opset_ml": opsets.get("ai.onnx.ml", 0),
        "domains": {d: v for d, v in sorted(opsets.items()) if d not in _STANDARD_DOMAINS},
        "functions": sorted(f"{f.domain}.{f.name}" for f in model.functions),
        "ir_version": model.ir_version,
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "nodes": len(model.graph.node),
        "parameters": sum(onnx_external.elements(t) for t in weights),
        "parameter_bytes": sum(onnx_external.byte_size(t) for t in weights),
    }


@functools.lru_cache(maxsize=2)
def _session(path: str, stamp: object) -> Any:  # noqa: ARG001 - part of the cache's key
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        _refuse_opset(path, error)
        raise SourceCorruptError(
            f"ONNX Runtime {onnxruntime.__version__} does not load {Path(path).name}: {first_line(error)}",
            mend="check the file with onnx.checker; a newer opset or IR version needs a newer onnxruntime",
        ) from error


def _refuse_opset(path: str, error: Exception) -> None:
    """Raises SourceCorruptError where the file's opset is why: too old, or another than that of its nodes."""
    import onnx

    stamp = onnx_stamp.look(onnx.load(path, load_external_data=False))
    if 0 < stamp.stamped < _OLDEST and not stamp.misfits:
        raise SourceCorruptError(
            f"{Path(path).name} has opset {stamp.stamped}, and ONNX Runtime does not load it: {first_line(error)}",
            expected=f"opset {_OLDEST} or later, which ONNX Runtime has operators for",
            mend="onnx.version_converter.convert_version(model, 13); compare its answers with the model that it was "
            "exported from",
        ) from error
    if not stamp.fitting:
        return
    unsure = f" (the meaning of {', '.join(stamp.ambiguous)} changed between)" if stamp.ambiguous else ""
    raise SourceCorruptError(
        f"{Path(path).name}: {stamp.told()}",
        expected="nodes of the opset that the file is stamped with",
        mend=f"stamp it: model.opset_import[0].version = {stamp.nearest}, and compare its answers with the model that "
        f"it was exported from{unsure}",
    ) from error


def _text(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    flat = [v.decode() if isinstance(v, bytes) else str(v) for v in array.reshape(-1).tolist()]
    return _objects(flat, array.shape)


def _as_bytes(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return _objects([str(v).encode() for v in array.reshape(-1)], array.shape)


def _objects(values: list[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    array = np.empty(shape, dtype=object)
    array.reshape(-1)[:] = values
    return array
