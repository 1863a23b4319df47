"""Call sites: what a task was in when something happened, and with what arguments.

Something that a task does belongs to the system call that it has entered and not left. Outside of any call it
is a page fault, if the capture shows calls of that task at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.call_arguments import ARGUMENTS, said
from replay.names import with_names
from replay.order import ordering

if TYPE_CHECKING:
    from collections.abc import Mapping

FAULT: Final = "page_fault"
"""Name of what is done outside any system call: a VMA gets its anon_vma at its first write fault."""

SITE: Final = ("cause_event", "arguments", "pid", "comm", "stack")
"""Columns of a call site."""


def calls(ev_syscall: pl.DataFrame) -> pl.DataFrame:
    """Entries and returns of calls; a return belongs to the entry before it of the same task and call.

    Args:
        ev_syscall: Table ``ev_syscall``, in order of ``seq``.

    Returns:
        ``pid``, ``seq``, ``name``, ``is_exit``, ``entry`` (row of the entry; null: before the capture). Row
        by row as ``ev_syscall``.
    """
    order = ordering(ev_syscall["pid"].to_numpy())
    before = np.zeros(len(order), np.int64)
    before[order[1:]] = order[:-1]
    entry = pl.Series(before)
    last = ev_syscall.select(pl.col("pid", "name", "is_exit").gather(entry))
    same = (last["pid"] == ev_syscall["pid"]) & (last["name"] == ev_syscall["name"]) & ~last["is_exit"]
    row = pl.int_range(pl.len(), dtype=pl.Int64)
    return ev_syscall.select(
        *("pid", "seq", "name", "is_exit"), entry=pl.when(~pl.col("is_exit")).then(row).when(same).then(entry)
    )


def arguments(ev_syscall: pl.DataFrame, entry: pl.Series) -> pl.DataFrame:
    """Place and arguments of the calls that were entered at some rows of ``ev_syscall``; null: null."""
    return ev_syscall.select(pl.col("seq").alias("entered").gather(entry), pl.col(*ARGUMENTS).gather(entry))


def _with_stacks(met: pl.DataFrame, events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """``met`` with ``stack``: the first that is told from ``call`` on, before the task's next call or fault.

    Until then it is in one call, or in one fault, and its user stack is the same. That of a return from
    execve() is the new program's.
    """
    told = events["ev_stack"].drop_nulls("frames").select("pid", at="seq", stack="frames").sort("at")
    if told.is_empty():
        return met.with_columns(stack=pl.lit(None, pl.String))
    faults = events["ev_fault"].filter("is_user").select("pid", next="seq")
    next_ = pl.concat([events["ev_syscall"].select("pid", next="seq"), faults]).sort("next")
    asked = met.select("pid", "call").with_row_index("row").sort("call")
    found = (
        asked.join_asof(
            told,
            left_on="call",
            right_on="at",
            by="pid",
            strategy="forward",
            coalesce=False,
            check_sortedness=False,
        )
        .join_asof(
            next_,
            left_on="call",
            right_on="next",
            by="pid",
            strategy="forward",
            allow_exact_matches=False,
            coalesce=False,
            check_sortedness=False,
        )
        .sort("row")
    )
    own = (found["at"] < found["next"]).fill_null(True)
    replaced = met["cause_event"].str.starts_with("execve") & met["entered"].is_null()
    return met.with_columns(stack=pl.when(own & ~replaced.fill_null(False)).then(found["stack"]))


def sites(
    happened: pl.DataFrame, events: Mapping[str, pl.DataFrame], comms: Mapping[int, str]
) -> pl.DataFrame:
    """The call site of each thing that happened.

    Args:
        happened: ``pid``, ``seq`` (place; that of a call's return belongs to the call), and other columns.
        events: The ``ev_*`` tables.
        comms: Names of tasks by thread id.

    Returns:
        The rows of ``happened`` in order of ``seq``, with the columns ``SITE`` and ``call`` (place of the
        call's entry, of the fault, or of what happened).
    """
    faults = events["ev_fault"].select("pid", "seq", fault="seq").sort("seq")
    met = (
        happened.sort("seq")
        .join_asof(
            calls(events["ev_syscall"]).rename({"seq": "last"}),
            left_on="seq",
            right_on="last",
            by="pid",
            coalesce=False,
            check_sortedness=False,
        )
        .join_asof(faults, on="seq", by="pid", check_sortedness=False)
    )
    met = pl.concat([met, arguments(events["ev_syscall"], met["entry"])], how="horizontal")
    inside = ~pl.col("is_exit") | (pl.col("last") == pl.col("seq"))
    fault = pl.when(pl.col("fault") > pl.col("last")).then("fault")
    return (
        with_names(met, events, comms)
        .with_columns(inside=inside.fill_null(False), arguments=said(met))
        .with_columns(
            cause_event=pl.when("inside").then("name").when(pl.col("name").is_not_null()).then(pl.lit(FAULT)),
            arguments=pl.when("inside").then("arguments"),
            call=pl.when("inside").then(pl.coalesce("entered", "last")).otherwise(pl.coalesce(fault, "seq")),
        )
        .pipe(_with_stacks, events)
        .select(*happened.columns, *(name for name in SITE if name not in happened.columns), "call")
    )
