"""Every error that a user can meet, each with an exit code of its own.

An error says what was found, what was expected and what mends it; it names the stage and the model where they are
known. ``docs/exit-codes.md`` is generated from this module.
"""

from __future__ import annotations


class RepoBuilderError(Exception):
    """Base of all errors that are meant for the user.

    Args:
        found: what was found, one sentence without the final full stop.
        expected: what was expected instead.
        mend: what to do about it.
        stage: the stage of a build (``describe``, ``convert``, ``serve``, ...).
        model: the model's name.
    """

    exit_code = 1
    title = "Unexpected failure"

    def __init__(self, found: str, *, expected: str = "", mend: str = "", stage: str = "", model: str = "") -> None:
        super().__init__(found)
        self.found, self.expected, self.mend, self.stage, self.model = found, expected, mend, stage, model

    def at(self, *, stage: str = "", model: str = "") -> RepoBuilderError:
        """Fill in stage and model where they are still unknown; returns self, for ``raise error.at(...)``."""
        self.stage = self.stage or stage
        self.model = self.model or model
        return self

    def __str__(self) -> str:
        place = ": ".join(p for p in (self.model, self.stage) if p)
        lines = [f"{place}: {self.found}" if place else self.found]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.mend:
            lines.append(f"  to mend it: {self.mend}")
        return "\n".join(lines)


class UsageError(RepoBuilderError):
    exit_code, title = 2, "The command line is wrong"


class SpecError(RepoBuilderError):
    exit_code, title = 3, "The spec (YAML or flags) is wrong"


class UnknownTaskError(SpecError):
    exit_code, title = 4, "The task is unknown or does not fit the model"


class SourceMissingError(RepoBuilderError):
    exit_code, title = 10, "The model was not found"


class SourceCorruptError(RepoBuilderError):
    exit_code, title = 11, "The model file is empty, truncated or not what its name says"


class UnsafeSourceError(RepoBuilderError):
    exit_code, title = 12, "The model would run code when loaded (a pickle, remote code)"


class PathEscapeError(RepoBuilderError):
    exit_code, title = 13, "A path leaves the model's folder"


class UnsupportedDtypeError(RepoBuilderError):
    exit_code, title = 14, "A dtype that Triton does not have"


class SignatureError(RepoBuilderError):
    exit_code, title = 15, "Inputs or outputs are unknown, contradict the file, or cannot be served"


class MissingDependencyError(RepoBuilderError):
    exit_code, title = 20, "A package that this step needs is not installed"


class TargetError(RepoBuilderError):
    exit_code, title = 21, "The target release cannot load what was asked for"


class ConversionError(RepoBuilderError):
    exit_code, title = 22, "No converter carried the model, or a converted file does not equal its source"


class TensorRTError(RepoBuilderError):
    exit_code, title = 24, "TensorRT refused the graph, the request or the plan, or its process died"


class TensorRTMissingError(TensorRTError):
    exit_code, title = 25, "There is no TensorRT here, or no GPU for it"


class FrameworkError(RepoBuilderError):
    exit_code, title = 26, "A framework's process died, took too long or answered nonsense"


class TemplateError(RepoBuilderError):
    exit_code, title = 23, "A template or a ModelConfig could not be rendered"


class RepositoryError(RepoBuilderError):
    exit_code, title = 30, "The repository is not what it should be"


class RepositoryLockedError(RepositoryError):
    exit_code, title = 31, "Another build holds the repository"


class DiskFullError(RepoBuilderError):
    exit_code, title = 32, "The disk is full"


class ToolchainError(RepoBuilderError):
    exit_code, title = 40, "An isolated environment could not be made (no venv, no libpython, no network)"


class ServerStartError(RepoBuilderError):
    exit_code, title = 41, "The server did not start, or a model did not load"


class PortInUseError(ServerStartError):
    exit_code, title = 42, "A port is in use"


class ServerUnavailableError(RepoBuilderError):
    exit_code, title = 43, "No server answers there"


class InferenceError(RepoBuilderError):
    exit_code, title = 44, "The server refused or failed a request"


class TimeoutExceededError(InferenceError):
    exit_code, title = 45, "A request took longer than its timeout"


class ProofFailedError(RepoBuilderError):
    exit_code, title = 50, "The served answers differ from the source model's"


class SomeModelsFailedError(RepoBuilderError):
    exit_code, title = 51, "Some models of the spec failed; the others were built"


def all_errors() -> list[type[RepoBuilderError]]:
    """Every error class, by exit code."""
    found: list[type[RepoBuilderError]] = [RepoBuilderError]
    for cls in found:
        found.extend(cls.__subclasses__())
    return sorted(found, key=lambda cls: cls.exit_code)


def first_line(error: BaseException) -> str:
    """The first line of a foreign error's message that says anything; its type's name where none does."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def nearest(word: str, choices: list[str]) -> str:
    """``" (did you mean 'x'?)"`` for the choice nearest to ``word``, or an empty string."""
    import difflib

    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
