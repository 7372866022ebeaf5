"""What a release can load: the ModelConfig fields, platforms and backends that its images know."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

from repo_builder.errors import TargetError
from repo_builder.releases.facts import FLAVOURS, Release, data, names, nearest, order, release

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from tritonclient.grpc.model_config_pb2 import ModelConfig


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
    platforms = data()["platforms"]
    if config.platform and config.platform not in platforms:
        raise TargetError(
            f"platform '{config.platform}' is unknown to every release",
            expected="one of " + ", ".join(platforms),
            mend=f"did you mean '{nearest(config.platform, platforms)}'?",
            model=config.name,
        )
    if config.backend:
        return str(config.backend)
    return str(platforms[config.platform]["backend"]) if config.platform else None


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
    platform = data()["platforms"].get(config.platform)
    if platform and order(platform["since"]) > order(release.name):
        raise TargetError(
            f"release {release.name} does not know platform '{config.platform}'",
            expected="one of " + ", ".join(_platforms(release)),
            mend=f"target {platform['since']} or newer",
            model=config.name,
        )
    if backend is not None:
        try:
            flavour_for({backend}, release)
        except TargetError as error:
            raise error.at(model=config.name) from None


@cache
def _known_fields(name: str) -> frozenset[str]:
    fields = data()["fields"]
    known = {f"{message}.{field}" for message, of in fields["base"].items() for field in of}
    known |= {field for field, fact in fields["added"].items() if order(fact["since"]) <= order(name)}
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


def _platforms(release: Release) -> list[str]:
    carried = {backend for image in release.images.values() for backend in image.backends}
    return [
        platform
        for platform, fact in data()["platforms"].items()
        if fact["backend"] in carried and order(fact["since"]) <= order(release.name)
    ]


def _who(backend: str, backends: Collection[str]) -> str:
    models = backends[backend] if isinstance(backends, Mapping) else ()
    need = f"model{'s' if len(models) > 1 else ''} {', '.join(sorted(models))} need{'' if len(models) > 1 else 's'} "
    return f"{need if models else ''}backend '{backend}'"


def _mend_backend(backend: str) -> str:
    carrying = [n for n in names() if any(backend in image.backends for image in release(n).images.values())]
    if carrying:
        older = f"target a release from {carrying[0]} to {carrying[-1]}"
        return older + (", or convert the model to ONNX" if backend == "tensorflow" else "")
    every = sorted({b for n in names() for image in release(n).images.values() for b in image.backends})
    return f"did you mean '{nearest(backend, every)}'?"
