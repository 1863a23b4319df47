"""Time and memory of `replay analyze`: one line a capture, best of several runs, each in its own process.

Usage: python tests/bench.py [--runs N] CAPTURE...
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq


def run(capture: Path, out: Path) -> tuple[float, int]:
    """Analyze once: seconds of wall clock, and peak resident memory in bytes."""
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "replay", "analyze", str(capture), "-o", str(out), "--force"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert child.stderr is not None
    messages = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{capture}: exit code {child.returncode}\n{messages.decode(errors='replace')}")
    return seconds, usage.ru_maxrss * 1024


def main() -> None:
    """Print a table of all captures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("captures", nargs="+", type=Path, metavar="CAPTURE")
    arguments = parser.parse_args()
    print(f"{'capture':<32} {'MB':>8} {'events':>10} {'best_s':>8} {'events/s':>10} {'peak_MB':>8}")
    for capture in arguments.captures:
        with tempfile.TemporaryDirectory() as scratch:
            runs = [run(capture, Path(scratch) / "out") for _ in range(arguments.runs)]
            events = pq.read_table(Path(scratch) / "out/tables/capture.parquet")["events"][0].as_py()
        best = min(seconds for seconds, _ in runs)
        peak = max(memory for _, memory in runs)
        print(
            f"{capture.name:<32} {capture.stat().st_size / 1e6:8.1f} {events:10} {best:8.2f} "
            f"{events / best:10.0f} {peak / 1e6:8.0f}"
        )


if __name__ == "__main__":
    main()
