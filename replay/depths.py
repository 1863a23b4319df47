"""How many intervals of a tree a lookup meets of which not all is known: least and most.

Not known is when in a span of time it was, and at times which page offset out of a range it asked for. An
interval that is there all the time counts for sure, one that is there some time possibly. How many lie over
one page offset changes where an interval begins or has ended: sorted, these edges sum up, of all trees and
spans at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Int = NDArray[np.int64]
    UInt = NDArray[np.uint64]

ROWS_AT_ONCE: Final = 1 << 21
"""Intervals that are laid out together."""


def depths(lives: pl.DataFrame, asked: pl.DataFrame, *, one: bool) -> tuple[Int, Int]:
    """Least and most intervals on a tree that a lookup can meet at one instant of a span.

    Args:
        lives: ``ksm_windows.in_windows``; those whose range is not known are left out.
        asked: ``anon_vma``, ``after``, ``until`` (places), ``first_pgoff``, ``last_pgoff`` (all inclusive);
            none null.
        one: The lookup is of one page offset in this range; else of the range.
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
    count = _deepest if one else _overlapping
    for part in _parts(spans, known):
        some = np.flatnonzero((number >= part["state"][0]) & (number <= part["state"][-1]))
        question = (number[some].astype(np.int64), first[some], last[some])
        least[some], most[some] = count(_there(part, known), *question)
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


def _there(spans: pl.DataFrame, lives: pl.DataFrame) -> pl.DataFrame:
    """The intervals that are on the tree at some time in each span; ``surely``: all the time."""
    return (
        spans.join(lives, on="anon_vma")
        .filter((pl.col("born_since") < pl.col("to")) & (pl.col("died") > pl.col("at")))
        .select(
            *("state", "first_pgoff", "last_pgoff"),
            surely=(pl.col("born") <= pl.col("at")) & (pl.col("died_since") >= pl.col("to")),
        )
    )


def _overlapping(there: pl.DataFrame, state: Int, first: UInt, last: UInt) -> tuple[Int, Int]:
    """Those that begin up to the end of the range, less those that end before it."""
    found = []
    for rows in (there.filter("surely"), there):
        of, begins, ends = (rows[name].to_numpy() for name in ("state", "first_pgoff", "last_pgoff"))
        values = np.unique(np.concatenate((begins, ends)))
        radix = np.int64(len(values) + 1)
        begun, over = (
            np.sort(of.astype(np.int64) * radix + np.searchsorted(values, edge, side="right"))
            for edge in (begins, ends)
        )
        up_to = state * radix + np.searchsorted(values, last, side="right")
        before = state * radix + np.searchsorted(values, first, side="left")
        found.append(
            np.searchsorted(begun, up_to, side="right") - np.searchsorted(over, before, side="right")
        )
    return found[0], found[1]


def _deepest(there: pl.DataFrame, state: Int, first: UInt, last: UInt) -> tuple[Int, Int]:
    """The fewest and the most that lie over one page offset of the range."""
    edges = _edges(there, np.unique(state))
    values = np.unique(edges["pgoff"].to_numpy())
    radix = np.int64(len(values) + 1)
    keys = edges["state"].to_numpy() * radix + np.searchsorted(
        values, edges["pgoff"].to_numpy(), side="right"
    )
    begin, end = (
        np.searchsorted(keys, state * radix + np.searchsorted(values, bound, side="right"), side="right")
        for bound in (first, last)
    )
    slices = np.column_stack((begin - 1, end)).ravel()
    surely, possibly = (np.append(edges[name].to_numpy(), 0) for name in ("surely", "possibly"))
    return np.minimum.reduceat(surely, slices)[::2], np.maximum.reduceat(possibly, slices)[::2]


def _edges(there: pl.DataFrame, states: Int) -> pl.DataFrame:
    """How many lie over the page offsets from each ``pgoff`` on, by ``state``; the first is page offset 0."""
    state, one = pl.col("state").cast(pl.Int64), pl.lit(1, pl.Int64)
    sure = pl.col("surely").cast(pl.Int64)
    floor = pl.DataFrame({"state": states}).with_columns(
        pgoff=pl.lit(0, pl.UInt64), surely=pl.lit(0, pl.Int64), possibly=pl.lit(0, pl.Int64)
    )
    begins = there.select(state, pgoff="first_pgoff", surely=sure, possibly=one)
    ends = there.select(state, pgoff=pl.col("last_pgoff") + 1, surely=-sure, possibly=-one)
    return (
        pl.concat([floor, begins, ends])
        .group_by("state", "pgoff")
        .agg(pl.col("surely", "possibly").sum())
        .sort("state", "pgoff")
        .with_columns(pl.col("surely", "possibly").cum_sum().over("state"))
    )
