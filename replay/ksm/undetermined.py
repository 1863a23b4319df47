"""Walks over nodes whose rmap_items are not all determined: bounds, never a guess (see ``ksm.stock``).

Which rmap_items a node can have listed at a migration is known: those merged into it and not elsewhere, of
address spaces that are there, or were when ksmd's last whole pass began. Some may have been dropped since,
which no event tells. What is sure of a migration's first walk: each address at
which it changed an entry is that of a listed rmap_item. So at least as many are listed as addresses were hit,
and if no more than these can have been at those addresses, it is just they.

Bounds of a loop are over the pages at which its rmap_item can have been merged (``ksm.candidates``), and the
instants at which it can have run: since the task's event before the walk, up to its next one after it. A loop
of an rmap_item that may not be listed any more has 0 at least. Of a walk:

- least: of the listed rmap_items the ones with the fewest, each once a pass; in the first walk of a migration
  the last loop may have ended early;
- most: all of them, in both passes. Under ``full``, the first walk of a migration made one pass where it
  ended at its last hit: where the folio was moved, all pages are of one process that was not forked since,
  and nothing else can have unmapped a page right then.

Where a hit has no place among the candidates, or an address space is not known, there are no bounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from replay.ksm.candidates import between, candidates
from replay.ksm.hits import least_listed, one_pass, placed, still_nodes
from replay.ksm.nodes import hits_of, listed_in, of_one, stable_node
from replay.state.lifetimes import AFTER
from replay.strategies import BUILTIN, ULONG_MAX, lookups
from replay.walks.depths import depths
from replay.walks.mappings import PAGE
from replay.walks.steps import RESTORES, SETS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replay.strategies import Strategy

_POINTS: Final = {
    "addr": ("first_page", "last_page"),
    "vm_pgoff": ("vm_pgoff", "vm_last"),
    "linear": ("first_pgoff", "last_pgoff"),
}
"""Between which page offsets the point lies that a strategy looks up for a page in a range of candidates."""


def walks_of(moves: pl.DataFrame, events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The two walks of each migration, and the span in which their loops ran.

    Returns:
        ``walk`` (number), ``move``, ``rmap_one``, ``pid``, ``cpu``, ``enter`` (right before its first entry),
        ``ts_ns``, ``after``, ``until`` (places: events of the task around it). The second where it is known.
    """
    sets = moves.select(
        *("move", "pid", "cpu"), rmap_one=pl.lit(SETS), begin="first", end="last", ts_ns="first_ts"
    )
    restores = moves.filter(pl.col("begin").is_not_null()).select(
        *("move", "pid", "cpu"), "begin", "end", rmap_one=pl.lit(RESTORES), ts_ns="begin_ts"
    )
    tasks = pl.concat(
        frame.select("pid", "seq") for name, frame in events.items() if not name.startswith("ev_obs_")
    ).sort("seq")
    rows = pl.concat([sets, restores], how="diagonal").with_columns(
        enter=pl.col("begin") - 1, leave=pl.col("end") + 1
    )
    return (
        rows.sort("enter")
        .join_asof(
            tasks.rename({"seq": "after"}),
            left_on="enter",
            right_on="after",
            by="pid",
            check_sortedness=False,
            coalesce=False,
        )
        .sort("leave")
        .join_asof(
            tasks.rename({"seq": "until"}),
            left_on="leave",
            right_on="until",
            by="pid",
            strategy="forward",
            check_sortedness=False,
            coalesce=False,
        )
        .with_columns(after=pl.col("after").fill_null(-1), until=pl.col("until").fill_null(AFTER - 1))
        .sort("enter")
        .with_row_index("walk")
    )


