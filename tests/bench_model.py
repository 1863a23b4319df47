"""Speed of the model: operations a second on one core, against its twin, over three sizes, and cold starts.

Usage: python -m tests.bench_model [--vmas N] [--runs N]

One process has many VMAs on one anon_vma, made by mprotect of every other page, and goes on at random:
40 % write faults, 50 % mprotect of one page, 10 % madvise (MERGEABLE, UNMERGEABLE). Times are of the
processor, the best of several runs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from replay.model.ops import operations
from replay.model.rebuild import _pass, reconstruct
from replay.oracle.model import OracleModel
from replay.state.kernel import RULES
from schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE, BASE, PID = 4096, 0x7F00_0000_0000, 7
FAULT, MMAP, MPROTECT, MADVISE = range(4)
NAMES = ("", "mmap", "mprotect", "madvise")
SIZES = (250_000, 500_000, 1_000_000)
TWIN = 20_000


def history(count: int, vmas: int) -> dict[str, pl.DataFrame]:
    """Events of ``count`` operations on one address space of about ``vmas`` VMAs."""
    rng = np.random.default_rng(1)
    split = min(vmas // 2, count // 2)
    rest = count - split - 2
    page = rng.integers(0, 2 * split, rest)
    some = rng.random(rest)
    kind = np.concatenate(
        [
            [MMAP, FAULT],
            np.full(split, MPROTECT),
            np.select([some < 0.4, some < 0.9], [FAULT, MPROTECT], MADVISE),
        ]
    )
    address = BASE + PAGE * np.concatenate([[0, 0], 2 * np.arange(split) + 1, page])
    prot = np.where(page % 2 == 1, 2 * rng.integers(0, 2, rest) + 1, 3)
    third = np.concatenate(
        [[3, 0], np.ones(split, int), np.where(some < 0.9, prot, rng.integers(12, 14, rest))]
    )
    length = np.full(count, PAGE)
    length[0] = 2 * split * PAGE
    seq = 2 * np.arange(count)
    called = kind != FAULT
    names = np.array(NAMES)[kind[called]]
    common = {"cpu": np.zeros(count, np.int32), "pid": np.full(count, PID, np.int32)}
    arguments = {"arg0": address, "arg1": length, "arg2": third, "arg3": np.where(kind == MMAP, 0x32, 0)}
    entries = {"seq": seq, **common, **arguments}
    returns = {"seq": seq + 1, **common, "ret": np.where(kind == MMAP, address, 0)}
    calls = [
        pl.DataFrame({name: column[called] for name, column in each.items()}).with_columns(
            name=pl.Series(names.tolist()), is_exit=pl.lit(is_exit), ts_ns=pl.col("seq") * 100
        )
        for each, is_exit in ((entries, False), (returns, True))
    ]
    faults = pl.DataFrame(
        {
            "seq": seq,
            **common,
            "address": address,
            "error_code": np.full(count, 7),
            "is_user": np.full(count, True),
        }
    )
    return {
        "ev_syscall": _table("ev_syscall", pl.concat(calls, how="diagonal").sort("seq")),
        "ev_fault": _table("ev_fault", faults.filter(~called).with_columns(ts_ns=pl.col("seq") * 100)),
        "ev_task": _table("ev_task", pl.DataFrame()),
    }


def _table(name: str, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with all columns of the table."""
    empty = pl.DataFrame(pl.from_arrow(pa.table(TABLES[name].empty())))
    return pl.concat([empty, rows], how="diagonal_relaxed").select(empty.columns).cast(dict(empty.schema))


def best(work: Callable[[], object], runs: int) -> float:
    """Processor seconds of the best run."""
    seconds = []
    for _ in range(runs):
        begin = time.process_time()
        work()
        seconds.append(time.process_time() - begin)
    return min(seconds)


def cold_start() -> float:
    """Processor seconds that a new process takes to have the machine code and do one operation."""
    code = (
        "import time; from tests.bench_model import history; from replay.model import reconstruct; "
        "events = history(100, 10); begin = time.process_time(); reconstruct(events, '7.3', compiled=True); "
        "print(time.process_time() - begin)"
    )
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)


def main() -> None:
    """Print one line a size, and what they come to."""
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vmas", type=int, default=60_000)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    rules = RULES["7.3"]
    first, second = cold_start(), cold_start()
    print(f"cold start of the machine code: {first:.2f} s, then {second:.2f} s")
    print(f"{'operations':>10} {'VMAs':>7} {'pass_s':>7} {'M_ops/s':>8} {'all_s':>7} {'M_ops/s':>8}")
    for count in SIZES:
        events = history(count, arguments.vmas)
        table, _ = operations(events, rules)
        alone = best(lambda table=table: _pass(table, rules, compiled=True), arguments.runs)  # type: ignore[misc]
        whole = best(lambda events=events: reconstruct(events, "7.3", compiled=True), arguments.runs)  # type: ignore[misc]
        print(
            f"{count:10} {arguments.vmas:7} {alone:7.2f} {count / alone / 1e6:8.2f} "
            f"{whole:7.2f} {count / whole / 1e6:8.2f}"
        )
    events = history(TWIN, arguments.vmas)
    slow = best(lambda: OracleModel(rules).run(events), 1)
    interpreted = best(lambda: reconstruct(events, "7.3", compiled=False), 1)
    fast = best(lambda: reconstruct(events, "7.3", compiled=True), arguments.runs)
    print(
        f"{TWIN} operations: twin {slow:.2f} s, interpreted {interpreted:.2f} s, compiled {fast:.3f} s: "
        f"{slow / fast:.0f} times as fast as its twin"
    )


if __name__ == "__main__":
    main()
