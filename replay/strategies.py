"""The lookups that were proposed, as data: which range of page offsets each passes to the tree walk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

ULONG_MAX: Final = (1 << 64) - 1


@dataclass(frozen=True)
class Strategy:
    """A lookup range over the columns of an rmap_item at its merge.

    Attributes:
        name: As on the command line and in the tables.
        first, last: Page offsets, both inclusive, over the columns of table ``rmap_item``. Null where a
            column that they need is null.
        doc: Its place in the history of the patch series.
    """

    name: str
    first: pl.Expr
    last: pl.Expr
    doc: str


def _point(name: str, offset: pl.Expr, doc: str) -> Strategy:
    return Strategy(name, offset, offset, doc)


BUILTIN: Final = {
    strategy.name: strategy
    for strategy in (
        Strategy(
            "full",
            pl.lit(0, pl.UInt64),
            pl.lit(ULONG_MAX, pl.UInt64),
            "0..ULONG_MAX: kernels up to 7.2; correct, slow",
        ),
        _point("addr", pl.col("address_page"), "address >> PAGE_SHIFT: v1-v3; misses after mremap"),
        _point("vm_pgoff", pl.col("vm_pgoff"), "vm_pgoff of the VMA at merge: v4; misses after a split"),
        _point("linear", pl.col("linear_page_index"), "page offset of the page at merge: v5-v8; in 7.3"),
    )
}


def lookups(items: pl.DataFrame, strategies: Sequence[Strategy]) -> pl.DataFrame:
    """The range that each strategy looks up for each rmap_item.

    Returns:
        ``item``, ``number`` (of the strategy in ``strategies``), ``strategy``, ``first_pgoff``,
        ``last_pgoff`` (inclusive; null: not known).
    """
    return pl.concat(
        items.select(
            "item",
            number=pl.lit(number, pl.Int32),
            strategy=pl.lit(strategy.name),
            first_pgoff=strategy.first.cast(pl.UInt64),
            last_pgoff=strategy.last.cast(pl.UInt64),
        )
        for number, strategy in enumerate(strategies)
    )
