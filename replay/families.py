"""anon_vmas one life at a time, and the families that forks make of them.

A struct anon_vma is freed with its last interval and its memory used again: each time it is another one. A
forked child's VMA is on the trees of all anon_vmas above its own, so anon_vmas that share a VMA are of one
family, whose root is the oldest: its lock is the lock of them all.

Kernel: mm/rmap.c anon_vma_fork(), anon_vma_clone(); include/linux/rmap.h struct anon_vma.
"""

from __future__ import annotations

import polars as pl

from replay.lifetimes import AFTER, BEFORE, tree_ages


def one_by_one(avc: pl.DataFrame) -> pl.DataFrame:
    """Lives of intervals with the number of the anon_vma that they are on.

    Args:
        avc: Table ``avc``.

    Returns:
        The columns of ``avc``, ``born``, ``died`` (places; ``BEFORE`` and ``AFTER`` where not seen) and
        ``number``: from 1, another one whenever the struct anon_vma had been without interval;
        ``tree_age``: place of its first interval. In order of anon_vma, birth and death.
    """
    places = {"born": pl.col("born_seq").fill_null(BEFORE), "died": pl.col("died_seq").fill_null(AFTER)}
    return tree_ages(avc.with_columns(**places))


def roots(lives: pl.DataFrame) -> pl.DataFrame:
    """The root of each anon_vma: the oldest that shares a VMA with it.

    Args:
        lives: ``one_by_one``.

    Returns:
        ``number``, ``anon_vma``, ``since`` (place of its first interval; ``BEFORE``: before the capture),
        ``root`` (the struct anon_vma). In order of ``since``.
    """
    trees = lives.group_by("number").agg(pl.col("anon_vma").first(), since=pl.col("tree_age").first())
    own = lives.select("vma_id", "number").join(trees, on="number")
    oldest = own.group_by("vma_id").agg(
        pl.col("anon_vma", "since").sort_by("since", "number").first().name.suffix("_root")
    )
    linked = (
        own.join(oldest, on="vma_id")
        .group_by("number")
        .agg(
            pl.col("anon_vma", "since").first(),
            root=pl.col("anon_vma_root").sort_by("since_root", "anon_vma_root").first(),
        )
    )
    return linked.select("number", "anon_vma", "since", "root").sort("since")
