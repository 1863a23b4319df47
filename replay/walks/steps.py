"""The inner loops of each walk, before any strategy: which rmap_item, which pass, at which instant.

A walk goes over the hlist twice, newest item first: pass 0 takes the VMAs of the item's own mm, pass
1 those of other mms (``search_new_forks``). The tree may change between two loops, never during one,
because a loop holds the lock that every change needs. That is what fixes the instants: a page-table
entry that a loop set or restored (a *hit*, ``migrate:*`` events) lies inside that loop. Loops
without a hit lie between their neighbours; where no tree of the walk changed meanwhile it does not
matter when, else they are spread evenly and counted as assumed.

Kernel: mm/ksm.c rmap_walk_ksm(), mm/rmap.c try_to_migrate_one(), mm/migrate.c remove_migration_pte().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from replay.state.trees import Trees
    from replay.walks.mappings import Mappings

    Int = NDArray[np.int64]

SETS: Final = "try_to_migrate_one"
RESTORES: Final = "remove_migration_pte"


def expand(walks: pl.DataFrame, items: pl.DataFrame, trees: Trees) -> pl.DataFrame:
    """One row an inner loop that a walk makes when nothing ends it early.

    Args:
        walks: ``lifetimes.walk_lives``.
        items: ``lifetimes.rmap_item_lives``.
        trees: The trees.

    Returns:
        ``walk_id``, ``position`` (order of the loops, from 0), ``search_new_forks``, ``item``,
        ``rmap_item``, ``mm``, ``address``, ``tree`` (null: the capture never saw that tree),
        ``enter``, ``exit``, ``loops`` (number of loops of the walk). Sorted by walk and position.
    """
    listed = (
        walks.select("walk_id", "stable_node", "enter", "exit")
        .join(items, on="stable_node")
        .filter((pl.col("born") <= pl.col("enter")) & (pl.col("gone") > pl.col("exit")))
        .sort(["walk_id", "born", "died"], descending=[False, True, True])
        .with_columns(
            place=pl.int_range(pl.len(), dtype=pl.Int64).over("walk_id"), length=pl.len().over("walk_id")
        )
        .join(trees.codes, on="anon_vma", how="left", maintain_order="left")
        .select(
            "walk_id",
            "place",
            "length",
            "item",
            "rmap_item",
            "mm",
            "address",
            "anon_vma",
            "tree",
            "enter",
            "exit",
        )
    )
    length = pl.col("length").cast(pl.Int64)
    return (
        pl.concat(
            listed.with_columns(
                search_new_forks=pl.lit(new, pl.Int32), position=pl.col("place") + new * length
            )
            for new in (0, 1)
        )
        .with_columns(loops=2 * length)
        .drop("place", "length")
        .sort("walk_id", "position")
    )


def visits(steps: pl.DataFrame, trees: Trees, at: str) -> pl.DataFrame:
    """The VMAs on each loop's tree that hold the item's address: all that can pass the first check.

    Args:
        steps: ``walk_id``, ``position``, ``tree``, ``address``, ``mm``, ``search_new_forks`` and ``at``.
        trees: The trees.
        at: Name of the column that holds the instant.

    Returns:
        The rows of ``steps`` that have an answer, once for each, with ``life`` (row of
        ``trees.lives``), ``rank`` (order on the tree), ``vma_mm``, and ``call``: whether the pass
        takes this mm, so that rmap_one is called.
    """
    spaces = trees.spaces.rename({"mm": "vma_mm"})
    known = pl.all_horizontal(pl.col("tree", "mm", "address").is_not_null())
    asked = steps.filter(known).join(spaces, on="tree", maintain_order="left")
    question, life = trees.covering(
        asked["space"].to_numpy(), asked[at].to_numpy(), asked["address"].to_numpy()
    )
    own = pl.col("vma_mm") == pl.col("mm")
    return asked[question].with_columns(
        life=pl.Series(life, dtype=pl.Int64),
        rank=pl.Series(trees.by_first.rank[life], dtype=pl.Int64),
        call=own == (pl.col("search_new_forks") == 0),
    )


def hits(
    walks: pl.DataFrame, steps: pl.DataFrame, ev_migration_pte: pl.DataFrame, trees: Trees, mappings: Mappings
) -> pl.DataFrame:
    """The page-table entries that each walk set or restored, and the loop that did it.

    An event tells the address, not the mm; of several mms with the page at one address the k-th event
    is the k-th mm in the order of the walk that maps the page (by ``mappings``, unless that leaves
    too few). An mm counts where the walk meets it first.

    Returns:
        ``walk_id``, ``seq``, ``ts_ns``, ``address``, ``position`` (of the loop), ``mm``. ``position``
        null: no loop of the walk can have done it.
    """
    is_set = pl.col("rmap_one") == SETS
    own = (
        ev_migration_pte.sort("seq")
        .join_asof(
            walks.select("pid", "walk_id", "enter", "exit", "stable_node", "rmap_one").sort("enter"),
            left_on="seq",
            right_on="enter",
            by="pid",
            check_sortedness=False,
        )
        .filter((pl.col("seq") < pl.col("exit")) & (pl.col("is_set") == is_set))
        .filter(is_set | (pl.col("rmap_one") == RESTORES))
        .select("walk_id", "seq", "ts_ns", "address", "stable_node")
        .with_row_index("hit")
        .with_columns(nth=pl.int_range(pl.len(), dtype=pl.Int64).over("walk_id", "address"))
    )
    asked = own.join(steps.drop("enter", "exit"), on=["walk_id", "address"])
    met = (
        visits(asked, trees, "seq")
        .filter("call")
        .sort("hit", "position", "rank")
        .unique(["hit", "vma_mm"], keep="first", maintain_order=True)
        .with_columns(at="seq")
    )
    asking = met.select("address", "stable_node", "at", mm="vma_mm")
    believed = mappings.mapped(asking) & ~mappings.exiting(asking)
    needed = own.group_by("walk_id", "address").agg(pl.len().alias("needed"))
    met = (
        met.with_columns(believed=believed)
        .join(needed, on=["walk_id", "address"], how="left", maintain_order="left")
        .with_columns(enough=pl.col("believed").sum().over("hit") >= pl.col("needed"))
        .filter(pl.col("believed") | ~pl.col("enough"))
        .with_columns(order=pl.int_range(pl.len(), dtype=pl.Int64).over("hit"))
        .filter(pl.col("order") == pl.col("nth"))
        .select("hit", "position", mm="vma_mm")
    )
    return own.join(met, on="hit", how="left", maintain_order="left").drop("hit", "nth", "stable_node")


def instants(
    steps: pl.DataFrame, found: pl.DataFrame, walks: pl.DataFrame, ended: pl.Series, trees: Trees
) -> pl.DataFrame:
    """``steps`` with the instant of each loop.

    Args:
        steps: ``expand``.
        found: ``hits``.
        walks: ``lifetimes.walk_lives``.
        ended: Whether the walk ended early, at its last hit; one row a walk, by walk_id.
        trees: The trees.

    Returns:
        ``steps`` and ``instant``; ``after``, ``until``: the loop ran at some instant in
        ``(after, until]`` and nothing tells which (null: the instant is sure).
    """
    changes = trees.changes
    moving = steps["tree"].is_not_null().to_numpy()
    tree = steps["tree"].fill_null(0).to_numpy()
    between = changes.until(tree, steps["exit"].to_numpy()) - changes.until(tree, steps["enter"].to_numpy())
    moving &= between > 0
    placed = found.filter(pl.col("position").is_not_null())
    first_hit = placed.group_by("walk_id", "position").agg(hit=pl.col("seq").min())
    steps = steps.with_columns(moving=pl.Series(moving)).join(
        first_hit, on=["walk_id", "position"], how="left", maintain_order="left"
    )
    spans = walks.select("walk_id", "enter", "exit", "ts_ns", "end_ns", ended=ended)
    loops = steps.group_by("walk_id").agg(pl.col("loops").first())
    spans = spans.join(loops, on="walk_id")
    anchors = pl.concat(
        [
            spans.select("walk_id", place=pl.lit(0, pl.Int64), ts="ts_ns", seq="enter"),
            placed.select("walk_id", place=2 * pl.col("position") + 1, ts="ts_ns", seq="seq"),
            spans.filter(~pl.col("ended")).select(
                "walk_id", place=2 * pl.col("loops"), ts="end_ns", seq="exit"
            ),
        ]
    ).sort("place", "ts")
    loose = steps.filter(pl.col("moving") & pl.col("hit").is_null()).with_columns(
        place=2 * pl.col("position") + 1
    )
    loose = (
        loose.sort("place")
        .join_asof(
            anchors.select("walk_id", p0="place", t0="ts", after="seq"),
            left_on="place",
            right_on="p0",
            by="walk_id",
            check_sortedness=False,
            coalesce=False,
        )
        .join_asof(
            anchors.select("walk_id", p1="place", t1="ts", until="seq"),
            left_on="place",
            right_on="p1",
            by="walk_id",
            strategy="forward",
            check_sortedness=False,
            coalesce=False,
        )
        .with_columns(
            middle=pl.col("t0")
            + (pl.col("t1") - pl.col("t0"))
            * (pl.col("place") - pl.col("p0"))
            // (pl.col("p1") - pl.col("p0"))
        )
    )
    settled = changes.seq_at(loose["middle"].fill_null(1 << 62).to_numpy())
    loose = loose.select(
        "walk_id",
        "position",
        "after",
        until=pl.col("until").fill_null(pl.col("exit")),
        guess=pl.max_horizontal("enter", pl.min_horizontal(pl.Series(settled), "exit")),
    )
    return (
        steps.join(loose, on=["walk_id", "position"], how="left", maintain_order="left")
        .with_columns(instant=pl.coalesce("hit", "guess", "enter"), assumed=pl.col("guess").is_not_null())
        .drop("hit", "guess", "moving")
    )
