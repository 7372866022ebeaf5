"""Models that a framework has open in a process of its own, kept while they are asked."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from repo_builder import toolchain
from repo_builder.artifact import Artifact, tree_files
from repo_builder.formats import framework_axes, signature, source_file
from repo_builder.formats.framework_session import Framework, Session, Signature

__all__ = ["Framework", "Session", "Signature", "close_all", "of", "opened", "otherwise", "session"]

Progress = Callable[[str], None]
_KEPT = 2


def session(
    framework: Framework,
    source: Path,
    kind: str,
    options: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Session:
    """The process that has ``source`` open; started where there is none, or where the files changed meanwhile.

    The processes of the last two models that a thread asked for are kept until this one ends: other threads may be in
    the middle of theirs.

    Args:
        source: a file, or a folder.
        kind: which of the framework's formats it is; options: JSON values; both as the worker takes them.
        progress: called with one line per step.

    Raises:
        ToolchainError: the framework's environment cannot be made.
        FrameworkError: its process died, or took too long.
        RepoBuilderError: the worker refuses the model.
    """
    files = tree_files(source) if source.is_dir() else (source.name,)
    stamp = source_file.stamp(source if source.is_dir() else source.parent, files)
    key = json.dumps([framework.name, str(framework.worker), str(source.absolute()), kind, dict(options or {}), stamp])
    with _LOCK:
        found = _SESSIONS.pop(key, None)
        if found is None or found.died:
            tell = progress or (lambda _line: None)
            python = Path(sys.executable)
            if framework.requirements:
                python = toolchain.ensure(framework.name, framework.requirements, progress=progress)
            tell(f"opening it with {framework.name}")
            found = Session(framework, python, source, kind, options or {})
        found.asker = threading.current_thread()
        _SESSIONS[key] = found
        own = [k for k, one in _SESSIONS.items() if one.asker is found.asker or not one.asker.is_alive()]
        for old in own[:-_KEPT]:
            _SESSIONS.pop(old).close()
        return found


def opened(framework: Framework, artifact: Artifact, progress: Progress | None = None) -> Artifact:
    """The artifact with the signature that the framework tells, the user's ``inputs`` laid over it.

    ``facts["kind"]`` and ``facts["options"]`` go to the worker. Raises as :func:`session`, and SignatureError where
    ``inputs`` contradict the model.
    """
    model = of(framework, artifact, progress)
    found = model.signature
    inputs, became = signature.refine(found.inputs, artifact.inputs, artifact.path.name)
    outputs = tuple(dataclasses.replace(o, shape=signature.apply(o.shape, became)) for o in found.outputs)
    inputs, outputs = framework_axes.named(inputs, outputs, model.run)
    facts = {**artifact.facts, "framework": dict(found.versions), "notes": list(found.notes)}
    return dataclasses.replace(artifact, inputs=inputs, outputs=outputs, facts=facts)


def of(framework: Framework, artifact: Artifact, progress: Progress | None = None) -> Session:
    """:func:`session` for an artifact; ``facts["requirements"]`` are what the model needs beside the framework."""
    options, extra = artifact.facts.get("options", {}), artifact.facts.get("requirements", ())
    framework = dataclasses.replace(framework, requirements=(*framework.requirements, *extra))
    return session(framework, artifact.path, str(artifact.facts.get("kind", artifact.format)), options, progress)


def otherwise(framework: Framework, artifact: Artifact) -> Session | None:
    """The same model in one more process that sums in another order, for the caller to close; None where there is none.

    Raises as :func:`session`.
    """
    if not framework.otherwise:
        return None
    requirements = (*framework.requirements, *artifact.facts.get("requirements", ()))
    python = toolchain.ensure(framework.name, requirements) if requirements else Path(sys.executable)
    changed = dataclasses.replace(framework, variables={**framework.variables, **framework.otherwise})
    kind = str(artifact.facts.get("kind", artifact.format))
    return Session(changed, python, artifact.path, kind, artifact.facts.get("options", {}))


_SESSIONS: OrderedDict[str, Session] = OrderedDict()
_LOCK = threading.RLock()


def close_all() -> None:
    """End every process that is kept."""
    with _LOCK:
        while _SESSIONS:
            _SESSIONS.popitem()[1].close()
