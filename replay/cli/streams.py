"""What the commands write: results to stdout, errors to stderr as three lines."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from schemas.errors import OutputError, ReplayError

EXIT_BROKEN_PIPE = 141


def emit(text: str) -> None:
    """Write a result to stdout.

    Raises:
        typer.Exit: The reader went away; that is no error worth a message.
        OutputError: stdout takes nothing, for example because a disk is full.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # The interpreter flushes stdout once more at its end: let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(EXIT_BROKEN_PIPE) from None
        raise OutputError(
            f"cannot write: {error.strerror}", path="<stdout>", hint="see where stdout goes"
        ) from error


def reading(*, debug: bool) -> None:
    """What to call before a capture is read: one that is cut meanwhile is an error like others."""
    from captures.shrinking import end_on_bus_error

    end_on_bus_error(lambda error: report(error, debug=debug))


def report(error: ReplayError, *, debug: bool) -> int:
    """Print the error that is being handled, after its traceback if asked for; return the exit code."""
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"replay: {error.what}\n  {error.where}\n  {error.hint}\n")
    return error.exit_code
