"""What of the event tables belongs together: calls and their returns, faults and the program they are of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from replay.call_arguments import ARGUMENTS
from replay.order import ordering

if TYPE_CHECKING:
    from collections.abc import Mapping

EXECS: Final = ("execve", "execveat")


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
