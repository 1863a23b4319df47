"""Counting and finding what is alive: the one clever place of the replay.

A walk over an interval tree visits the VMAs that are on the tree at that instant and overlap a
range. Walking the tree again for every loop would cost what it cost the kernel. Instead all
questions are answered together from two sorted columns, the births and the deaths: what is alive
at ``t`` is what was born up to ``t`` less what died up to ``t``, so

    alive below x at t  =  (born by t, below x)  -  (died by t, below x)

and each term counts points in a quadrant. A wavelet matrix (one array of zero counts a bit of the
value, each half the work of a merge sort) answers such counts for whole columns of questions in
one pass a bit: O((n + q) log n) time, n log n small integers of memory, no question by itself.
The same descent, following the difference of the two matrices, finds the k-th alive value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from replay.state.order import NEVER, numbered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Int = NDArray[np.int64]
    UInt = NDArray[np.uint64]


class WaveletMatrix:
    """Counts of values below a bound in ranges of one column of integers in ``[0, 2**bits)``."""

    def __init__(self, values: Int, bits: int) -> None:
        self.levels: list[tuple[int, NDArray[np.int32], int]] = []
        for bit in range(bits - 1, -1, -1):
            is_zero = values & (1 << bit) == 0
            zeros_before = np.zeros(len(values) + 1, np.int32)
            np.cumsum(is_zero, out=zeros_before[1:])
            zeros = int(zeros_before[-1])
            self.levels.append((bit, zeros_before, zeros))
            parted = np.empty_like(values)
            np.compress(is_zero, values, out=parted[:zeros])
            np.compress(~is_zero, values, out=parted[zeros:])
            values = parted

    def count_below(self, left: Int, right: Int, bound: Int) -> Int:
        """Values below ``bound`` at the places ``[left, right)``; one count a question."""
        total = np.zeros(len(bound), np.int64)
        for bit, zeros_before, zeros in self.levels:
            one = (bound >> bit) & 1 == 1
            zeros_left = zeros_before[left].astype(np.int64)
            zeros_right = zeros_before[right].astype(np.int64)
            total += np.where(one, zeros_right - zeros_left, 0)
            left = np.where(one, zeros + left - zeros_left, zeros_left)
            right = np.where(one, zeros + right - zeros_right, zeros_right)
        return total


class AliveIndex:
    """Lives of values in groups (intervals on trees), and questions about what is alive at an instant.

    All arguments and answers are numpy columns. An instant is a place in the total order of
    events; a life is ``[born, died)``.

    Args:
        group: Group of each life, ``0 .. groups - 1``.                                  n rows
        value: Value of each life (a page offset, an address).                           n rows
        born: Instant of the birth; ``ALWAYS`` when before the capture.                  n rows
        died: Instant of the death; ``NEVER`` when alive at the end.                     n rows
        groups: Number of groups.
    """

    def __init__(self, group: Int, value: UInt, born: Int, died: Int, groups: int) -> None:
        first, code = numbered(value)
        self.values = value[first]
        self.life = np.lexsort((died, born, code, group))
        """The lives by (group, value, born): a *rank* is a place in this column."""
        rank = np.empty(len(value), np.int64)
        rank[self.life] = np.arange(len(value))
        self.rank = rank
        self.radix = np.int64(len(self.values) + 1)
        self.sorted_keys = (group * self.radix + code)[self.life]
        self.starts = np.searchsorted(group[self.life], np.arange(groups + 1))
        limit = int(max(born.max(initial=0), died[died < NEVER].max(initial=0))) + 2
        self.span = np.int64(limit + 1)
        self.limit = np.int64(limit)
        self.bits = max(len(value).bit_length(), 1)
        self._born = self._column(group, born)
        self._died = self._column(group, died)

    def _column(self, group: Int, instant: Int) -> tuple[Int, WaveletMatrix]:
        keys = group * self.span + np.minimum(instant, self.limit - 1) + 1
        order = np.argsort(keys, kind="stable")
        return keys[order], WaveletMatrix(self.rank[order], self.bits)

    def _places(self, keys: Int, group: Int, instant: Int) -> Int:
        clipped = np.minimum(instant, self.limit - 2) + 1
        return np.asarray(np.searchsorted(keys, group * self.span + clipped, side="right"), np.int64)

    def alive(self, group: Int, instant: Int) -> Int:
        """Number of lives of ``group`` alive at ``instant``."""
        return self._places(self._born[0], group, instant) - self._places(self._died[0], group, instant)

    def version(self, group: Int, instant: Int) -> Int:
        """Births and deaths in ``group`` up to ``instant``: while this number stays, nothing changes."""
        return self._places(self._born[0], group, instant) + self._places(self._died[0], group, instant)

    def ranks_through(self, group: Int, value: UInt) -> Int:
        """First rank whose value in ``group`` is above ``value``: the bound for "value or less"."""
        code = np.searchsorted(self.values, value, side="right")
        return np.searchsorted(self.sorted_keys, group * self.radix + code, side="left")

    def ranks_below(self, group: Int, value: UInt) -> Int:
        """First rank whose value in ``group`` is ``value`` or above: the bound for "less than value"."""
        code = np.searchsorted(self.values, value, side="left")
        return np.searchsorted(self.sorted_keys, group * self.radix + code, side="left")

    def alive_below(self, group: Int, instant: Int, rank: Int) -> Int:
        """Number of lives of ``group`` alive at ``instant`` whose rank is below ``rank``."""
        born_keys, born = self._born
        died_keys, died = self._died
        left = self.starts[group]
        return born.count_below(left, self._places(born_keys, group, instant), rank) - died.count_below(
            left, self._places(died_keys, group, instant), rank
        )

    def changed_below(self, group: Int, after: Int, until: Int, rank: Int) -> Int:
        """Births and deaths in ``group`` in ``(after, until]`` of lives whose rank is below ``rank``."""
        total = np.zeros(len(group), np.int64)
        for keys, matrix in (self._born, self._died):
            left, right = self._places(keys, group, after), self._places(keys, group, until)
            total += matrix.count_below(left, np.maximum(left, right), rank)
        return total

    def nth_alive(self, group: Int, instant: Int, nth: Int) -> Int:
        """The life that is the ``nth`` (from 0) alive of ``group`` at ``instant`` in order of rank.

        ``nth`` must be in ``[0, alive)``; the answer is the place of the life in the columns that
        the index was made from.
        """
        born_keys, born = self._born
        died_keys, died = self._died
        born_left = died_left = self.starts[group]
        born_right = self._places(born_keys, group, instant)
        died_right = self._places(died_keys, group, instant)
        rank = np.zeros(len(nth), np.int64)
        for (bit, born_zeros, zeros_b), (_, died_zeros, zeros_d) in zip(
            born.levels, died.levels, strict=True
        ):
            zbl, zbr = born_zeros[born_left].astype(np.int64), born_zeros[born_right].astype(np.int64)
            zdl, zdr = died_zeros[died_left].astype(np.int64), died_zeros[died_right].astype(np.int64)
            below = (zbr - zbl) - (zdr - zdl)
            one = nth >= below
            nth = np.where(one, nth - below, nth)
            rank |= one.astype(np.int64) << bit
            born_left = np.where(one, zeros_b + born_left - zbl, zbl)
            born_right = np.where(one, zeros_b + born_right - zbr, zbr)
            died_left = np.where(one, zeros_d + died_left - zdl, zdl)
            died_right = np.where(one, zeros_d + died_right - zdr, zdr)
        life: Int = self.life[rank]
        return life
