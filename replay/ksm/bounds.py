"""Counts of walks over modelled trees: sure where nothing was under way, else null, with bounds.

A loop's count is sure when the least and the most intervals that its range can have met are the same
(``ksm.windows``). Else the loop has bounds, and so have its walk's total and its walk's largest loop; where
the bounds of these meet all the same, they are known.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from replay.ksm.windows import Doubt
    from replay.walks.exact import Exact

_COUNTS: Final = ("iterations", "skip_addr_out_of_range", "skip_mm_mismatch", "rmap_one_calls")


def bounded(state: Exact, doubt: Doubt) -> Exact:
    """``state`` with bounds instead of the counts that are not sure.

    Args:
        state: State and walks replayed over modelled trees.
        doubt: What of these trees is sure when.
    """
    loop = _loops(state.replayed.loop, state.walks, doubt)
    bounds = loop.select("sure", "iterations_least", "iterations_most")
    doubtful = ~pl.col("sure").fill_null(True)
    rows = pl.concat([state.loop.drop(bounds.columns, strict=False), bounds], how="horizontal")
    rows = rows.with_columns(
        *(pl.when(~doubtful).then(pl.col(name)).alias(name) for name in (*_COUNTS, "ended_early")),
        *(pl.when(doubtful).then(pl.col(name)).alias(name) for name in bounds.columns[1:]),
    )
    return replace(
        state,
        loop=rows.select(state.loop.columns),
        walk=walk_bounds(state.walk, rows),
    )


def _loops(loop: pl.DataFrame, walks: pl.DataFrame, doubt: Doubt) -> pl.DataFrame:
    """``loop`` with ``sure``, ``iterations_least`` and ``iterations_most``.

    Null: the count is not known in any case, or nothing was under way, and it is sure.
    A loop in which the walk changed a page table entry ran at that instant; any other at some instant of the
    walk.
    """
    spans = walks.select("walk_id", "enter", "exit")
    placed = pl.col("after").is_null() & (pl.col("instant") > pl.col("enter"))
    asked = (
        loop.drop("enter", "exit", strict=False)
        .join(spans, on="walk_id", how="left", maintain_order="left")
        .with_columns(
            begin=pl.when(placed).then("instant").otherwise(pl.coalesce("after", "enter")),
            end=pl.when(placed).then("instant").otherwise(pl.coalesce("until", "exit")),
        )
        .with_row_index("row")
    )
    known = asked.filter(pl.col("iterations").is_not_null()).select(
        *("row", "anon_vma", "first_pgoff", "last_pgoff", "ended_early"),
        after="begin",
        until=pl.max_horizontal("begin", "end"),
    )
    known = known.filter(doubt.touched(known))
    least, most = doubt.bounds(known)
    told = known.select(
        "row",
        sure=pl.Series(least == most),
        iterations_least=pl.when("ended_early")
        .then(pl.min_horizontal(pl.Series(least), 1))
        .otherwise(pl.Series(least)),
        iterations_most=pl.Series(most),
    )
    return asked.join(told, on="row", how="left", maintain_order="left").drop("row", "begin", "end")


def walk_bounds(walk: pl.DataFrame, loop: pl.DataFrame) -> pl.DataFrame:
    """``walk`` with bounds of its sums and maxima; known are those that their bounds leave no choice.

    Args:
        walk: Table ``walk``.
        loop: Table ``loop``; a loop has a count, or bounds, or neither.
    """
    key = ["walk_id", "strategy"]
    least, most = (pl.coalesce("iterations", f"iterations_{end}") for end in ("least", "most"))
    told = (
        loop.group_by(key)
        .agg(
            doubtful=pl.col("iterations_most").is_not_null().any(),
            whole=most.is_not_null().all(),
            total_least=least.sum(),
            total_most=most.sum(),
            max_least=least.max(),
            max_most=most.max(),
        )
        .filter("doubtful")
    )
    rows = walk.join(told, on=key, how="left", maintain_order="left")
    doubtful = pl.col("doubtful").fill_null(False)
    skips = ("skip_addr_out_of_range_max", "skip_mm_mismatch_max", "rmap_one_calls")
    for name in ("total", "max"):
        low, high = pl.col(f"{name}_least"), pl.col(f"{name}_most")
        meet = pl.col("whole") & (low == high)
        rows = rows.with_columns(
            pl.when(~doubtful).then(f"iterations_{name}").when(meet).then(high).alias(f"iterations_{name}"),
            pl.when(doubtful & ~meet).then(low).alias(f"iterations_{name}_least"),
            pl.when(doubtful & ~meet & pl.col("whole")).then(high).alias(f"iterations_{name}_most"),
        )
    return rows.with_columns(pl.when(~doubtful).then(pl.col(name)).alias(name) for name in skips).select(
        walk.columns
    )
