"""What of the event tables belongs together: calls and their returns, faults and the program they are of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping

EXECS: Final = ("execve", "execveat")


def finished_calls(ev_syscall: pl.DataFrame) -> pl.DataFrame:
    """Returns of calls with the arguments of their entry: the event of the same task and name before."""
    calls = ev_syscall.sort("seq")
    before = events_before(calls["pid"])
    exits = calls["is_exit"].to_numpy()
    names = calls["name"].cast(pl.Categorical).to_physical().to_numpy()
    whole = exits & (before >= 0) & ~exits[before] & (names[before] == names)
    kept = np.flatnonzero(whole & calls["ret"].is_not_null().to_numpy())
    arguments = calls.select(pl.col(f"arg{number}").fill_null(0) for number in range(6))
    returns = calls.select("seq", "ts_ns", "pid", "name", "ret")
    return pl.concat([returns[kept], arguments[before[kept]]], how="horizontal")


def events_before(pids: pl.Series) -> np.ndarray[Any, np.dtype[np.int64]]:
    """For each event the row of the one before of the same task; -1: there is none."""
    pid = pids.to_numpy()
    order = np.argsort(pid, kind="stable")
    before = np.full(len(pid), -1)
    follows = pid[order[1:]] == pid[order[:-1]]
    before[order[1:]] = np.where(follows, order[:-1], -1)
    return before


def own_faults(events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The faults of ``ev_fault`` in the address space that their task is known to be in.

    Between the entry of execve() and the exec, the kernel writes to the new program's stack and data: these
    faults are left out.
    """
    execs = events["ev_task"].filter(pl.col("kind") == "exec")
    old = pl.coalesce("old_pid", "pid").alias("pid")
    rows = [
        events["ev_syscall"].select("pid", "seq", starts=pl.col("name").is_in(EXECS) & ~pl.col("is_exit")),
        *(execs.select(who, "seq", starts=pl.lit(False)) for who in (pl.col("pid"), old)),
    ]
    before = pl.concat(rows).sort("seq")
    return (
        events["ev_fault"]
        .sort("seq")
        .join_asof(before, on="seq", by="pid", check_sortedness=False)
        .filter(~pl.col("starts").fill_null(False))
        .drop("starts")
    )
