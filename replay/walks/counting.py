"""Replay of the walks under every strategy, by counting.

For each loop and strategy: the iterations are the intervals on the tree that overlap the range
(``trees``), of these the ones whose VMA does not hold the address are ``skip_addr_out_of_range``,
the ones of the wrong mm for the pass ``skip_mm_mismatch``, the rest rmap_one calls. A walk is cut at
the call that completes the mappings (``ends``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.strategies import BUILTIN, lookups
from replay.walks import ends, steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from replay.state.trees import Trees
    from replay.strategies import Strategy
    from replay.walks.mappings import Mappings

    Int = NDArray[np.int64]


LOOPS_AT_ONCE: Final = 1 << 17
"""Inner loops that are replayed together: what is worked out for each takes about 4 kB."""


LOOP_COLUMNS: Final = (
    *("walk_id", "ts_ns", "stable_node", "rmap_item", "anon_vma", "mm", "address", "search_new_forks"),
    *("strategy", "first_pgoff", "last_pgoff", "iterations", "skip_addr_out_of_range", "skip_mm_mismatch"),
    *("rmap_one_calls", "ended_early", "position", "instant", "after", "until", "assumed"),
)
"""What is kept of each loop."""


ASKED_COLUMNS: Final = (
    *("walk_id", "position", "search_new_forks", "item", "rmap_item", "mm", "address", "anon_vma"),
    *("tree", "instant", "after", "until"),
)
"""What is asked of each loop."""


@dataclass(frozen=True)
class Replayed:
    """Result of ``replay_walks``.

    Attributes:
        loop: One row a loop and strategy; columns of table ``loop`` but the times and bounds, ``position``
            (order in the walk), ``instant``, ``after`` and ``until`` (``steps.instants``), and ``assumed``:
            the count would be another one at another instant at which the loop may have run.
        walk: One row a walk and strategy; columns of table ``walk`` and ``found`` (null: not known).
        miss: Table ``miss``.
        pages: ``ends.mapped_pages``.
        strays: ``walk_id`` of each page-table event of a walk that none of its loops can have made.
    """

    loop: pl.DataFrame
    walk: pl.DataFrame
    miss: pl.DataFrame
    pages: pl.DataFrame
    strays: pl.DataFrame


def replay_walks(
    walks: pl.DataFrame,
    items: pl.DataFrame,
    ev_migration_pte: pl.DataFrame,
    trees: Trees,
    mappings: Mappings,
    strategies: Sequence[Strategy],
) -> Replayed:
    """Replay every walk under every strategy, so many at a time that memory is bounded.

    Args:
        walks: ``lifetimes.walk_lives``.
        items: ``merge.at_merge``.
        ev_migration_pte: The table of this name.
        trees: The trees.
        mappings: Which pages are mapped when.
        strategies: In the order of the results.
    """
    parts = [
        _replay_part(
            part,
            items.join(part.select("stable_node"), on="stable_node", how="semi", maintain_order="left"),
            ev_migration_pte,
            trees,
            mappings,
            strategies,
        )
        for part in _parts(walks, items)
    ]
    return Replayed(
        loop=pl.concat(part.loop for part in parts),
        walk=pl.concat(part.walk for part in parts),
        miss=pl.concat(part.miss for part in parts),
        pages=pl.concat(part.pages for part in parts),
        strays=pl.concat(part.strays for part in parts),
    )


def _parts(walks: pl.DataFrame, items: pl.DataFrame) -> list[pl.DataFrame]:
    """The walks in order, in parts of about ``LOOPS_AT_ONCE`` inner loops; one walk stays whole."""
    listed = items.group_by("stable_node").agg(loops=2 * pl.len().cast(pl.Int64))
    loops = walks.select("stable_node").join(listed, on="stable_node", how="left", maintain_order="left")[
        "loops"
    ]
    part = loops.fill_null(0).cum_sum() // LOOPS_AT_ONCE
    return walks.with_columns(part=part).partition_by("part", maintain_order=True, include_key=False) or [
        walks
    ]


def _replay_part(
    walks: pl.DataFrame,
    items: pl.DataFrame,
    ev_migration_pte: pl.DataFrame,
    trees: Trees,
    mappings: Mappings,
    strategies: Sequence[Strategy],
) -> Replayed:
    """As ``replay_walks``, all at once."""
    asked = steps.expand(walks, items, trees)
    found = steps.hits(walks, asked, ev_migration_pte, trees, mappings)
    met = steps.visits(asked, trees, "enter")
    verdict = ends.completed(walks, found)
    always = _in_range(met.filter("call"), lookups(items, list(BUILTIN.values())), trees)
    always = always.group_by("walk_id", "position", "life").agg(always=pl.len() == len(BUILTIN))
    calls = met.filter("call").join(
        always, on=["walk_id", "position", "life"], how="left", maintain_order="left"
    )
    pages = ends.mapped_pages(
        walks, items, calls.with_columns(pl.col("always").fill_null(False)), found, verdict, trees, mappings
    )
    ended = _ended_at_last_hit(walks, pages, verdict)
    asked = steps.instants(asked, found, walks, ended, trees)
    if (asked["instant"] == asked["enter"]).all():
        met = met.with_columns(instant="enter")
    else:
        met = steps.visits(asked, trees, "instant")
    looked = lookups(items, strategies)
    inside = _in_range(met, looked, trees)
    stops = ends.endings(inside.filter("call"), pages, walks)
    loop = _loops(asked, looked, inside, stops, trees)
    of_walk = walks.select("walk_id", "ts_ns", "stable_node")
    full = _in_range(met.filter("call"), lookups(items, [BUILTIN["full"]]), trees)
    missed = _missed(full, inside.filter("call"), asked, looked, pages, trees)
    walk = _walks(walks, loop, stops, missed, strategies, _unlisted(walks, items))
    return Replayed(
        loop=loop.join(of_walk, on="walk_id", maintain_order="left").select(LOOP_COLUMNS),
        walk=walk,
        miss=missed,
        pages=pages,
        strays=found.filter(pl.col("position").is_null()).select("walk_id"),
    )


def _ended_at_last_hit(walks: pl.DataFrame, pages: pl.DataFrame, verdict: pl.DataFrame) -> pl.Series:
    """Whether the kernel's own walk ended at its last hit: one row a walk, by walk_id."""
    totals = pages.group_by("walk_id").agg(total=pl.len().cast(pl.Int64))
    return (
        walks.select("walk_id", "rmap_one")
        .join(verdict, on="walk_id", how="left", maintain_order="left")
        .join(totals, on="walk_id", how="left", maintain_order="left")
        .select(
            ((pl.col("rmap_one") == steps.SETS) & (pl.col("hits") > 0) & (pl.col("total") <= pl.col("hits")))
            .fill_null(False)
            .alias("ended")
        )["ended"]
    )


