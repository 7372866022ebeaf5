"""The table of Triton releases: what each image carries.

The facts lie in ``releases.json`` beside this module, each with its source (a file of a public Triton repository at a
release branch, a page of NVIDIA's documentation, or a wheel that was asked). A value that no source gives is None,
and code that needs it says so; nothing is guessed. ``docs/targets.md`` shows the table.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from repo_builder.errors import TargetError

FLAVOURS = ("py3", "vllm-python-py3", "trtllm-python-py3")
"""Image flavours, in the order of preference: the tag of an image is ``RELEASE-FLAVOUR``."""


@dataclass(frozen=True)
class Image:
    """One container image of a release; a version that is None is unknown, or the image has no such thing."""

    flavour: str
    backends: frozenset[str]
    tensorrt: str | None = None
    python: str | None = None
    onnxruntime: str | None = None
    torch: str | None = None
    tensorrt_llm: str | None = None
    vllm: str | None = None
    cuda: str | None = None


@dataclass(frozen=True)
class Release:
    """One monthly release.

    Attributes:
        name: year and month (``24.10``).
        server: what the server calls itself (``2.51.0``).
        images: by flavour; a flavour that is missing is not documented for this release.
        sources: where each value was read, by ``server``, ``fields`` or ``FLAVOUR.attribute``.
    """

    name: str
    server: str
    images: Mapping[str, Image]
    sources: Mapping[str, str]

    def image(self, flavour: str) -> Image:
        """The image of that flavour.

        Raises:
            TargetError: the release has no such image.
        """
        if flavour not in self.images:
            having = [name for name in names() if flavour in release(name).images]
            raise TargetError(
                f"no {flavour} image is documented for release {self.name}",
                expected="one of " + ", ".join(self.images),
                mend=f"use release {having[-1]}, the newest with {flavour}" if having else "take another flavour",
            )
        return self.images[flavour]

    @property
    def max_opset(self) -> int:
        """Newest ai.onnx opset that the py3 image's ONNX Runtime loads."""
        return self._limits[0]

    @property
    def max_ir_version(self) -> int:
        """Newest ONNX IR version that the py3 image's ONNX Runtime loads."""
        return self._limits[1]

    @property
    def max_ml_opset(self) -> int:
        """Newest ai.onnx.ml opset that the py3 image's ONNX Runtime loads."""
        return self._limits[2]

    @property
    def _limits(self) -> tuple[int, int, int]:
        version = self.image("py3").onnxruntime
        if version is None:
            raise TargetError(
                f"the ONNX Runtime version of release {self.name} is unknown",
                expected="a release whose ONNX Runtime is documented",
                mend="choose another --target",
            )
        return onnx_limits(version)


def names() -> tuple[str, ...]:
    """All releases, oldest first."""
    return tuple(data()["releases"])


def newest() -> Release:
    """The newest release that the table knows."""
    return release(names()[-1])


def embedded() -> Release:
    """The release that the ``nvidia-pytriton`` 0.7.0 wheel carries (server 2.51.0)."""
    return release("24.10")


@cache
def release(name: str) -> Release:
    """The release of that name.

    Raises:
        TargetError: the table has no such release; the message names the nearest.
    """
    found = data()["releases"].get(name)
    if found is None:
        raise TargetError(
            f"Triton release '{name}' is unknown",
            expected=f"a release from {names()[0]} to {names()[-1]}",
            mend=f"did you mean {_nearest_release(name)}?",
        )
    images = {
        flavour: Image(**{**values, "flavour": flavour, "backends": frozenset(values["backends"])})
        for flavour, values in found["images"].items()
    }
    return Release(name, found["server"], MappingProxyType(images), MappingProxyType(found["sources"]))


def onnx_limits(onnxruntime_version: str) -> tuple[int, int, int]:
    """Newest ai.onnx opset, IR version and ai.onnx.ml opset that this ONNX Runtime loads.

    Raises:
        TargetError: nobody looked at this version.
    """
    table = data()["onnxruntime"]
    found = table.get(onnxruntime_version) or table.get(".".join(onnxruntime_version.split(".")[:2]))
    if found is None:
        raise TargetError(
            f"the ONNX limits of ONNX Runtime {onnxruntime_version} are unknown",
            expected="one of " + ", ".join(table),
            mend="choose a target with one of these",
        )
    return found["opset"], found["ir"], found["ml_opset"]


def table() -> str:
    """The releases as a Markdown table, newest first; ``?`` is unknown, ``-`` is not in that image."""
    columns = ("python", "cuda", "onnxruntime", "tensorrt", "torch", "tensorrt_llm", "vllm")
    lines = [
        "| release | server | image | Python | CUDA | ONNX Runtime | opset/IR/ML | TensorRT | torch | TRT-LLM | vLLM |",
        "|" + " --- |" * 11,
    ]
    for name, facts in reversed(data()["releases"].items()):
        for flavour in (f for f in FLAVOURS if f in facts["images"]):
            cells = [facts["images"][flavour].get(column, "-") or "?" for column in columns]
            limits = onnx_limits(cells[2]) if cells[2] != "-" else ()
            cells.insert(3, " / ".join(map(str, limits)) or "-")
            lines.append(f"| {name} | {facts['server']} | {flavour} | {' | '.join(cells)} |")
    return "\n".join(lines)


@cache
def data() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(__file__).with_name("releases.json").read_text(encoding="utf-8"))
    return content


def order(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split("."))


def _nearest_release(name: str) -> str:
    numbers = re.findall(r"\d+", name)
    if len(numbers) < 2:
        return names()[-1]
    year, month = int(numbers[0]) % 100, int(numbers[1])
    found = min(names(), key=lambda n: abs((order(n)[0] - year) * 12 + order(n)[1] - month))
    if numbers[1] == "1" and f"{year}.10" in names():
        return f"{found} or {year}.10"
    return found


def nearest(word: str, choices: Iterable[str]) -> str:
    return difflib.get_close_matches(word, choices, 1, 0.0)[0]


if __name__ == "__main__":
    print(table())
