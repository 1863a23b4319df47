"""Threads that were there before the capture began: whose address space they are in.

Calls and faults of a thread are about the address space of its process. Births tell that of threads that the
capture saw made; of older ones perf's records do (what it found when it began), or the lock of an address
space (``mmap_lock`` events): who takes the same one for writing, in calls that change the caller's own,
shares it. Of a thread that nothing tells of, the model takes the address space for one of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from replay.state.event_pairs import own_locks

if TYPE_CHECKING:
    from collections.abc import Mapping

_BOTH = {"pid": pl.Int32, "thread": pl.Int32}


def older_threads(events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The threads older than the capture that are known to share an address space.

    Args:
        events: Tables ``ev_task``, ``ev_syscall``, ``ev_mmap_lock``, and if there are such ``proc_thread``
            and ``proc_map``.

    Returns:
        ``pid`` (a task of the address space), ``thread`` (another one). Each thread once; no ``pid`` is the
        ``thread`` of a later row.
    """
    told = pl.DataFrame(schema=_BOTH)
    if "proc_thread" in events:
        other = events["proc_thread"].filter(pl.col("pid") != pl.col("tgid"))
        told = other.select(pid="tgid", thread="pid").unique("thread", keep="first", maintain_order=True)
    shared = _by_locks(events, told)
    return pl.concat([shared, told.filter(~pl.col("thread").is_in(shared["thread"].implode()))])


def _by_locks(events: Mapping[str, pl.DataFrame], told: pl.DataFrame) -> pl.DataFrame:
    """What locks tell: ``pid``, the process of a snapshot of maps if there is one; ``thread``.

    A task that was there before has one address space until it executes a program. So all tasks that took its
    lock before they did share it, whatever is at the same address later.
    """
    tasks = events["ev_task"]
    begins = pl.concat(
        [
            tasks.filter(pl.col("kind").is_in(("newtask", "fork"))).select(pid="child_pid", begin="seq"),
            tasks.filter(pl.col("kind") == "exec").select("pid", begin="seq"),
            tasks.filter(pl.col("kind") == "exec").select(pid="old_pid", begin="seq"),
        ]
    )
    first = begins.drop_nulls().group_by("pid").agg(pl.col("begin").min())
    taken = (
        own_locks(events)
        .join(first, on="pid", how="left", maintain_order="left")
        .filter((pl.col("seq") < pl.col("begin")).fill_null(True))
        .join(told, left_on="pid", right_on="thread", how="left", maintain_order="left", suffix="_told")
        .select("pointer", pid=pl.coalesce("pid_told", "pid"))
        .unique()
        .filter(pl.col("pointer").n_unique().over("pid") == 1)
    )
    mapped = events["proc_map"]["pid"].unique() if "proc_map" in events else pl.Series([], dtype=pl.Int32)
    owner = pl.col("pid").sort_by(~pl.col("pid").is_in(mapped.implode()), "pid").first().over("pointer")
    return (
        taken.select(pid=owner, thread="pid")
        .filter(pl.col("pid") != pl.col("thread"))
        .sort("pid", "thread")
        .cast(_BOTH)  # type: ignore[arg-type]
    )