def bounded_loops(
    walks: pl.DataFrame,
    rows: pl.DataFrame,
    exactly: pl.DataFrame,
    strategies: Sequence[Strategy],
    lives: pl.DataFrame,
) -> pl.DataFrame:
    """Least and most iterations of one loop of each rmap_item in each walk, under each strategy.

    Args:
        walks: ``walks_of``.
        rows: ``placed``.
        exactly: ``strategies.lookups`` of the determined rmap_items.
        strategies: In the order of the results.
        lives: ``ksm.windows.in_windows``, those on the trees asked for.

    Returns:
        ``walk``, ``item``, ``number`` (of the strategy), ``least``, ``most``; ``hit_least``: if its page was
        hit (null: it was not). ``first_pgoff``, ``last_pgoff``: what is looked up (null: not known). Null
        ``most``: no bounds.
    """
    last_pgoff = pl.col("first_pgoff") + (pl.col("last_page") - pl.col("first_page"))
    spans = walks.select("walk", "move", "after", "until").join(
        rows.with_columns(last_pgoff=last_pgoff), on="move"
    )
    asked = pl.concat(
        _asked(spans, strategy, exactly.filter(number=number)).with_columns(number=pl.lit(number, pl.Int32))
        for number, strategy in enumerate(strategies)
    )
    # Where the range of an interval is not known, nothing tells whether it overlaps.
    vague = lives.filter(pl.any_horizontal(pl.col("first_pgoff", "last_pgoff").is_null()))["anon_vma"]
    known = pl.all_horizontal(pl.col("low", "high").is_not_null()) & ~pl.col("anon_vma").is_in(
        vague.implode()
    )
    some = asked.filter(known)
    least, most = depths(
        lives,
        some.select("anon_vma", "after", "until", "whole", first_pgoff="low", last_pgoff="high"),
    )
    answered = [
        asked.filter(~known.fill_null(False)),
        some.with_columns(least=pl.Series(least), most=pl.Series(most)),
    ]
    told = pl.concat(answered, how="diagonal").with_columns(
        least=pl.when(pl.col("most").is_not_null()).then(pl.when("any").then(0).otherwise("least"))
    )
    one = (pl.col("low").min() == pl.col("low").max()) & (pl.col("high").min() == pl.col("high").max())
    one &= (pl.col("whole").all() | (pl.col("low") == pl.col("high")).all()) & ~pl.col("any").any()
    return (
        told.group_by("walk", "item", "number")
        .agg(
            known=pl.col("most").is_not_null().all(),
            least=pl.col("least").min(),
            most=pl.col("most").max(),
            hit_least=pl.col("least").filter(pl.col("hits") > 0).min(),
            first_pgoff=pl.when(one).then(pl.col("low").first()),
            last_pgoff=pl.when(one).then(pl.col("high").first()),
        )
        .with_columns(
            pl.when("known").then(pl.col(name)).alias(name) for name in ("least", "most", "hit_least")
        )
        .drop("known")
        .sort("walk", "number", "item")
    )


def _asked(spans: pl.DataFrame, strategy: Strategy, exactly: pl.DataFrame) -> pl.DataFrame:
    """``spans`` with what a strategy looks up there, from ``low`` to ``high``.

    ``whole``: it looks up all of that, else one page offset in it. ``any``: what it looks up is not known.
    """
    everything = (pl.lit(0, pl.UInt64), pl.lit(ULONG_MAX, pl.UInt64))
    low, high, whole, of_any = *everything, True, pl.lit(False)
    if strategy is BUILTIN.get(strategy.name):
        if strategy.name in _POINTS:
            low, high = (pl.col(name) for name in _POINTS[strategy.name])
            whole = False
    else:
        exactly = exactly.select("item", lookup_first="first_pgoff", lookup_last="last_pgoff")
        spans = spans.join(exactly, on="item", how="left", maintain_order="left")
        of_any = pl.any_horizontal(pl.col("lookup_first", "lookup_last").is_null())
        low, high = (
            pl.when(of_any).then(end).otherwise(name)
            for end, name in zip(everything, ("lookup_first", "lookup_last"), strict=True)
        )
    return spans.select(
        *("walk", "item", "anon_vma", "after", "until", "hits"), low=low, high=high, whole=whole, any=of_any
    )


