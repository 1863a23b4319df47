"""Where a walk ends early, and which mappings there were to find.

A walk for migration or reclaim ends once nothing maps the folio any more (``done()``), one for aging
once it has met every mapping; a walk that restores entries always runs to its end. So under a
strategy a walk ends at the visit that completes the set of mappings, if the strategy visits all of
them. The set comes from, in this order of trust:

1. the walk's own hits (``migrate:*`` events): those are mapped;
2. a folio that was migrated, or a ``mapcount`` that the hits reach: nothing else was mapped, save what
   went away by itself after the last hit (its process ended): then ``done()`` was not asked any more and
   the walk ran to its end;
3. a call that every strategy makes and that left no hit: not mapped (a stale rmap_item);
4. merges, forks and unmappings (``mappings``), also of pages whose rmap_item ksmd had taken away:
   such a mapping is *not listed*; no strategy finds it, and the walk cannot end early.

Kernel: mm/rmap.c try_to_migrate(), try_to_unmap(), folio_referenced(); mm/migrate.c
remove_migration_ptes(); mm/ksm.c rmap_walk_ksm().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.walks.steps import RESTORES, SETS

if TYPE_CHECKING:
    from replay.state.trees import Trees
    from replay.walks.mappings import Mappings

AGES: Final = "folio_referenced_one"

ENDING: Final = (SETS, "try_to_unmap_one", AGES)
"""rmap_one of the callers that end once all mappings are met."""


def completed(walks: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """What tells by itself that a migration walk unmapped everything.

    Returns:
        ``walk_id``, ``hits``, ``last_hit`` (place), ``migrated``: the next walk of the task on that stable
        node restores the entries on another folio, so the folio was moved, which needs that nothing mapped
        it (mm/migrate.c migrate_folio_move()); ``counted``: the walk event has a mapcount and the hits
        reach it. Null: not a migration walk, or no mapcount.
    """
    node = ["pid", "stable_node"]
    after = walks.sort("enter").with_columns(
        next_folio=pl.col("folio").shift(-1).over(node),
        next_one=pl.col("rmap_one").shift(-1).over(node),
    )
    counts = found.group_by("walk_id").agg(hits=pl.len().cast(pl.Int64), last_hit=pl.col("seq").max())
    sets = pl.col("rmap_one") == SETS
    return (
        after.join(counts, on="walk_id", how="left", maintain_order="left")
        .with_columns(pl.col("hits").fill_null(0))
        .select(
            "walk_id",
            "hits",
            "last_hit",
            migrated=pl.when(sets).then(
                ((pl.col("next_one") == RESTORES) & (pl.col("next_folio") != pl.col("folio"))).fill_null(
                    False
                )
            ),
            counted=pl.when(sets).then(pl.col("hits") >= pl.col("mapcount")),
        )
        .sort("walk_id")
    )


def mapped_pages(
    walks: pl.DataFrame,
    items: pl.DataFrame,
    met: pl.DataFrame,
    found: pl.DataFrame,
    verdict: pl.DataFrame,
    trees: Trees,
    mappings: Mappings,
) -> pl.DataFrame:
    """The mappings of each walk's folio when it entered.

    Args:
        walks: ``lifetimes.walk_lives``.
        items: Lives of rmap_items.
        met: Calls of a walk over the whole tree (``steps.visits``, only ``call``), with ``always``:
            every strategy makes that call.
        found: ``steps.hits``.
        verdict: ``completed``.
        trees: The trees.
        mappings: Which pages are mapped when.

    Returns:
        ``walk_id``, ``mm``, ``address``, ``listed``: a loop can find it; ``hit``: the walk's own page-table
        event tells of it. One row a mapping.
    """
    hit = found.filter(pl.col("mm").is_not_null()).select("walk_id", "mm", "address").unique()
    watching = not found.is_empty()
    sure = pl.lit(watching) & pl.col("migrated").fill_null(False)
    asking = (
        walks.join(verdict, on="walk_id")
        .filter(pl.col("rmap_one").ne_missing(RESTORES) & ~pl.col("counted").fill_null(False))
        .select("walk_id", "stable_node", "rmap_one", "enter", "exit", "last_hit", sure=sure)
    )
    calls = met.group_by("walk_id", mm=pl.col("vma_mm"), address=pl.col("address")).agg(
        pl.col("always").any(), pl.col("space").first()
    )
    watched = (pl.col("rmap_one") == SETS) & pl.lit(watching)
    listed = asking.join(calls, on="walk_id").filter(~(watched & pl.col("always") & ~pl.col("sure")))
    unlisted = _unlisted(asking, items, trees, mappings).join(
        calls, on=["walk_id", "mm", "address"], how="anti"
    )
    columns = ["walk_id", "mm", "address", "stable_node", "space", "enter", "exit", "last_hit", "sure"]
    asked = pl.concat(
        [
            listed.select(*columns, listed=~pl.col("sure")),
            unlisted.select(*columns, listed=pl.lit(False)),
        ]
    ).join(hit, on=["walk_id", "mm", "address"], how="anti")
    asked = asked.filter(~pl.col("sure") | _vanished(asked, trees, mappings))
    # What the walk did not hit and still ends at its last hit must be gone by then.
    last = pl.when("sure").then("enter").otherwise(pl.coalesce("last_hit", "enter"))
    asked = asked.with_columns(at=last)
    leaving = mappings.exiting(asked.with_columns(at="enter")) | mappings.torn_down(asked)
    there = mappings.mapped(asked) & (~leaving | asked["sure"])
    believed = asked.filter(there).select("walk_id", "mm", "address", "listed", hit=pl.lit(False))
    seen = hit.with_columns(listed=pl.lit(True), hit=pl.lit(True))
    return pl.concat([seen, believed]).sort("walk_id", "mm", "address")


def _vanished(asked: pl.DataFrame, trees: Trees, mappings: Mappings) -> pl.Series:
    """Whether the address lost its VMA between the last hit and the end of the walk.

    Not by an exit that had begun to take VMAs off the trees by then: it had dropped the page tables before.
    """
    space, address = asked["space"].to_numpy(), asked["address"].to_numpy()
    since = asked["last_hit"].fill_null(asked["enter"])
    gone = np.zeros(len(asked), np.bool_)
    gone[trees.covering(space, since.to_numpy(), address)[0]] = True
    gone[trees.covering(space, asked["exit"].to_numpy(), address)[0]] = False
    return pl.Series(gone) & ~mappings.torn_down(asked.with_columns(at=since))


def _unlisted(asking: pl.DataFrame, items: pl.DataFrame, trees: Trees, mappings: Mappings) -> pl.DataFrame:
    """Pages merged into a node whose rmap_item is gone, or not appended yet, there and in forked mms."""
    past = (
        asking.join(items.select("stable_node", "mm", "address", "anon_vma", "merged"), on="stable_node")
        .filter(pl.col("merged") <= pl.col("enter"))
        .select(*asking.columns, "mm", "address", "anon_vma")
        .drop_nulls(["mm", "address", "anon_vma"])
        .unique()
    )
    every = [past]
    while not past.is_empty():
        known = pl.concat(every)
        past = (
            past.join(mappings.forks, left_on="mm", right_on="parent", suffix="_child")
            .filter(pl.col("born") <= pl.col("enter"))
            .with_columns(mm="mm_child")
            .select(known.columns)
            .unique()
            .join(known, on=["walk_id", "mm", "address", "anon_vma"], how="anti")
        )
        every.append(past)
    candidates = (
        pl.concat(every)
        .join(trees.codes, on="anon_vma")
        .join(trees.spaces, on=["tree", "mm"])
        .sort("walk_id", "mm", "address", "tree")
    )
    question, _ = trees.covering(
        candidates["space"].to_numpy(), candidates["enter"].to_numpy(), candidates["address"].to_numpy()
    )
    return candidates[question].unique(["walk_id", "mm", "address"], keep="first", maintain_order=True)


def endings(calls: pl.DataFrame, pages: pl.DataFrame, walks: pl.DataFrame) -> pl.DataFrame:
    """The call that ends each walk under each strategy, and what the strategy finds.

    Args:
        calls: ``number`` (of the strategy), ``walk_id``, ``position``, ``rank``, ``life``, ``vma_mm``,
            ``address``: every rmap_one call of a walk run to its end.
        pages: ``mapped_pages``.
        walks: ``lifetimes.walk_lives``.

    Returns:
        ``number``, ``walk_id``, ``found`` (mappings met), and the ending call's ``end_position``,
        ``end_rank``, ``end_life``; null: the walk runs to its end.
    """
    totals = pages.group_by("walk_id").agg(total=pl.len())
    first = (
        calls.sort("number", "walk_id", "position", "rank")
        .unique(["number", "walk_id", "vma_mm", "address"], keep="first", maintain_order=True)
        .join(
            pages.filter("listed").select("walk_id", "address", vma_mm="mm"),
            on=["walk_id", "vma_mm", "address"],
            maintain_order="left",
        )
    )
    last = first.group_by("number", "walk_id", maintain_order=True).agg(
        pl.col("position", "rank", "life").last().name.prefix("end_"), found=pl.len().cast(pl.Int64)
    )
    may_end = walks.select("walk_id", ends=pl.col("rmap_one").is_in(ENDING))
    complete = (pl.col("found") == pl.col("total")) & pl.col("ends").fill_null(False)
    return (
        last.join(totals, on="walk_id", how="left", maintain_order="left")
        .join(may_end, on="walk_id", how="left", maintain_order="left")
        .with_columns(
            pl.when(complete).then(pl.col(name)).alias(name)
            for name in ("end_position", "end_rank", "end_life")
        )
        .drop("total", "ends")
    )
