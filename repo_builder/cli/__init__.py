"""The command line: arguments, progress, printing, exit codes. No logic of its own."""

from __future__ import annotations

import errno
import signal
import sys
from typing import Any

from repo_builder.errors import DiskFullError, RepoBuilderError, UsageError

_INTERRUPTED, _TERMINATED = 130, 143
"""What shells say for SIGINT and SIGTERM; for the first typer's newer releases return it, older ones raise Abort."""


def main() -> None:
    """Entry point of ``repo-builder``: every error of ours is one message and its own exit code."""
    import typer

    from repo_builder.cli import printing
    from repo_builder.cli.commands import app

    ended = _INTERRUPTED

    def terminated(*_: object) -> None:
        """SIGTERM ends a build as Ctrl-C does: what it staged is removed."""
        nonlocal ended
        ended = _TERMINATED
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminated)
    arguments = sys.argv[1:] or ["--help"]
    printing.mode(as_json="--json" in arguments)
    try:
        if app(args=arguments, standalone_mode=False, prog_name="repo-builder") == _INTERRUPTED:
            raise KeyboardInterrupt
    except RepoBuilderError as error:
        printing.error(error)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort) as error:
        if isinstance(error.__cause__, EOFError):
            raise error.__cause__ from None
        printing.note("interrupted; what was there before is unchanged")
        sys.exit(ended)
    except OSError as error:
        if error.strerror is None:
            raise
        refused = _refused(error)
        printing.error(refused)
        sys.exit(refused.exit_code)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        wrong = _usage(error)
        printing.error(wrong)
        sys.exit(wrong.exit_code)


def _refused(error: OSError) -> RepoBuilderError:
    """What the system refused where no stage explained it: a report's or an output's file, the terminal's pipe."""
    kind = DiskFullError if error.errno in (errno.ENOSPC, errno.EDQUOT) else RepoBuilderError
    where = f"{error.filename}: " if error.filename else ""
    return kind(f"{where}{error.strerror}", expected="a place that can be read and written")


def _usage(error: Any) -> UsageError:
    """A complaint of typer's parser (click's class, or one of typer's own, by version) as ours."""
    command = error.ctx.command_path if getattr(error, "ctx", None) else "repo-builder"
    return UsageError(error.format_message().replace("Value error, ", "").rstrip("."), mend=f"see `{command} --help`")
