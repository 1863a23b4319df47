"""The command ``replay``: options in, one result on stdout, everything else on stderr.

No logic is here, and nothing heavy is imported before a command needs it: ``replay --help`` loads neither
pyarrow nor polars. ``main`` is the only place where errors become exit codes.

Over 400 lines because the options of nearly every command are here, in the order of ``--help``.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from replay import __version__
from replay.cli import record as cli_record
from replay.cli import results as cli_results
from replay.cli.streams import emit, reading, report
from schemas.errors import InternalError, ReplayError, UsageError, printable

if TYPE_CHECKING:
    import pyarrow as pa

EXIT_CODES = """\
Exit codes: 0 ok; 1 a batch in which captures failed; 2 usage; 3 unreadable capture; 4 a table does not
match its schema; 5 cannot write the output; 70 error in replay itself; 130 interrupted; 141 the reader of
stdout went away.
"""

app = typer.Typer(
    name="replay",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    epilog=EXIT_CODES,
)


Ticks = Annotated[
    int | None,
    typer.Option(
        "--ts2secs",
        metavar="HZ",
        min=1000,
        max=10**10,
        help="Ticks a second of a trace.dat whose clock counts cycles (x86-tsc).",
    ),
]
"""An option of what opens a capture."""


class Format(StrEnum):
    """How a result is printed on stdout."""

    text = "text"
    md = "md"
    json = "json"


def _print_version(value: bool) -> None:
    if value:
        emit(f"replay {__version__}\n")
        raise typer.Exit


@app.callback()
def replay(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Replay the rmap walks of a Linux capture under other page-offset strategies."""


