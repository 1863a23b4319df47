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

import polars as pl

from replay.doubts import DURING
from replay.ksm_bounds import unbounded
from schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replay.gaps import Gaps

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
        counted = _by_iterator(events, walks)
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
            predicted_ns=none,
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


def _by_iterator(events: Mapping[str, pl.DataFrame], walks: pl.DataFrame) -> pl.DataFrame:
    """Loops from the iterator's probes; what they do not tell (item, mm, skips) is null."""
    first, following, one = (events[name] for name in ("ev_obs_first", "ev_obs_next", "ev_obs_one"))
    calls = first.filter(~pl.col("is_return"))
    steps = pl.concat(
        [
            calls.select("pid", "seq", "ts_ns", kind=pl.lit("first")),
            first.filter("is_return").select(
                "pid",
                "seq",
                "ts_ns",
                kind=pl.when((pl.col("avc") == 0).fill_null(False))
                .then(pl.lit("none"))
                .otherwise(pl.lit("some")),
            ),
            following.select("pid", "seq", "ts_ns", kind=pl.lit("next")),
            one.select(
                "pid",
                "seq",
                "ts_ns",
                kind=pl.when("is_return").then(pl.lit("returned")).otherwise(pl.lit("called")),
            ),
        ]
    )
    inside = within(steps, walks).with_columns(number=(pl.col("kind") == "first").cum_sum().over("walk_id"))
    kind = pl.col("kind")
    early = kind.last().is_in(["called", "returned"])
    anon_vma = pl.coalesce("anon_vma", pl.lit(None, pl.UInt64))
    return (
        inside.filter(pl.col("number") > 0)
        .sort("walk_id", "seq")
        .group_by("walk_id", "number", maintain_order=True)
        .agg(
            pl.col("seq", "ts_ns").first(),
            iterations=((kind == "next").sum() + early.cast(pl.UInt32)).cast(pl.Int64),
            rmap_one_calls=(kind == "called").sum().cast(pl.Int64),
            ended_early=early,
        )
        .join(
            calls.select("seq", first_pgoff="first", last_pgoff="last", anon_vma=anon_vma),
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
        .drop("seq", "number")
    )
