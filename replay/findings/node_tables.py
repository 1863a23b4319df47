"""Tables ``node_summary``, ``node_walk`` and ``node_miss`` from what ``every_node`` counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from replay.findings.every_node import ENDING, KEY, WHOLE
from replay.walks.steps import RESTORES, SETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replay.findings.every_node import EveryNode
    from replay.strategies import Strategy

MIGRATION: Final = "migration"
RECLAIM: Final = "reclaim"
_CALLERS: Final = pl.DataFrame(
    [
        (MIGRATION, 0, SETS, ENDING),
        (MIGRATION, 1, RESTORES, WHOLE),
        (RECLAIM, 2, "folio_referenced_one", ENDING),
        (RECLAIM, 3, "try_to_unmap_one", ENDING),
    ],
    schema=["operation", "place", "caller", "rmap_one"],
    orient="row",
)
"""The walks of each operation, in order, and which kind of walk each is."""


def node_walks(every: EveryNode, strategies: Sequence[Strategy]) -> pl.DataFrame:
    """One row a walk asked for: ``asked`` and ``walk`` of each, ``operation``, and ``observed_ns`` (null).

    Args:
        every: What was counted.
        strategies: In the order of the results.
    """
    order = pl.DataFrame({"strategy": [each.name for each in strategies]}).with_row_index("number")
    return (
        every.walk.join(_CALLERS, on="rmap_one")
        .join(every.asked, on=KEY)
        .join(order, on="strategy")
        .sort("node", pl.col("moment") == "end", "place", "number")
        .with_columns(observed_ns=pl.lit(None, pl.Int64))
    )


def node_summary(walks: pl.DataFrame) -> pl.DataFrame:
    """Table ``node_summary``: one row a moment and strategy.

    Args:
        walks: ``node_walks``, with its predictions.
    """
    key = ["moment", "strategy"]
    total, time = pl.col("iterations_total"), pl.col("predicted_ns")
    mapped = pl.col("mappings") + pl.col("mappings_unlisted") > 0
    operations = (
        walks.filter(mapped)
        .group_by(*key, "operation", *KEY[:1], maintain_order=True)
        .agg(
            iterations=pl.when(total.is_not_null().all()).then(total.sum()),
            ns=pl.when(time.is_not_null().all()).then(time.sum()),
        )
        .group_by(*key, "operation", maintain_order=True)
        .agg(
            iterations_max=pl.col("iterations").max(),
            iterations_total=pl.when(pl.col("iterations").is_not_null().all()).then(
                pl.col("iterations").sum()
            ),
            ms_max=pl.col("ns").max() / 1e6,
        )
    )
    costs = [
        operations.filter(pl.col("operation") == operation).select(
            *key, pl.col("iterations_max", "iterations_total", "ms_max").name.prefix(f"{operation}_")
        )
        for operation in (MIGRATION, RECLAIM)
    ]
    whole = walks.filter(pl.col("rmap_one") == WHOLE)
    missed = pl.col("mappings_missed")
    answered = (pl.col("found") + missed.fill_null(0)).sum() == pl.col("mappings").sum()
    nodes = whole.group_by(*key, maintain_order=True).agg(
        pl.col("evidence").first(),
        pl.col("rmap_items", "mappings", "mappings_unlisted", "found").sum(),
        nodes=pl.len().cast(pl.Int64),
        nodes_mapped=mapped.sum().cast(pl.Int64),
        iterations_max=pl.col("iterations_max").filter(mapped).max(),
        missed=pl.when(answered).then(missed.sum()),
    )
    return nodes.join(costs[0], on=key, maintain_order="left").join(costs[1], on=key, maintain_order="left")
