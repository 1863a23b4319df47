"""The last or the first of many lives or calls that covers a range: for whole columns of questions at once.

In order of time, blocks of 1, 2, 4, ... neighbours each keep their starts sorted, with the farthest end up to
each: whether some member of a block covers a range is one binary search. An answer is found by going from
block to block and then down into one: O(log^2 n) a question, memory n log n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Int = NDArray[np.int64]
    Bool = NDArray[np.bool_]

NONE: Final = -1
"""The answer where there is none."""

_SPAN: Final = np.int64(1) << 40


class Covers:
    """Members that have a group and a time, and cover a range.

    Args:
        group: Group of each member, 0 or above.                                         n rows
        time: Its place in time, at least -2 and below 2**40 - 2.                        n rows
        start: First of what it covers.                                                  n rows
        end: The first after that.                                                       n rows
    """

    def __init__(self, group: Int, time: Int, start: Int, end: Int) -> None:
        self.order = np.lexsort((time, group))
        self.keys = (group * _SPAN + time + 2)[self.order]
        self.starts, start_code = np.unique(start[self.order], return_inverse=True)
        self.ends, end_code = np.unique(end[self.order], return_inverse=True)
        self.widths = np.int64(len(self.starts) + 1), np.int64(len(self.ends) + 1)
        number = np.arange(len(group), dtype=np.int64)
        self.levels: list[tuple[Int, Int]] = []
        for level in range(max(len(group), 1).bit_length()):
            block = number >> level
            keys = block * self.widths[0] + start_code
            order = np.argsort(keys, kind="stable")
            farthest = np.maximum.accumulate((block * self.widths[1] + end_code)[order])
            self.levels.append((keys[order], farthest))

    def last(self, group: Int, until: Int, start: Int, end: Int) -> Int:
        """The last member of ``group`` up to time ``until`` that covers ``start`` to ``end``, both inclusive.

        Returns:
            Its place in the columns that this was made from; ``NONE``: there is none.
        """
        low = np.searchsorted(self.keys, group * _SPAN)
        high = np.searchsorted(self.keys, group * _SPAN + np.clip(until, -2, _SPAN - 4) + 2, side="right")
        return self._search(low, high, start, end, backwards=True)

    def first(self, group: Int, after: Int, start: Int, end: Int) -> Int:
        """The first member of ``group`` after time ``after`` that covers ``start`` to ``end``, inclusive.

        Returns:
            As ``last``.
        """
        low = np.searchsorted(self.keys, group * _SPAN + np.clip(after, -3, _SPAN - 4) + 2, side="right")
        high = np.searchsorted(self.keys, (group + 1) * _SPAN)
        return self._search(low, high, start, end, backwards=False)

    def _search(self, low: Int, high: Int, start: Int, end: Int, *, backwards: bool) -> Int:
        below = np.searchsorted(self.starts, start, side="right")
        needed = np.searchsorted(self.ends, end, side="right")
        level, block = np.zeros(len(low), np.int64), np.full(len(low), NONE)
        low, high = low.astype(np.int64), high.astype(np.int64)
        row = np.flatnonzero(low < high)
        while len(row):
            edge = high[row] if backwards else low[row]
            aligned = np.where(edge == 0, 62, np.frexp((edge & -edge).astype(np.float64))[1] - 1)
            fits = np.frexp((high - low)[row].astype(np.float64))[1] - 1
            size = np.minimum(aligned, fits).astype(np.int64)
            at = (edge >> size) - backwards
            hit = self._any(size, at, below[row], needed[row])
            level[row[hit]], block[row[hit]] = size[hit], at[hit]
            row, size = row[~hit], size[~hit]
            if backwards:
                high[row] -= np.int64(1) << size
            else:
                low[row] += np.int64(1) << size
            row = row[low[row] < high[row]]
        found = np.flatnonzero(block != NONE)
        while len(row := found[level[found] > 0]):
            level[row] -= 1
            near = 2 * block[row] + backwards
            hit = self._any(level[row], near, below[row], needed[row])
            block[row] = np.where(hit, near, near ^ 1)
        answer = np.full(len(low), NONE)
        answer[found] = self.order[block[found]]
        return answer

    def _any(self, level: Int, block: Int, below: Int, needed: Int) -> Bool:
        """Whether some member of each block starts low enough and ends far enough."""
        found = np.zeros(len(level), np.bool_)
        for one in np.unique(level):
            some = level == one
            keys, farthest = self.levels[one]
            place = np.searchsorted(keys, block[some] * self.widths[0] + below[some]) - 1
            enough = farthest[np.maximum(place, 0)] >= block[some] * self.widths[1] + needed[some]
            found[some] = enough & (place >= 0)
        return found
