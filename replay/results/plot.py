"""``replay plot``: one figure as a picture of its own."""

from __future__ import annotations

import os
from difflib import get_close_matches
from typing import TYPE_CHECKING

from schemas.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pyarrow as pa

SUFFIXES = (".png", ".svg", ".html")


def list_figures(tables: Mapping[str, pa.Table]) -> str:
    """Name and finding of every figure that the tables hold something for, one a line."""
    from reports import figures_of

    drawn = figures_of(tables)
    width = max((len(name) for name in drawn), default=0)
    return "".join(f"{name:<{width}}  {figure.finding}\n" for name, figure in drawn.items())


def check_output(output: Path, *, force: bool) -> None:
    """See that the picture can be written, before the work.

    Raises:
        UsageError: The suffix is of no picture.
        OutputError: The file exists and is not to be replaced.
    """
    if output.suffix not in SUFFIXES:
        raise UsageError(
            f"no picture has the suffix {output.suffix!r}",
            where=str(output),
            hint="use " + ", ".join(SUFFIXES),
        )
    check_file(output, force=force)


def check_file(output: Path, *, force: bool) -> None:
    """See that a file can be written.

    Raises:
        OutputError: It exists and is not to be replaced, or its folder does not exist.
    """
    if os.path.lexists(output) and not force:
        raise OutputError(
            f"will not overwrite without --force: {output}",
            path=output.absolute(),
            hint="give another file with -o, or --force to replace this one",
        )
    if not output.absolute().parent.is_dir():
        raise OutputError(
            "no such folder to write into",
            path=output.absolute().parent,
            hint="make it, or give another file with -o",
        )


def plot(tables: Mapping[str, pa.Table], name: str, output: Path) -> None:
    """Write one figure.

    Args:
        tables: Result tables by name.
        name: Name of the figure.
        output: File whose suffix chooses the format: ``.png``, ``.svg`` or ``.html``.

    Raises:
        UsageError: No figure has this name, or the tables hold nothing for it.
        OutputError: The file cannot be written, or nothing is installed that makes a PNG.
    """
    from reports import figures_of
    from reports.pictures import render_figure

    drawn = figures_of(tables)
    if name not in drawn:
        near = get_close_matches(name, drawn, n=1)
        there = f"there are {', '.join(drawn)}" if drawn else "the capture holds nothing to draw"
        raise UsageError(
            f"no figure is named {name!r}",
            where="replay plot --figure NAME",
            hint=f"did you mean {near[0]!r}?" if near else there,
        )
    write_file(output, render_figure(drawn[name], output.suffix))


def write_file(output: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    fresh = output.with_name(f".{output.name}.new-{os.getpid()}")
    try:
        fresh.write_bytes(content)
        fresh.replace(output)
    except OSError as error:
        raise OutputError(
            f"cannot write: {error.strerror or error}", path=output, hint="see where -o points"
        ) from error
    finally:
        fresh.unlink(missing_ok=True)
