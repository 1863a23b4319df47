"""The worst moment of every stable node: when a walk over all trees of its rmap_items would cost most.

The cost of such a walk is ``F(t) = sum over trees of items(t) * intervals(t)``, constant between events.
Trying every event for every node would cost nodes x events. Instead all nodes are searched at once, by
halving their lives: no instant of a span can cost more than the most items times the most intervals of
the span, tree by tree, and a span that cannot beat the best instant known is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from replay.state.order import NEVER

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from replay.state.trees import Trees

    Int = NDArray[np.int64]

_AT_ONCE: Final = 1 << 22
"""Terms of sums that are held at a time."""


class Levels:
    """How many of each group are alive: step functions of the instant, and their maxima over spans.

    Args:
        group: Group of each life, ``0 .. groups - 1``.                                  n rows
        born: First instant of each life; negative: before the capture.                  n rows
        died: Instant after its last; ``NEVER``: alive at the end.                       n rows
        groups: Number of groups.

    Memory: n log n small integers.
    """

    def __init__(self, group: Int, born: Int, died: Int, groups: int) -> None:
        over = died < NEVER
        number = np.arange(groups)
        place = np.concatenate((np.full(groups, -2), born, died[over]))
        of = np.concatenate((number, group, group[over]))
        step = np.concatenate((np.zeros(groups), np.ones(len(born)), -np.ones(int(over.sum()))))
        self.span = np.int64(place.max(initial=0) + 4)
        keys = of * self.span + np.maximum(place, -2) + 2
        order = np.argsort(keys, kind="stable")
        keys, total = keys[order], np.cumsum(step[order].astype(np.int64))
        last = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
        self.keys = keys[last]
        starts = np.searchsorted(self.keys, number * self.span)
        before = np.concatenate((np.zeros(1, np.int64), total[last]))[starts]
        counts = total[last] - before[self.keys // self.span]
        longest = int(np.diff(np.append(starts, len(self.keys))).max(initial=1))
        self.tops = np.empty((longest.bit_length(), len(counts)), np.int32)
        self.tops[:1] = counts
        for level in range(1, len(self.tops)):
            half = 1 << (level - 1)
            self.tops[level] = self.tops[level - 1]
            np.maximum(
                self.tops[level - 1, :-half], self.tops[level - 1, half:], out=self.tops[level, :-half]
            )

    def _place(self, group: Int, instant: Int) -> Int:
        keys = group * self.span + np.minimum(instant + 2, self.span - 1)
        return np.asarray(np.searchsorted(self.keys, keys, side="right") - 1, np.int64)

    def at(self, group: Int, instant: Int) -> Int:
        """Number alive at an instant, from -1 on."""
        return np.asarray(self.tops[0, self._place(group, instant)], np.int64)

    def most(self, group: Int, first: Int, last: Int) -> Int:
        """Largest number alive at an instant of ``[first, last]``, both inclusive."""
        left, right = self._place(group, first), self._place(group, last)
        level = np.frexp((right - left + 1).astype(np.float64))[1] - 1
        tops = np.maximum(self.tops[level, left], self.tops[level, right - (np.int64(1) << level) + 1])
        return np.asarray(tops, np.int64)


class Costs:
    """What a walk over all trees of a node's items costs, at an instant or at most in a span.

    Args:
        listed: Lives of rmap_items: ``node`` (from 0), ``tree`` (null: the capture never saw it, it costs
            nothing that is known), ``born`` and ``gone``: listed at the instants ``[born, gone)``.
        trees: The trees.
        nodes: Number of nodes.
    """

    def __init__(self, listed: pl.DataFrame, trees: Trees, nodes: int) -> None:
        known = listed.drop_nulls("tree")
        pairs = known.select("node", "tree").unique().sort("node", "tree").with_row_index("pair")
        known = known.join(pairs, on=["node", "tree"], how="left", maintain_order="left")
        lives = trees.lives
        self.tree = pairs["tree"].to_numpy().astype(np.int64)
        self.items = _levels(known, "pair", "gone", len(pairs))
        self.sizes = _levels(lives, "tree", "died", len(trees.codes))
        self.start = np.searchsorted(pairs["node"].to_numpy(), np.arange(nodes + 1)).astype(np.int64)

    def at(self, node: Int, instant: Int) -> Int:
        """Iterations of one pass over all trees at an instant."""
        return self.most(node, instant, instant)

    def most(self, node: Int, first: Int, last: Int) -> Int:
        """A bound of that for the instants ``[first, last]``; exact where nothing changes meanwhile."""
        count = self.start[node + 1] - self.start[node]
        ends = np.cumsum(count)
        total = np.zeros(len(node), np.int64)
        begin = 0
        while begin < len(node):
            until = max(begin + 1, int(np.searchsorted(ends, ends[begin] + _AT_ONCE)))
            some = slice(begin, until)
            row = np.repeat(np.arange(until - begin), count[some])
            before = ends[some] - count[some]
            pair = self.start[node[some]][row] + np.arange(len(row)) - (before - before[0])[row]
            span = first[some][row], last[some][row]
            terms = self.items.most(pair, *span) * self.sizes.most(self.tree[pair], *span)
            total[some] = np.bincount(row, terms, until - begin).astype(np.int64)
            begin = until
        return total


def _levels(lives: pl.DataFrame, group: str, died: str, groups: int) -> Levels:
    column = [lives[name].to_numpy().astype(np.int64) for name in (group, "born", died)]
    return Levels(column[0], column[1], column[2], groups)


def worst_moments(first: Int, last: Int, costs: Costs) -> tuple[Int, Int]:
    """The earliest instant at which each node costs most, and what it costs then.

    Args:
        first: First instant of each node's life; one row a node.
        last: Its last instant, inclusive.
        costs: Their costs.

    Returns:
        Two columns, one row a node: instant, iterations of one pass.
    """
    node = np.arange(len(first))
    low, high = first, last
    instant, cost = first.copy(), costs.at(node, first)
    while len(node):
        bound = costs.most(node, low, high)
        open_spans = (bound > cost[node]) | ((bound == cost[node]) & (low < instant[node]))
        node, low, high = node[open_spans], low[open_spans], high[open_spans]
        right = (low + high) // 2 + 1
        value = costs.at(node, right)
        order = np.lexsort((right, -value, node))
        order = order[np.append(True, node[order][1:] != node[order][:-1])[: len(order)]]
        better = (value[order] > cost[node[order]]) | (
            (value[order] == cost[node[order]]) & (right[order] < instant[node[order]])
        )
        order = order[better]
        instant[node[order]], cost[node[order]] = right[order], value[order]
        node = np.concatenate((node, node))
        low, high = np.concatenate((low, right)), np.concatenate((right - 1, high))
        wide = low < high
        node, low, high = node[wide], low[wide], high[wide]
    return instant, cost
