"""What the hits of a migration tell where rmap_items are not all determined (see ``ksm.undetermined``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.state.lifetimes import AFTER

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNMAPPING: Final = (
    *("munmap", "mremap", "mmap", "brk", "madvise", "process_madvise", "prctl"),
    *("execve", "execveat", "exit", "exit_group"),
)


def still_nodes(moves: pl.DataFrame, items: pl.DataFrame, forks: pl.DataFrame) -> pl.DataFrame:
    """The migrations whose folio was the node's, and not another one that was given its frame.

    An entry of a KSM page is marked as shared; so is one of a page that processes map since a fork. So it is
    known of processes without relatives; else of a folio at several addresses, and of a node that something
    later shows: a merge into it, or such a migration.

    Args:
        moves: ``ksm.nodes.migrations`` with the node.
        items: ``ksm.nodes.nodes`` with ``number``.
        forks: ``spaces.parents``.
    """
    of_nodes = moves.filter(pl.col("node").is_not_null())
    several = of_nodes.filter(pl.col("addresses") > 1)
    kinds = several["type"].unique()
    if len(kinds) != 1:
        return of_nodes.clear()
    seen = pl.concat([several.select("node", seen="first"), items.select("node", seen="merged")])
    lasts = seen.group_by("node").agg(pl.col("seen").max())
    family = pl.concat([forks["mm"], forks["parent"]])
    related = items.filter(pl.col("number").is_null() | pl.col("number").is_in(family.implode()))
    sole = ~pl.col("node").is_in(related["node"].implode())
    return of_nodes.join(lasts, on="node", how="left", maintain_order="left").filter(
        (pl.col("type") == kinds[0]) & ((pl.col("first") <= pl.col("seen")) | sole)
    )


def least_listed(moves: pl.DataFrame, hit: pl.DataFrame) -> pl.Series:
    """How many rmap_items were listed at least: each hit is that of one.

    In the first pass an rmap_item has one hit at most. In the second all its hits come one after another, at
    one address. Nothing tells where the second begins: of all places, the one that needs the fewest. And each
    address that was hit is that of one.

    Args:
        moves: Migrations.
        hit: ``ksm.nodes.hits_of`` these.

    Returns:
        One number a row of ``moves``.
    """
    rows = hit.sort("move", "place").with_columns(
        moved=(pl.col("address") != pl.col("address").shift(1)).fill_null(False).over("move")
    )
    changes = pl.col("moved").cast(pl.Int64)
    rows = rows.with_columns(rest=1 + changes.sum().over("move") - changes.cum_sum().over("move"))
    fewest = rows.group_by("move").agg(
        listed=pl.min_horizontal(pl.max_horizontal("place", "rest").min(), pl.len()),
        addresses=pl.col("address").n_unique(),
    )
    return moves.join(fewest, on="move", how="left", maintain_order="left").select(
        pl.max_horizontal("listed", "addresses").cast(pl.Int64)
    )["listed"]


def second_passes(hit: pl.DataFrame) -> pl.DataFrame:
    """Whether hits show that just the first of each address is of the first pass: ``move``, ``told``.

    In the first pass each address is hit once. In the second, where it is that of one rmap_item, its hits
    come one after another: so what comes again later, with others between, was hit in the first.

    Args:
        hit: ``ksm.nodes.hits_of`` migrations of pages that one process merged, of which as many rmap_items
            can be listed as addresses were hit.
    """
    rows = hit.with_columns(addresses=pl.col("address").n_unique().over("move"))
    first = pl.col("place") < pl.col("addresses")
    last = pl.col("address").filter(pl.col("place") == pl.col("addresses") - 1).first()
    following = pl.col("address").filter(pl.col("place") == pl.col("addresses")).first()
    later = pl.col("address").filter(pl.col("place") > pl.col("addresses"))
    return rows.group_by("move").agg(
        told=(pl.col("address").filter(first).n_unique() == pl.col("addresses").first())
        & (following != last).fill_null(False)
        & (later == last).any()
    )


def placed(listed: pl.DataFrame, runs: pl.DataFrame, moves: pl.DataFrame, hit: pl.DataFrame) -> pl.DataFrame:
    """The candidates of each rmap_item in each migration, with what the hits tell.

    Args:
        listed: ``listed_in``.
        runs: ``ksm.candidates.candidates``; of a determined rmap_item, its page.
        moves: ``still_nodes``, and ``listed``: ``least_listed``.
        hit: ``move``, ``page``: where it changed an entry.

    Returns:
        ``move``, ``item``, the columns of ``runs``, ``hits`` (pages hit in this range), ``hitable`` (the
        rmap_item can be of one of them), ``surely`` (it is, so it is listed). Only migrations all of whose
        rmap_items have candidates and all of whose hits are among them. Candidates of rmap_items that surely
        are at a page that was hit are the ranges from the first to the last hit.
    """
    lacking = listed.join(runs, on="item", how="anti").select("move")
    rows = listed.select("move", "item").join(lacking, on="move", how="anti").join(runs, on="item")
    pages = hit.unique().join(rows.select("move").unique(), on="move", how="semi").sort("move", "page")
    values = np.unique(pages["page"].to_numpy())
    radix = np.int64(len(values) + 1)
    keys = pages["move"].to_numpy().astype(np.int64) * radix + np.searchsorted(
        values, pages["page"].to_numpy()
    )
    move = rows["move"].to_numpy().astype(np.int64) * radix
    begin = np.searchsorted(keys, move + np.searchsorted(values, rows["first_page"].to_numpy(), side="left"))
    end = np.searchsorted(keys, move + np.searchsorted(values, rows["last_page"].to_numpy(), side="right"))
    cover = np.zeros(len(pages) + 1, np.int64)
    np.add.at(cover, begin, 1)
    np.add.at(cover, end, -1)
    astray = pages.filter(pl.Series(np.cumsum(cover)[:-1] == 0)).select("move")
    page = pages["page"]
    rows = rows.with_columns(
        hits=pl.Series(end - begin),
        hit_first=page.gather(pl.Series(begin).clip(upper_bound=max(len(pages) - 1, 0)))
        if len(pages)
        else None,
        hit_last=page.gather(pl.Series(end - 1).clip(lower_bound=0)) if len(pages) else None,
    ).with_columns(hitable=(pl.col("hits") > 0).any().over("move", "item"))
    able = rows.filter("hitable").group_by("move").agg(able=pl.col("item").n_unique())
    rows = (
        rows.join(able, on="move")
        .join(moves.select("move", "listed"), on="move")
        .filter(pl.col("able") >= pl.col("listed"))
        .join(astray, on="move", how="anti")
        .with_columns(surely=pl.col("hitable") & (pl.col("able") == pl.col("listed")))
        .filter(~pl.col("surely") | (pl.col("hits") > 0))
    )
    first, last = (pl.when("surely").then(f"hit_{end}").otherwise(f"{end}_page") for end in ("first", "last"))
    return rows.with_columns(
        first_page=first,
        last_page=last,
        first_pgoff=pl.col("first_pgoff") + (first - pl.col("first_page")),
    ).drop("hit_first", "hit_last", "able", "listed")


def one_pass(moves: pl.DataFrame, of_one: pl.DataFrame, events: Mapping[str, pl.DataFrame]) -> pl.Series:
    """Whether the first walk of each migration, under ``full``, ended in its first pass.

    The folio was moved, so nothing mapped it any more; all its mappings were of one process, so of the first
    pass; and nothing can have ended a mapping between the last hit and the first entry restored, else the
    walk may have gone on.

    Args:
        moves: ``ksm.nodes.migrations``.
        of_one: ``ksm.nodes.of_one``.
        events: The ``ev_*`` tables.

    Returns:
        One row a row of ``moves``.
    """
    calls = events["ev_syscall"].sort("seq").filter(pl.col("name").is_in(_UNMAPPING))
    ends = pl.concat([calls.filter("is_exit").select("seq"), _last_exits(calls, events)])
    begun = calls.filter(~pl.col("is_exit"))["seq"].sort().to_numpy()
    over = ends["seq"].sort().to_numpy()
    faults = events["ev_fault"]["seq"].sort().to_numpy()
    last, begin = moves["last"].to_numpy(), moves["begin"].fill_null(AFTER).to_numpy()
    calling = np.searchsorted(begun, begin) > np.searchsorted(over, last)
    faulting = np.searchsorted(faults, begin) > np.searchsorted(faults, last)
    of_one = moves.select(
        pl.col("move").is_in(of_one.filter(~pl.col("forked"))["move"].implode()),
        moved=pl.col("restored") != pl.col("pfn"),
    )
    return of_one["move"] & of_one["moved"].fill_null(False) & ~pl.Series(calling | faulting)


def _last_exits(calls: pl.DataFrame, events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The exits of tasks whose last call of those did not return."""
    exits = events["ev_task"].filter(pl.col("kind") == "exit").select("pid", "seq").sort("seq")
    last = calls.select("pid", "is_exit", at="seq")
    return (
        exits.join_asof(last, left_on="seq", right_on="at", by="pid", check_sortedness=False)
        .filter(~pl.col("is_exit"))
        .select("seq")
    )