@app.command(epilog=EXIT_CODES)
def analyze(
    capture: Annotated[Path, typer.Argument(metavar="CAPTURE", help="trace.dat or perf.data file.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Folder for the reports and tables.  [default: CAPTURE's name + .replay, here]",
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            metavar="NAME",
            help="Strategy to replay; may be given several times.  [default: full addr vm_pgoff linear]",
        ),
    ] = None,
    evidence: Annotated[
        str | None,
        typer.Option(
            "--evidence",
            metavar="KIND",
            help="Evidence: exact, modelled or both.  [default: exact with tree probes, else modelled]",
        ),
    ] = None,
    kernel_rules: Annotated[
        str | None,
        typer.Option("--kernel-rules", metavar="VERSION", help="Rules of the model: 6.12 or 7.3."),
    ] = None,
    maps: Annotated[
        Path | None, typer.Option("--maps", help="Texts of /proc/PID/maps or smaps: file, folder or tar.")
    ] = None,
    walks: Annotated[
        str,
        typer.Option(
            "--walks",
            metavar="WHICH",
            help="Walks: observed, or every-node (besides, what walks over every stable node would cost).",
        ),
    ] = "observed",
    max_page_sharing: Annotated[
        int | None,
        typer.Option(
            "--max-page-sharing", metavar="N", min=2, help="Say what this limit of KSM would change."
        ),
    ] = None,
    ts2secs: Ticks = None,
    format_: Annotated[Format, typer.Option("--format", help="What to print on stdout.")] = Format.text,
    redact: Annotated[
        str | None,
        typer.Option("--redact", metavar="KINDS", help="Replace by aliases: comm,path,host,ptr, or all."),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="FILE.zip", help="Write everything as one zip, too.")
    ] = None,
    max_size: Annotated[
        str,
        typer.Option("--max-size", metavar="SIZE", help="Largest report.html; figures show what fits."),
    ] = "2M",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing result folder.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Say what rmap walks cost and miss under each strategy.

    Prints the report on stdout and writes report.html, report.txt, summary.json and tables/*.parquet into
    DIR.

    Example: replay analyze trace.dat -o trace.replay
    """
    from replay.options import AnalyzeOptions
    from replay.results import output as out

    folder = output if output is not None else out.default_folder(capture)
    out.check_folder(folder, force=force)
    cli_results.check_bundle(bundle, force=force)
    kinds = cli_results.redacted_kinds(redact)
    max_bytes = cli_results.page_bytes(max_size)
    options = AnalyzeOptions(
        evidence=evidence,
        kernel_rules=kernel_rules,
        maps=None if maps is None else str(maps),
        walks=walks,
        max_page_sharing=max_page_sharing,
        ts2secs=ts2secs,
    )
    if strategy is not None:
        options = replace(options, strategies=tuple(strategy))
    # What polars does here is short: more threads of it take a tenth more processor time, and no less time.
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    # The process ends before many cycles have become garbage: looking for them as usual takes a twentieth.
    gc.set_threshold(100_000)

    from replay import pipeline

    reading(debug=debug)
    analysis = pipeline.analyze(capture, options)
    tables = cli_results.finished(analysis.tables, kinds, ["replay", *sys.argv[1:]])

    from reports import write_reports

    paths = write_reports(tables, folder, force=force, max_bytes=max_bytes)
    emit(paths.text.read_text(encoding="ascii") if format_ is Format.text else _render(tables, format_))
    sys.stderr.write(f"wrote {printable(str(folder))}\n")
    cli_results.write_bundle(tables, bundle, max_bytes)


@app.command(epilog=EXIT_CODES)
def batch(
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="DIR", help="Folder (or URL) of the batch; made if need be."),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="Captures, folders, quoted globs, URLs.", show_default=False),
    ] = None,
    files_from: Annotated[
        str | None,
        typer.Option(
            "--files-from", metavar="FILE", help="More inputs, one a line or NUL-separated; -: stdin."
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", metavar="N", min=1, help="Captures at a time.  [default: one for each CPU]"),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            "--scheduler", metavar="ADDRESS", help="Use this dask cluster, such as tcp://host:8786."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0.1, help="Time for one capture.  [default: no limit]"
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory", metavar="SIZE", help="Memory for one capture, such as 2G.  [default: no limit]"
        ),
    ] = None,
    strategy: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy",
            metavar="NAME",
            help="Strategy to replay; may be given several times.  [default: full addr vm_pgoff linear]",
        ),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Analyse failed captures again.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "--no-resume", help="Analyse all captures again.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="I/N", help="Do every N-th capture only, from the I-th on (from 1)."),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="What to print on stdout.")] = Format.text,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Analyse many captures, each by itself, and say what they tell together.

    Writes a result folder for each capture, captures.parquet and captures.txt (what became of each),
    tables/ and report.html into DIR. The same command again does what is left to do.

    Example: replay batch 'captures/**/*.dat' -o fleet --timeout 600 --memory 4G
    """
    from replay.batch import command as batch_command
    from replay.batch.job import Limits
    from replay.batch.whole import BatchOptions
    from replay.options import AnalyzeOptions
    from schemas.errors import BatchIncomplete

    options = BatchOptions(
        analyze=AnalyzeOptions() if strategy is None else AnalyzeOptions(strategies=tuple(strategy)),
        limits=Limits(timeout, None if memory is None else batch_command.memory_bytes(memory)),
        jobs=jobs,
        force=force,
        retry_failed=retry_failed,
        shard=shard,
    )
    result, facts = batch_command.batch(inputs or [], files_from, output, options, scheduler)
    sys.stderr.write(batch_command.failures(result, most=10))
    if facts is not None:
        emit(batch_command.render(facts, output, format_.value))
    sys.stderr.write(f"wrote {printable(result.manifest)}\n")
    if result.signal is not None:
        sys.stderr.write("stopped by a signal; the same command continues\n")
        raise typer.Exit(128 + result.signal)
    failed = sum(outcome.failed for outcome in result.outcomes)
    if failed:
        raise BatchIncomplete(failed, len(result.outcomes), manifest=result.manifest)


@app.command(epilog=EXIT_CODES)
def fleet(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder (or URL) of a batch.")],
    query: Annotated[
        str | None,
        typer.Option(
            "--query",
            metavar="SQL",
            help="Answer a query over the tables captures, fleet, fleet_miss and fleet_bins.",
        ),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="What to print on stdout.")] = Format.text,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Say what the captures of a batch tell together, or answer a query over its tables.

    Example: replay fleet fleet --query 'SELECT path, missed FROM fleet ORDER BY missed DESC LIMIT 9'
    """
    from replay.batch import command as batch_command

    if query is None:
        emit(batch_command.render(batch_command.read_fleet(folder), folder, format_.value))
    else:
        emit(batch_command.ask_fleet(folder, query, format_.value))


