"""Whose the address spaces are that KSM's events name by pointer (see ``ksm.stock``).

An event inside a system call is one of its task, but need not be about the task's own address space: a
pointer is joined only where the kernel can mean no other. ``mmap_lock`` events for reading are about others
too: a task that reclaims memory looks at what they have used. For writing, some calls take the lock of the
task's own address space only (``event_pairs.own_locks``). fork takes the child's too; ksmd, khugepaged and
readers of /proc files are in none of them.

Kernel: mm/mmap.c, mm/madvise.c, mm/mprotect.c, mm/mremap.c, mm/mlock.c; kernel/fork.c dup_mmap(); mm/vmscan.c
walk_mm().
"""

from __future__ import annotations

from errno import EINVAL
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import polars as pl

from replay.state.alive import AliveIndex
from replay.state.event_pairs import EXECS, calls_in, finished_calls, own_locks
from replay.state.families import FORKS
from replay.state.kernel import MADV_MERGEABLE, PR_SET_MEMORY_MERGE
from replay.state.names import BIRTHS
from replay.state.spaces import mm_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_OWN: Final = ("madvise", "prctl")
_SIDES: Final[tuple[Literal["backward", "forward"], ...]] = ("backward", "forward")


def address_spaces(
    items: pl.DataFrame, events: Mapping[str, pl.DataFrame], spaces: pl.DataFrame, lives: pl.DataFrame
) -> pl.Series:
    """The modelled address space of each rmap_item; null: no event that carries its mm tells whose it is.

    Args:
        items: ``nodes``.
        events: The ``ev_*`` tables.
        spaces: ``modelled_spaces``.
        lives: Lives of modelled intervals.
    """
    rows = (
        items.select("mm", "born")
        .with_row_index("row")
        .sort("born")
        .join_asof(_enters(events), left_on="born", right_on="entered", by="mm", check_sortedness=False)
    )
    rows = rows.join_asof(
        _ends(events),
        left_on="born",
        right_on="ended",
        by="mm",
        strategy="forward",
        check_sortedness=False,
    )
    entered, last = pl.col("task").is_not_null(), _lifetimes(lives).rename({"until": "over"})
    told = rows.select(
        "row",
        "ended",
        pid=pl.coalesce("task", "last_task"),
        seq=pl.when(entered).then(pl.max_horizontal("born", "at")).otherwise(pl.coalesce("left", "ended")),
        left=pl.when(~entered).then("left"),
    )
    # Of a task that has exited before, it was its own only if nobody else was in that.
    own = pl.col("left").is_null() | (pl.col("over") <= pl.col("ended")).fill_null(False)
    entered_or_left = mm_of(told, spaces).join(last, on="mm", how="left")
    locked = _locked(items, events, spaces, lives)
    return (
        entered_or_left.select("row", mm=pl.when(own).then("mm"))
        .join(locked, on="row", how="left")
        .sort("row")
        .select(pl.coalesce("mm", "locked").alias("mm"))["mm"]
    )


def _lifetimes(lives: pl.DataFrame) -> pl.DataFrame:
    """From where to where each address space (``mm``) had intervals on trees: ``since``, ``until``."""
    return lives.group_by("mm").agg(since=pl.col("born").min(), until=pl.col("died").max())


def _locked(
    items: pl.DataFrame, events: Mapping[str, pl.DataFrame], spaces: pl.DataFrame, lives: pl.DataFrame
) -> pl.DataFrame:
    """The address space (``locked``) of each rmap_item (``row``) by who took its lock, where that tells it.

    A pointer is used again once its address space is gone: what took the lock last before the merge, or first
    after it, tells only if its address space was there all the time from one to the other.
    """
    taken = mm_of(own_locks(events), spaces).drop_nulls("mm").join(_lifetimes(lives), on="mm").sort("seq")
    asked = items.select("born", pointer="mm").with_row_index("row").sort("born")
    columns = taken.select("pointer", "seq", "since", "until", locked="mm")
    before, after = (
        asked.join_asof(
            columns, left_on="born", right_on="seq", by="pointer", strategy=strategy, check_sortedness=False
        )
        for strategy in _SIDES
    )
    before, after = (
        before.filter(pl.col("until") > pl.col("born")),
        after.filter(pl.col("since") <= pl.col("born")),
    )
    return pl.concat([before, after]).select("row", "locked").unique("row", keep="first", maintain_order=True)


