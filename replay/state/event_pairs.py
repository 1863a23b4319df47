"""What of the event tables belongs together: calls and their returns, faults and the program they are of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from replay.state import kernel as k
from replay.state.call_arguments import ARGUMENTS
from replay.state.order import ordering

if TYPE_CHECKING:
    from collections.abc import Mapping

EXECS: Final = ("execve", "execveat")
CHANGES: Final = (
    *("mmap", "munmap", "mprotect", "pkey_mprotect", "madvise", "mremap", "brk", "mseal"),
    *("mlock", "mlock2", "munlock", "mlockall", "munlockall"),
)
"""Calls that take the lock of their task's address space for writing, and no other's."""


def finished_calls(ev_syscall: pl.DataFrame) -> pl.DataFrame:
    """Returns of calls, with place and arguments of their entry.

    Args:
        ev_syscall: Table ``ev_syscall``, or some of its calls.

    Returns:
        ``seq``, ``ts_ns``, ``pid``, ``name``, ``ret`` (not null), ``entered`` (place of the entry), ``arg0``
        to ``arg5``; in order of ``seq``.
    """
    calls = ev_syscall.sort("seq")
    entry = entries(calls)
    whole = calls["is_exit"] & calls["ret"].is_not_null() & entry.is_not_null()
    returns = calls.select("seq", "ts_ns", "pid", "name", "ret").filter(whole)
    return pl.concat([returns, entered(calls, entry.filter(whole))], how="horizontal")


def entries(calls: pl.DataFrame) -> pl.Series:
    """For each event of calls the row of the entry: of a return, the event of the same task and name before.

    Args:
        calls: Table ``ev_syscall``, in order of ``seq``.

    Returns:
        Rows of ``calls``; null: the entry is not there.
    """
    before = events_before(calls["pid"])
    exits = calls["is_exit"].to_numpy()
    names = calls["name"].cast(pl.Categorical).to_physical().to_numpy()
    paired = (before >= 0) & ~exits[before] & (names[before] == names)
    entry = np.where(exits, np.where(paired, before, -1), np.arange(len(exits)))
    return pl.Series(entry).set(pl.Series(entry < 0), None)


def entered(calls: pl.DataFrame, entry: pl.Series) -> pl.DataFrame:
    """``entered`` (place) and ``arg0`` to ``arg5`` of the entries in some rows of ``calls``; null: null."""
    return calls.select(pl.col("seq").alias("entered").gather(entry), pl.col(*ARGUMENTS).gather(entry))


def events_before(pids: pl.Series) -> np.ndarray[Any, np.dtype[np.int64]]:
    """For each event the row of the one before of the same task; -1: there is none."""
    pid = pids.to_numpy()
    order = ordering(pid)
    before = np.full(len(pid), -1)
    follows = pid[order[1:]] == pid[order[:-1]]
    before[order[1:]] = np.where(follows, order[:-1], -1)
    return before


def calls_in(events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The call that each task is in, from when on: ``pid``, ``seq``, ``call``; null: none. Sorted by seq."""
    calls = events["ev_syscall"]
    return calls.select("pid", "seq", call=pl.when(~pl.col("is_exit")).then("name")).sort("seq")


