"""anon_vmas one life at a time, and the families that forks make of them.

A struct anon_vma is freed with its last interval and its memory used again: each time it is another one. A
forked child's VMA is on the trees of all anon_vmas above its own, so anon_vmas that share a VMA are of one
family, whose root is the oldest: its lock is the lock of them all.

Kernel: mm/rmap.c anon_vma_fork(), anon_vma_clone(); include/linux/rmap.h struct anon_vma.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from replay.lifetimes import AFTER, BEFORE, ordering, tree_ages

if TYPE_CHECKING:
    from replay.lifetimes import Int


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
    own = lives.drop_nulls("vma_id")
    number, vma_id = own["number"].to_numpy(), own["vma_id"].to_numpy()
    begins = np.append(True, number[1:] != number[:-1])[: len(number)]
    trees = own.filter(pl.Series(begins)).select("number", "anon_vma", since="tree_age")
    tree = np.cumsum(begins) - 1
    since, anon_vma = trees["since"].to_numpy(), trees["anon_vma"].to_numpy()
    _, vma = np.unique(vma_id, return_inverse=True)
    oldest = _least(vma, tree, ordering(since))
    root = _least(tree, oldest[vma], ordering(since, anon_vma))
    return trees.with_columns(root=pl.Series(anon_vma[root]))[ordering(since)]


def _least(group: Int, tree: Int, order: Int) -> Int:
    """Of the trees of each group (0, 1, 2, ...) the one that comes first in ``order``."""
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    least = np.full(int(group.max(initial=-1)) + 1, len(order))
    np.minimum.at(least, group, rank[tree])
    found: Int = order[least]
    return found
