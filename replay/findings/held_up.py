"""Time in which a walk did not walk: its task was off the CPU, or waited for a lock.

Kernel: kernel/sched/core.c __schedule() (sched_switch), kernel/locking (contention_begin, contention_end).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from replay.walks.observed import within

if TYPE_CHECKING:
    from collections.abc import Mapping


def held_up(events: Mapping[str, pl.DataFrame], walks: pl.DataFrame) -> pl.DataFrame:
    """How long each walk was held up.

    A time off the CPU lasts from the sched_switch that takes the walking task away to the next that brings
    it back, a wait from contention_begin to contention_end. What both cover counts once; each ends with its
    walk.

    Args:
        events: ``ev_switch`` and ``ev_lock`` of the ``ev_*`` tables.
        walks: ``lifetimes.walk_lives``.

    Returns:
        ``walk_id``, ``held_up_ns``; a row for each walk whose return is in the capture. ``held_up_ns`` is
        null where the capture has neither kind of event.
    """
    done = walks.drop_nulls("end_ns")
    switch, lock = events["ev_switch"], events["ev_lock"]
    if switch.is_empty() and lock.is_empty():
        return done.select("walk_id", held_up_ns=pl.lit(None, pl.Int64))
    away = _pauses(
        switch.select("seq", "ts_ns", pid="prev_pid"), switch.select("seq", "ts_ns", pid="next_pid"), done
    )
    begin, end = (lock.filter(pl.col("is_end") == is_end) for is_end in (False, True))
    waits = _pauses(begin, end, done)
    reach = pl.col("stop").cum_max().shift(1).over("walk_id")
    fresh = pl.col("stop") - pl.max_horizontal("ts_ns", reach)
    lasted = (
        pl.concat([away, waits])
        .sort("walk_id", "ts_ns")
        .with_columns(fresh=pl.max_horizontal(fresh, 0))
        .group_by("walk_id")
        .agg(held_up_ns=pl.col("fresh").sum())
    )
    return (
        done.select("walk_id")
        .join(lasted, on="walk_id", how="left", maintain_order="left")
        .with_columns(pl.col("held_up_ns").fill_null(0))
    )


def _pauses(begin: pl.DataFrame, end: pl.DataFrame, walks: pl.DataFrame) -> pl.DataFrame:
    """``walk_id``, ``ts_ns``, ``stop`` of the pauses that begin inside a walk of their task."""
    resumed = end.select("pid", "seq", stop="ts_ns").sort("seq")
    return (
        within(begin.select("pid", "seq", "ts_ns"), walks)
        .join_asof(resumed, on="seq", by="pid", strategy="forward", check_sortedness=False)
        .join(walks.select("walk_id", "end_ns"), on="walk_id")
        .select("walk_id", "ts_ns", stop=pl.min_horizontal("stop", "end_ns"))
    )
