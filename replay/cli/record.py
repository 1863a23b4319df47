"""The commands that take a capture: ``replay record`` and ``replay testbench``."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from replay.cli.streams import emit
from replay.record.options import Profile, RecordOptions, Tool
from schemas.errors import UsageError, printable

if TYPE_CHECKING:
    from replay.record.run import Recording


class Scenario(StrEnum):
    """Workload of the testbench; each is a function of ``replay.testbench.scenarios``."""

    SPLIT = "split"
    FORK = "fork"
    MREMAP = "mremap"
    HOLES = "holes"
    FILE = "file"
    STACK = "stack"
    RANDOM = "random"
    FAMILY = "family"


def record(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COMMAND]...", help="Record while it runs.  [default: until Ctrl-C]"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The capture.  [default: trace.dat, or perf.data]"
        ),
    ] = None,
    tool: Annotated[Tool, typer.Option("--tool", help="Program that records.")] = Tool.trace_cmd,
    events: Annotated[
        Profile,
        typer.Option(
            "--events",
            help="Events: stock: needs no probes; exact: with the probes that analyze needs; truth: also the "
            "kernel's own counts, for validation: walks take several times longer.",
        ),
    ] = Profile.exact,
    duration: Annotated[
        float | None, typer.Option("--duration", metavar="SECONDS", min=0.1, help="Stop after that time.")
    ] = None,
    buffer: Annotated[int, typer.Option("--buffer", metavar="MIB", min=1, help="Buffer of each CPU.")] = 64,
    btf: Annotated[
        Path | None,
        typer.Option(
            "--btf", metavar="FILE", help="Type information of the kernel.  [default: the running kernel's]"
        ),
    ] = None,
    print_: Annotated[
        bool, typer.Option("--print", help="Print a shell script that does it, for a machine without replay.")
    ] = False,
    clean: Annotated[
        bool, typer.Option("--clean", help="Only remove the probes that a killed recording left.")
    ] = False,
    anon: Annotated[
        bool,
        typer.Option(
            "--anon",
            help="Also walks over ordinary anonymous pages: each page that is migrated, reclaimed or "
            "looked at makes some, so they are many.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing capture.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Take a capture on this machine; needs root.

    Chooses the probes that the running kernel has, records through trace-cmd or perf, takes away again what
    it set up (also when interrupted), and checks that no event was lost.

    Example: replay record -o trace.dat -- ./workload
    """
    from replay.record import run as recording

    default = Path("perf.data" if tool is Tool.perf else "trace.dat")
    options = RecordOptions(
        default if output is None else output,
        tool,
        events,
        duration,
        buffer,
        btf,
        force,
        anon,
        tuple(command or ()),
    )
    if anon and events is Profile.stock:
        raise UsageError(
            "--anon takes probes, and --events stock has none",
            where="replay record --anon --events stock",
            hint="record with --events exact",
        )
    if clean:
        recording.clean_up()
    elif print_:
        emit(recording.portable_script(options))
    else:
        if events is Profile.truth:
            sys.stderr.write("replay: truth probes every iteration: the durations of walks mean nothing\n")
        done = recording.record(options)
        sys.stderr.write(f"recorded {printable(str(done.path))}{_words(done)}\n")
        if done.interrupted:
            raise KeyboardInterrupt


def bench(
    scenario: Annotated[Scenario, typer.Argument(metavar="SCENARIO", help=f"One of {', '.join(Scenario)}.")],
    pages: Annotated[int, typer.Option("--pages", metavar="N", min=16, help="Pages to merge.")] = 20_000,
    contents: Annotated[
        int,
        typer.Option("--contents", metavar="N", min=1, help="Groups of equal pages that they are made of."),
    ] = 1,
    walks: Annotated[
        int, typer.Option("--walks", metavar="N", min=1, help="Pages to migrate in each phase.")
    ] = 4,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of scenario random.")] = 1,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1, help="How long KSM may take to merge.")
    ] = 300.0,
    record: Annotated[
        bool, typer.Option("--record", help="Record it, analyze the capture and print what walks took.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The capture.  [default: testbench-SCENARIO.dat]"
        ),
    ] = None,
    events: Annotated[Profile, typer.Option("--events", help="As of replay record.")] = Profile.exact,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing capture.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Run a workload that makes rmap walks long; needs root.

    Sets KSM up and sets it back, merges pages of equal content, splits, moves, forks or unmaps their VMAs,
    and has merged pages migrated before and after. On a machine of one NUMA node DAMON looks at them instead,
    or, without DAMON, memory is compacted.

    Example: replay testbench split --record
    """
    from replay.testbench.bench import BenchOptions
    from replay.testbench.run import run

    options = BenchOptions(scenario.value, pages, contents, walks, seed, timeout)
    if record:
        from replay.testbench.record import record_and_analyze
        from reports.text import render_text

        path = Path(f"testbench-{scenario.value}.dat") if output is None else output
        durations, tables = record_and_analyze(options, path, events, force=force)
        emit(f"{durations}\n{render_text(tables)}")
    else:
        done = run(options)
        looked_at = f", {done.looked_at} looked at by DAMON" if done.looked_at else ""
        emit(f"{scenario.value}: {done.migrated} pages migrated, {done.refused} not{looked_at}\n")


def _words(done: Recording) -> str:
    """What is worth saying of a recording beside its name."""
    words = (
        ": no event lost"
        if done.walks is None
        else f": {done.walks:,} walks of rmap_walk_ksm(), no event lost"
    )
    if done.walks == 0:
        words += "; something has to migrate or reclaim merged pages meanwhile"
    if done.status and not done.interrupted:
        words += f"; the command ended with status {done.status}"
    grades = "; ".join(f"{grade}: {', '.join(names)}" for grade, names in done.answers.items() if names)
    return f"{words}\n  as replay inspect says, {grades}"
