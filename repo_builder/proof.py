"""The stored proof of a model: inputs, the source model's outputs, tolerances. Read without any framework."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from repo_builder.errors import RepositoryError
from repo_builder.tensors import from_numpy

Arrays = Mapping[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class Tolerance:
    """Limits of one output; None means not asked for.

    A float output passes when ``max|served - source| <= max_abs_error``, that difference over
    ``max(0.01, max|source|)`` is ``<= max_rel_error``, and every case's cosine is ``>= cosine``. Integers, booleans
    and strings must be equal.
    """

    max_abs_error: float | None = None
    max_rel_error: float | None = None
    cosine: float | None = None


DEFAULT_TOLERANCE = Tolerance(max_rel_error=1e-4)


@dataclass(frozen=True)
class Case:
    """One request as the source model answered it. Arrays carry the batch dimension where the model has one."""

    inputs: Arrays
    outputs: Arrays


@dataclass(frozen=True)
class Ranking:
    """Entries in descending order of the output ``values``; ``whole`` where none is left out, as with all labels."""

    values: str
    whole: bool = False


@dataclass(frozen=True)
class Proof:
    """All cases of one public model.

    Attributes:
        model: the model to call.
        batched: axis 0 of every tensor is the batch dimension, so cases may be merged into one request.
        tolerances: by output name; outputs that are not named take ``DEFAULT_TOLERANCE``.
        masks: output name -> name of an output that masks its positions (1 = real, 0 = padding) on the first axes;
            only real positions are compared, in order.
        ranked: output name -> what orders its entries: those that rounding alone parts may change places
            (:func:`~repo_builder.compare.settled`).
        streamed: how the responses of a decoupled model make one answer: ``deltas`` (texts are joined) or
            ``cumulative`` (the last one counts); empty for models with one response.
        reference: who computed the outputs (``sentence-transformers 5.1 on torch 2.13.0``).
    """

    model: str
    cases: tuple[Case, ...]
    batched: bool = True
    tolerances: Mapping[str, Tolerance] = field(default_factory=dict)
    masks: Mapping[str, str] = field(default_factory=dict)
    reference: str = ""
    ranked: Mapping[str, Ranking] = field(default_factory=dict)
    streamed: str = ""

    def inputs(self) -> dict[str, str]:
        """Triton's dtype of every input, by name."""
        return {name: from_numpy(array.dtype).triton for name, array in self.cases[0].inputs.items()}

    def tolerance(self, output: str) -> Tolerance:
        return self.tolerances.get(output, DEFAULT_TOLERANCE)


def save(proof: Proof, path: Path) -> None:
    """Write one ``.npz`` (no pickles: strings go as UTF-8 bytes with lengths), the same bytes for the same proof."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for number, case in enumerate(proof.cases):
        for side, tensors in (("inputs", case.inputs), ("outputs", case.outputs)):
            for name, array in tensors.items():
                if array.dtype.kind in "OSU":
                    raw = [v if isinstance(v, bytes) else str(v).encode() for v in array.reshape(-1)]
                    lengths = np.array([len(v) for v in raw], dtype=np.int64).reshape(array.shape)
                    arrays[f"{number}/{side}-bytes/{name}"] = np.frombuffer(b"".join(raw), dtype=np.uint8)
                    arrays[f"{number}/{side}-lengths/{name}"] = lengths
                else:
                    arrays[f"{number}/{side}/{name}"] = array
    head = {
        "model": proof.model,
        "cases": len(proof.cases),
        "batched": proof.batched,
        "tolerances": {name: asdict(t) for name, t in sorted(proof.tolerances.items())},
        "masks": dict(sorted(proof.masks.items())),
        "ranked": {name: asdict(ranking) for name, ranking in sorted(proof.ranked.items())},
        "reference": proof.reference,
        **({"streamed": proof.streamed} if proof.streamed else {}),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo("proof.json"), json.dumps(head, indent=1))
        for key in sorted(arrays):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asarray(arrays[key], order="C"), allow_pickle=False)
            info = zipfile.ZipInfo(f"{key}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, buffer.getvalue())


def load(path: Path) -> Proof:
    """Read what :func:`save` wrote.

    Raises:
        RepositoryError: the file is missing or not a proof.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            head = json.loads(archive.read("proof.json"))
            arrays = {
                name[:-4]: np.lib.format.read_array(io.BytesIO(archive.read(name)), allow_pickle=False)
                for name in archive.namelist()
                if name.endswith(".npy")
            }
        cases: list[dict[str, dict[str, np.ndarray[Any, Any]]]] = [
            {"inputs": {}, "outputs": {}} for _ in range(head["cases"])
        ]
        sides = {str(number): case for number, case in enumerate(cases)}
        for key in sorted(arrays):
            number, part, name = key.split("/", 2)
            side, _, kind = part.partition("-")
            if kind == "lengths":
                sides[number][side][name] = _strings(arrays[f"{number}/{side}-bytes/{name}"].tobytes(), arrays[key])
            elif kind != "bytes":
                sides[number][side][name] = arrays[key]
        return Proof(
            head["model"],
            tuple(Case(case["inputs"], case["outputs"]) for case in cases),
            head["batched"],
            {name: Tolerance(**t) for name, t in head["tolerances"].items()},
            head["masks"],
            head["reference"],
            {name: Ranking(**ranking) for name, ranking in head.get("ranked", {}).items()},
            head.get("streamed", ""),
        )
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, ValueError, TypeError) as error:
        raise RepositoryError(
            f"{path} holds no proof ({error})", expected="a proof that build wrote", mend="build the model again"
        ) from error


def _strings(raw: bytes, lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    strings: np.ndarray[Any, Any] = np.empty(lengths.size, dtype=object)
    start = 0
    for i, length in enumerate(lengths.reshape(-1).tolist()):
        strings[i] = raw[start : start + length]
        start += length
    shaped: np.ndarray[Any, Any] = strings.reshape(lengths.shape)
    return shaped