def followed(
    events: Mapping[str, pl.DataFrame], spaces: pl.DataFrame, forks: pl.DataFrame, versions: pl.DataFrame
) -> pl.Series:
    """The modelled address spaces all of whose MERGEABLE VMAs the model has.

    An address space is put on ksmd's list when its first VMA becomes MERGEABLE: where madvise() did that,
    there was none before. From then on each such call must have been over VMAs that the model has; where it
    met a hole (ENOMEM), over a range in which the model had VMAs all over at some time, so that it knows what
    became of them. A fork copies what its parent has; PR_SET_MEMORY_MERGE takes VMAs that exec made, which
    the model does not have.

    Args:
        events: The ``ev_*`` tables.
        spaces: ``modelled_spaces``.
        forks: ``spaces.parents``.
        versions: Versions of VMAs with ``born`` and ``died``.
    """
    enters = _enters(events).filter(pl.col("call") == "madvise")
    begun = mm_of(enters.select(pid="task", seq="at"), spaces)["mm"]
    calls = mm_of(finished_calls(events["ev_syscall"]), spaces)
    name = pl.col("name")
    prctl = (name == "prctl") & (pl.col("arg0") == PR_SET_MEMORY_MERGE) & (pl.col("arg1") != 0)
    advised = calls.filter(
        (name == "madvise") & (pl.col("arg2") == MADV_MERGEABLE) & (pl.col("ret") != -EINVAL)
    )
    held = _covered(advised, versions) | ((advised["ret"] != 0) & _familiar(advised, versions, forks))
    elsewhere = pl.concat([calls.filter(prctl)["mm"], advised.filter(~held)["mm"]])
    known = begun.filter(~begun.is_in(elsewhere.implode()))
    while True:
        children = forks.filter(
            pl.col("parent").is_in(known.implode()) & ~pl.col("mm").is_in(known.implode())
        )
        children = children.filter(~pl.col("mm").is_in(elsewhere.implode()))
        if children.is_empty():
            return known.drop_nulls().unique()
        known = pl.concat([known, children["mm"]])


def _covered(calls: pl.DataFrame, versions: pl.DataFrame) -> pl.Series:
    """Whether the model has VMAs all over the range of each call, after it."""
    codes = versions.select(pl.col("mm").unique().sort()).with_row_index("code")
    code, of_call = (
        frame.join(codes, on="mm", how="left", maintain_order="left")["code"]
        .fill_null(0)
        .cast(pl.Int64)
        .to_numpy()
        for frame in (versions, calls)
    )
    begins, life = versions["vm_start"].to_numpy(), (versions["born"].to_numpy(), versions["died"].to_numpy())
    index = AliveIndex(code, begins, *life, len(codes) + 1)
    start, at = calls["arg0"].to_numpy(), calls["seq"].to_numpy()
    end = start + calls["arg1"].to_numpy()
    # Of those that begin before the range, the last one may reach into it.
    first = np.maximum(index.alive_below(of_call, at, index.ranks_below(of_call, start)) - 1, 0)
    count = np.maximum(index.alive_below(of_call, at, index.ranks_below(of_call, end)) - first, 0)
    call = np.repeat(np.arange(len(calls)), count)
    nth = first[call] + np.arange(len(call)) - np.repeat(np.cumsum(count) - count, count)
    vma = index.nth_alive(of_call[call], at[call], nth)
    low, high = (
        np.maximum(begins[vma], start[call]),
        np.minimum(versions["vm_end"].to_numpy()[vma], end[call]),
    )
    held = np.zeros(len(calls), np.uint64)
    np.add.at(held, call, np.where(high > low, high - low, 0))
    return pl.Series(held >= end - start)