def bounded_walks(loops: pl.DataFrame, walks: pl.DataFrame, strategies: Sequence[Strategy]) -> pl.DataFrame:
    """Bounds of sums and maxima over the loops of each walk, under each strategy.

    Args:
        loops: ``bounded_loops``.
        walks: ``walks_of``, with ``listed`` (rmap_items at least) and ``one_pass`` (under ``full``, the
            first walk ended in the first pass).
        strategies: In the order of the results.

    Returns:
        ``walk``, ``number``, ``total_least``, ``total_most``, ``max_least``, ``max_most``. Null: no bounds.
    """
    full = [number for number, strategy in enumerate(strategies) if strategy is BUILTIN["full"]]
    ordered = (
        loops.join(walks.select("walk", "rmap_one", "listed", "one_pass"), on="walk")
        .sort("walk", "number", "hit_least", nulls_last=True)
        .with_columns(nth=pl.int_range(pl.len()).over("walk", "number"))
    )
    surely, restores = pl.col("nth") < pl.col("listed"), pl.col("rmap_one").first() == RESTORES
    hit = pl.col("hit_least")
    most, least = pl.col("most").sum(), hit.filter(surely)
    # In the first walk the loop of the last hit ends early; which one that is is not known.
    cut = hit.filter(pl.col("nth") < pl.col("listed") - 1)
    early = pl.min_horizontal(hit.first(), 1)
    passes = pl.when(pl.col("one_pass").first() & pl.col("number").first().is_in(full)).then(1).otherwise(2)
    told = ordered.group_by("walk", "number", maintain_order=True).agg(
        known=pl.col("most").is_not_null().all(),
        total_least=pl.when(restores).then(2 * least.sum()).otherwise(cut.sum() + early),
        total_most=pl.when(restores).then(2 * most).otherwise(passes * most),
        max_least=pl.when(restores).then(least.max()).otherwise(pl.max_horizontal(cut.max(), early)),
        max_most=pl.col("most").max(),
    )
    bounds = ("total_least", "total_most", "max_least", "max_most")
    return told.select(
        "walk", "number", *(pl.when("known").then(pl.col(name)).alias(name) for name in bounds)
    )


@dataclass(frozen=True)
class Rebuilt:
    """What the bounds rest on.

    Attributes:
        lives: ``ksm.windows.in_windows``.
        versions: Versions of VMAs, likewise.
        held: ``ksm.candidates.vmas_at`` of the rmap_items whose address is known.
        followed: ``ksm.spaces.followed``.
        forks: ``spaces.parents``.
    """

    lives: pl.DataFrame
    versions: pl.DataFrame
    held: pl.DataFrame
    followed: pl.Series
    forks: pl.DataFrame


@dataclass(frozen=True)
class Undetermined:
    """What is said of migrations whose walks are not determined.

    Attributes:
        walk, loop: Rows of the tables of these names, without bounds too; in place of walk_id ``enter``, the
            place of the walk. Loops are in order of walk and strategy.
        rmap_item: Rows of that table: the rmap_items whose address, or VMA at the merge, is not known.
        migrations: Migrations that have bounds.
    """

    walk: pl.DataFrame
    loop: pl.DataFrame
    rmap_item: pl.DataFrame
    migrations: int