for _command in (cli_results.plot, cli_results.compare, cli_results.export):
    app.command(epilog=EXIT_CODES)(_command)


@app.command(epilog=EXIT_CODES)
def inspect(
    capture: Annotated[
        Path, typer.Argument(metavar="CAPTURE", help="trace.dat or perf.data file, or text of a trace.")
    ],
    ts2secs: Ticks = None,
    format_: Annotated[Format, typer.Option("--format", help="What to print on stdout.")] = Format.text,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Say what is in a capture, and what to record.

    Prints where the capture comes from, every event with its count and time range, what was lost, which
    questions the capture answers and why, and the commands that record what it lacks.

    Example: replay inspect trace.dat
    """
    from replay.inspect import inspect as look_at

    reading(debug=debug)
    emit(_render_inspection(look_at(capture, ts2secs), format_))


app.command(epilog=EXIT_CODES, context_settings={"allow_interspersed_args": False})(cli_record.record)
app.command("testbench", epilog=EXIT_CODES)(cli_record.bench)


@app.command(epilog=EXIT_CODES)
def schema(
    table: Annotated[
        str | None, typer.Argument(metavar="TABLE", help="Table to describe.  [default: list all]")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="What to print on stdout.")] = Format.text,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Describe the tables and their columns.

    Every column has its type, its unit, its meaning, what null means and where it comes from.

    Example: replay schema walk
    """
    from schemas import TABLES, describe

    if table is None:
        chosen, render = TABLES, {Format.text: describe.list_text, Format.md: describe.list_markdown}
    elif table in TABLES:
        chosen, render = {table: TABLES[table]}, {Format.text: describe.text, Format.md: describe.markdown}
    else:
        near = get_close_matches(table, TABLES, n=1)
        raise UsageError(
            f"no table is named {table!r}",
            where="replay schema TABLE",
            hint=f"did you mean {near[0]!r}?" if near else "`replay schema` lists the tables",
        )
    emit({**render, Format.json: describe.as_json}[format_](chosen))


def _render(tables: Mapping[str, pa.Table], format_: Format) -> str:
    """The report of an analysis for stdout, but as text, which is in a file by then."""
    if format_ is Format.json:
        from reports.summary_json import json_summary

        return json_summary(tables)
    from reports.markdown import render_markdown

    return render_markdown(tables)


def _render_inspection(tables: Mapping[str, pa.Table], format_: Format) -> str:
    """What ``inspect`` found, for stdout."""
    if format_ is Format.json:
        from reports.inspection.json import render_json

        return render_json(tables)
    if format_ is Format.md:
        from reports.inspection.markdown import render_markdown

        return render_markdown(tables)
    from reports.inspection.text import render_text

    return render_text(tables)


def main() -> NoReturn:
    """Run the command line; the only place where an error becomes three lines and an exit code."""
    debug = "--debug" in sys.argv[1:]
    # numpy's BLAS starts a thread a CPU, which spin and wait for products of matrices: there are none here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale without UTF-8 is no reason to fail
    try:
        app(prog_name="replay")
    except ReplayError as error:
        sys.exit(report(error, debug=debug))
    except Exception as error:
        sys.exit(report(InternalError(error), debug=debug))
    finally:
        gc.freeze()  # at its end the interpreter would look through everything for cycles: a twentieth
    sys.exit()
