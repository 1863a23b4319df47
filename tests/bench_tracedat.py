"""Processor time and memory of reading a trace.dat, as ratios to trace-cmd's and libtracecmd's, in one run.

    python -m tests.bench_tracedat [--runs N] [--mib N] [--large-mib N] [CAPTURE...]

Each row is a process of its own, from its start to its end: with the interpreter, imports, and what it takes
to free the memory. Rows of one round run one after the other, so that all meet the same other load; the best
of all rounds counts. Time is processor time (user and system), which other processes disturb least. numpy's
BLAS has one thread, as in `replay`: the others would spin and wait for products of matrices.

    report        trace-cmd report, all events as text, to /dev/null
    report -F     the same of the events that `replay analyze` reads
    C loop        tests/bench_libtracecmd.c: every field of every event, nothing kept
    events        captures.canonical: the events that `replay analyze` reads, as its tables
    all columns   Capture.decode: every field of every event, as Arrow tables
    analyze       `replay analyze`, with its reports

Without CAPTURE: a generated one of --mib mebibytes (tests/grow_tracedat.py). At last one of --large-mib
mebibytes is analysed, for its peak memory alone. trace-cmd and libtracecmd-dev are Debian packages; rows that
need one that is not installed are left out, and say so.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from captures import open_capture
from captures.canonical import syscall_names
from captures.matching import find_roles

HERE = Path(__file__).parent
SAMPLE = HERE.parent / "captures" / "samples" / "split-6.12.dat"
EVENTS = """
import sys
from captures import open_capture
from captures.canonical import canonical_events
with open_capture(sys.argv[1]) as capture:
    tables = canonical_events(capture, bare=("ev_obs_next",))
"""
ALL_COLUMNS = """
import sys
from captures import open_capture
with open_capture(sys.argv[1]) as capture:
    tables = capture.decode(list(capture.formats))
"""
GOALS = {
    ("report", "events"): 10.0,
    ("report -F", "events"): 2.5,
    ("report", "all columns"): 6.0,
    ("C loop", "all columns"): 1.0,
    ("report", "analyze"): 3.0,
}
"""What issue 3 asks for: the time of the first row divided by that of the second."""


def run(command: list[str]) -> tuple[float, int]:
    """Seconds of processor time, and peak resident memory in MiB, of one process."""
    one = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=one)
    assert child.stderr is not None
    messages = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{command}: exit code {child.returncode}\n{messages.decode(errors='replace')}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024


def compiled(folder: Path) -> Path | None:
    """The C loop as a program; None: there is no libtracecmd to compile it with."""
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "libtracecmd"], capture_output=True, text=True
    )
    if flags.returncode:
        return None
    program = folder / "bench_libtracecmd"
    source = HERE / "bench_libtracecmd.c"
    subprocess.run(["cc", "-O2", "-o", program, source, *flags.stdout.split()], check=True)
    return program


def commands(capture: Path, folder: Path) -> dict[str, list[str]]:
    """What to run, by the name of its row."""
    found: dict[str, list[str]] = {}
    if (trace_cmd := shutil.which("trace-cmd")) is not None:
        with open_capture(capture) as opened:
            counts = opened.event_counts()
            read = [*(each.name for each in find_roles(opened)), *syscall_names(opened)]
        named = ",".join(name.replace(":", "/") for name in read if name in counts)
        found["report"] = [trace_cmd, "report", "-i", str(capture)]
        found["report -F"] = [trace_cmd, "report", "-F", named, str(capture)]
    if (program := compiled(folder)) is not None:
        found["C loop"] = [str(program), str(capture)]
    python = [sys.executable, "-P"]
    found["events"] = [*python, "-c", EVENTS, str(capture)]
    found["all columns"] = [*python, "-c", ALL_COLUMNS, str(capture)]
    found["analyze"] = analyze(capture, folder)
    return found


def analyze(capture: Path, folder: Path) -> list[str]:
    out = str(folder / "out")
    return [sys.executable, "-P", "-m", "replay", "analyze", str(capture), "-o", out, "--force"]


def measure(capture: Path, folder: Path, rounds: int) -> None:
    """Print the rows of one capture, and the ratios between them."""
    with open_capture(capture) as opened:
        events = opened.info.events
    print(f"\n{capture.name}: {capture.stat().st_size / 1e6:.0f} MB, {events:,} events")
    rows = commands(capture, folder)
    runs = [{name: run(command) for name, command in rows.items()} for _ in range(rounds)]
    seconds = {name: min(each[name][0] for each in runs) for name in rows}
    print(f"{'':14}{'CPU s':>8}{'M events/s':>12}{'peak MiB':>10}")
    for name, best in seconds.items():
        peak = max(each[name][1] for each in runs)
        print(f"{name:14}{best:8.2f}{events / best / 1e6:12.2f}{peak:10}")
    for (slow, fast), goal in GOALS.items():
        if slow in seconds:
            print(f"{slow + ' / ' + fast:28}{seconds[slow] / seconds[fast]:6.1f}   (goal {goal:.1f})")


def grown(folder: Path, mib: int) -> Path:
    """A generated capture. Made by a process of its own: a child's peak memory counts what its parent had."""
    path = folder / f"generated-{mib}MiB.dat"
    subprocess.run([sys.executable, "-m", "tests.grow_tracedat", SAMPLE, path, str(mib)], check=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="rounds")
    parser.add_argument("--mib", type=int, default=256, metavar="N", help="0: no generated capture")
    parser.add_argument("--large-mib", type=int, default=1024, metavar="N", help="0: no large capture")
    parser.add_argument("captures", nargs="*", type=Path, metavar="CAPTURE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if arguments.mib and not arguments.captures:
            arguments.captures = [grown(folder, arguments.mib)]
        for capture in arguments.captures:
            measure(capture, folder, arguments.runs)
        if not shutil.which("trace-cmd"):
            print("\ntrace-cmd is not installed: no rows of it")
        if not (folder / "bench_libtracecmd").exists():
            print("\nlibtracecmd-dev is not installed: no C loop")
        if arguments.large_mib:
            large = grown(folder, arguments.large_mib)
            seconds, peak = run(analyze(large, folder))
            print(
                f"\n{large.name}: {large.stat().st_size / 1e6:.0f} MB, analyze: {seconds:.1f} s CPU, ", end=""
            )
            print(f"peak {peak} MiB (goal: less than 2048)")


if __name__ == "__main__":
    main()
