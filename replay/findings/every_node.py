"""Walks that nobody captured: what a migration or a reclaim of every stable node's folio would cost.

Each node is asked at its *worst* moment (``moments``) and at the *end* of the capture. The walks asked for
go through the same replay as captured ones (``walks``), over the same trees. There are two kinds: one that
ends once every mapping is met, as try_to_migrate(), try_to_unmap() and folio_referenced() do, and one that
runs to its end, as remove_migration_ptes() does. What is mapped follows from merges, forks and unmappings
(``mappings``), since no page-table event tells of a walk that did not happen.

Simplified: no VM_LOCKED mapping, no mapping of another memory cgroup, no writer that holds the lock; each
of these ends or prolongs folio_referenced().

Kernel: mm/rmap.c try_to_migrate(), try_to_unmap(), folio_referenced(); mm/migrate.c remove_migration_ptes().
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from replay.findings.moments import Costs, worst_moments
from replay.walks.counting import replay_walks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replay.strategies import Strategy
    from replay.walks.exact import Exact

WORST: Final = "worst"
END: Final = "end"
ENDING: Final = "try_to_unmap_one"
"""rmap_one that stands for the walks that end once every mapping is met."""
WHOLE: Final = "walked_to_the_end"
"""Stands for the others: no rmap_one is called so."""
EVERY_NODE: Final = "every-node"
"""Value of option ``--walks``."""
KEY: Final = ("node", "moment")

_AT_ONCE: Final = 1 << 18
"""Inner loops that are replayed at a time: bounds the memory."""


@dataclass(frozen=True)
class EveryNode:
    """Walks asked for, and what they would miss.

    Attributes:
        asked: One row a node and moment, in this order: ``node`` (number of the node's life), ``moment``,
            ``stable_node``, ``instant``, ``ts_ns``, ``rmap_items``, ``anon_vmas`` (distinct),
            ``mappings`` and ``mappings_unlisted`` (pages mapped that a loop can and cannot find),
            ``evidence`` (what the rmap_items rest on).
        walk: One row a node, moment, kind of walk (``rmap_one``: ``ENDING`` or ``WHOLE``) and strategy: the
            key, and what ``Replayed.walk`` counts.
        miss: One row a node, moment, strategy and mapping missed: the key, and ``Replayed.miss``'s columns.
    """

    asked: pl.DataFrame
    walk: pl.DataFrame
    miss: pl.DataFrame


def every_node(exact: Exact, events: Mapping[str, pl.DataFrame], strategies: Sequence[Strategy]) -> EveryNode:
    """Replay both kinds of walks over every stable node at its worst moment and at the end of the capture.

    Args:
        exact: State, whatever evidence it rests on: ``items``, ``trees`` and ``mappings`` are used.
        events: The ``ev_*`` tables.
        strategies: In the order of the results.
    """
    nodes = node_lives(exact.items, events["ev_node_remove"]).join(
        exact.trees.codes, on="anon_vma", how="left", maintain_order="left"
    )
    asked = _timed(moments(nodes, exact, last_instant(events)), events).with_row_index("row")
    unseen = events["ev_migration_pte"].clear()
    parts = [ask(some, exact, strategies, unseen) for some in _at_once(asked)]
    pages, walk, miss = (pl.concat(each) for each in zip(*parts, strict=True))
    key = asked.select("row", *KEY)
    return EveryNode(
        asked.join(pages, on="row", how="left", maintain_order="left").drop("row"),
        key.join(walk, on="row", maintain_order="left").drop("row"),
        key.join(miss, on="row", maintain_order="left").drop("row"),
    )


def node_lives(items: pl.DataFrame, ev_node_remove: pl.DataFrame) -> pl.DataFrame:
    """The lives of rmap_items on known nodes, with ``node``: the number of the node's life.

    A struct ksm_stable_node is used again after it was freed, so the pointer alone is no name: a life ends
    with remove_node_from_stable_tree(). Numbers, from 0, are in order of the first merge.
    """
    frees = ev_node_remove.select("stable_node", emptied="seq").sort("emptied")
    frees = frees.with_columns(life=pl.int_range(1, pl.len() + 1, dtype=pl.Int64).over("stable_node"))
    lives = (
        items.filter(pl.col("stable_node").is_not_null())
        .sort("died")
        .join_asof(
            frees,
            left_on="died",
            right_on="emptied",
            by="stable_node",
            allow_exact_matches=False,
            check_sortedness=False,
        )
        .with_columns(pl.col("life").fill_null(0))
        .sort("born", "died", "rmap_item")
    )
    name = ["stable_node", "life"]
    nodes = lives.select(name).unique(maintain_order=True).with_row_index("node")
    return lives.join(nodes, on=name, how="left", maintain_order="left").drop("life", "emptied")


def moments(nodes: pl.DataFrame, exact: Exact, last: int) -> pl.DataFrame:
    """Both moments of each node: the columns of ``EveryNode.asked`` up to ``anon_vmas``, without ``ts_ns``.

    An rmap_item is listed from its stable_tree_append() on until its removal is over.

    Args:
        nodes: ``node_lives``, and ``tree``.
        exact: State.
        last: The last instant of the capture.
    """
    nodes = nodes.with_columns(pl.col("node").cast(pl.Int64))
    lives = (
        nodes.group_by("node")
        .agg(
            pl.col("stable_node", "evidence").first(), first=pl.col("born").min(), until=pl.col("gone").max()
        )
        .with_columns(first=pl.max_horizontal("first", 0), last=pl.min_horizontal(pl.col("until") - 1, last))
        .filter(pl.col("first") <= pl.col("last"))
        .sort("node")
        .with_row_index("code")
        .with_columns(pl.col("code").cast(pl.Int64))
    )
    known = nodes.join(lives.select("node", "code"), on="node", maintain_order="left")
    costs = Costs(known.drop("node").rename({"code": "node"}), exact.trees, len(lives))
    worst, _ = worst_moments(lives["first"].to_numpy(), lives["last"].to_numpy(), costs)
    name = lives.select("node", "stable_node", "evidence")
    asked = pl.concat(
        [
            name.with_columns(moment=pl.lit(WORST), instant=pl.Series(worst, dtype=pl.Int64)),
            name.with_columns(moment=pl.lit(END), instant=pl.lit(last, pl.Int64)),
        ]
    )
    listed = (
        asked.join(known.select("node", "born", "gone", "anon_vma"), on="node")
        .filter((pl.col("born") <= pl.col("instant")) & (pl.col("gone") > pl.col("instant")))
        .group_by(*KEY)
        .agg(rmap_items=pl.len().cast(pl.Int64), anon_vmas=pl.col("anon_vma").n_unique().cast(pl.Int64))
    )
    return (
        asked.join(listed, on=KEY)
        .sort("node", pl.col("moment") == END)
        .select(*KEY, "stable_node", "evidence", "instant", "rmap_items", "anon_vmas")
    )


def last_instant(events: Mapping[str, pl.DataFrame]) -> int:
    """The last instant of the capture."""
    return max((int(frame["seq"].to_numpy().max()) for frame in events.values() if len(frame)), default=0)


def _timed(asked: pl.DataFrame, events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """``asked`` with ``ts_ns``: the time of the event right after which each instant is."""
    wanted = asked.select(seq="instant").unique()
    times = pl.concat(
        frame.select(pl.col("seq").cast(pl.Int64), "ts_ns").join(wanted, on="seq", how="semi")
        for frame in events.values()
    )
    return asked.join(
        times.unique("seq"), left_on="instant", right_on="seq", how="left", maintain_order="left"
    )


def _at_once(asked: pl.DataFrame) -> list[pl.DataFrame]:
    """``asked`` in parts of a bounded number of inner loops; at least one part."""
    number = (asked["rmap_items"] * 4).cum_sum() // _AT_ONCE
    return asked.with_columns(part=number).partition_by("part", maintain_order=True) or [asked]


def ask(
    asked: pl.DataFrame, exact: Exact, strategies: Sequence[Strategy], ev_migration_pte: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Replay both kinds of walks over some nodes, each at an instant.

    Args:
        asked: ``row`` (any number), ``stable_node``, ``instant``, ``ts_ns``.
        exact: State.
        strategies: In the order of the results.
        ev_migration_pte: An empty table of this name.

    Returns:
        Pages, walks and misses, as in ``EveryNode``, each with ``row`` of ``asked``.
    """
    both = asked.select("row", "stable_node", "ts_ns", enter="instant").join(
        pl.DataFrame({"rmap_one": [ENDING, WHOLE]}), how="cross", maintain_order="left"
    )
    lives = exact.walks.clear().drop("walk_id")
    walks = pl.concat(
        [
            lives,
            both.select("stable_node", "ts_ns", "enter", "rmap_one", exit="enter", end_ns="ts_ns"),
        ],
        how="diagonal_relaxed",
    ).with_row_index("walk_id")
    walks = walks.with_columns(pl.col("walk_id").cast(pl.Int64))
    replayed = replay_walks(walks, exact.items, ev_migration_pte, exact.trees, exact.mappings, strategies)
    named = walks.select("walk_id", "rmap_one", row=both["row"])
    whole = named.filter(pl.col("rmap_one") == WHOLE).select("walk_id", "row")
    pages = (
        replayed.pages.join(whole, on="walk_id")
        .group_by("row")
        .agg(
            mappings=pl.col("listed").sum().cast(pl.Int64), unlisted=(~pl.col("listed")).sum().cast(pl.Int64)
        )
    )
    pages = whole.join(pages, on="row", how="left", maintain_order="left").select(
        "row", pl.col("mappings").fill_null(0), mappings_unlisted=pl.col("unlisted").fill_null(0)
    )
    counted = ["strategy", "loops", "iterations_total", "iterations_max", "skip_addr_out_of_range_max"]
    counted += ["skip_mm_mismatch_max", "rmap_one_calls", "mappings_missed", "found"]
    walk = named.join(replayed.walk.select("walk_id", *counted), on="walk_id", maintain_order="left_right")
    miss = replayed.miss.join(whole, on="walk_id", maintain_order="left").drop("walk_id")
    return pages, walk.drop("walk_id"), miss
