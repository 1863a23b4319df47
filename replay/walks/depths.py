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

from replay.state.lifetimes import AFTER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Int = NDArray[np.int64]

ROWS_AT_ONCE: Final = 1 << 21
"""Edges that are laid out together."""


def unbounded(*names: str) -> dict[str, pl.Expr]:
    """Columns of bounds of these counts, which are known or have no bounds."""
    none = pl.lit(None, pl.Int64)
    return {f"{name}_{end}": none for name in names for end in ("least", "most")}


def depths(lives: pl.DataFrame, asked: pl.DataFrame) -> tuple[Int, Int]:
    """Least and most intervals on a tree that a lookup can meet at one instant of a span.

    Args:
        lives: ``ksm.windows.in_windows``; those whose range is not known are left out.
        asked: ``anon_vma``, ``after``, ``until`` (places), ``first_pgoff``, ``last_pgoff`` (all inclusive),
            ``whole``: the lookup is of this range, else of one page offset in it; none null.
    """
    known = lives.drop_nulls(["first_pgoff", "last_pgoff"])
    rows = asked.with_columns(
        pl.Series(name, _changes_until(known, asked, name)) for name in ("after", "until")
    )
    span = ["anon_vma", "after", "until"]
    spans = (
        rows.select(span)
        .with_columns(at=asked["after"], to=asked["until"])
        .unique(span, keep="first", maintain_order=True)
        .with_row_index("state")
    )
    state = rows.join(spans, on=span, how="left", maintain_order="left")["state"].to_numpy().astype(np.int64)
    edges = _edges(known, spans["anon_vma"].unique())
    values = edges["pgoff"].unique().sort().to_numpy()
    edges = edges.with_columns(code=np.searchsorted(values, edges["pgoff"].to_numpy(), side="right"))
    radix, whole = np.int64(len(values) + 1), asked["whole"].to_numpy()
    first, last = (
        state * radix + np.searchsorted(values, asked[f"{end}_pgoff"].to_numpy(), side="right")
        for end in ("first", "last")
    )
    least, most = (np.zeros(len(asked), np.int64) for _ in range(2))
    for part in _parts(spans, edges):
        there = part.join(edges, on="anon_vma", maintain_order="left_right").filter(
            (pl.col("born_since") < pl.col("to")) & (pl.col("died") > pl.col("at"))
        )
        keys = there["state"].to_numpy() * radix + there["code"].to_numpy()
        surely = there.select((pl.col("born") <= pl.col("at")) & (pl.col("died_since") >= pl.col("to")))
        signs = there["sign"].to_numpy()
        sure_signs = signs * surely.to_series().to_numpy()
        mine = (state >= part["state"][0]) & (state <= part["state"][-1])
        ranges, points = mine & whole, mine & ~whole
        for found, own, pick in ((least, sure_signs, np.minimum), (most, signs, np.maximum)):
            found[ranges] = _overlapping(keys, own, first[ranges], last[ranges])
            found[points] = _deepest(keys, own, first[points], last[points], pick)
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


def _parts(spans: pl.DataFrame, edges: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """``spans`` in order, so many at a time that about ``ROWS_AT_ONCE`` edges are laid out."""
    size = edges.group_by("anon_vma").agg(edges=pl.len().cast(pl.Int64))
    sized = spans.join(size, on="anon_vma", how="left", maintain_order="left")
    part = sized["edges"].cum_sum() // ROWS_AT_ONCE
    yield from spans.with_columns(part=part).partition_by("part", maintain_order=True, include_key=False)


def _edges(lives: pl.DataFrame, anon_vmas: pl.Series) -> pl.DataFrame:
    """Where intervals of these trees begin (``sign`` 1) and have ended (-1); and each page offset 0 (0)."""
    places = ("born_since", "born", "died_since", "died")
    own = lives.filter(pl.col("anon_vma").is_in(anon_vmas.implode()))
    ends = {"born_since": -2, "born": -1, "died_since": AFTER - 1, "died": AFTER}
    floor = anon_vmas.to_frame().with_columns(
        pgoff=pl.lit(0, pl.UInt64),
        sign=pl.lit(0, pl.Int64),
        **{name: pl.lit(at) for name, at in ends.items()},
    )
    begins = own.select("anon_vma", *places, pgoff="first_pgoff", sign=pl.lit(1, pl.Int64))
    over = own.select("anon_vma", *places, pgoff=pl.col("last_pgoff") + 1, sign=pl.lit(-1, pl.Int64))
    return pl.concat([floor, begins, over], how="diagonal_relaxed").sort("pgoff", maintain_order=True)


def _overlapping(keys: Int, signs: Int, first: Int, last: Int) -> Int:
    """Those that begin up to the end of the range, less those that have ended before it."""
    begun = np.searchsorted(keys[signs > 0], last, side="right")
    return begun - np.searchsorted(keys[signs < 0], first, side="right")


def _deepest(keys: Int, signs: Int, first: Int, last: Int, pick: np.ufunc) -> Int:
    """How many lie over one page offset of the range, the fewest or the most."""
    ends = np.append(keys[1:] != keys[:-1], True)
    edges, depth = keys[ends], np.append(np.cumsum(signs)[ends], 0)
    begin = np.searchsorted(edges, first, side="right") - 1
    slices = np.column_stack((begin, np.searchsorted(edges, last, side="right"))).ravel()
    picked: Int = pick.reduceat(depth, slices)[::2]
    return picked
