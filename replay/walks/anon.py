"""Walks over ordinary anonymous pages: the relatives that each visits, and those that map the page.

rmap_walk_anon() asks the tree of the folio's anon_vma for the VMAs that have the folio's page offsets: of
the process that wrote the page, of its forks and of theirs. A fork that has written a copy of its own is
visited all the same, so the walk costs what the family has grown to, not what maps the page.

Kernel: mm/rmap.c rmap_walk_anon(), try_to_migrate(), try_to_unmap(), folio_referenced(); mm/migrate.c
remove_migration_ptes().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.state.families import FORKS
from replay.state.lifetimes import AFTER, BEFORE, of_versions, walk_lives
from replay.state.names import with_names
from replay.state.order import disjoint, in_order
from replay.state.trees import Trees
from replay.walks.anon_ends import last_mapping
from replay.walks.callers import named
from replay.walks.observed import by_iterator, within
from replay.walks.steps import RESTORES
from schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replay.state.gaps import Gaps

PLACE: Final = ("mm", "vm_start", "vm_end", "first_pgoff", "last_pgoff")
"""Without one of these nobody knows where on its tree an interval is."""
PG_HEAD: Final = 0x40
"""Bit of folio->flags: a folio of several pages (include/linux/page-flags.h)."""
VISIT_ALL: Final = ("damon_folio_mkold_one", "page_idle_clear_pte_refs_one")
"""Callbacks that end no walk; they take the lock only of a folio that is mapped."""
PAGES: Final = {order: 1 << order for order in range(31)}
"""Pages of a folio by its order; what is beyond is no order."""
STARTS: Final = ("execve", "execveat", *FORKS)
"""Calls in which an address space begins."""


def anon_walks(
    events: Mapping[str, pl.DataFrame],
    avc: pl.DataFrame,
    lives: pl.DataFrame,
    vma: pl.DataFrame,
    spaces: pl.DataFrame,
    gaps: Gaps | None,
    comms: Mapping[int, str],
) -> pl.DataFrame:
    """Table ``anon_walk``: the walks whose return is in the capture.

    Args:
        events: The ``ev_*`` tables.
        avc: Table ``avc``.
        lives: ``families.one_by_one`` of it.
        vma: Table ``vma``.
        spaces: ``spaces.task_spaces``.
        gaps: When events were lost; None: none were.
        comms: The last name of each thread id.
    """
    entered = named(events["ev_anon_walk"], events["ev_migration_pte"])
    walks, _ = walk_lives(entered)
    walks = with_names(walks.with_columns(seq="enter"), events, comms)
    is_large = pl.col("flags") & PG_HEAD != 0
    order = pl.when(is_large).then(pl.col("flags_1") & 0xFF).when(~is_large).then(0)
    walks = walks.rename({"index": "first_pgoff", "rmap_one": "caller"})
    walks = walks.with_columns(pages=order.replace_strict(PAGES, default=None, return_dtype=pl.UInt64))
    walks = walks.with_columns(last_pgoff=pl.col("first_pgoff") + pl.col("pages") - 1)
    walks = _hits(walks, events["ev_migration_pte"])
    trees = _trees(walks, avc)
    walks = _relatives(walks, trees, _known(lives, vma), gaps)
    ends = last_mapping(walks, trees, lives, events, spaces)
    return (
        _visited(walks.join(ends, on="walk_id", how="left", maintain_order="left"))
        .join(_observed(events, walks), on="walk_id", how="left", maintain_order="left")
        .with_columns(observed_ns=pl.col("end_ns") - pl.col("ts_ns"))
        .select(TABLES["anon_walk"].arrow.names)
    )


def summary(walks: pl.DataFrame) -> pl.DataFrame:
    """Table ``anon_summary``, most walks first.

    Args:
        walks: Table ``anon_walk``.
    """
    both = pl.col("relatives").is_not_null() & pl.col("mapping").is_not_null()
    seen = pl.col("observed_iterations")
    compared = seen.is_not_null() & pl.col("iterations").is_not_null()
    bounded = seen.is_not_null() & pl.col("iterations").is_null() & pl.col("relatives").is_not_null()
    inside = seen.is_between("iterations_least", "iterations_most")
    return (
        walks.group_by("caller")
        .agg(
            walks=pl.len(),
            relatives_max=pl.col("relatives").max(),
            known=both.sum(),
            relatives_total=pl.col("relatives").filter(both).sum(),
            mapping_total=pl.col("mapping").filter(both).sum(),
            replayed=pl.col("iterations").count(),
            iterations_total=pl.col("iterations").sum(),
            compared=compared.sum(),
            agreeing=(compared & inside).sum(),
            bounded=bounded.sum(),
            within=(bounded & inside).sum(),
            longest_ns=pl.col("observed_ns").max(),
            together_ns=pl.when(pl.col("observed_ns").count() > 0).then(pl.col("observed_ns").sum()),
        )
        .with_columns(pl.exclude("caller").cast(pl.Int64))
        .sort(["walks", "caller"], descending=[True, False])
        .select(TABLES["anon_summary"].arrow.names)
    )


def _hits(walks: pl.DataFrame, ev_migration_pte: pl.DataFrame) -> pl.DataFrame:
    """With ``hit`` (place of the first page-table event of the walk), ``sets`` and ``mapping``."""
    hits = (
        within(ev_migration_pte.select("pid", "seq", "is_set"), walks)
        .group_by("walk_id")
        .agg(
            hit=pl.col("seq").min(),
            sets=pl.col("is_set").sum().cast(pl.Int64),
            restores=(~pl.col("is_set")).sum().cast(pl.Int64),
        )
    )
    recorded = not ev_migration_pte["is_set"].all()
    restored = pl.col("restores").fill_null(0) if recorded else pl.lit(None, pl.Int64)
    mapping = pl.when(pl.col("caller") == RESTORES).then(restored).otherwise(pl.col("mapcount"))
    known = (pl.col("pages") == 1) & pl.col("caller").is_not_null()
    return walks.join(hits, on="walk_id", how="left", maintain_order="left").with_columns(
        pl.col("sets").fill_null(0), mapping=pl.when(known).then(mapping.cast(pl.Int64))
    )


def _trees(walks: pl.DataFrame, avc: pl.DataFrame) -> Trees:
    """The trees that are walked, but those of which an interval has no known place."""
    unplaced = avc.filter(pl.any_horizontal(pl.col(name).is_null() for name in PLACE))
    walked = avc.join(walks.select("anon_vma"), on="anon_vma", how="semi", maintain_order="left")
    placed = walked.join(unplaced, on="anon_vma", how="anti", maintain_order="left")
    return Trees(
        placed.with_columns(
            born=pl.col("born_seq").fill_null(BEFORE), died=pl.col("died_seq").fill_null(AFTER)
        )
    )


def _relatives(walks: pl.DataFrame, trees: Trees, known: pl.DataFrame, gaps: Gaps | None) -> pl.DataFrame:
    """With ``relatives``, ``tree`` and ``instant``; null where it cannot be known.

    Args:
        walks: With ``hit`` and ``mapping``.
        trees: The trees that they walk.
        known: Of each life of an anon_vma, whether all of its tree is known.
        gaps: When events were lost; None: none were.
    """
    asked = (
        walks.join(trees.codes, on="anon_vma")
        .sort("enter")
        .join_asof(known, left_on="enter", right_on="since", by="anon_vma", check_sortedness=False)
        .drop_nulls(["first_pgoff", "last_pgoff"])
        .filter(pl.col("known").fill_null(False))
    )
    tree, enter, leave, since = (asked[name].to_numpy() for name in ("tree", "enter", "exit", "since"))
    span = [asked[name].to_numpy() for name in ("first_pgoff", "last_pgoff")]
    # A page-table event says that the lock is held; without one the tree must not have changed meanwhile.
    still = trees.disturbed(tree, enter, leave, *span) == 0
    instant = asked["hit"].fill_null(asked["enter"]).to_numpy()
    certain = still | asked["hit"].is_not_null().to_numpy()
    if gaps is not None:
        certain &= ~gaps.within(since, leave)
    found = asked.select(
        "walk_id",
        "tree",
        instant=pl.Series(instant),
        relatives=pl.Series(trees.overlapping(tree, instant, *span), dtype=pl.Int64),
    ).filter(pl.Series(certain))
    # Fewer than map the folio: there are some that the capture does not show.
    shown = pl.col("relatives") >= pl.col("mapping").fill_null(0)
    return walks.join(found, on="walk_id", how="left", maintain_order="left").with_columns(
        relatives=pl.when(shown).then("relatives")
    )


def _known(lives: pl.DataFrame, vma: pl.DataFrame) -> pl.DataFrame:
    """Of each life of an anon_vma: whether the capture shows all intervals that it ever had.

    It does if the first that it shows was put there in an address space that began in the capture; by a fork,
    only if the forked VMA is on other trees too, which are all known: else the tree may be one of its
    parent's, older than the capture.

    Args:
        lives: ``families.one_by_one``.
        vma: Table ``vma``.

    Returns:
        ``anon_vma``, ``since`` (place of its first interval), ``known``; in order of ``since``.
    """
    lives = lives.hstack(of_versions(vma, lives["vma_id"], "cause_event")).with_row_index("row")
    placed = in_order(lives.drop_nulls("mm"), "mm", "born", "died")
    begins = disjoint(*(placed[name].to_numpy() for name in ("mm", "born", "died")))
    begun = pl.col("cause_event").is_in(STARTS).fill_null(False) & pl.col("born_seq").is_not_null()
    heads = placed.select(begun)["cause_event"].to_numpy()[begins]
    young = np.zeros(len(lives), np.bool_)
    young[placed["row"].to_numpy()] = heads[np.cumsum(begins) - 1]
    first = lives.with_columns(young=pl.Series(young)).filter(
        pl.col("number") != pl.col("number").shift(1).fill_null(0)
    )
    forked = first["cause_event"].is_in(FORKS).fill_null(False).to_numpy()
    shown = first.select(pl.col("young") & pl.col("born_seq").is_not_null())["young"].to_numpy()
    others = (
        first.filter(pl.Series(forked))
        .select("number", "vma_id")
        .join(lives.select("vma_id", other="number"), on="vma_id")
        .filter(pl.col("number") != pl.col("other"))
    )
    number, other = (others[name].to_numpy() - 1 for name in ("number", "other"))
    has_others = np.bincount(number, minlength=len(first)) > 0
    known = shown & ~forked
    while True:  # once for each generation of forks
        unknown = np.bincount(number[~known[other]], minlength=len(first)) > 0
        more = known | (shown & forked & has_others & ~unknown)
        if (more == known).all():
            break
        known = more
    return first.select("anon_vma", since="tree_age", known=pl.Series(known)).sort("since")


def _visited(walks: pl.DataFrame) -> pl.DataFrame:
    """With ``iterations`` and its bounds; ``place_least`` and ``place_most`` are of ``last_mapping``.

    A walk that nothing ends visits all relatives; one that ends as its callback likes or with the last
    mapping, at least those whose page table entry it changed, and one if any maps the folio; one that gives
    up when the lock is taken, maybe none.
    """
    caller, mapped = pl.col("caller"), pl.col("mapping") > 0
    one = pl.when(mapped & (pl.col("relatives") > 0)).then(1).otherwise(0)
    met = pl.max_horizontal(pl.coalesce("place_least", "sets"), one)
    everything = (caller == RESTORES) | (caller.is_in(VISIT_ALL) & mapped)
    least = (
        pl.when(everything.fill_null(False))
        .then("relatives")
        .when(~pl.col("try_lock").fill_null(True))
        .then(pl.min_horizontal(met, "relatives"))
        .otherwise(0)
    )
    known = pl.col("relatives").is_not_null()
    bounded = walks.with_columns(
        iterations_least=pl.when(known).then(least.cast(pl.Int64)),
        iterations_most=pl.coalesce("place_most", "relatives"),
    )
    same = pl.col("iterations_least") == pl.col("iterations_most")
    return bounded.with_columns(iterations=pl.when(same).then("iterations_least"))


def _observed(events: Mapping[str, pl.DataFrame], walks: pl.DataFrame) -> pl.DataFrame:
    """``walk_id``, ``observed_iterations`` where the capture has the iterator's probes."""
    if events["ev_obs_first"].is_empty():
        return walks.select("walk_id", observed_iterations=pl.lit(None, pl.Int64))
    counted = by_iterator(events, walks).group_by("walk_id").agg(pl.col("iterations").sum())
    return (
        walks.select("walk_id")
        .join(counted, on="walk_id", how="left", maintain_order="left")
        .select("walk_id", observed_iterations=pl.col("iterations").fill_null(0))
    )
