"""Time and memory of `replay batch`: parallel efficiency, overhead a capture, putting results together.

Usage: python tests/bench_batch.py [--captures N] [--results N] CAPTURE

Captures are copies of CAPTURE with another host name each (so another hash). Three runs over the same
copies: a plain loop in one process (a tenth of them), a batch with one job, a batch with a job for each CPU.
Results are copies of one result folder with another hash and kernel release each; they are put together in a
process of its own. --captures 0 or --results 0 leaves a part out. CPU times are of all processes of a run:
they tell more than seconds do where others use the machine.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from replay import pipeline
from replay.batch import manifest as batch_manifest
from replay.batch.fleet import collect, open_fleet
from replay.batch.fleet_rows import fleet_rows
from replay.batch.job import Outcome
from replay.batch.store import open_store
from replay.batch.whole import BatchOptions, run_batch
from replay.results import provenance
from reports.fleet.facts import gather
from reports.writer import write_into

KERNELS = 20


def copies(capture: Path, folder: Path, number: int) -> list[Path]:
    """Copies that differ in the host name; sys.exit if its place is not found."""
    content = capture.read_bytes()
    place = content.find(b"Linux ")
    host = content[place + 6 :].partition(b" ")[0]
    if place < 0 or not 4 <= len(host) <= 64:
        sys.exit(f"{capture}: no uname of at least 4 characters of host name")
    paths = []
    for one in range(number):
        path = folder / f"{one:06}.dat"
        name = b"%0*d" % (len(host), one)
        path.write_bytes(content[: place + 6] + name + content[place + 6 + len(host) :])
        paths.append(path)
    return paths


def cpu_seconds() -> float:
    """CPU time of this process and of those that it waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def plain_loop(paths: list[Path], folder: Path) -> tuple[float, float]:
    """Seconds, and CPU seconds, that one process needs for a capture, without a batch, after the first."""
    started, used = 0.0, 0.0
    for number, path in enumerate(paths):
        if number == 1:
            started, used = time.perf_counter(), cpu_seconds()
        tables = pipeline.analyze(path).tables
        tables.update(fleet_rows(tables))
        place = folder / path.stem
        place.mkdir()
        write_into(place, provenance.stamp(tables, ["replay"]), shown=str(place))
    return (time.perf_counter() - started) / (len(paths) - 1), (cpu_seconds() - used) / (len(paths) - 1)


def batch(paths: list[Path], out: Path, jobs: int) -> tuple[float, float]:
    """Seconds, and CPU seconds, of a whole batch without putting the results together."""
    started, used = time.perf_counter(), cpu_seconds()
    result = run_batch([str(path) for path in paths], str(out), BatchOptions(jobs=jobs))
    seconds = time.perf_counter() - started
    failed = [outcome for outcome in result.outcomes if outcome.status != "ok"]
    if failed:
        sys.exit(f"{len(failed)} captures failed, the first: {failed[0]}")
    return seconds, cpu_seconds() - used


def results(capture: Path, out: Path, number: int) -> None:
    """A folder of a batch with so many results, by ``KERNELS`` kernels."""
    tables = pipeline.analyze(capture).tables
    outcomes = []
    for one in range(number):
        row = tables["capture"].to_pylist()[0]
        row |= {"sha256": f"{one:012x}{'0' * 52}", "kernel_release": f"6.{one % KERNELS}.0"}
        tables["capture"] = pa.Table.from_pylist([row], schema=tables["capture"].schema)
        folder = out / f"{one:012x}" / "tables"
        folder.mkdir(parents=True)
        for name, table in fleet_rows(tables).items():
            pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
        outcomes.append(
            Outcome(
                f"host/{one}.dat",
                "ok",
                sha256=row["sha256"],
                result=f"{one:012x}",
                size_bytes=row["size_bytes"],
            )
        )
    work = out / "work"
    work.mkdir()
    batch_manifest.write(outcomes, open_store(str(out)), work)


def put_together(out: Path) -> None:
    """Datasets and facts; prints seconds and peak memory of this process."""
    rows = pq.read_table(out / "captures.parquet").to_pylist()
    outcomes = [Outcome(**row) for row in rows]
    store, work = open_store(str(out)), out / "work"
    started, used = time.perf_counter(), cpu_seconds()
    collect(outcomes, store, work)
    facts = gather(open_fleet(store, work, str(out)))
    seconds = time.perf_counter() - started
    assert facts.captures == len(rows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    took = f"{seconds:.2f} s ({cpu_seconds() - used:.2f} CPU)"
    print(f"put together {len(rows)} results: {took}, peak {peak / 1e6:.0f} MB")


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captures", type=int, default=1000)
    parser.add_argument("--results", type=int, default=10_000)
    parser.add_argument("--put-together", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("capture", nargs="?", type=Path, metavar="CAPTURE")
    arguments = parser.parse_args()
    if arguments.put_together is not None:
        put_together(arguments.put_together)
        return
    cpus = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if arguments.captures:
            (folder / "in").mkdir()
            (folder / "loop").mkdir()
            paths = copies(arguments.capture, folder / "in", arguments.captures)
            size = arguments.capture.stat().st_size / 1e6
            print(f"{len(paths)} captures of {size:.2f} MB, {cpus} cpus", flush=True)
            number = len(paths)
            loop = plain_loop(paths[: max(2, number // 10)], folder / "loop")
            print(f"plain loop: {loop[0] * 1e3:.0f} ms a capture ({loop[1] * 1e3:.0f} CPU)", flush=True)
            one = [figure / number for figure in batch(paths, folder / "one", 1)]
            print(f"1 job: {one[0] * 1e3:.0f} ms a capture ({one[1] * 1e3:.0f} CPU)", flush=True)
            over = [1e3 * (batched - looped) for batched, looped in zip(one, loop, strict=True)]
            print(f"overhead beyond the loop: {over[0]:.0f} ms a capture ({over[1]:.0f} CPU)", flush=True)
            all_ = [figure / number for figure in batch(paths, folder / "all", cpus)]
            print(f"{cpus} jobs: {all_[0] * 1e3:.0f} ms a capture ({all_[1] * 1e3:.0f} CPU)", flush=True)
            print(f"efficiency: {one[0] / all_[0] / cpus:.0%}", flush=True)
            again, used = batch(paths, folder / "all", cpus)
            print(f"the same again, all done: {again:.1f} s ({used:.1f} CPU)", flush=True)
        if arguments.results:
            results(arguments.capture, folder / "out", arguments.results)
            command = [sys.executable, __file__, "--put-together", str(folder / "out")]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
