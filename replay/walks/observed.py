"""The kernel's own counts, where the capture has them: the ``observed`` rows.

Two sources. Kernels built to count say it themselves, once a loop (``ksm:ksm_rmap_loop``). On any
kernel, probes on the tree iterator and on the rmap_one callbacks tell it: iter_first() opens a loop,
each iter_next() closes one iteration, and where the last thing in a loop is a callback's return, that
iteration ended the walk. The replay never reads any of these events.

Kernel: include/linux/interval_tree_generic.h (PREFIX_iter_first(), PREFIX_iter_next()), mm/ksm.c
rmap_walk_ksm().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.state.order import in_order
from replay.walks.depths import unbounded
from replay.walks.doubts import DURING
from replay.walks.timing import untimed
from schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from replay.state.gaps import Gaps

    Int = NDArray[np.int64]

NAME: Final = "observed"
_ENDED: Final = 2
"""``ended`` of ksm:ksm_rmap_loop: 1 rmap_one() returned false, 2 done() returned true."""


def observed(
    events: Mapping[str, pl.DataFrame], walks: pl.DataFrame, gaps: Gaps | None = None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of ``loop`` and ``walk`` with the kernel's own counts.

    Args:
        events: The ``ev_*`` tables.
        walks: ``lifetimes.walk_lives``.
        gaps: When events were lost; None: none were.

    Returns:
        Frames with the columns of ``loop`` and ``walk``, strategy ``observed``. A walk without counts
        has a row in ``walk`` all the same, with its duration.
    """
    counted = _by_the_kernel(events["ev_obs_loop"], walks)
    if counted.is_empty():
        counted = by_iterator(events, walks)
    loop = (
        counted.join(walks.select("walk_id", "stable_node"), on="walk_id", how="left", maintain_order="left")
        .with_columns(strategy=pl.lit(NAME), predicted_ns=pl.lit(None, pl.Int64), **unbounded("iterations"))
        .select(TABLES["loop"].arrow.names)
    )
    none = pl.lit(None, pl.Int64)
    places = (walks[name].to_numpy() for name in ("enter", "exit"))
    while_lost = pl.lit(False) if gaps is None else pl.Series(gaps.during(*places))
    sums = loop.group_by("walk_id").agg(
        loops=pl.len().cast(pl.Int64),
        iterations_total=pl.col("iterations").sum(),
        iterations_max=pl.col("iterations").max(),
        skip_addr_out_of_range_max=pl.col("skip_addr_out_of_range").max(),
        skip_mm_mismatch_max=pl.col("skip_mm_mismatch").max(),
        rmap_one_calls=pl.col("rmap_one_calls").sum(),
    )
    walk = (
        walks.rename({"rmap_one": "caller"})
        .join(sums, on="walk_id", how="left", maintain_order="left")
        .with_columns(
            strategy=pl.lit(NAME),
            mappings_missed=none,
            observed_ns=pl.col("end_ns") - pl.col("ts_ns"),
            **untimed(),
            **unbounded("iterations_total", "iterations_max"),
            uncertain=pl.when(while_lost).then(pl.lit(DURING)),
        )
        .select(TABLES["walk"].arrow.names)
    )
    return loop, walk


def within(frame: pl.DataFrame, walks: pl.DataFrame) -> pl.DataFrame:
    """The rows of ``frame`` (``pid``, ``seq``) inside a walk of their task, with its ``walk_id``."""
    return (
        frame.sort("seq")
        .join_asof(
            walks.select("pid", "walk_id", "enter", "exit").sort("enter"),
            left_on="seq",
            right_on="enter",
            by="pid",
            check_sortedness=False,
        )
        .filter(pl.col("seq") < pl.col("exit"))
        .drop("enter", "exit")
    )


def _by_the_kernel(ev_obs_loop: pl.DataFrame, walks: pl.DataFrame) -> pl.DataFrame:
    return within(ev_obs_loop.drop("walk_id", "stable_node"), walks).select(
        "walk_id",
        "ts_ns",
        "rmap_item",
        "anon_vma",
        "mm",
        "search_new_forks",
        address=pl.col("addr") // 4096 * 4096,
        first_pgoff="pgoff_start",
        last_pgoff="pgoff_end",
        iterations="nr_iteration_total",
        skip_addr_out_of_range="skip_addr_out_of_range",
        skip_mm_mismatch="skip_mm_mismatch",
        rmap_one_calls="nr_rmap_one",
        ended_early=(pl.col("ended") > 0) & (pl.col("ended") <= _ENDED),
        observed_ns="duration_ns",
    )