def own_locks(events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Who took the lock of its own address space, and for which: ``pid``, ``seq``, ``pointer``.

    Those taken for writing inside of calls that take no other's.
    """
    return (
        events["ev_mmap_lock"]
        .filter("is_write")
        .select("pid", "seq", pointer="mm")
        .sort("seq")
        .join_asof(calls_in(events), on="seq", by="pid", check_sortedness=False)
        .filter(pl.col("call").is_in(CHANGES))
    )


def with_segments(calls: pl.DataFrame) -> pl.DataFrame:
    """``calls`` with ``segment_bytes``: of shmat(), the size of the segment; null: the capture does not tell.

    What shmget() makes has the size that it is asked for; what it finds, it does not tell.
    """
    is_new = (pl.col("arg0") == k.IPC_PRIVATE) | (pl.col("arg2") & k.IPC_NEW == k.IPC_NEW)
    made = calls.filter(
        (pl.col("name") == "shmget") & (pl.col("ret") >= 0) & is_new & (pl.col("arg2") & k.SHM_HUGETLB == 0)
    ).select("seq", segment=pl.col("ret").cast(pl.UInt64), segment_bytes="arg1")
    attached = pl.when(pl.col("name") == "shmat").then("arg0").alias("segment")
    return (
        calls.sort("seq")
        .with_columns(attached)
        .join_asof(made.sort("seq"), on="seq", by="segment", check_sortedness=False)
        .drop("segment")
    )


def not_determined(calls: pl.DataFrame, rules: k.Rules) -> dict[str, int]:
    """How many of ``with_segments()`` did something to VMAs that their arguments do not tell, by doubt."""
    call, worked = pl.col("name"), pl.col("ret") >= 0
    changing = [*k.ADVICE, k.MADV_GUARD_INSTALL, k.MADV_POPULATE_WRITE] if rules.advises_itself else []
    asked = {
        "process_madvise": (call == "process_madvise") & pl.col("arg3").is_in(changing),
        "userfaultfd": call == "userfaultfd",
        "mbind_nodes": (call == "mbind") & (pl.col("arg2") != 0) & (pl.col("arg3") != 0),
        "named_vmas": (call == "prctl") & (pl.col("arg0") == k.PR_SET_VMA),
    }
    return calls.select(**{name: (worked & condition).sum() for name, condition in asked.items()}).row(
        0, named=True
    ) | {"shmat_size": calls.filter(worked, call == "shmat")["segment_bytes"].null_count()}


def own_faults(events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The faults of ``ev_fault`` in the address space that their task is known to be in."""
    return faults_apart(events)[0]


def faults_apart(events: Mapping[str, pl.DataFrame]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The faults of ``ev_fault`` in the address space that their task is known to be in; those of execve().

    Between the entry of execve() and the exec, the kernel writes to the new program's data: the second table
    has these writes, at the place and time of the exec.
    """
    execs = events["ev_task"].filter(pl.col("kind") == "exec")
    threads = execs.filter(pl.col("old_pid") != pl.col("pid")).select("seq", "ts_ns", pid="old_pid")
    made = pl.concat(
        [
            execs.select("pid", "seq", "ts_ns", is_exec=True),
            threads.select("pid", "seq", "ts_ns", is_exec=False),  # its address space goes on as another's
        ]
    )
    calls = events["ev_syscall"].select(
        "pid", "seq", "ts_ns", is_exec=False, starts=pl.col("name").is_in(EXECS) & ~pl.col("is_exit")
    )
    # Only tasks that call execve() have faults inside of it: few, where there are many calls.
    calling = pl.col("pid").is_in(calls.filter("starts")["pid"].unique().implode())
    steps = pl.concat([calls, made.with_columns(starts=pl.lit(False))]).filter(calling).sort("seq")
    faults = events["ev_fault"].sort("seq")
    inside = (
        faults.filter(calling)
        .join_asof(steps.select("pid", "seq", "starts"), on="seq", by="pid", check_sortedness=False)
        .filter("starts")
        .drop("starts")
    )
    ended = (
        inside.filter(pl.col("error_code") & k.PF_WRITE != 0)
        .join_asof(
            steps.select("pid", "is_exec", end="seq", end_ts_ns="ts_ns"),
            left_on="seq",
            right_on="end",
            by="pid",
            strategy="forward",
            check_sortedness=False,
            coalesce=False,
        )
        .filter("is_exec")
        .with_columns(seq="end", ts_ns="end_ts_ns")
    )
    own = faults.filter(~pl.col("seq").is_in(inside["seq"].implode()))
    return own, ended.select(own.columns)
