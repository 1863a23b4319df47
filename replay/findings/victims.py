"""Who waited behind the walks: contended locks of anon_vma families, and what ran meanwhile.

A walk holds the lock of the root anon_vma for reading, loop by loop; faults, forks, splits, merges and
exits of the whole family need it for writing. ``lock:contention_*`` tells the lock's address, which is
the root anon_vma and the offset of its rwsem; the offset is the one that makes most contended locks
known anon_vmas.

Kernel: include/linux/rmap.h struct anon_vma, anon_vma_lock_write(); kernel/locking/rwsem.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from replay.state.call_sites import FAULT
from replay.state.names import with_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replay.walks.exact import Exact

_READ_OR_WRITE: Final = 6
_WRITE: Final = 4
_FARTHEST_OFFSET: Final = 128
"""struct anon_vma is smaller than that."""


def waits(
    exact: Exact, families: pl.DataFrame, events: Mapping[str, pl.DataFrame], comms: Mapping[int, str]
) -> pl.DataFrame:
    """Table ``wait``; empty where the capture has no lock events, or none of a known anon_vma.

    Args:
        exact: State and walks.
        families: ``families.roots`` of its intervals.
        events: The ``ev_*`` tables.
        comms: Names of tasks by thread id.
    """
    locks = events["ev_lock"].sort("pid", "seq")
    same = pl.col("pid") == pl.col("pid").shift(-1)
    paired = locks.with_columns(
        end_ns=pl.when(same & pl.col("is_end").shift(-1) & (pl.col("lock") == pl.col("lock").shift(-1))).then(
            pl.col("ts_ns").shift(-1)
        )
    ).filter(~pl.col("is_end") & (pl.col("lock_flags") & _READ_OR_WRITE != 0))
    known = families.select(pl.col("root").unique())
    offset = _offset(paired, known)
    calls = events["ev_syscall"].select("pid", "seq", "name", "is_exit").sort("seq")
    inside = pl.when(pl.col("is_exit")).then(pl.lit(FAULT)).when(pl.col("name").is_not_null()).then("name")
    rows = (
        paired.with_columns(root=pl.col("lock") - offset)
        .join(known, on="root", how="semi")
        .sort("seq")
        .join_asof(calls, on="seq", by="pid", check_sortedness=False)
        .with_columns(doing=inside, is_write=pl.col("lock_flags") & _WRITE != 0)
        .with_row_index("wait")
    )
    held = _behind(rows, exact, families)
    return (
        with_names(rows, events, comms)
        .join(held, on="wait", how="left", maintain_order="left")
        .with_columns(pl.col("behind_walks_ns").fill_null(0))
        .select(
            *("ts_ns", "end_ns", "cpu", "pid", "comm", "is_write", "root", "doing"),
            *("walk_id", "behind_walks_ns"),
        )
    )


def lost(wait: pl.DataFrame, walk: pl.DataFrame) -> pl.DataFrame:
    """Table ``lost``: one row for observed, one for each strategy; empty where nobody waited.

    A wait is as long as its walks hold the lock: its part behind walks is taken to change as the walk that it
    overlaps longest does, and its pauses with it. Waits that a slower walk would add are not known, and not
    counted.

    Args:
        wait: Table ``wait``.
        walk: Table ``walk`` with its predictions.
    """
    writers = wait.filter(pl.col("is_write") & pl.col("end_ns").is_not_null())
    took, behind = pl.col("end_ns") - pl.col("ts_ns"), pl.col("behind_walks_ns")
    observed = writers.select(
        strategy=pl.lit("observed"),
        waits=pl.len().cast(pl.Int64),
        lost_ns=took.sum(),
        behind_walks_ns=behind.sum(),
        lost_least_ns=pl.lit(None, pl.Int64),
        lost_most_ns=pl.lit(None, pl.Int64),
        evidence=pl.lit("observed"),
    )
    if writers.is_empty():
        return observed.clear()
    names = walk.filter(pl.col("strategy") != "observed").select(
        pl.col("strategy").unique(maintain_order=True)
    )
    walked = pl.col("end_ns") - pl.col("ts_ns") - pl.col("held_up_ns").fill_null(0)
    # Text tells whole microseconds: of a short walk nothing may be left.
    factors = {
        name: pl.when(walked > 0).then(pl.col(f"predicted{name}_ns") / walked)
        for name in ("", "_low", "_high")
    }
    told = walk.select("walk_id", "strategy", **{f"factor{name}": each for name, each in factors.items()})
    stays, changes = (took - behind).sum(), behind * pl.col("factor")
    known = (pl.col("factor").is_not_null() | (behind == 0)).all()

    def sums(part: pl.Expr, fixed: pl.Expr | int) -> pl.Expr:
        return pl.when(known).then((fixed + part.sum()).round().cast(pl.Int64))

    predicted = (
        writers.join(names, how="cross")
        .join(told, on=["walk_id", "strategy"], how="left", maintain_order="left")
        .group_by("strategy", maintain_order=True)
        .agg(
            waits=pl.len().cast(pl.Int64),
            lost_ns=sums(changes, stays),
            behind_walks_ns=sums(changes, 0),
            lost_least_ns=sums(behind * pl.col("factor_low"), stays),
            lost_most_ns=sums(behind * pl.col("factor_high"), stays),
            evidence=pl.lit("predicted"),
        )
    )
    return pl.concat([observed, predicted])


def _offset(paired: pl.DataFrame, known: pl.DataFrame) -> int:
    """Offset of rwsem in struct anon_vma: the one that explains most of the contended locks."""
    locks = paired.select(pl.col("lock").unique())
    explained = {
        offset: locks.select(root=pl.col("lock") - offset).join(known, on="root", how="semi").height
        for offset in range(0, _FARTHEST_OFFSET, 8)
    }
    return max(explained, key=lambda offset: explained[offset])


def _behind(rows: pl.DataFrame, exact: Exact, families: pl.DataFrame) -> pl.DataFrame:
    """For each wait the walk that it overlaps longest, and how much of it any walk of the family ran."""
    walked = (
        exact.loop.select("walk_id", "anon_vma")
        .unique()
        .join(exact.walks.select("walk_id", "enter", walker="pid", begin="ts_ns", end="end_ns"), on="walk_id")
        .sort("enter")
        .join_asof(families, left_on="enter", right_on="since", by="anon_vma", check_sortedness=False)
        .select("walk_id", "walker", "begin", "end", "root")
        .unique()
    )
    overlap = pl.min_horizontal("end", "end_ns") - pl.max_horizontal("begin", "ts_ns")
    both = (
        rows.filter(pl.col("end_ns").is_not_null())
        .join(walked, on="root")
        .filter((pl.col("begin") < pl.col("end_ns")) & (pl.col("end") > pl.col("ts_ns")))
        .filter(pl.col("walker") != pl.col("pid"))
        .with_columns(overlap=overlap, start=pl.max_horizontal("begin", "ts_ns"))
        .with_columns(stop=pl.min_horizontal("end", "end_ns"))
        .sort("wait", "start")
    )
    # walks of several tasks may run at once: count the time of each wait once
    reach = pl.col("stop").cum_max().shift(1).over("wait")
    fresh = pl.col("stop") - pl.max_horizontal("start", reach.fill_null(0))
    return (
        both.with_columns(fresh=pl.max_horizontal(fresh, pl.lit(0)))
        .group_by("wait")
        .agg(
            walk_id=pl.col("walk_id").sort_by("overlap", "walk_id", descending=[True, False]).first(),
            behind_walks_ns=pl.col("fresh").sum(),
        )
    )
