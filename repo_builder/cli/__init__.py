"""The command line: arguments, progress, printing, exit codes. No logic of its own."""

from __future__ import annotations

import sys

from repo_builder.errors import RepoBuilderError


def main() -> None:
    """Entry point of ``repo-builder``: every error of ours is one message and its own exit code."""
    from repo_builder.cli import printing
    from repo_builder.cli.commands import app

    try:
        app(standalone_mode=False, prog_name="repo-builder")
    except RepoBuilderError as error:
        printing.error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        printing.note("interrupted; what was there before is unchanged")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except Exception as error:
        import click

        if isinstance(error, click.exceptions.Exit):
            sys.exit(error.exit_code)
        if isinstance(error, click.Abort):
            sys.exit(130)
        if isinstance(error, click.ClickException):
            error.show()
            sys.exit(error.exit_code)
        raise
