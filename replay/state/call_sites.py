"""Call sites: what a task was in when something happened, and with what arguments.

Something that a task does belongs to the system call that it has entered and not left. Outside of any call it
is a page fault, if the capture shows calls of that task at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from replay.state.call_arguments import said
from replay.state.event_pairs import entered, entries
from replay.state.names import with_names

if TYPE_CHECKING:
    from collections.abc import Mapping

FAULT: Final = "page_fault"
"""Name of what is done outside any system call: a VMA gets its anon_vma at its first write fault."""

SITE: Final = ("cause_event", "arguments", "pid", "comm", "stack")
"""Columns of a call site."""


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
    calls = events["ev_syscall"]
    faults = events["ev_fault"].select("pid", "seq", fault="seq").sort("seq")
    met = (
        happened.sort("seq")
        .join_asof(
            calls.select("pid", "name", "is_exit", last="seq", entry=entries(calls)),
            left_on="seq",
            right_on="last",
            by="pid",
            coalesce=False,
            check_sortedness=False,
        )
        .join_asof(faults, on="seq", by="pid", check_sortedness=False)
    )
    met = pl.concat([met, entered(calls, met["entry"])], how="horizontal")
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
