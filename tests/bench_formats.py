"""Processor time of reading perf.data and text, beside perf script, in one run.

    python -m tests.bench_formats [--runs N] [--mib N] [--text-mib N]

Each row is a process of its own, from its start to its end (see bench_tracedat); the best of all rounds
counts.

    perf script   all samples as text, to /dev/null
    all columns   Capture.decode: every field of every event, as Arrow tables
    text          captures.canonical: the events that `replay analyze` reads, from trace-cmd's text

The captures are grown from those of the tests. Rows that need a tool that is not installed are left out.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from captures import open_capture
from tests.bench_tracedat import ALL_COLUMNS, EVENTS, SAMPLE, run

HERE = Path(__file__).parent
PERF = HERE / "data" / "perf" / "triple.perf.data.xz"
PERF_GOAL = 4.0
TEXT_GOAL = 0.4


def best(command: list[str], rounds: int) -> float:
    """Least seconds of processor time of several runs."""
    return min(run(command)[0] for _ in range(rounds))


def perf_data(folder: Path, mib: int, rounds: int) -> None:
    """Print the rows of a perf.data."""
    path = folder / "grown.data"
    subprocess.run([sys.executable, "-m", "tests.grow_perf", PERF, path, str(mib)], check=True)
    with open_capture(path) as capture:
        events = capture.info.events
    print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, {events:,} events")
    ours = best([sys.executable, "-P", "-c", ALL_COLUMNS, str(path)], rounds)
    print(f"all columns   {ours:8.2f} CPU s")
    if (perf := shutil.which("perf")) is None:
        print("perf is not installed: no row of it")
        return
    theirs = best([perf, "script", "-i", str(path)], rounds)
    print(f"perf script   {theirs:8.2f} CPU s")
    print(f"perf script / all columns   {theirs / ours:6.1f}   (goal {PERF_GOAL:.1f})")


def text(folder: Path, mib: int, rounds: int) -> None:
    """Print the rows of a text."""
    if (trace_cmd := shutil.which("trace-cmd")) is None:
        print("trace-cmd is not installed: no text")
        return
    binary, path = folder / "grown.dat", folder / "grown.txt"
    subprocess.run([sys.executable, "-m", "tests.grow_tracedat", SAMPLE, binary, str(mib)], check=True)
    with path.open("wb") as file:
        subprocess.run([trace_cmd, "report", "-i", binary], stdout=file, check=True)
    with path.open("rb") as file:
        lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, {lines:,} lines")
    seconds = best([sys.executable, "-P", "-c", EVENTS, str(path)], rounds)
    rate = lines / seconds / 1e6
    print(f"text          {seconds:8.2f} CPU s   {rate:.2f} M lines/s of processor time (goal {TEXT_GOAL})")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="rounds")
    parser.add_argument("--mib", type=int, default=512, metavar="N", help="size of the perf.data")
    parser.add_argument("--text-mib", type=int, default=128, metavar="N", help="of the trace.dat made text")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        perf_data(Path(scratch), arguments.mib, arguments.runs)
        text(Path(scratch), arguments.text_mib, arguments.runs)


if __name__ == "__main__":
    main()