def _in_range(met: pl.DataFrame, looked: pl.DataFrame, trees: Trees) -> pl.DataFrame:
    """``met`` once for each strategy whose range for the item overlaps the interval visited."""
    spans = trees.lives[met["life"].to_numpy()].select(first="first_pgoff", last="last_pgoff")
    return (
        pl.concat([met, spans], how="horizontal")
        .join(looked, on="item")
        .filter((pl.col("first") <= pl.col("last_pgoff")) & (pl.col("last") >= pl.col("first_pgoff")))
        .drop("first", "last")
    )


def _loops(
    asked: pl.DataFrame, looked: pl.DataFrame, inside: pl.DataFrame, stops: pl.DataFrame, trees: Trees
) -> pl.DataFrame:
    """Counts of every loop that a strategy makes."""
    key = ["number", "walk_id"]
    stops = stops.select(*key, "end_position", "end_rank", "end_life")
    loops = (
        asked.select(ASKED_COLUMNS)
        .join(looked, on="item", maintain_order="left")
        .join(stops, on=key, how="left", maintain_order="left")
        .filter((pl.col("position") <= pl.col("end_position")).fill_null(True))
        .with_columns(ended_early=(pl.col("position") == pl.col("end_position")).fill_null(False))
    )
    visited = (
        inside.join(stops, on=key, how="left", maintain_order="left")
        .filter(
            ~(
                (pl.col("position") == pl.col("end_position")) & (pl.col("rank") > pl.col("end_rank"))
            ).fill_null(False)
        )
        .group_by("number", "walk_id", "position")
        .agg(holding=pl.len().cast(pl.Int64), rmap_one_calls=pl.col("call").sum().cast(pl.Int64))
    )
    loops = loops.join(visited, on=["number", "walk_id", "position"], how="left", maintain_order="left")
    iterations = pl.Series("iterations", _iterations(loops, trees))
    known = pl.all_horizontal(pl.col("first_pgoff", "tree", "mm", "address").is_not_null())
    holding, called = pl.col("holding").fill_null(0), pl.col("rmap_one_calls").fill_null(0)
    return (
        loops.with_columns(iterations)
        .with_columns(
            iterations=pl.when(known).then("iterations"),
            skip_addr_out_of_range=pl.when(known).then(pl.col("iterations") - holding),
            skip_mm_mismatch=pl.when(known).then(holding - called),
            rmap_one_calls=pl.when(known).then(called),
            ended_early=pl.when(known).then("ended_early"),
            assumed=pl.Series(_assumed(loops, trees)),
        )
        .drop("holding", "end_position", "end_rank", "end_life", "item", "tree")
        .pipe(_by_strategy)
    )


