"""TensorRT plans: described by opening them where their TensorRT and a GPU are, else by their header alone."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.artifact import Artifact
from repo_builder.errors import RepositoryError, SignatureError, TensorRTError
from repo_builder.formats import signature, source_file
from repo_builder.server import needs
from repo_builder.tensorrt import calls, installation, plan_header, truth, versions
from repo_builder.tensors import TensorSpec, dtype

NAME = "tensorrt_plan"
TAKES = "a TensorRT plan (.plan, .engine)"
_SUFFIXES = (".plan", ".engine", ".trt")


def matches(path: Path) -> bool:
    """By suffix."""
    return path.suffix.lower() in _SUFFIXES


def describe(
    path: Path,
    inputs: Sequence[TensorSpec] = (),
    *,
    plugins: Sequence[Path] = (),
    version_compatible: bool = False,
) -> Artifact:
    """The artifact of a plan.

    Facts: ``module``, ``tensorrt`` (version that built it, from the header), ``plan_bytes``, ``releases`` (Triton
    releases known to carry that version), ``releases_if_version_compatible``, ``releases_unknown`` (their TensorRT is
    not in the table), ``opened`` and ``not_opened`` (why the header is all that is known: then inputs and outputs are
    empty). Of an opened plan also ``gpu``, ``compute_capability``, ``profiles``, ``layers`` (by precision),
    ``hardware_compatible``, ``shape_tensors`` and ``unservable`` (what Triton's tensorrt backend has no call for).

    Nothing runs that may come with a plan from elsewhere: neither plugin libraries nor the runtime that a
    version-compatible plan carries. A plan that needs them is opened where they are named and allowed.

    Args:
        inputs: what the spec says of them.
        plugins: libraries to load first.
        version_compatible: let the plan run the code that it carries.

    Raises:
        SourceMissingError, SourceCorruptError: the file.
        SignatureError: ``inputs`` that contradict the plan.
    """
    source_file.refuse_stand_ins(path)
    header = plan_header.read(path)
    facts: dict[str, Any] = {
        "module": header.module,
        "tensorrt": header.version,
        "plan_bytes": path.stat().st_size,
        "releases": [],
        "releases_if_version_compatible": [],
        "releases_unknown": list(versions.releases_unknown()),
    }
    if header.module == "tensorrt" and header.version:
        facts["releases"] = list(versions.releases_for(header.version))
        facts["releases_if_version_compatible"] = list(versions.releases_for(header.version, version_compatible=True))
    found, why = _opener(header)
    if found is not None:
        try:
            answer = calls.call(
                found,
                "inspect_plan.py",
                {
                    "plan": str(path.absolute()),
                    "plugins": [str(library.absolute()) for library in plugins],
                    "allow_host_code": version_compatible,
                },
            )
        except TensorRTError as error:
            why = error.found + _lacks(path, plugins, version_compatible)
        else:
            facts |= {"version_compatible": version_compatible} if version_compatible else {}
            return _opened(path, inputs, {**facts, "opened": True, "not_opened": ""}, answer, found)
    if inputs:
        raise SignatureError(
            f"`inputs:` names {', '.join(t.name for t in inputs)}, and {path.name} cannot be opened to compare: {why}",
            expected="the TensorRT and GPU that built the plan",
        )
    return Artifact(path, NAME, files=(path.name,), facts={**facts, "opened": False, "not_opened": why})


def run(
    artifact: Artifact,
    inputs: Mapping[str, np.ndarray[Any, Any]],
    *,
    profile: int | None = None,
) -> dict[str, np.ndarray[Any, Any]]:
    """Outputs by name, computed by TensorRT on the GPU.

    Args:
        artifact: a plan that was opened or built here; its facts name the plugin libraries beside it.
        inputs: arrays by name.
        profile: index of the optimization profile; None takes the one that fits best.

    Raises:
        SignatureError: the arrays do not fit.
        TensorRTMissingError: there is no TensorRT or no GPU.
        TensorRTError: TensorRT does not run the plan.
        UnsupportedDtypeError: a BF16 input or output, which numpy cannot hold.
    """
    signature.refuse_bf16((*artifact.inputs, *artifact.outputs), artifact.path.name)
    signature.check_arrays(artifact.inputs, inputs, artifact.path.name)
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        np.savez(given, **{name: np.asarray(array, order="C") for name, array in inputs.items()})  # type: ignore[arg-type]
        request = {
            "plan": str(artifact.path.absolute()),
            "inputs": str(given),
            "outputs": str(made),
            "profile": profile,
            "plugins": [str(artifact.folder.absolute() / name) for name in artifact.facts.get("plugins", ())],
            "version_compatible": bool(artifact.facts.get("version_compatible")),
        }
        calls.call(installation.builder(), "run.py", request)
        with np.load(made, allow_pickle=False) as stored:
            return {spec.name: stored[spec.name] for spec in artifact.outputs}


def _lacks(path: Path, plugins: Sequence[Path], version_compatible: bool) -> str:
    """What the config beside a plan says that it needs, and was not given."""
    try:
        libraries, carries = needs.of_plan(path)
    except RepositoryError as error:
        return f"; {error.found}"
    flags = [f"--plugin {library}" for library in libraries if library.name not in {p.name for p in plugins}]
    flags += ["--version-compatible"] if carries and not version_compatible else []
    return f"; its config says that it needs {' '.join(flags)} (code that comes with the plan)" if flags else ""


def _opener(header: plan_header.PlanHeader) -> tuple[installation.Installation | None, str]:
    """The TensorRT that may open the plan, or why there is none."""
    if header.module == "tensorrt_rtx":
        return None, "it is a plan of TensorRT-RTX, which Triton does not serve"
    found = installation.find()
    if found is None:
        return None, "TensorRT is not installed here; only the plan's header was read"
    if found.gpu is None:
        return None, f"{found.called} sees no GPU here; only the plan's header was read"
    return found, ""


def _opened(
    path: Path,
    inputs: Sequence[TensorSpec],
    facts: dict[str, Any],
    answer: Mapping[str, Any],
    found: installation.Installation,
) -> Artifact:
    told = answer["inspection"]
    tensors = [*told["inputs"], *told["outputs"]]
    batched = all(one["shape"] and one["shape"][0] == -1 for one in tensors)
    known, became = signature.refine([_spec(one, batched) for one in told["inputs"]], inputs, path.name)
    outputs = [_spec(one, batched) for one in told["outputs"]]
    facts |= {
        "tensorrt": facts["tensorrt"] or answer["version"],
        "gpu": found.gpu.name if found.gpu else None,
        "compute_capability": found.gpu.compute_capability if found.gpu else None,
        "profiles": told["profiles"],
        "layers": told["layers"],
        "hardware_compatible": told["hardware_compatible"],
        "shape_tensors": [one["name"] for one in told["inputs"] if one["is_shape_tensor"]],
        "unservable": truth.unservable(told),
    }
    shown = tuple(TensorSpec(o.name, o.dtype, signature.apply(o.shape, became)) for o in outputs)
    return Artifact(path, NAME, known, shown, files=(path.name,), facts=facts)


def _spec(one: Mapping[str, Any], batched: bool) -> TensorSpec:
    """A plan keeps no names of axes: axis 0 is called batch where it is dynamic in every tensor."""
    shape = tuple(
        size if size >= 0 else "batch" if batched and axis == 0 else f"{one['name']}_dim{axis}"
        for axis, size in enumerate(one["shape"])
    )
    return TensorSpec(one["name"], dtype(one["dtype"]).triton, shape)
