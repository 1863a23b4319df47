"""Snapshots of process maps, and the kernel's records -> operations that tell the model which VMAs there are.

A snapshot is taken behind the last event that happened before it was read. What it does not tell stays
unknown: page offsets of anonymous memory (it may have been moved), of private file mappings the anonymous
one, flags besides the protection (smaps tell them), and whether there is an anon_vma, unless there are
anonymous pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from replay.model.kinds import OP_TELL, OP_TELL_GAP
from replay.model.recorded import recorded
from replay.state import kernel as k

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_FILES: Final = k.MAX_FD + 2
"""Numbers of files from here on: no file descriptor has them."""
_EVENTS: Final = ("ev_syscall", "ev_task", "ev_fault", "ev_marker")
_TOP_PAGE: Final = (1 << 44) - 1


def told_maps(
    events: Mapping[str, pl.DataFrame], followed: Collection[str]
) -> tuple[list[pl.DataFrame], int]:
    """Operations of all snapshots in ``proc_map``, gaps before VMAs, by address; and of the records.

    Args:
        events: The event tables and ``proc_map``.
        followed: System calls that the model follows.

    Returns:
        The operations, with the columns of ``model.ops.operations``; how many snapshots are left out because
        the process was in a system call, or made one, while it was read.
    """
    every = (
        _placed(events).filter(pl.col("vm_start") // k.PAGE_BYTES <= _TOP_PAGE).sort("snapshot", "vm_start")
    )
    lines = every.filter(~pl.col("is_record"))
    calls = events["ev_syscall"].select("pid", ts="ts_ns")
    spans = lines.select("snapshot", "pid", "begin_ns", "end_ns").unique("snapshot").drop_nulls()
    torn = (
        spans.join(calls, on="pid").filter(pl.col("ts").is_between("begin_ns", "end_ns"))["snapshot"].unique()
    )
    lines = lines.filter(~pl.col("snapshot").is_in(torn.to_list())).with_columns(is_new=pl.lit(False))
    lines = pl.concat([lines, recorded(every.filter("is_record"), events, followed)])
    page = {name: (pl.col(name) // k.PAGE_BYTES).cast(pl.Int64) for name in ("vm_start", "vm_end")}
    before = page["vm_end"].shift(1).over("snapshot").fill_null(0)
    after = page["vm_start"].shift(-1).over("snapshot").is_null()
    common = {
        "seq": pl.col("place"),
        "ts_ns": pl.col("end_ns").fill_null(pl.lit(_first(events), pl.Int64)),
        "pid": pl.col("pid"),
        "snapshot": pl.col("snapshot"),
        "is_record": pl.col("is_record"),
        "cause": pl.lit("maps").cast(pl.Categorical),
    }
    zero = pl.lit(0, pl.Int64)
    whole = lines.with_columns(before=before, start=page["vm_start"], end=page["vm_end"], last=after)
    gaps = whole.filter("is_whole")
    ops = [
        whole.select(
            **common,
            kind=pl.lit(OP_TELL, pl.Int64),
            a="start",
            b="end",
            c=_flags() | _unknown(),
            d=pl.when(pl.col("file").is_null())
            .then(0)
            .otherwise(pl.col("file").rank("dense").cast(pl.Int64) + _FILES),
            e=pl.col("pgoff").cast(pl.Int64).fill_null(pl.col("start")),
        ),
        gaps.filter(pl.col("before") < pl.col("start")).select(
            **common, kind=pl.lit(OP_TELL_GAP, pl.Int64), a="before", b="start", c=zero, d=zero, e=zero
        ),
        gaps.filter("last").select(
            **common, kind=pl.lit(OP_TELL_GAP, pl.Int64), a="end", b=pl.lit(_TOP_PAGE), c=zero, d=zero, e=zero
        ),
    ]
    # What execve() mapped is at its place, and was there when a snapshot was read behind it.
    ordered = pl.concat(ops).sort("seq", "pid", ~pl.col("is_record"), "snapshot", "a")
    return [ordered.drop("snapshot", "is_record")], len(torn)


def _flags() -> pl.Expr:
    """vm_flags, as far as they are told; what is assumed of the rest serves merging only."""
    shared, stack = pl.col("is_shared").fill_null(False), pl.col("name").fill_null("") == "[stack]"
    prot = pl.col("prot").fill_null(k.VM_READ | k.VM_WRITE)  # so that a write fault is believed
    charged = ~shared & (prot & k.VM_WRITE != 0)
    assumed = (
        prot.cast(pl.Int64)
        | k.VM_MAY
        | pl.when(shared).then(k.VM_SHARED | k.VM_MAYSHARE).otherwise(0)
        | pl.when(stack).then(k.VM_GROWSDOWN).otherwise(0)
        | pl.when(charged).then(k.VM_ACCOUNT).otherwise(0)
    )
    return pl.coalesce(pl.col("vm_flags").cast(pl.Int64), assumed)


def _unknown() -> pl.Expr:
    """Bits ``TOLD_*`` in their place. execve() writes the arguments to the stack: it has an anon_vma."""
    untold, shared = pl.col("pgoff").is_null(), pl.col("is_shared").fill_null(False)
    follows = shared | pl.col("is_new") | (pl.col("file").is_null() & ~untold)
    faulted = pl.col("is_faulted").fill_null(False) | (pl.col("name").fill_null("") == "[stack]")
    bits: pl.Expr = (
        pl.when(untold).then(k.TOLD_PGOFF).otherwise(0)
        | pl.when(follows).then(0).otherwise(k.TOLD_ANON_PGOFF)
        | pl.when(pl.col("vm_flags").is_null()).then(k.TOLD_FLAGS).otherwise(0)
        | pl.when(faulted & ~shared).then(k.TOLD_FAULTED).otherwise(0)
    ).cast(pl.Int64)
    return bits * (1 << k.TOLD_SHIFT)


def _placed(events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """``proc_map`` with all places; a snapshot from before the first event holds when the capture began."""
    order = pl.concat(events[name].select("ts_ns", found="seq") for name in _EVENTS).sort("found")
    lines = events["proc_map"].with_row_index("row").sort("end_ns")
    found = lines.join_asof(
        order.sort("ts_ns", "found"), left_on="end_ns", right_on="ts_ns", check_sortedness=False
    )
    return (
        found.with_columns(place=pl.coalesce("place", "found", pl.lit(-1, pl.Int64))).sort("row").drop("row")
    )


def _first(events: Mapping[str, pl.DataFrame]) -> int:
    """Time of the first event."""
    times = [events[name]["ts_ns"].min() for name in _EVENTS]
    known = [int(time) for time in times if isinstance(time, int)]
    return min(known, default=0)