def undetermined(
    events: Mapping[str, pl.DataFrame],
    items: pl.DataFrame,
    moves: pl.DataFrame,
    walked: pl.DataFrame,
    known: pl.DataFrame,
    state: Rebuilt,
    strategies: Sequence[Strategy],
) -> Undetermined:
    """Bounds for the walks of the migrations that are not determined.

    Args:
        events: The ``ev_*`` tables.
        items: ``ksm.nodes.nodes`` with ``number`` and ``address``.
        moves: Migrations with the node.
        walked: Those that are determined.
        known: rmap_items of which the VMA at the merge is known too, as ``exact.Exact.items``, but ``item``
            as in ``items``.
        state: What is rebuilt.
        strategies: In the order of the results.
    """
    open_items = between(items, events["ev_scan"]).filter(
        pl.col("address").is_null() & pl.col("number").is_in(state.followed.implode())
    )
    found = candidates(open_items, state.versions)
    asked = still_nodes(moves, items, state.forks).join(walked, on="move", how="anti", maintain_order="left")
    hit = hits_of(asked, events["ev_migration_pte"])
    asked = asked.with_columns(listed=least_listed(asked, hit))
    listed = listed_in(asked, items)
    hit = hit.select("move", page=pl.col("address") // PAGE)
    rows = placed(listed, pl.concat([found, state.held.select(found.columns)]), asked, hit)
    first = one_pass(asked, of_one(asked, items, state.forks), events)
    walks = walks_of(asked, events).join(
        asked.select("move", "node", "listed", one_pass=first), on="move", maintain_order="left"
    )
    trees = state.lives.join(
        rows.select("anon_vma").unique(), on="anon_vma", how="semi", maintain_order="left"
    )
    loops = bounded_loops(walks, rows, lookups(known, strategies), strategies, trees)
    named = walks.select(
        "walk", "move", "enter", "ts_ns", "rmap_one", "pid", "cpu", stable_node=stable_node()
    )
    names = pl.DataFrame({"number": range(len(strategies)), "strategy": [each.name for each in strategies]})
    names = names.with_columns(pl.col("number").cast(pl.Int32))
    bounds = bounded_walks(loops, walks, strategies)
    return Undetermined(
        _walk_rows(named, bounds, names),
        _loop_rows(named.join(walks.select("walk", "one_pass"), on="walk"), listed, rows, loops, names),
        _item_rows(items.join(known, on="item", how="anti", maintain_order="left"), found),
        rows["move"].n_unique(),
    )


def _walk_rows(walks: pl.DataFrame, bounds: pl.DataFrame, names: pl.DataFrame) -> pl.DataFrame:
    rows = walks.join(names, how="cross", maintain_order="left_right").join(
        bounds, on=["walk", "number"], how="left", maintain_order="left"
    )
    rows = rows.rename({"rmap_one": "caller"})
    for name in ("total", "max"):
        least, most = pl.col(f"{name}_least"), pl.col(f"{name}_most")
        rows = rows.with_columns(
            pl.when(least == most).then(most).alias(f"iterations_{name}"),
            pl.when(least != most).then(least).alias(f"iterations_{name}_least"),
            pl.when(least != most).then(most).alias(f"iterations_{name}_most"),
        )
    return rows


def _loop_rows(
    walks: pl.DataFrame, listed: pl.DataFrame, rows: pl.DataFrame, loops: pl.DataFrame, names: pl.DataFrame
) -> pl.DataFrame:
    """One row a loop that may have been run; its count is 0 at least where it may not have been."""
    only = pl.col("anon_vma").n_unique() == 1
    told = rows.group_by("move", "item").agg(
        pl.col("surely").first(), anon_vma=pl.when(only).then(pl.col("anon_vma").first())
    )
    passes = pl.DataFrame({"search_new_forks": [0, 1]}, schema={"search_new_forks": pl.Int32})
    restores, second = pl.col("rmap_one") == RESTORES, pl.col("search_new_forks") == 1
    made = (
        walks.join(listed.select("move", "item", "rmap_item", "born", "address", mm="number"), on="move")
        .join(names, how="cross")
        .join(passes, how="cross")
        .filter(~(second & ~restores & pl.col("one_pass") & (pl.col("strategy") == "full")))
        .join(told, on=["move", "item"], how="left")
        .join(loops, on=["walk", "number", "item"], how="left")
        .sort("walk", "number", "search_new_forks", "born", descending=[False, False, False, True])
    )
    ran = pl.col("surely").fill_null(False) & (restores | ~second)
    least = pl.when(restores).then("hit_least").otherwise(pl.min_horizontal("hit_least", 1))
    made = made.with_columns(
        least=pl.when(pl.col("most").is_not_null()).then(pl.when(ran).then(least).otherwise(0))
    )
    known = ran & (pl.col("least") == pl.col("most"))
    return made.with_columns(
        iterations=pl.when(known).then("most"),
        iterations_least=pl.when(~known).then("least"),
        iterations_most=pl.when(~known).then("most"),
    )


def _item_rows(items: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    only = pl.col("anon_vma").n_unique() == 1
    ranges = found.group_by("item").agg(
        address_least=pl.col("first_page").min() * PAGE,
        address_most=pl.col("last_page").max() * PAGE,
        anon_vma=pl.when(only).then(pl.col("anon_vma").first()),
    )
    return items.join(ranges, on="item", how="left", maintain_order="left").select(
        *("rmap_item", "address", "anon_vma", "kpfn", "died_ts_ns", "address_least", "address_most"),
        stable_node=stable_node(),
        mm="number",
        born_ts_ns="ts_ns",
        evidence=pl.lit("modelled"),
    )
