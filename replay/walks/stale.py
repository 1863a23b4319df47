"""Stale rmap_items: listed by a walk, and the page is not mapped there any more. What tells so is named.

ksmd takes such an item off when it comes by; until then a walk pays its loop and finds nothing. It is no
miss: what can be missed is what is mapped (``ends.mapped_pages``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.state.covers import NONE, Covers
from replay.state.lifetimes import BEFORE, PAGE_SHIFT
from replay.walks.steps import RESTORES, SETS, expand

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from replay.walks.exact import Exact

EXIT: Final = "exit"
ENTRIES: Final = "migration_entries"
UNKNOWN: Final = "unknown"
WORDS: Final = {
    "page_fault": "a write fault that copied it",
    EXIT: "the exit of its process",
    ENTRIES: "the walk's own page-table events",
    UNKNOWN: "no merge or fork in the capture that maps it",
}
"""Values of ``by`` in words; others are names of system calls."""


def stale_items(exact: Exact) -> pl.DataFrame:
    """The rmap_items of each walk whose own page was not mapped.

    Returns:
        ``walk_id``, ``item``, ``by``: the last write fault or call since the merge that ended the mapping
        (its name); ``exit``; ``migration_entries``: the walk left or found no entry there; ``unknown``.
    """
    mappings, pages = exact.mappings, exact.replayed.pages
    listed = (
        expand(exact.walks, exact.items, exact.trees)
        .filter((pl.col("search_new_forks") == 0) & pl.all_horizontal(pl.col("mm", "address").is_not_null()))
        .join(pages, on=["walk_id", "mm", "address"], how="anti", maintain_order="left")
        .join(exact.items.select("item", "merged"), on="item", how="left", maintain_order="left")
        .join(exact.walks.select("walk_id", "rmap_one"), on="walk_id", how="left", maintain_order="left")
    )
    kills = mappings.kills.join(mappings.mms, on="mm", maintain_order="left")
    asked = listed.select("mm", "address", at="enter")
    code = asked.join(mappings.mms, on="mm", how="left", maintain_order="left")["code"].cast(pl.Int64)
    last = _covers(kills).last(
        code.fill_null(len(mappings.mms)).to_numpy(),
        listed["enter"].to_numpy().astype(np.int64),
        *(_pages(listed["address"]),) * 2,
    )
    found = kills[np.maximum(last, 0)].select("seq", "by") if len(kills) else _none(len(listed))
    since = pl.Series(last != NONE) & (found["seq"] > listed["merged"].fill_null(BEFORE))
    gone = mappings.exiting(asked) | mappings.torn_down(asked)
    watched = listed["rmap_one"].is_in([SETS, RESTORES]).fill_null(False)
    by = (
        pl.when(since)
        .then(found["by"])
        .when(gone)
        .then(pl.lit(EXIT))
        .when(watched)
        .then(pl.lit(ENTRIES))
        .otherwise(pl.lit(UNKNOWN))
    )
    return listed.select("walk_id", "item").with_columns(by=pl.select(by).to_series())


def _covers(kills: pl.DataFrame) -> Covers:
    group, time = (kills[name].to_numpy().astype(np.int64) for name in ("code", "seq"))
    past = kills.select(pl.min_horizontal("end", pl.lit(1 << 63, pl.UInt64)) + ((1 << PAGE_SHIFT) - 1))["end"]
    return Covers(group, time, _pages(kills["start"]), _pages(past))


def _pages(address: pl.Series) -> NDArray[np.int64]:
    return (address.to_numpy() >> np.uint64(PAGE_SHIFT)).astype(np.int64)


def _none(rows: int) -> pl.DataFrame:
    return pl.DataFrame({"seq": [-1] * rows, "by": [""] * rows}, schema={"seq": pl.Int64, "by": pl.String})