def _by_strategy(loops: pl.DataFrame) -> pl.DataFrame:
    """Loops in order of walk, strategy and position; they come in order of walk and position."""
    strategies = loops["number"].max()
    span = strategies + 1 if isinstance(strategies, int) else 1
    key = loops["walk_id"].to_numpy() * np.int64(span) + loops["number"].to_numpy()
    return loops[np.argsort(key, kind="stable")]


def _assumed(loops: pl.DataFrame, trees: Trees) -> NDArray[np.bool_]:
    """Whether an interval in the range came or went while the loop may have run."""
    assumed = np.zeros(len(loops), np.bool_)
    loose = loops.with_row_index("row").filter(
        pl.col("after").is_not_null() & pl.col("tree").is_not_null() & pl.col("first_pgoff").is_not_null()
    )
    columns = (loose[name].to_numpy() for name in ("tree", "after", "until", "first_pgoff", "last_pgoff"))
    assumed[loose["row"].to_numpy()] = trees.disturbed(*columns) > 0
    return assumed


def _iterations(loops: pl.DataFrame, trees: Trees) -> Int:
    """Iterations of each loop; equal questions (tree, its version, range) are asked once."""
    tree = loops["tree"].fill_null(0).to_numpy()
    instant = loops["instant"].to_numpy()
    questions = pl.DataFrame(
        {
            "tree": tree,
            "version": trees.by_first.version(tree, instant),
            "first": loops["first_pgoff"].fill_null(0),
            "last": loops["last_pgoff"].fill_null(0),
            "instant": instant,
        }
    ).with_row_index("row")
    same = ["tree", "version", "first", "last"]
    distinct = questions.unique(same, maintain_order=True).with_row_index("question")
    column = {name: distinct[name].to_numpy() for name in ("tree", "instant", "first", "last")}
    everything = (column["first"] == 0) & (column["last"] == np.iinfo(np.uint64).max)
    counts = np.zeros(len(distinct), np.int64)
    for chosen, count in ((everything, trees.everything), (~everything, None)):
        some = [column[name][chosen] for name in ("tree", "instant", "first", "last")]
        counts[chosen] = count(some[0], some[1]) if count is not None else trees.overlapping(*some)
    number = questions.join(distinct.select(*same, "question"), on=same, how="left", maintain_order="left")
    iterations: Int = counts[number["question"].to_numpy()]
    cut = np.flatnonzero(loops["ended_early"].to_numpy() & (iterations > 1))
    ending = loops[cut]
    iterations[cut] = trees.place_in_range(
        ending["tree"].to_numpy(),
        ending["instant"].to_numpy(),
        ending["end_life"].to_numpy(),
        ending["first_pgoff"].to_numpy(),
        ending["last_pgoff"].to_numpy(),
    )
    return iterations


