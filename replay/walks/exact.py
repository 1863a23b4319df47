"""Exact evidence from end to end: event tables in, state and replayed walks out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from replay.state.lifetimes import avc_lives, rmap_item_lives, walk_lives
from replay.state.trees import Trees
from replay.walks.chosen import chosen
from replay.walks.counting import Replayed, replay_walks
from replay.walks.depths import unbounded
from replay.walks.doubts import walk_doubts
from replay.walks.mappings import Mappings
from replay.walks.merge import at_merge
from replay.walks.timing import untimed
from schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replay.state.gaps import Gaps
    from replay.strategies import Strategy


@dataclass(frozen=True)
class Exact:
    """State and walks of one capture.

    Attributes:
        avc, vma, rmap_item, loop, walk, miss: Frames with the columns of the tables of these names;
            ``loop`` and ``walk`` without the ``observed`` rows, ``miss`` without page_pgoff and causes.
            ``avc`` is in order of birth, ``vma`` of ``vma_id``, ``rmap_item`` of birth, the others of walk,
            strategy, and order in the walk.
        walks: ``lifetimes.walk_lives``: the whole walks of the capture.
        items: Lives of rmap_items with their places.
        replayed: What ``walks.replay_walks`` counted besides.
        trees: The trees that rmap_items are on.
        mappings: Which pages are mapped when.
        open_walks: Entries of rmap_walk_ksm() without a return.
        unplaceable: Lives of intervals whose range the capture does not tell.
    """

    avc: pl.DataFrame
    vma: pl.DataFrame
    rmap_item: pl.DataFrame
    loop: pl.DataFrame
    walk: pl.DataFrame
    miss: pl.DataFrame
    walks: pl.DataFrame
    items: pl.DataFrame
    replayed: Replayed
    trees: Trees
    mappings: Mappings
    open_walks: int
    unplaceable: int


def replay_exact(
    events: Mapping[str, pl.DataFrame], strategies: Sequence[str], gaps: Gaps | None = None
) -> Exact:
    """Rebuild the state from the tree probes and replay every walk.

    Args:
        events: The ``ev_*`` tables by name, all of them.
        strategies: Names of the strategies.
        gaps: When events were lost; None: none were.

    Raises:
        UsageError: A strategy is not known.
    """
    state = avc_lives(events["ev_avc"], events["ev_syscall"], gaps, events["ev_exit_mmap"])
    return replay_state(events, *state, strategies, gaps)


def replay_state(
    events: Mapping[str, pl.DataFrame],
    lives: pl.DataFrame,
    versions: pl.DataFrame,
    strategies: Sequence[str],
    gaps: Gaps | None = None,
) -> Exact:
    """Replay every walk over trees that were rebuilt already.

    Args:
        events: The ``ev_*`` tables by name, all of them.
        lives: Lives of intervals, as ``lifetimes.avc_lives`` gives them.
        versions: Versions of VMAs, likewise.
        strategies: Names of the strategies.
        gaps: When events were lost; None: none were.

    Raises:
        UsageError: A strategy is not known.
    """
    asked: list[Strategy] = chosen(strategies)
    tasks = pl.concat(
        frame.select("pid", "seq") for name, frame in events.items() if not name.startswith("ev_obs_")
    )
    items = rmap_item_lives(
        events["ev_append"], events["ev_item_remove"], events["ev_node_remove"], tasks, gaps
    )
    walked = items.select("anon_vma").unique()
    trees = Trees(lives.join(walked, on="anon_vma", how="semi", maintain_order="left"))
    items = at_merge(items, events["ev_merge"], trees)
    walks, open_walks = walk_lives(events["ev_walk"])
    mappings = Mappings(events, lives, items)
    replayed = replay_walks(walks, items, events["ev_migration_pte"], trees, mappings, asked)
    doubts = walk_doubts(walks, replayed, items, lives, gaps)
    none = pl.lit(None, pl.Int64)
    columns = {name: TABLES[name].arrow.names for name in ("avc", "vma", "rmap_item", "loop", "walk", "miss")}
    return Exact(
        avc=lives.select(columns["avc"]),
        vma=versions.select(columns["vma"]),
        rmap_item=items.with_columns(
            address_least=pl.lit(None, pl.UInt64), address_most=pl.lit(None, pl.UInt64)
        ).select(columns["rmap_item"]),
        loop=replayed.loop.with_columns(
            observed_ns=none, predicted_ns=none, **unbounded("iterations")
        ).select(columns["loop"]),
        walk=replayed.walk.rename({"rmap_one": "caller"})
        .join(doubts, on=["walk_id", "strategy"], how="left", maintain_order="left")
        .with_columns(
            observed_ns=pl.col("end_ns") - pl.col("ts_ns"),
            **untimed(),
            **unbounded("iterations_total", "iterations_max"),
        )
        .select(columns["walk"]),
        miss=replayed.miss.rename({"vma_mm": "mm"}).select(
            name for name in columns["miss"] if not name.startswith(("cause_", "page_"))
        ),
        walks=walks,
        items=items,
        replayed=replayed,
        trees=trees,
        mappings=mappings,
        open_walks=open_walks,
        unplaceable=trees.unplaceable,
    )
