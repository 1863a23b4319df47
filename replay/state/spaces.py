"""Which task runs in which address space, and which address space was forked from which.

No probe says it in so many words, the tree probes tell it all the same: a task inserts intervals of
its own mm; the one exception is fork, where the parent inserts the child's. A fork shows by itself:
the first interval of a new mm lands on a tree that already holds the same range of another mm
(kernel/fork.c dup_mmap() -> mm/rmap.c anon_vma_fork()); after execve the first interval has a tree
of its own.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from replay.state.order import disjoint, in_order, ordering

CLONE_VM: Final = 0x100
_THREAD_DEPTH: Final = 16
"""Generations of threads made by threads that are followed; nobody nests them deeper."""


def mm_lives(lives: pl.DataFrame) -> pl.DataFrame:
    """Lives of address spaces: a maximal time in which an mm has an interval on any tree.

    A struct mm_struct is used again after its process has gone, so the pointer alone is no name. A VMA that
    grows or shrinks leaves its trees for a moment: where no other of the mm is known, the same task puts the
    same VMA back, and the life goes on (mm/vma.c vma_prepare(), vma_complete()).

    Args:
        lives: Lives of intervals (``lifetimes.avc_lives``).

    Returns:
        ``mm``, ``born``, ``creator`` (the task that inserted the first interval), ``relative``: the mms
        that have the first interval's range on its tree then, longest there first; null: none, so the mm
        was not forked, or was so before the capture began.
    """
    named = lives.filter(pl.col("mm").is_not_null()).select(
        "mm", "born", "died", "vma", "anon_vma", "vm_start", "born_seq", "removed_by", creator="pid"
    )
    keys = [named[name].to_numpy() for name in ("mm", "born", "died")]
    order = ordering(*keys)
    begins = order[disjoint(*(key[order] for key in keys))]
    # Only what was used again has ends before a beginning.
    again = named[begins].select("mm").filter(pl.col("mm").is_duplicated())
    ends = (
        named.select("mm", "died", gone="vma", by="removed_by").join(again, on="mm", how="semi").sort("died")
    )
    heads = (
        named[begins]
        .sort("born")
        .join_asof(ends, left_on="born", right_on="died", by="mm", check_sortedness=False, suffix="_before")
        .filter(((pl.col("gone") != pl.col("vma")) | (pl.col("by") != pl.col("creator"))).fill_null(True))
        .select("mm", "born", "anon_vma", "vm_start", "creator", seen=pl.col("born_seq").is_not_null())
    )
    relatives = (
        heads.filter("seen")
        .join(
            lives.select("anon_vma", "vm_start", relative="mm", since="born", until="died"),
            on=["anon_vma", "vm_start"],
        )
        .filter(
            (pl.col("relative") != pl.col("mm"))
            & (pl.col("since") < pl.col("born"))
            & (pl.col("until") > pl.col("born"))
        )
        .select("mm", "born", "relative", "since", "until")
    )
    candidates = relatives.sort("since", "until", "relative").group_by("mm", "born").agg(pl.col("relative"))
    return heads.join(candidates, on=["mm", "born"], how="left").sort("born")


def task_spaces(heads: pl.DataFrame, ev_avc: pl.DataFrame, ev_task: pl.DataFrame) -> pl.DataFrame:
    """The mm that each task runs in, from when on.

    Args:
        heads: What ``mm_lives`` returns.
        ev_avc: Table ``ev_avc``.
        ev_task: Table ``ev_task``.

    Returns:
        ``pid``, ``seq``, ``mm``: from that place on the task runs in that mm; null: not known, it is a new
        task of that pid. ``birth``: it is one. Sorted by ``seq``.
    """
    is_fork = pl.col("relative").is_not_null()
    forked = heads.filter(is_fork)
    inserts = (
        ev_avc.select("pid", "seq", "mm", "is_insert")
        .filter("is_insert", pl.col("mm").is_not_null())
        .sort("seq")
    )
    # Of a task's insertions in a row the first says it all, unless an address space begins among them.
    begun = np.searchsorted(heads["born"].sort().to_numpy(), inserts["seq"].to_numpy(), side="right")
    inserts = inserts.with_columns(begun=pl.Series(begun, dtype=pl.Int64)).filter(
        pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in ("pid", "mm", "begun"))
    )
    foreign = inserts.drop("begun").join_asof(
        heads.select("mm", creator=pl.when(is_fork).then("creator"), begun="born").sort("begun"),
        left_on="seq",
        right_on="begun",
        by="mm",
        check_sortedness=False,
    )
    own = foreign.filter((pl.col("creator") != pl.col("pid")).fill_null(True)).select("pid", "seq", "mm")
    kind = "newtask" if (ev_task["kind"] == "newtask").any() else "fork"
    births = ev_task.filter((pl.col("kind") == kind) & pl.col("child_pid").is_not_null()).sort("seq")
    marks = births.select(pid="child_pid", seq="seq", mm=pl.lit(None, pl.UInt64))
    told = in_order(pl.concat([own, marks]), "pid", "seq")
    moved = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in ("pid", "mm"))
    own = told.filter(moved & pl.col("mm").is_not_null()).with_columns(birth=pl.lit(False))
    born = (
        births.with_columns(previous=pl.col("seq").shift(1).over("pid").fill_null(-1))
        .join_asof(
            forked.select(child_mm="mm", forked="born", pid="creator").sort("forked"),
            left_on="seq",
            right_on="forked",
            by="pid",
            check_sortedness=False,
        )
        .with_columns(copied=(pl.col("forked") > pl.col("previous")).fill_null(False))
    )
    shares = (pl.col("clone_flags") & CLONE_VM != 0).fill_null(~pl.col("copied"))
    copy = pl.when(pl.col("copied")).then("child_mm")
    row = {"pid": pl.col("child_pid"), "seq": pl.col("seq"), "birth": pl.lit(True)}
    children = born.filter(~shares).select(mm=copy, **row).select(own.columns)
    known = pl.concat([own, children]).sort("seq")
    threads = born.filter(shares).select("pid", "seq", "child_pid")
    told = known
    for _ in range(_THREAD_DEPTH):
        shared = mm_of(threads, told).select(mm="mm", **row).select(own.columns)
        before, told = told, pl.concat([known, shared]).sort("seq")
        if told.equals(before):
            break
    return told


def parents(heads: pl.DataFrame, spaces: pl.DataFrame) -> pl.DataFrame:
    """The mm that each forked mm was copied from: the creator's own, if a relative of the first interval.

    Returns:
        ``mm``, ``born`` (place of the fork), ``parent``. Sorted by ``born``.
    """
    forked = heads.filter(pl.col("relative").is_not_null()).sort("born")
    return (
        forked.join_asof(
            spaces.select(creator="pid", seq="seq", running="mm").sort("seq"),
            left_on="born",
            right_on="seq",
            by="creator",
            check_sortedness=False,
        )
        .with_columns(
            parent=pl.when(pl.col("relative").list.contains(pl.col("running")))
            .then("running")
            .otherwise(pl.col("relative").list.first())
        )
        .select("mm", "born", "parent")
    )


def mm_of(tasks: pl.DataFrame, spaces: pl.DataFrame) -> pl.DataFrame:
    """``tasks`` (with ``pid`` and ``seq``) and the column ``mm`` that the task ran in; null: not known.

    A task of which nothing is known runs, until its first event that tells, in the mm that this event
    tells; but one pid after another may bear the same number.
    """
    now = spaces.select("pid", "seq", now="mm")
    first = spaces.select("pid", "seq", later=pl.when(~pl.col("birth")).then("mm"))
    return (
        tasks.sort("seq")
        .join_asof(now, on="seq", by="pid", check_sortedness=False)
        .join_asof(first, on="seq", by="pid", strategy="forward", check_sortedness=False)
        .with_columns(mm=pl.coalesce("now", "later"))
        .drop("now", "later")
    )
