"""Which walks lost events make uncertain, and how that shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.state.trees import Trees

if TYPE_CHECKING:
    from replay.state.gaps import Gaps
    from replay.walks.counting import Replayed

# Values of column uncertain of table walk.
DURING: Final = "during"
LIST: Final = "list"
TREE: Final = "tree"
AFTER_LOSS: Final = "after"


def walk_doubts(
    walks: pl.DataFrame, replayed: Replayed, items: pl.DataFrame, lives: pl.DataFrame, gaps: Gaps | None
) -> pl.DataFrame:
    """How lost events may have changed what a walk did: the most serious that applies.

    Args:
        walks: ``lifetimes.walk_lives``.
        replayed: What ``walks.replay_walks`` made of them.
        items: Lives of rmap_items, with their doubts.
        lives: Lives of intervals, with theirs.
        gaps: The losses; None: there were none.

    Returns:
        ``walk_id``, ``strategy``, ``uncertain``, one row a walk and strategy that is uncertain: DURING, it
        ran while events were lost; LIST, an rmap_item of its stable node is in doubt, or page-table entries
        were changed for which none accounts; TREE, an interval that the strategy looks up is in doubt;
        AFTER_LOSS, events were lost before.
    """
    every = replayed.walk.select("walk_id", "strategy")
    if gaps is None:
        return every.clear().with_columns(uncertain=pl.lit(None, pl.String))
    enter, leave = walks["enter"].to_numpy(), walks["exit"].to_numpy()
    lost_before = gaps.within(np.full_like(leave, -1), leave)
    found = (
        (DURING, walks.filter(pl.Series(gaps.during(enter, leave))).select("walk_id")),
        (LIST, pl.concat([_listed(walks, items), replayed.strays])),
        (TREE, _looked_up(replayed.loop, lives)),
        (AFTER_LOSS, walks.filter(pl.Series(lost_before)).select("walk_id")),
    )
    return pl.concat(
        every.join(which, on=which.columns, how="semi").with_columns(uncertain=pl.lit(grade))
        for grade, which in found
    ).unique(["walk_id", "strategy"], keep="first", maintain_order=True)


def _listed(walks: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """``walk_id`` of the walks over a stable node of which an rmap_item is in doubt."""
    doubted = items.drop_nulls("doubt_from")
    return (
        walks.join(doubted.select("stable_node", "doubt_from", "doubt_until"), on="stable_node")
        .filter((pl.col("doubt_from") <= pl.col("exit")) & (pl.col("doubt_until") > pl.col("enter")))
        .select("walk_id")
    )


def _looked_up(loop: pl.DataFrame, lives: pl.DataFrame) -> pl.DataFrame:
    """``walk_id`` and ``strategy`` of the loops over a range in which an interval is in doubt."""
    doubted = lives.drop_nulls("doubt_from")
    trees = Trees(doubted.with_columns(born="doubt_from", died="doubt_until"))
    asked = loop.join(trees.codes, on="anon_vma").drop_nulls(["first_pgoff", "last_pgoff"])
    columns = (asked[name].to_numpy() for name in ("tree", "instant", "first_pgoff", "last_pgoff"))
    return asked.filter(pl.Series(trees.overlapping(*columns) > 0)).select("walk_id", "strategy")
