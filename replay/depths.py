"""How many intervals of a tree lie over one page offset that is somewhere in a range: least and most.

``Trees`` counts what overlaps a range. Where it is only known that the page offset looked up is one out of a
range, its count is the depth of the intervals there. The depth changes where an interval begins or has
ended: sorted, these edges sum up to the depths, of all trees and spans of time at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Int = NDArray[np.int64]

ROWS_AT_ONCE: Final = 1 << 21
"""Intervals that are laid out together."""


def depths(lives: pl.DataFrame, asked: pl.DataFrame) -> tuple[Int, Int]:
    """Least and most intervals on a tree over one page offset in a range, at one instant in a span.

    Args:
        lives: ``ksm_windows.in_windows``; those whose range is not known are left out.
        asked: ``anon_vma``, ``after``, ``until`` (places), ``first_pgoff``, ``last_pgoff`` (all inclusive);
            none null.
    """
    known = lives.drop_nulls(["first_pgoff", "last_pgoff"])
    rows = asked.with_columns(
        pl.Series(name, _changes_until(known, asked, name)) for name in ("after", "until")
    )
    state = ["anon_vma", "after", "until"]
    spans = (
        rows.select(state)
        .with_columns(at=asked["after"], to=asked["until"])
        .unique(state, keep="first", maintain_order=True)
        .with_row_index("state")
    )
    number = rows.join(spans, on=state, how="left", maintain_order="left")["state"].to_numpy()
    least, most = (np.zeros(len(asked), np.int64) for _ in range(2))
    first, last = (asked[f"{end}_pgoff"].to_numpy() for end in ("first", "last"))
    for part in _parts(spans, known):
        some = np.flatnonzero((number >= part["state"][0]) & (number <= part["state"][-1]))
        edges = _edges(part, known)
        values = np.unique(edges["pgoff"].to_numpy())
        radix = np.int64(len(values) + 1)
        code = np.searchsorted(values, edges["pgoff"].to_numpy())
        keys = edges["state"].to_numpy().astype(np.int64) * radix + code
        begin, end = (
            np.searchsorted(
                keys,
                number[some].astype(np.int64) * radix
                + np.searchsorted(values, bound[some], side="right")
                - 1,
                side="right",
            )
            for bound in (first, last)
        )
        for name, reduce, answer in (("surely", np.minimum, least), ("possibly", np.maximum, most)):
            depth = np.append(edges[name].to_numpy(), 0)
            slices = np.column_stack((begin - 1, end)).ravel()
            answer[some] = reduce.reduceat(depth, slices)[::2]
    return least, most


def _changes_until(lives: pl.DataFrame, asked: pl.DataFrame, at: str) -> Int:
    """How often what may be and what is surely on the tree changed up to ``at``."""
    changes = pl.concat(
        lives.select("anon_vma", change=change)
        for change in ("born", pl.col("born_since") + 1, "died", pl.col("died_since") + 1)
    ).sort("change")
    changes = changes.with_columns(count=pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over("anon_vma"))
    counted = (
        asked.select("anon_vma", at=at)
        .with_row_index("row")
        .sort("at")
        .join_asof(changes, left_on="at", right_on="change", by="anon_vma", check_sortedness=False)
        .sort("row")
    )
    count: Int = counted["count"].fill_null(0).to_numpy()
    return count


def _parts(spans: pl.DataFrame, lives: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """``spans`` in order, so many at a time that about ``ROWS_AT_ONCE`` intervals are laid out."""
    size = lives.group_by("anon_vma").agg(lives=pl.len().cast(pl.Int64))
    sized = spans.join(size, on="anon_vma", how="left", maintain_order="left")
    part = sized["lives"].fill_null(0).cum_sum() // ROWS_AT_ONCE
    yield from spans.with_columns(part=part).partition_by("part", maintain_order=True, include_key=False)


def _edges(spans: pl.DataFrame, lives: pl.DataFrame) -> pl.DataFrame:
    """Depth (``surely``, ``possibly``) from each ``pgoff`` on, by ``state``; the first is page offset 0."""
    there = (
        spans.join(lives, on="anon_vma")
        .filter((pl.col("born_since") < pl.col("to")) & (pl.col("died") > pl.col("at")))
        .select(
            "state",
            "first_pgoff",
            pl.col("last_pgoff") + 1,
            surely=(pl.col("born") <= pl.col("at")) & (pl.col("died_since") >= pl.col("to")),
        )
    )
    zero = pl.lit(0, pl.Int64)
    steps = [
        there.select("state", pgoff=edge, surely=sign * pl.col("surely").cast(pl.Int64), possibly=sign * 1)
        for edge, sign in (("first_pgoff", pl.lit(1, pl.Int64)), ("last_pgoff", pl.lit(-1, pl.Int64)))
    ]
    floor = spans.select("state", pgoff=pl.lit(0, pl.UInt64), surely=zero, possibly=zero)
    return (
        pl.concat([floor, *steps])
        .group_by("state", "pgoff")
        .agg(pl.col("surely", "possibly").sum())
        .sort("state", "pgoff")
        .with_columns(pl.col("surely", "possibly").cum_sum().over("state"))
    )