def by_iterator(events: Mapping[str, pl.DataFrame], walks: pl.DataFrame) -> pl.DataFrame:
    """Loops from the iterator's probes; what they do not tell (item, mm, skips) is null.

    The walks may be those of rmap_walk_anon() too, each of one loop. A loop runs from its iter_first() to the
    next one of its walk, or to the walk's end.
    """
    first, one = events["ev_obs_first"], events["ev_obs_one"]
    calls = first.filter(~pl.col("is_return"))
    called, other = pl.col("kind") == "called", pl.col("kind").is_in(["first", "found"])
    steps = pl.concat(
        [
            calls.select("pid", "seq", "ts_ns", kind=pl.lit("first")),
            first.filter("is_return").select("pid", "seq", "ts_ns", kind=pl.lit("found")),
            one.select(
                *("pid", "seq", "ts_ns"),
                kind=pl.when("is_return").then(pl.lit("returned")).otherwise(pl.lit("called")),
            ),
        ]
    )
    inside = within(steps, walks).with_columns(number=(pl.col("kind") == "first").cum_sum().over("walk_id"))
    loops = (
        inside.filter(pl.col("number") > 0)
        .sort("walk_id", "seq")
        .group_by("walk_id", "number", maintain_order=True)
        .agg(
            pl.col("seq", "ts_ns", "pid").first(),
            rmap_one_calls=called.sum().cast(pl.Int64),
            last_call=pl.col("seq").filter(~other).last().fill_null(-1),
            last_other=pl.col("seq").filter(other).last(),
        )
        .join(walks.select("walk_id", "exit"), on="walk_id", how="left", maintain_order="left")
        .with_columns(until=pl.col("seq").shift(-1).over("walk_id").fill_null(pl.col("exit")))
    )
    count, last = _following(events["ev_obs_next"], *(loops[name] for name in ("pid", "seq", "until")))
    early = pl.col("last_call") > pl.max_horizontal("last_other", pl.Series(last))
    return (
        loops.with_columns(iterations=pl.Series(count) + early.cast(pl.Int64), ended_early=early)
        .join(
            calls.select(
                "seq",
                first_pgoff="first",
                last_pgoff="last",
                anon_vma=pl.coalesce("anon_vma", pl.lit(None, pl.UInt64)),
            ),
            on="seq",
            how="left",
            maintain_order="left",
        )
        .with_columns(
            rmap_item=pl.lit(None, pl.UInt64),
            mm=pl.lit(None, pl.UInt64),
            address=pl.lit(None, pl.UInt64),
            search_new_forks=pl.lit(None, pl.Int32),
            skip_addr_out_of_range=pl.lit(None, pl.Int64),
            skip_mm_mismatch=pl.lit(None, pl.Int64),
            observed_ns=pl.lit(None, pl.Int64),
        )
        .drop("seq", "number", "pid", "last_call", "last_other", "exit", "until")
    )


def _following(
    ev_obs_next: pl.DataFrame, pid: pl.Series, begin: pl.Series, until: pl.Series
) -> tuple[Int, Int]:
    """Events of iter_next() of one task between two places, both exclusive.

    Args:
        ev_obs_next: ``pid``, ``seq``: by far the most events of a capture that has them.
        pid: The task; one row a question.
        begin: After this place.
        until: Before this place.

    Returns:
        How many, and the place of the last; -1: there is none.
    """
    of_tasks = in_order(ev_obs_next, "pid")
    task, place = of_tasks["pid"].to_numpy(), of_tasks["seq"].to_numpy()
    count, last = np.zeros(len(pid), np.int64), np.full(len(pid), -1)
    for one in pid.unique():
        asked = (pid == one).to_numpy()
        own = place[np.searchsorted(task, one) : np.searchsorted(task, one, side="right")]
        if not len(own):
            continue
        left = np.searchsorted(own, begin.to_numpy()[asked], side="right")
        right = np.searchsorted(own, until.to_numpy()[asked], side="left")
        count[asked] = right - left
        last[asked] = np.where(right > left, own[right - 1], -1)
    return count, last
