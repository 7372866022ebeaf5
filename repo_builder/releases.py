"""Triton releases: what each image carries, which ModelConfig fields and platforms each release knows.

The facts lie in ``releases.json`` beside this module, each with its source (a file of a public Triton repository at a
release branch, a page of NVIDIA's documentation, or a wheel that was asked). A value that no source gives is None,
and code that needs it says so; nothing is guessed. ``docs/targets.md`` shows the table.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from repo_builder.errors import TargetError

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from tritonclient.grpc.model_config_pb2 import ModelConfig

FLAVOURS = ("py3", "vllm-python-py3", "trtllm-python-py3")
"""Image flavours, in the order of preference: the tag of an image is ``RELEASE-FLAVOUR``."""


@dataclass(frozen=True)
class Image:
    """One container image of a release; None is unknown or not in the image (``backends`` tells which)."""

    flavour: str
    tensorrt: str | None
    python: str | None
    onnxruntime: str | None
    torch: str | None
    tensorrt_llm: str | None
    vllm: str | None
    cuda: str | None
    backends: frozenset[str]


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
    return tuple(_data()["releases"])


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
    found = _data()["releases"].get(name)
    if found is None:
        raise TargetError(
            f"Triton release '{name}' is unknown",
            expected=f"a release from {names()[0]} to {names()[-1]}",
            mend=f"did you mean {_nearest_release(name)}?",
        )
    images = {
        flavour: Image(flavour=flavour, **{**values, "backends": frozenset(values["backends"])})
        for flavour, values in found["images"].items()
    }
    return Release(name, found["server"], MappingProxyType(images), MappingProxyType(found["sources"]))


def onnx_limits(onnxruntime_version: str) -> tuple[int, int, int]:
    """Newest ai.onnx opset, IR version and ai.onnx.ml opset that this ONNX Runtime loads.

    Raises:
        TargetError: nobody looked at this version.
    """
    table = _data()["onnxruntime"]
    found = table.get(".".join(onnxruntime_version.split(".")[:2]))
    if found is None:
        raise TargetError(
            f"the ONNX limits of ONNX Runtime {onnxruntime_version} are unknown",
            expected="one of " + ", ".join(table),
            mend="choose a target with one of these",
        )
    return found["opset"], found["ir"], found["ml_opset"]


def unknown_fields(release: Release, config: ModelConfig) -> list[str]:
    """Paths of the fields that are set in ``config`` and that this release's parser does not know.

    A path reads ``input[0].is_non_linear_format_io``; of an unknown message only the topmost field is named.
    """
    known = _known_fields(release.name)
    return [path for path, field in _set_fields(config, known) if field not in known]


def backend_of(config: ModelConfig) -> str | None:
    """The backend that serves ``config``: its ``backend``, or what its ``platform`` stands for.

    ``ensemble`` for an ensemble; None where the server is left to find out from the model's file.

    Raises:
        TargetError: a platform that no release knows.
    """
    if config.backend:
        return str(config.backend)
    if not config.platform:
        return None
    platforms = _data()["platforms"]
    if config.platform not in platforms:
        raise _unknown("platform", config, platforms)
    return str(platforms[config.platform]["backend"])


def flavour_for(backends: Collection[str], release: Release) -> str:
    """The one image flavour that carries all ``backends``; of several, the first of ``FLAVOURS``.

    Args:
        backends: backend names, or a mapping from backend to the models that need it (the error then names them).
        release: the target.

    Raises:
        TargetError: a backend is in no image of the release, or no single image has all.
    """
    images = [release.images[flavour] for flavour in FLAVOURS if flavour in release.images]
    having = {b: [i.flavour for i in images if b in i.backends] for b in sorted(backends)}
    for backend, flavours in having.items():
        if not flavours:
            raise TargetError(
                f"{_who(backend, backends)}, which no image of release {release.name} has",
                expected="one of " + ", ".join(sorted({b for image in images for b in image.backends})),
                mend=_mend_backend(backend),
            )
    for image in images:
        if image.backends >= set(backends):
            return image.flavour
    raise TargetError(
        f"no single image of release {release.name} has every backend: "
        + "; ".join(f"{_who(b, backends)}, in {' and '.join(f)}" for b, f in having.items()),
        expected="models that one image can serve",
        mend="build one repository per image flavour",
    )


def check_config(config: ModelConfig, release: Release) -> None:
    """Refuse what this release's server could not load.

    Raises:
        TargetError: unknown fields, or a platform or backend that is in none of the release's images.
    """
    unknown = unknown_fields(release, config)
    if unknown:
        since = _first_knowing(config, release)
        raise TargetError(
            f"release {release.name} (server {release.server}) does not know {', '.join(unknown)}",
            expected=f"ModelConfig fields of {release.sources['fields']}",
            mend=f"remove {'them' if len(unknown) > 1 else 'it'}"
            + (f", or target {since} or newer" if since else "; no release in the table knows all of them"),
            model=config.name,
        )
    backend = backend_of(config)
    if backend is None:
        return
    platform = _data()["platforms"].get(config.platform)
    if config.platform and platform is None:
        raise _unknown("platform", config, _data()["platforms"])
    if platform and _order(platform["since"]) > _order(release.name):
        raise TargetError(
            f"release {release.name} does not know platform '{config.platform}'",
            expected="one of " + ", ".join(_platforms(release)),
            mend=f"target {platform['since']} or newer",
            model=config.name,
        )
    try:
        flavour_for({backend}, release)
    except TargetError as error:
        raise error.at(model=config.name) from None


@cache
def _data() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(__file__).with_name("releases.json").read_text(encoding="utf-8"))
    return content


@cache
def _known_fields(name: str) -> frozenset[str]:
    fields = _data()["fields"]
    known = {f"{message}.{field}" for message, of in fields["base"].items() for field in of}
    known |= {field for field, fact in fields["added"].items() if _order(fact["since"]) <= _order(name)}
    return frozenset(known)


def _set_fields(message: Message, known: frozenset[str], at: str = "") -> Iterator[tuple[str, str]]:
    """(path, ``Message.field``) of every set field, maps and lists included, not below a field that is not known."""
    package = message.DESCRIPTOR.file.package + "."
    for field, value in message.ListFields():
        owner = f"{message.DESCRIPTOR.full_name.removeprefix(package)}.{field.name}"
        path = f"{at}{field.name}"
        yield path, owner
        if owner not in known or field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            for key in sorted(value):
                if hasattr(value[key], "ListFields"):
                    yield from _set_fields(value[key], known, f"{path}[{key!r}].")
        elif field.is_repeated:
            for index, item in enumerate(value):
                yield from _set_fields(item, known, f"{path}[{index}].")
        else:
            yield from _set_fields(value, known, f"{path}.")


def _first_knowing(config: ModelConfig, older: Release) -> str | None:
    later = names()[names().index(older.name) :]
    return next((name for name in later if not unknown_fields(release(name), config)), None)


def _order(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split("."))


def _nearest_release(name: str) -> str:
    numbers = re.findall(r"\d+", name)
    if len(numbers) >= 2:
        mended = f"{int(numbers[0]) % 100:02d}.{int(numbers[1]):02d}"
        if mended in names():
            return mended
        month = int(numbers[0]) % 100 * 12 + int(numbers[1])
        return min(names(), key=lambda n: abs(_order(n)[0] * 12 + _order(n)[1] - month))
    return (difflib.get_close_matches(name, names(), 1, 0.0) or [names()[-1]])[0]


def _platforms(release: Release) -> list[str]:
    carried = {backend for image in release.images.values() for backend in image.backends}
    return [
        platform
        for platform, fact in _data()["platforms"].items()
        if fact["backend"] in carried and _order(fact["since"]) <= _order(release.name)
    ]


def _unknown(kind: str, config: ModelConfig, choices: Collection[str]) -> TargetError:
    near = difflib.get_close_matches(getattr(config, kind), choices, 1, 0.0)[0]
    return TargetError(
        f"{kind} '{getattr(config, kind)}' is unknown to every release",
        expected="one of " + ", ".join(choices),
        mend=f"did you mean '{near}'?",
        model=config.name,
    )


def _who(backend: str, backends: Collection[str]) -> str:
    models = backends[backend] if isinstance(backends, Mapping) else ()
    need = f"model{'s' if len(models) > 1 else ''} {', '.join(sorted(models))} need{'' if len(models) > 1 else 's'} "
    return f"{need if models else ''}backend '{backend}'"


def _mend_backend(backend: str) -> str:
    carrying = [n for n in names() if any(backend in image.backends for image in release(n).images.values())]
    if carrying:
        return f"target a release from {carrying[0]} to {carrying[-1]}, or convert the model to ONNX or TensorRT"
    every = sorted({b for n in names() for image in release(n).images.values() for b in image.backends})
    near = difflib.get_close_matches(backend, every, 1, 0.0)[0]
    return f"did you mean '{near}'?"
