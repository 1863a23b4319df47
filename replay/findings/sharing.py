"""What another limit of sharing would change: how long the lists are that walks go over, and pages saved.

``max_page_sharing`` bounds the rmap_items of a stable node: beyond it, pages of equal content go to another
node (a *dup*). A shorter list makes a walk shorter, not the hold of the lock, which is per rmap_item; each
node more is a page not saved. Nodes are taken each at its worst moment, as ``every_node`` does.

Assumed: pages come in the same order and fill one node after the other (mm/ksm.c stable_node_dup()); of a
rest of one page nothing is saved. Pages that a fork left on a node get their rmap_items there whatever the
limit (max_page_sharing_bypass), and stay with the page that was copied. The limit in force is not in a
capture: taken is the default, or the longest list if that is longer. Nodes below it were not kept apart by
it; which of those that reached it have equal content no event tells: above it only bounds are known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from replay.findings.every_node import WORST, last_instant, moments, node_lives
from replay.strategies import lookups

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replay.strategies import Strategy
    from replay.walks.exact import Exact

LIMITS: Final = (2, 16, 64, 128, 256, 512, 1024)
"""Limits that are shown beside the one asked for; 256 is the kernel's default."""

DEFAULT: Final = 256
"""ksm_max_page_sharing of a kernel that nobody told otherwise."""


def sharing(
    exact: Exact, events: Mapping[str, pl.DataFrame], strategies: Sequence[Strategy], limit: int
) -> pl.DataFrame:
    """Table ``sharing`` without its times, and what a fit of them needs besides.

    Args:
        exact: State.
        events: The ``ev_*`` tables.
        strategies: In the order of the results.
        limit: The limit that was asked for.

    Returns:
        The rows by limit, in the order of the strategies; none where no rmap_item is listed.
    """
    nodes = node_lives(exact.items, events["ev_node_remove"]).join(
        exact.trees.codes, on="anon_vma", how="left", maintain_order="left"
    )
    asked = moments(nodes, exact, last_instant(events)).filter(moment=WORST).select("node", "instant")
    listed = (
        nodes.with_columns(pl.col("node").cast(pl.Int64))
        .join(asked, on="node")
        .filter((pl.col("born") <= pl.col("instant")) & (pl.col("gone") > pl.col("instant")))
    )
    listed = _filled(_bypassing(listed, exact))
    costs = _costs(listed, exact, strategies)
    order = {strategy.name: number for number, strategy in enumerate(strategies)}
    return (
        pl.concat(_under(each, listed, costs) for each in sorted({*LIMITS, limit}))
        .with_columns(
            is_asked=pl.col("limit") == limit,
            evidence=pl.lit("predicted"),
            observed_ns=pl.lit(None, pl.Int64),
        )
        .sort("limit", pl.col("strategy").replace_strict(order, return_dtype=pl.Int64))
    )


def _bypassing(listed: pl.DataFrame, exact: Exact) -> pl.DataFrame:
    """``listed`` with ``bypass``: a fork had mapped the node's page there before ksmd came by."""
    asked = listed.select("mm", "address", "stable_node", at=pl.min_horizontal("born", "merged") - 1)
    mapped = exact.mappings.mapped(asked.with_columns(pl.col("at").fill_null(-1)))
    return listed.with_columns(bypass=mapped & pl.Series(listed["born"] >= 0))


def _filled(listed: pl.DataFrame) -> pl.DataFrame:
    """``listed`` with ``place``: how many pages came to the node before; of a copy, its original's."""
    own = (
        listed.filter(~pl.col("bypass"))
        .sort("born", "died", "rmap_item")
        .with_columns(place=pl.int_range(pl.len(), dtype=pl.Int64).over("node"))
    )
    origin = own.group_by("node", "address").agg(origin=pl.col("place").min())
    copies = (
        listed.filter("bypass")
        .join(origin, on=["node", "address"], how="left")
        .with_columns(place=pl.col("origin").fill_null(0))
        .drop("origin")
    )
    return pl.concat([own, copies], how="diagonal")


def _costs(listed: pl.DataFrame, exact: Exact, strategies: Sequence[Strategy]) -> pl.DataFrame:
    """Iterations of one loop of each rmap_item under each strategy at its instant; null: not known."""
    trees = exact.trees
    asked = lookups(exact.items.join(listed, on="item", how="semi"), strategies).join(
        listed.select("item", "tree", "instant"), on="item"
    )
    known = asked.drop_nulls(["tree", "first_pgoff"])
    column = [known[name].to_numpy() for name in ("tree", "instant", "first_pgoff", "last_pgoff")]
    counts = trees.overlapping(column[0], column[1], column[2], column[3])
    found = known.select("item", "strategy").with_columns(iterations=pl.Series(counts, dtype=pl.Int64))
    return asked.select("item", "strategy").join(found, on=["item", "strategy"], how="left")


def _under(limit: int, listed: pl.DataFrame, costs: pl.DataFrame) -> pl.DataFrame:
    """One row a strategy: what the nodes would be under a limit, and the longest walk over one of them."""
    own = listed.select("node", "item", "bypass", dup=pl.col("place") // limit)
    dups = own.group_by("node", "dup").agg(length=pl.len().cast(pl.Int64))
    saved = int(dups.select(pl.max_horizontal(pl.col("length") - 1, 0).sum()).item())
    nodes = listed.group_by("node").agg(merged=(~pl.col("bypass")).sum().cast(pl.Int64), all=pl.len())
    most = _joined(limit, nodes)
    walks = (
        own.join(costs, on="item")
        .group_by("node", "dup", "strategy")
        .agg(
            iterations=pl.when(pl.col("iterations").is_not_null().all()).then(2 * pl.col("iterations").sum()),
            one_loop=pl.col("iterations").max(),
            loops=2 * pl.len().cast(pl.Int64),
        )
        .sort("iterations", nulls_last=False)
        .group_by("strategy", maintain_order=True)
        .agg(
            pl.col("iterations", "loops").last(),
            iterations_max=pl.col("one_loop").max(),
        )
    )
    return walks.select(
        "strategy",
        "loops",
        "iterations_max",
        limit=pl.lit(limit, pl.Int64),
        nodes=pl.lit(len(dups), pl.Int64),
        rmap_items=pl.lit(len(listed), pl.Int64),
        rmap_items_max=pl.lit(dups["length"].max(), pl.Int64),
        pages_saved=pl.lit(saved, pl.Int64),
        pages_saved_most=pl.lit(None if most is None else saved + most[0], pl.Int64),
        rmap_items_most=pl.lit(None if most is None else most[1], pl.Int64),
        iterations_total="iterations",
        rmap_one_calls=pl.col("loops") // 2,
    )


def _joined(limit: int, nodes: pl.DataFrame) -> tuple[int, int] | None:
    """Pages saved besides and longest list, at most: as if nodes at the limit in force had one content.

    None: no node reached it, or the limit is not above it.
    """
    merged = nodes["merged"].to_numpy()
    in_force = max(DEFAULT, int(merged.max(initial=0)))
    full, rest = merged[merged >= in_force], merged[merged < in_force]
    if limit <= in_force or not len(full):
        return None
    pages = int(full.sum() + rest.max(initial=0))
    before = len(full) + bool(len(rest))
    return before - -(-pages // limit), min(limit, pages) + int((nodes["all"].to_numpy() - merged).sum())
