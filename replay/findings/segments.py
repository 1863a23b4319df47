"""Walks cut at their page-table events: parts whose loops, iterations and calls are known one by one.

Where all walks are alike (every item on one large tree) their loops, iterations and calls rise together, and
no fit over whole walks tells what an iteration costs. A page-table entry that a walk sets or restores
(``migrate:*`` events) tells at which VMA of which loop the walk was at that time: how many iterations lie
between two of them depends on where the pages are, while there is one call and one loop between them. The
event comes in the middle of a call of rmap_one(), so half of the call is on either side of it.

Kernel: mm/rmap.c try_to_migrate_one(), mm/migrate.c remove_migration_pte().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from replay.findings.held_up import held_up
from replay.walks import steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replay.walks.exact import Exact

MOST_WALKS: Final = 400
"""Walks that are cut, at most: more tell nothing more."""

COUNTS: Final = ("walk", "loops", "iterations_total", "rmap_one_calls")


def segments(
    exact: Exact, events: Mapping[str, pl.DataFrame], own: pl.DataFrame, native: str
) -> pl.DataFrame:
    """The parts of walks.

    Args:
        exact: State and walks.
        events: ``ev_migration_pte``, ``ev_switch`` and ``ev_lock`` of the ``ev_*`` tables.
        own: Rows of table ``walk`` of strategy ``native`` with all counts and a duration.
        native: The strategy that the kernel ran.

    Returns:
        ``walk_id``, ``COUNTS`` (float; ``walk``: what share of a walk's begin and end) and ``took_ns`` (not
        held up), in order of the walks and of time. Over the parts of a walk each count adds up to its own.
    """
    own = own.gather_every(max(1, -(-len(own) // MOST_WALKS)))
    walks = exact.walks.join(own.select("walk_id"), on="walk_id", how="semi", maintain_order="left")
    asked = steps.expand(walks, exact.items, exact.trees)
    found = steps.hits(walks, asked, events["ev_migration_pte"], exact.trees, exact.mappings)
    ends = walks.join(own.select("walk_id", *COUNTS[1:]), on="walk_id").with_columns(walk=pl.lit(1.0))
    begins = ends.select("walk_id", "ts_ns", seq="enter", **dict.fromkeys(COUNTS, pl.lit(0.0)))
    real = [pl.col(name).cast(pl.Float64) for name in COUNTS]
    last = ends.select("walk_id", ts_ns="end_ns", seq="exit").with_columns(ends.select(real))
    middle = _points(exact, asked, found, native).join(own.select("walk_id"), on="walk_id", how="semi")
    points = pl.concat([begins, middle, last.select(begins.columns)]).sort("walk_id", "seq")
    # The tree may have changed between a loop's begin and a later event in it: what was passed never shrinks.
    passed = points.with_columns(
        pl.min_horizontal(pl.col(name).cum_max(), pl.col(name).last()).over("walk_id").alias(name)
        for name in COUNTS
    )
    following = pl.col(*COUNTS, "seq", "ts_ns").shift(-1).over("walk_id").name.prefix("next_")
    parts = (
        passed.with_columns(following)
        .drop_nulls("next_seq")
        .join(walks.select("walk_id", "pid"), on="walk_id", maintain_order="left")
        .with_row_index("part")
    )
    alone = parts.select("pid", "ts_ns", walk_id="part", enter="seq", exit="next_seq", end_ns="next_ts_ns")
    held = held_up(events, alone).select(part="walk_id", held="held_up_ns")
    took = pl.col("next_ts_ns") - pl.col("ts_ns") - pl.col("held").fill_null(0)
    return (
        parts.join(held, on="part", maintain_order="left")
        .select(
            "walk_id",
            *(pl.col(f"next_{name}") - pl.col(name) for name in COUNTS),
            took_ns=pl.max_horizontal(took, 0),
        )
        .rename({f"next_{name}": name for name in COUNTS})
    )


def _points(exact: Exact, asked: pl.DataFrame, found: pl.DataFrame, native: str) -> pl.DataFrame:
    """What each walk had passed at each of its page-table events."""
    before = {name: pl.col(name).cum_sum().over("walk_id") - pl.col(name) for name in COUNTS[2:]}
    loops = (
        exact.loop.filter(strategy=native)
        .join(found.select("walk_id").unique(), on="walk_id", how="semi", maintain_order="left")
        .rename({"iterations": "iterations_total"})
        .with_columns(position=pl.int_range(pl.len(), dtype=pl.Int64).over("walk_id"), **before)
        .select("walk_id", "position", "first_pgoff", "last_pgoff", *COUNTS[2:])
        .drop_nulls()
    )
    placed = (
        found.drop_nulls(["position", "mm"])
        .join(asked.select("walk_id", "position", "tree", "search_new_forks"), on=["walk_id", "position"])
        .sort("seq")
        .with_columns(nth=pl.int_range(1, pl.len() + 1).over("walk_id", "position"))
        .with_row_index("hit")
    )
    met = (
        steps.visits(placed, exact.trees, "seq")
        .filter(pl.col("vma_mm") == pl.col("mm"))
        .sort("hit", "rank")
        .unique("hit", keep="first", maintain_order=True)
        .join(loops, on=["walk_id", "position"], maintain_order="left")
    )
    rank = exact.trees.place_in_range(
        *(met[name].to_numpy() for name in ("tree", "seq", "life", "first_pgoff", "last_pgoff"))
    )
    return met.select(
        "walk_id",
        "ts_ns",
        "seq",
        walk=pl.lit(0.5),
        loops=pl.col("position") + 1.0,
        iterations_total=pl.col("iterations_total") + pl.Series(rank).cast(pl.Float64),
        rmap_one_calls=pl.col("rmap_one_calls") + pl.col("nth") - 0.5,
    )
