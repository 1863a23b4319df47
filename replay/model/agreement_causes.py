"""Why modelled trees differ from probed ones: changes that no stock event shows, each by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from replay.state.kernel import PF_WRITE

if TYPE_CHECKING:
    from collections.abc import Mapping

CAUSES: Final = {
    "events_lost": "the capture lost events; what they did is not known",
    "faults_not_recorded": "the capture has no page faults, which give VMAs their anon_vma",
    "call_not_over": "the capture ends before the call or the exit that makes the change is over",
    "call_begun_before": "the call that made the change was entered before the capture began",
    "process_madvise": "process_madvise changed VMAs; their ranges are in the memory of the caller",
    "huge_page_read_fault": "a read fault gave the VMA its anon_vma: it was tried with a huge page",
    "kernel_faults_not_recorded": "the kernel wrote to the task's pages, and the capture lacks "
    "exceptions:page_fault_kernel, which shows most of such writes",
    "no_event": "the task made the change outside of all recorded calls and faults (the kernel wrote to its "
    "pages: O_DIRECT, process_vm_writev, userfaultfd)",
    "unexplained": "no cause is known",
}
"""Names of causes and what they mean."""

NEVER: Final = (1 << 63) - 1
"""Place of a death that the capture does not show."""
UNTOLD_CALLS: Final = ("process_madvise",)
"""Calls whose arguments do not tell what they change."""
IN_CALL: Final = ("enter", "newtask", "fork")
"""Boundaries of ``agreement.boundaries`` behind which a task is inside of a call."""


def unseen(changes: pl.DataFrame, events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The probed changes that stock events do not show, with the cause.

    Args:
        changes: ``ev_avc`` with ``place``, and ``after``, ``until``: the boundary events of the task around
            it; null: there is none.
        events: Tables ``ev_fault`` and ``ev_syscall``.

    Returns:
        ``anon_vma``, ``vm_start``, ``vm_end``, ``place``, ``cause``.
    """
    faults = events["ev_fault"]
    known = faults.select("pid", "address", "error_code", fault="seq").sort("fault")
    calls = events["ev_syscall"].select("pid", call="name", called="seq").sort("called")
    near = (
        changes.sort("seq")
        .join_asof(known, left_on="seq", right_on="fault", by="pid", check_sortedness=False, coalesce=False)
        .join_asof(calls, left_on="seq", right_on="called", by="pid", check_sortedness=False)
    )
    inside = (
        pl.col("address").is_between(pl.col("vm_start"), pl.col("vm_end"), closed="left").fill_null(False)
    )
    in_fault = (pl.col("after") == "fault") & inside
    in_call = pl.col("after").is_in(IN_CALL)
    read = in_fault & (pl.col("error_code") & PF_WRITE == 0)
    unseen_write = "no_event" if (~faults["is_user"]).any() else "kernel_faults_not_recorded"
    cause = (
        pl.when(in_call & pl.col("until").is_null())
        .then(pl.lit("call_not_over"))
        .when(pl.col("after").is_null() & (pl.col("until") == "leave"))
        .then(pl.lit("call_begun_before"))
        .when((pl.col("after") == "enter") & pl.col("call").is_in(UNTOLD_CALLS))
        .then("call")
        .when(pl.col("is_insert") & read)
        .then(pl.lit("huge_page_read_fault"))
        .when(~in_call & ~in_fault & (pl.col("until") != "exit").fill_null(True))
        .then(pl.lit(unseen_write))
    )
    return (
        near.with_columns(cause=cause)
        .drop_nulls("cause")
        .select("anon_vma", "vm_start", "vm_end", "place", "cause")
        .unique(["anon_vma", "vm_start", "vm_end", "place"], keep="first", maintain_order=True)
    )


def explained(
    differences: pl.DataFrame, causes: pl.DataFrame, events: Mapping[str, pl.DataFrame], *, events_lost: bool
) -> pl.DataFrame:
    """``differences`` with ``cause``; what follows on the same tree has the cause of what came first.

    Args:
        differences: ``tree``, ``anon_vma``, ``vm_start``, ``vm_end``, ``surplus``, ``since``, ``until``.
        causes: What ``unseen`` returns.
        events: The ``ev_*`` tables.
        events_lost: The capture lost events: then no difference can be laid on the model.
    """
    if events_lost or events["ev_fault"].is_empty():
        name = "events_lost" if events_lost else "faults_not_recorded"
        return differences.with_columns(cause=pl.lit(name))
    exits = events["ev_task"].filter(pl.col("kind") == "exit")["seq"].to_list()
    exiting = pl.col("since").is_in(exits) & (pl.col("surplus") > 0) & (pl.col("until") == NEVER)
    return (
        differences.join(
            causes.rename({"place": "since"}),
            on=["anon_vma", "vm_start", "vm_end", "since"],
            how="left",
            maintain_order="left",
        )
        .with_columns(pl.coalesce("cause", pl.when(exiting).then(pl.lit("call_not_over"))))
        .sort("tree", "since", "cause", nulls_last=True)
        .with_columns(pl.col("cause").forward_fill().over("tree").fill_null("unexplained"))
    )