def _familiar(calls: pl.DataFrame, versions: pl.DataFrame, forks: pl.DataFrame) -> pl.Series:
    """Whether the model has had VMAs all over the range of each call, in its process or a relative."""
    root = pl.concat([versions["mm"], calls["mm"]]).unique().to_frame().with_columns(root="mm")
    links = forks.select(root="mm", parent="parent")
    while True:
        up = root.join(links, on="root", how="left").select("mm", root=pl.coalesce("parent", "root"))
        if up.sort("mm").equals(root.sort("mm")):
            break
        root = up
    ranges = (
        versions.join(root, on="mm")
        .sort("root", "vm_start")
        .with_columns(far=pl.col("vm_end").cum_max().over("root"))
        .with_columns(apart=(pl.col("vm_start") > pl.col("far").shift(1).over("root")).fill_null(True))
        .with_columns(range=pl.col("apart").cum_sum())
        .group_by("root", "range")
        .agg(pl.col("vm_start").min(), pl.col("vm_end").max())
        .sort("vm_start")
    )
    return (
        calls.join(root, on="mm", how="left", maintain_order="left")
        .with_row_index("row")
        .sort("arg0")
        .join_asof(ranges, left_on="arg0", right_on="vm_start", by="root", check_sortedness=False)
        .sort("row")
        .select((pl.col("arg0") + pl.col("arg1") <= pl.col("vm_end")).fill_null(False))
        .to_series()
    )


def _enters(events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Address spaces put on ksmd's list: ``mm``, ``entered``, ``call``; of ``task`` from ``at`` on."""
    tasks = events["ev_task"].sort("seq")
    born = tasks.filter(pl.col("kind").is_in(BIRTHS)).select("pid", "child_pid", born="seq")
    execs = tasks.filter(pl.col("kind") == "exec").select("pid", exec="seq")
    return (
        events["ev_ksm_enter"]
        .select("mm", "pid", "seq")
        .sort("seq")
        .join_asof(calls_in(events), on="seq", by="pid", check_sortedness=False)
        .join_asof(born, left_on="seq", right_on="born", by="pid", strategy="forward", check_sortedness=False)
        .join_asof(
            execs, left_on="seq", right_on="exec", by="pid", strategy="forward", check_sortedness=False
        )
        .with_columns(
            task=pl.when(pl.col("call").is_in(FORKS))
            .then("child_pid")
            .when(pl.col("call").is_in((*_OWN, *EXECS)))
            .then("pid"),
            at=pl.when(pl.col("call").is_in(FORKS))
            .then("born")
            .when(pl.col("call").is_in(EXECS))
            .then("exec")
            .otherwise("seq"),
        )
        .select("mm", "task", "at", "call", entered="seq")
    )


def _ends(events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Ends of address spaces: ``mm``, ``ended``; ``last_task`` whose own it was, null: not known.

    A task drops its own when it executes a program or exits. The event of its exit comes after that on 6.12,
    before it on 7.3: ``left`` is its place then, and another task may have been in it still.
    """
    calls = calls_in(events)
    tasks = events["ev_task"].sort("seq")
    exits = tasks.filter(pl.col("kind") == "exit").select("pid", exit="seq")
    births = tasks.filter(pl.col("kind").is_in(BIRTHS))
    births = births.select(pid="child_pid", birth="seq").drop_nulls()
    entries = calls.drop_nulls("call").select("pid", entry="seq")
    rows = events["ev_exit_mmap"].select("mm", "pid", ended="seq").sort("ended")
    for frame, at, strategy in (
        (calls, "seq", _SIDES[0]),
        (exits.rename({"exit": "left"}), "left", _SIDES[0]),
        (births, "birth", _SIDES[0]),
        (exits, "exit", _SIDES[1]),
        (entries, "entry", _SIDES[1]),
    ):
        rows = rows.join_asof(
            frame,
            left_on="ended",
            right_on=at,
            by="pid",
            strategy=strategy,
            check_sortedness=False,
            coalesce=False,
        )
    exits_next = pl.col("exit").is_not_null() & (pl.col("entry") > pl.col("exit")).fill_null(True)
    before = pl.col("call").is_in(EXECS).fill_null(False) | exits_next
    first = (pl.col("ended").shift(1).over("pid") < pl.col("left")).fill_null(True)
    after = pl.col("left").is_not_null() & (pl.col("birth") < pl.col("left")).fill_null(True) & first
    return rows.select(
        "mm",
        "ended",
        last_task=pl.when(before | after).then("pid"),
        left=pl.when(after & ~before).then("left"),
    )
