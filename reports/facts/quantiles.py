"""How a number is distributed over loops or walks, strategy by strategy: quantiles, and few bins to draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

EDGES: Final = np.array([*range(10), *sorted({round(10 ** (tenth / 10)) for tenth in range(10, 170)})])
"""Lower ends of the bins: 0 to 9 one by one, then ten bins a decade."""

QUANTILES: Final = (("median", 0.5), ("90 %", 0.9), ("99 %", 0.99))


@dataclass(frozen=True)
class Bin:
    """Loops or walks of one strategy with about the same value.

    Attributes:
        least: Smallest value in the bin.
        most: Largest value in the bin, inclusive.
        count: How many have it.
    """

    least: int
    most: int
    count: int


@dataclass(frozen=True)
class Distribution:
    """The values of one strategy.

    Attributes:
        count: How many values are known.
        unknown: How many are not.
        quantiles: The values below or at which the shares `QUANTILES` of the known ones lie.
        most: The largest.
        bins: All of them, ascending.
    """

    count: int
    unknown: int
    quantiles: Sequence[int]
    most: int
    bins: Sequence[Bin]


def distributions(table: pa.Table, column: str, kept: pl.Expr | None = None) -> dict[str, Distribution]:
    """The distribution of a column for each strategy that has a known value in it.

    Args:
        table: Table ``loop`` or ``walk``.
        column: A column of whole numbers, none negative.
        kept: The rows that count; None: all.
    """
    frame = pl.DataFrame(table.select(["strategy", column])).rename({column: "value"})
    if kept is not None:
        frame = frame.filter(kept)
    known = frame.drop_nulls("value")
    places = np.searchsorted(EDGES, known["value"].to_numpy(), side="right")
    binned = (
        known.with_columns(bin=pl.Series(places))
        .group_by("strategy", "bin")
        .agg(least=pl.col("value").min(), most=pl.col("value").max(), count=pl.len())
        .sort("strategy", "bin")
    )
    quantiles: dict[str, Any] = {
        name: pl.col("value").quantile(share, "higher").cast(pl.Int64) for name, share in QUANTILES
    }
    whole = known.group_by("strategy").agg(count=pl.len(), most=pl.col("value").max(), **quantiles)
    rows = frame.group_by("strategy").agg(rows=pl.len())
    found = {}
    for row in whole.join(rows, on="strategy").sort("strategy").iter_rows(named=True):
        own = binned.filter(strategy=row["strategy"]).select("least", "most", "count")
        found[row["strategy"]] = Distribution(
            count=row["count"],
            unknown=row["rows"] - row["count"],
            quantiles=[row[name] for name, _ in QUANTILES],
            most=row["most"],
            bins=[Bin(*each) for each in own.iter_rows()],
        )
    return found
