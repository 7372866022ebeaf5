"""An AOTInductor package: torch's loader runs it; its tensors are flat, in the order of its call specification.

``options``: ``inputs``, name, dtype and shape of every tensor, as the user says.
"""

from __future__ import annotations

import json
from typing import Any

import loop
import numpy as np
import torch

_NAMES = {"float32": "FP32", "float64": "FP64", "float16": "FP16", "bfloat16": "BF16", "bool": "BOOL"}
_NAMES.update({f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)})
_NUMPY = {name: numpy for numpy, name in _NAMES.items()}
_SIZES = (2, 3, 16, 32, 224)


class Model:
    """The loaded package and the inputs that the user says it takes."""

    def __init__(self, source: str, inputs: list[dict[str, Any]]) -> None:
        self.loader = torch._inductor.aoti_load_package(source).loader
        self.inputs = inputs
        self.specs = [json.loads(spec)[1] for spec in self.loader.get_call_spec()]

    def __call__(self, arrays: list[Any]) -> list[torch.Tensor]:
        given = [torch.from_numpy(np.array(array, order="C")) for array in arrays]
        with torch.no_grad():
            return list(self.loader.boxed_run(given))


def open_model(source: str, kind: str, options: dict[str, Any]) -> Model:  # noqa: ARG001  one kind
    """Load it, and see that it takes as many tensors as the user says."""
    model = Model(source, options["inputs"])
    wanted = _leaves(model.specs[0])
    if wanted != len(model.inputs):
        raise loop.Refused(
            f"`inputs:` gives {len(model.inputs)} tensors, and the package takes {wanted}",
            expected=", ".join(f"INPUT__{place}" for place in range(wanted)),
            error="SignatureError",
        )
    return model


def describe(model: Model) -> dict[str, Any]:
    """Dtypes and ranks of the outputs are found by running it."""
    arrays, sizes = _example(model)
    found = model(arrays)
    outputs = [
        {"name": f"OUTPUT__{place}", "dtype": _NAMES.get(str(one.dtype).removeprefix("torch."), str(one.dtype)),
         "shape": list(one.shape)}
        for place, one in enumerate(found)
    ]  # fmt: skip
    for together in (*([symbol] for symbol in sizes), list(sizes)):
        other, _ = _example(model, {**sizes, **{symbol: sizes[symbol] + 1 for symbol in together}})
        for told, one in zip(outputs, model(other), strict=True) if other else ():
            for axis, size in enumerate(one.shape):
                if told["shape"][axis] != size:
                    told["shape"][axis] = f"{told['name']}_dim{axis}"
    return {"inputs": model.inputs, "outputs": outputs, "versions": {"torch": torch.__version__}, "notes": []}


def convert(model: Model, path: str, opset: int) -> dict[str, Any]:  # noqa: ARG001
    """Nothing converts machine code."""
    raise loop.Refused("an AOTInductor package is machine code", mend="convert the exported program it was made of")


def run(model: Model, arrays: list[Any]) -> list[Any]:
    """Its answers on the CPU."""
    return [one.detach().cpu().numpy() for one in model(arrays)]


def _leaves(spec: dict[str, Any]) -> int:
    return sum(map(_leaves, spec["children_spec"])) if spec["type"] else 1


def _example(model: Model, asked: dict[str, int] | None = None) -> tuple[list[Any], dict[str, int]]:
    """Inputs of sizes that it takes; none where it does not take ``asked``."""
    free = dict.fromkeys(d for one in model.inputs for d in one["shape"] if isinstance(d, str))
    said = ""
    for size in _SIZES[:1] if asked else _SIZES:
        sizes = asked or dict.fromkeys(free, size)
        shapes = [[sizes[d] if isinstance(d, str) else d for d in one["shape"]] for one in model.inputs]
        arrays = [np.ones(s, _NUMPY[one["dtype"]]) for s, one in zip(shapes, model.inputs, strict=True)]
        try:
            model(arrays)
        except RuntimeError as error:
            said = said or next(iter(str(error).splitlines()), "")
            continue
        return arrays, sizes
    if asked:
        return [], {}
    raise loop.Refused(
        f"the package does not take the inputs that `inputs:` says: {said[:500]}",
        expected="the dtypes and shapes that it was compiled for",
        mend="correct `inputs:`; the log has the package's own words",
        error="SignatureError",
    )


if __name__ == "__main__":
    loop.main(open_model, describe, convert, run)
