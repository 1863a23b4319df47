"""The anon_vma interval trees as columns of lives, and the questions that a walk asks of them.

A tree is an anon_vma's; its key is the first page offset, ties in order of insertion (7.3:
include/linux/interval_tree_generic.h). Every question is asked for a whole column of instants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.state.alive import AliveIndex

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Int = NDArray[np.int64]
    UInt = NDArray[np.uint64]


_NEAREST: Final = 16
"""Starts that are tried one after the other before all are looked at."""


class Changes:
    """When the trees changed.

    Args:
        tree, instant, ts_ns: Tree, place and time of each insertion and removal.
    """

    def __init__(self, tree: Int, instant: Int, ts_ns: Int) -> None:
        self.span = np.int64(instant.max(initial=0) + 2)
        self.keys = np.sort(tree * self.span + instant)
        order = np.argsort(instant)
        self.seqs = instant[order]
        # Where a clock jumped back, times do not follow the order.
        self.times = np.maximum.accumulate(ts_ns[order])

    def until(self, tree: Int, instant: Int) -> Int:
        """Number of changes of trees below ``tree``, and of ``tree`` up to ``instant``: differences count."""
        return np.searchsorted(self.keys, tree * self.span + np.minimum(instant, self.span - 1), side="right")

    def seq_at(self, ts_ns: Int) -> Int:
        """Place of the last change of any tree up to a time; -1: there was none."""
        place = np.searchsorted(self.times, ts_ns, side="right")
        return np.concatenate((np.array([-1]), self.seqs))[place]


class Trees:
    """All trees of a capture.

    Args:
        lives: Lives of intervals (``lifetimes.avc_lives``). Lives whose range the capture does not
            tell are left out; ``unplaceable`` is their number.

    Attributes:
        lives: The lives used, in order; a *life* below is a row of it.
        codes: ``anon_vma``, ``tree``: the number of each tree, from 0.
        spaces: ``tree``, ``mm``, ``space``: the address spaces on each tree, numbered from 0.
        changes: When the trees changed.
    """

    def __init__(self, lives: pl.DataFrame) -> None:
        known = pl.all_horizontal(
            pl.col("first_pgoff", "last_pgoff", "mm", "vm_start", "vm_end").is_not_null()
        )
        self.unplaceable = lives.filter(~known).height
        codes = lives.select(pl.col("anon_vma").unique().sort()).with_row_index("tree")
        self.codes = codes.with_columns(pl.col("tree").cast(pl.Int64))
        placed = lives.filter(known).join(self.codes, on="anon_vma", how="left", maintain_order="left")
        spaces = placed.select("tree", "mm").unique().sort("tree", "mm").with_row_index("space")
        self.spaces = spaces.with_columns(pl.col("space").cast(pl.Int64))
        self.lives = placed.join(self.spaces, on=["tree", "mm"], how="left", maintain_order="left")
        column = {name: self.lives[name].to_numpy() for name in ("tree", "space", "born", "died")}
        self.start = self.lives["vm_start"].to_numpy()
        self.end = self.lives["vm_end"].to_numpy()
        self.first = self.lives["first_pgoff"].to_numpy()
        self.last = self.lives["last_pgoff"].to_numpy()
        life = (column["born"], column["died"])
        self.by_first = AliveIndex(column["tree"], self.first, *life, len(self.codes))
        self.by_last = AliveIndex(column["tree"], self.last, *life, len(self.codes))
        self.by_start = AliveIndex(column["space"], self.start, *life, len(self.spaces))
        self.by_end = AliveIndex(column["space"], self.end, *life, len(self.spaces))

        seen = pl.concat(
            self.lives.select("tree", seq=f"{end}_seq", ts_ns=f"{end}_ts_ns") for end in ("born", "died")
        ).drop_nulls()
        self.changes = Changes(*(seen[name].to_numpy() for name in ("tree", "seq", "ts_ns")))

    def overlapping(self, tree: Int, instant: Int, first: UInt, last: UInt) -> Int:
        """Number of intervals on ``tree`` at ``instant`` that overlap ``[first, last]``, both inclusive.

        This is the number of iterations of anon_vma_interval_tree_foreach() over that range.
        """
        up_to = self.by_first.alive_below(tree, instant, self.by_first.ranks_through(tree, last))
        before = self.by_last.alive_below(tree, instant, self.by_last.ranks_below(tree, first))
        return up_to - before

    def everything(self, tree: Int, instant: Int) -> Int:
        """Number of intervals on ``tree`` at ``instant``: the iterations over ``[0, ULONG_MAX]``."""
        return self.by_first.alive(tree, instant)

    def disturbed(self, tree: Int, after: Int, until: Int, first: UInt, last: UInt) -> Int:
        """Insertions and removals in ``(after, until]`` of intervals that overlap ``[first, last]``."""
        up_to = self.by_first.changed_below(tree, after, until, self.by_first.ranks_through(tree, last))
        return up_to - self.by_last.changed_below(tree, after, until, self.by_last.ranks_below(tree, first))

    def places(self, tree: Int, instant: Int, life: Int) -> Int:
        """Place, from 1, of ``life`` among all intervals on ``tree`` at ``instant``, in tree order."""
        return self.by_first.alive_below(tree, instant, self.by_first.rank[life]) + 1

    def covering(self, space: Int, instant: Int, address: UInt) -> tuple[Int, Int]:
        """The lives of ``space`` alive at ``instant`` whose VMA holds ``address``.

        VMAs of one address space do not overlap, save for moments: __split_vma() inserts the new VMA
        before it shrinks the old one around it, commit_merge() grows one before those that it swallows are
        gone (and a lost removal leaves one behind). So it is known how many hold the address, and the
        nearest starts are asked first.

        Returns:
            Two columns as long as there are answers: number of the question, life.
        """
        index = self.by_start
        bound = index.ranks_through(space, address)
        nth = index.alive_below(space, instant, bound)
        over = self.by_end.alive_below(space, instant, self.by_end.ranks_through(space, address))
        question, wanted = np.arange(len(space)), nth - over
        questions, lives = [question[:0]], [question[:0]]
        for _ in range(_NEAREST):
            keep = wanted > 0
            question = question[keep]
            if not len(question):
                break
            nth, wanted = nth[keep] - 1, wanted[keep]
            life = index.nth_alive(space[question], instant[question], nth)
            holds = address[question] < self.end[life]
            questions.append(question[holds])
            lives.append(life[holds])
            wanted = wanted - holds
        left = question[wanted[: len(question)] > 0]
        question, life = np.concatenate(questions), np.concatenate(lives)
        if len(left):
            near = ~np.isin(question, left)
            far, held = self._search(left, space, instant, address, bound)
            question, life = np.concatenate((question[near], far)), np.concatenate((life[near], held))
        order = np.lexsort((life, question))
        return question[order], life[order]

    def _search(self, left: Int, space: Int, instant: Int, address: UInt, bound: Int) -> tuple[Int, Int]:
        """``covering`` for the questions ``left``, by looking at every start up to the address.

        For trees in which something never ends: where removals were lost, an old wide VMA may lie under
        thousands of newer ones.
        """
        born, died = self.lives["born"].to_numpy(), self.lives["died"].to_numpy()
        questions, lives = [left[:0]], [left[:0]]
        for one in left:
            life = self.by_start.life[self.by_start.starts[space[one]] : bound[one]]
            holds = (
                (self.end[life] > address[one]) & (born[life] <= instant[one]) & (died[life] > instant[one])
            )
            lives.append(life[holds])
            questions.append(np.full(int(holds.sum()), one))
        return np.concatenate(questions), np.concatenate(lives)

    def place_in_range(self, tree: Int, instant: Int, life: Int, first: UInt, last: UInt) -> Int:
        """Place, from 1, of ``life`` among the intervals that overlap ``[first, last]``, in tree order.

        Over the whole tree it is its place on the tree. Else each address space of the tree is asked for
        the intervals that overlap, nearest start first: few, since those of one address space overlap
        only after a move.
        """
        everything = (first == 0) & (last == np.iinfo(np.uint64).max)
        place = np.empty(len(tree), np.int64)
        place[everything] = self.places(tree[everything], instant[everything], life[everything])
        rest = np.flatnonzero(~everything)
        place[rest] = 0
        own = self.by_first.rank
        for row, near in self.within(tree[rest], instant[rest], first[rest], last[rest]):
            np.add.at(place, rest[row], own[near] <= own[life[rest[row]]])
        return place

    def within(self, tree: Int, instant: Int, first: UInt, last: UInt) -> Iterator[tuple[Int, Int]]:
        """The lives on ``tree`` at ``instant`` that overlap ``[first, last]``, some at a time, in no order.

        Yields:
            Two columns: number of the question, life.
        """
        if not len(tree):
            return
        codes = self.lives["space"].to_numpy()
        span = (self.lives["born"].to_numpy(), self.lives["died"].to_numpy())
        by_first = AliveIndex(codes, self.first, *span, len(self.spaces))
        by_last = AliveIndex(codes, self.last, *span, len(self.spaces))
        rows = pl.DataFrame({"row": np.arange(len(tree)), "tree": tree}).join(self.spaces, on="tree")
        row, space = rows["row"].to_numpy(), rows["space"].to_numpy()
        at = instant[row]
        below = by_first.alive_below(space, at, by_first.ranks_through(space, last[row]))
        wanted = below - by_last.alive_below(space, at, by_last.ranks_below(space, first[row]))
        while len(row := row[wanted > 0]):
            keep = wanted > 0
            space, at, below, wanted = space[keep], at[keep], below[keep] - 1, wanted[keep]
            near = by_first.nth_alive(space, at, below)
            overlaps = self.last[near] >= first[row]
            wanted = wanted - overlaps
            yield row[overlaps], near[overlaps]
