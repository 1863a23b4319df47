"""anon_vmas one life at a time, and the families that forks make of them.

A struct anon_vma is freed with its last interval and its memory used again: each time it is another one. A
forked child's VMA is on the trees of all anon_vmas above its own, so anon_vmas that share a VMA are of one
family, whose root is the oldest: its lock is the lock of them all.

Kernel: mm/rmap.c anon_vma_fork(), anon_vma_clone(); include/linux/rmap.h struct anon_vma.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.state.lifetimes import AFTER, BEFORE, of_versions, tree_ages
from replay.state.order import in_order, ordering
from schemas import TABLES

if TYPE_CHECKING:
    from replay.state.order import Int

FAMILIES: Final = 16
"""Families that have a row in table ``family``."""

INSTANTS: Final = 200
"""Instants of a family in table ``family_growth``, about."""

FORKS: Final = ("fork", "vfork", "clone", "clone3")


def one_by_one(avc: pl.DataFrame) -> pl.DataFrame:
    """Lives of intervals with the number of the anon_vma that they are on.

    Args:
        avc: Table ``avc``.

    Returns:
        The columns of ``avc`` but those of its pages; ``born``, ``died`` (places; ``BEFORE`` and ``AFTER``
        where not seen) and ``number``: from 1, another one whenever the struct anon_vma had been without
        interval;
        ``tree_age``: place of its first interval. In order of anon_vma, birth and death.
    """
    places = {"born": pl.col("born_seq").fill_null(BEFORE), "died": pl.col("died_seq").fill_null(AFTER)}
    return tree_ages(avc.drop("first_pgoff", "last_pgoff", "uncertain").with_columns(**places))


def roots(lives: pl.DataFrame) -> pl.DataFrame:
    """The root of each anon_vma: the oldest that shares a VMA with it.

    Of several that were there before the capture began, the one with the lowest address: which of them is
    the root, no event tells. Which belong together does not depend on it.

    Args:
        lives: ``one_by_one``.

    Returns:
        ``number``, ``anon_vma``, ``since`` (place of its first interval; ``BEFORE``: before the capture),
        ``root`` (the struct anon_vma), ``root_number``. In order of ``since``.
    """
    own = lives.drop_nulls("vma_id")
    number, vma_id = own["number"].to_numpy(), own["vma_id"].to_numpy()
    begins = np.append(True, number[1:] != number[:-1])[: len(number)]
    trees = own.filter(pl.Series(begins)).select("number", "anon_vma", since="tree_age")
    tree = np.cumsum(begins) - 1
    since, anon_vma = trees["since"].to_numpy(), trees["anon_vma"].to_numpy()
    oldest = _least(vma_id, tree, ordering(since))
    root = _least(tree, oldest[vma_id], ordering(since, anon_vma))
    return trees.with_columns(root=pl.Series(anon_vma[root]), root_number=trees["number"].gather(root))[
        ordering(since)
    ]


def _least(group: Int, tree: Int, order: Int) -> Int:
    """Of the trees of each group (a number) the one that comes first in ``order``; without any: the last."""
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    least = np.full(int(group.max(initial=-1)) + 1, len(order) - 1)
    np.minimum.at(least, group, rank[tree])
    found: Int = order[least]
    return found


def growth(
    lives: pl.DataFrame, families: pl.DataFrame, vma: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Tables ``family`` and ``family_growth``.

    Args:
        lives: ``one_by_one``.
        families: ``roots``.
        vma: Table ``vma``.
    """
    # A tree without relatives is no family: most trees of most captures.
    of_family = families.filter(pl.len().over("root_number") > 1).select("number", "root", "root_number")
    own = lives.join(of_family, on="number", maintain_order="left")
    each = in_order(
        pl.concat(
            own.select("root_number", seq=f"{end}_seq", ts_ns=f"{end}_ts_ns", added=pl.lit(change, pl.Int64))
            for end, change in (("born", 1), ("died", -1))
        ).drop_nulls("seq"),
        "root_number",
        "seq",
    )
    changes = each.group_by("root_number", "seq", maintain_order=True).agg(
        pl.col("ts_ns").first(), pl.col("added").sum()
    )
    before = own.group_by("root_number").agg(before=pl.col("born_seq").null_count().cast(pl.Int64))
    alive = changes.join(before, on="root_number", maintain_order="left").with_columns(
        avcs=pl.col("before") + pl.col("added").cum_sum().over("root_number")
    )
    peaks = alive.group_by("root_number").agg(
        top=pl.col("avcs").max(), peak_ts_ns=pl.col("ts_ns").get(pl.col("avcs").arg_max())
    )
    sums = own.group_by("root_number").agg(
        pl.col("root", "evidence").first(),
        born_ts_ns=pl.col("born_ts_ns").filter(pl.col("number") == pl.col("root_number")).first(),
        anon_vmas=pl.col("number").n_unique().cast(pl.Int64),
        mms=pl.col("mm").drop_nulls().n_unique().cast(pl.Int64),
    )
    family = (
        sums.join(before, on="root_number")
        .join(peaks, on="root_number", how="left")
        .join(_of_vmas(own, vma), on="root_number", how="left")
        .with_columns(
            pl.col("forked_vmas", "reused").fill_null(0),
            avcs_peak=pl.max_horizontal("before", "top"),
            peak_ts_ns=pl.when(pl.col("top") > pl.col("before")).then("peak_ts_ns"),
        )
        .sort(["avcs_peak", "root_number"], descending=[True, False])
        .head(FAMILIES)
        .with_row_index("family_id")
        .with_columns(pl.col("family_id").cast(pl.Int64))
    )
    # An instant of each of INSTANTS equal parts of the changes, and the largest of the family.
    part = pl.int_range(pl.len()).over("family_id") * INSTANTS // pl.len().over("family_id")
    shown = (
        alive.join(family.select("root_number", "family_id", "avcs_peak"), on="root_number")
        .sort("family_id", "seq")
        .with_columns(part=part)
        .with_columns(ends=(pl.col("part") != pl.col("part").shift(-1)).fill_null(True))
        .filter(pl.col("ends") | (pl.col("avcs") == pl.col("avcs_peak")))
        .unique(["family_id", "part", "avcs"], keep="last", maintain_order=True)
    )
    return family.select(TABLES["family"].arrow.names), shown.select(TABLES["family_growth"].arrow.names)


def _of_vmas(own: pl.DataFrame, vma: pl.DataFrame) -> pl.DataFrame:
    """By family: the depth, and what forks put into it. A forked VMA with no tree of its own re-used one."""
    chains = own.group_by("root_number", "vma_id").agg(
        trees=pl.col("number").n_unique().cast(pl.Int64),
        born=pl.col("born").min(),
        youngest=pl.col("tree_age").max(),
    )
    causes = of_versions(vma, chains["vma_id"], "cause_event")
    return (
        chains.with_columns(forked=causes["cause_event"].is_in(FORKS).fill_null(False))
        .group_by("root_number")
        .agg(
            depth=pl.col("trees").max(),
            forked_vmas=pl.col("forked").sum().cast(pl.Int64),
            reused=(pl.col("forked") & (pl.col("youngest") < pl.col("born"))).sum().cast(pl.Int64),
        )
    )