def _missed(
    full: pl.DataFrame,
    inside: pl.DataFrame,
    asked: pl.DataFrame,
    looked: pl.DataFrame,
    pages: pl.DataFrame,
    trees: Trees,
) -> pl.DataFrame:
    """Mappings that a walk over the whole tree meets and the strategy does not.

    Where a range is not known, nothing is said to be missed.
    """
    page = ["walk_id", "vma_mm", "address"]
    listed = pages.filter("listed").select("walk_id", "address", "hit", vma_mm="mm")
    by = pl.when(pl.col("mm") == pl.col("vma_mm")).then(pl.lit("merge")).otherwise(pl.lit("fork"))
    met = (
        full.sort("walk_id", "position", "rank")
        .unique(page, keep="first", maintain_order=True)
        .join(listed, on=page, maintain_order="left")
        .with_columns(mapped_by=pl.when("hit").then(pl.lit("migration_entry")).otherwise(by))
        .select(*page, "rmap_item", "item", "life", "instant", "mapped_by")
    )
    unknown = (
        asked.select("walk_id", "item", "address")
        .unique()
        .join(looked.filter(pl.col("first_pgoff").is_null()), on="item")
        .select("number", "walk_id", "address")
    )
    missed = (
        met.join(looked, on="item")
        .join(inside.select("number", *page), on=["number", *page], how="anti")
        .join(unknown, on=["number", "walk_id", "address"], how="anti")
    )
    vma = trees.lives[missed["life"].to_numpy()].select("vm_start", "vm_end")
    return pl.concat([missed, vma], how="horizontal").sort("walk_id", "number", "vma_mm", "address")


def _unlisted(walks: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """``walk_id`` of the walks over a stable node of which the capture has shown no rmap_item by then.

    What was merged before the capture began, and is not removed in it, is not seen.
    """
    shown = items.group_by("stable_node").agg(shown=pl.col("born").min())
    return (
        walks.join(shown, on="stable_node", how="left")
        .filter(pl.col("shown").is_null() | (pl.col("shown") > pl.col("enter")))
        .select("walk_id")
    )


def _walks(
    walks: pl.DataFrame,
    loop: pl.DataFrame,
    stops: pl.DataFrame,
    missed: pl.DataFrame,
    strategies: Sequence[Strategy],
    unlisted: pl.DataFrame,
) -> pl.DataFrame:
    """Sums and maxima of the loops; null where one is not known. A walk without loops has no maximum."""
    key = ["walk_id", "number"]
    names = pl.DataFrame(
        {
            "number": pl.Series(range(len(strategies)), dtype=pl.Int32),
            "strategy": [strategy.name for strategy in strategies],
        }
    )
    sums = loop.group_by(key).agg(
        known=pl.col("iterations").is_not_null().all(),
        loops=pl.len().cast(pl.Int64),
        iterations_total=pl.col("iterations").sum(),
        iterations_max=pl.col("iterations").max(),
        skip_addr_out_of_range_max=pl.col("skip_addr_out_of_range").max(),
        skip_mm_mismatch_max=pl.col("skip_mm_mismatch").max(),
        rmap_one_calls=pl.col("rmap_one_calls").sum(),
    )
    shortfall = missed.group_by(key).agg(mappings_missed=pl.len().cast(pl.Int64))
    rows = (
        walks.join(names, how="cross")
        .join(sums, on=key, how="left", maintain_order="left")
        .join(shortfall, on=key, how="left", maintain_order="left")
        .join(stops.select(*key, "found"), on=key, how="left", maintain_order="left")
    )
    totals = ("loops", "iterations_total", "rmap_one_calls", "mappings_missed")
    maxima = ("iterations_max", "skip_addr_out_of_range_max", "skip_mm_mismatch_max")
    is_listed = ~pl.col("walk_id").is_in(unlisted["walk_id"].implode())
    rows = rows.with_columns(pl.col(name).fill_null(0) for name in (*totals, "found"))
    rows = rows.with_columns(pl.when(is_listed).then("found").alias("found"))
    known = pl.col("known").fill_null(is_listed)
    return rows.with_columns(
        pl.when(known).then(pl.col(name)).alias(name) for name in (*totals, *maxima)
    ).sort("walk_id", "number")
