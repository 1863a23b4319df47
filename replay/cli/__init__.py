"""The command line: options in, one result on stdout, everything else on stderr."""

from replay.cli.commands import main

__all__ = ["main"]
