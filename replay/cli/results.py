"""The commands that show results again (``replay plot``, ``compare``, ``export``), and what analyze adds."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from replay.cli.streams import emit, reading
from replay.results.export import Target
from schemas.errors import UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

SOURCE = "A capture, or a folder that analyze wrote."


class Format(StrEnum):
    """How a comparison is printed on stdout."""

    TEXT = "text"
    MD = "md"
    JSON = "json"


def plot(
    source: Annotated[Path, typer.Argument(metavar="CAPTURE|DIR", help=SOURCE)],
    figure: Annotated[
        str | None, typer.Option("--figure", metavar="NAME", help="Figure to draw; see --list.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Picture to write: .png, .svg or .html."),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Print each figure's name and what it shows.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Draw one figure as a picture.

    SVG and HTML need nothing else; PNG needs a Chromium or Chrome with kaleido, or matplotlib.

    Example: replay plot trace.dat --figure space -o space.png
    """
    from replay.results import plot as pictures

    if list_:
        emit(pictures.list_figures(_tables(source, debug=debug)))
        return
    if figure is None or output is None:
        raise UsageError(
            "a picture needs a figure and a file",
            where="replay plot CAPTURE|DIR",
            hint="give --figure NAME and -o FILE, or --list to see the names",
        )
    pictures.check_output(output, force=force)
    pictures.plot(_tables(source, debug=debug), figure, output)
    sys.stderr.write(f"wrote {printable(str(output))}\n")


def compare(
    before: Annotated[Path, typer.Argument(metavar="A", help=SOURCE)],
    after: Annotated[Path, typer.Argument(metavar="B", help=SOURCE)],
    format_: Annotated[Format, typer.Option("--format", help="What to print on stdout.")] = Format.TEXT,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Put two results side by side, differences first.

    Where B's kernel runs a strategy that A was replayed under, what the replay of A said stands beside what
    B did.

    Example: replay compare 6.12.dat 7.3.dat
    """
    from replay.results import compare as comparing
    from reports import comparison

    document = comparing.compare(_tables(before, debug=debug), _tables(after, debug=debug))
    render = {
        Format.TEXT: comparison.render_text,
        Format.MD: comparison.render_markdown,
        Format.JSON: comparison.render_json,
    }
    emit(render[format_](document))


def export(
    source: Annotated[Path, typer.Argument(metavar="CAPTURE|DIR", help=SOURCE)],
    to: Annotated[
        Target,
        typer.Option("--to", help="Perfetto: one file for ui.perfetto.dev; CSV: a folder, a file a table."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="PATH", help="File or folder to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace what exists.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Write the results for another tool.

    Perfetto: walks as slices with their counts, VMAs on each anon_vma as counters, missed mappings as
    instants, all at the capture's own times.

    Example: replay export trace.dat --to perfetto -o walks.pftrace
    """
    from replay.results import export as exporting

    exporting.check_target(to, output, force=force)
    exporting.export(_tables(source, debug=debug), to, output)
    sys.stderr.write(f"wrote {printable(str(output))}\n")


def _tables(source: Path, *, debug: bool) -> dict[str, pa.Table]:
    """The result tables of a capture or of a result folder."""
    from replay.cli.source import results

    reading(debug=debug)
    return results(source)


def redacted_kinds(text: str | None) -> tuple[str, ...]:
    """What ``--redact`` names; nothing where it is not given.

    Raises:
        UsageError: A kind is not known.
    """
    if text is None:
        return ()
    from reports.redact import kinds_of

    return kinds_of(text)


def finished(
    tables: Mapping[str, pa.Table], kinds: tuple[str, ...], command: Sequence[str]
) -> dict[str, pa.Table]:
    """The tables redacted as asked, with metadata that tell where they come from.

    Args:
        tables: Result tables by name.
        kinds: What is redacted; a command line that may name it is left out of the metadata then.
        command: The command line as words.
    """
    from replay.results import provenance

    if not kinds:
        return provenance.stamp(tables, command)
    from reports.redact import redact

    return provenance.stamp(redact(tables, kinds), None)


def page_bytes(text: str) -> int:
    """Bytes of a size such as ``900k`` or ``5M``, in powers of 1000 as trackers count.

    Raises:
        UsageError: It is no such size.
    """
    match = re.fullmatch(r"([0-9]+)([kKmM]?)B?", text.strip())
    if match is None or not int(match[1]):
        raise UsageError(f"{text!r} is not a size", where="--max-size SIZE", hint="for example 900k or 5M")
    return int(match[1]) * {"": 1, "k": 10**3, "m": 10**6}[match[2].lower()]


def check_bundle(bundle: Path | None, *, force: bool) -> None:
    """See that ``--bundle`` can be written, before the work.

    Raises:
        OutputError: The file exists and is not to be replaced, or its folder does not exist.
    """
    if bundle is not None:
        from replay.results.plot import check_file

        check_file(bundle, force=force)


def write_bundle(tables: Mapping[str, pa.Table], bundle: Path | None, max_bytes: int) -> None:
    """Write ``--bundle``, and say where it can be attached.

    Raises:
        OutputError: It cannot be written.
    """
    if bundle is None:
        return
    from replay.results.plot import write_file
    from reports.bundle import make_bundle, where_it_fits

    content = make_bundle(tables, max_bytes)
    write_file(bundle, content)
    sys.stderr.write(f"wrote {printable(str(bundle))}: {where_it_fits(len(content))}\n")
