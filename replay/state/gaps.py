"""When events were lost, in places of the total order of events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.state.order import ALWAYS, NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Int = NDArray[np.int64]
    Bool = NDArray[np.bool_]

KINDS: Final = ("lost_events", "corrupt", "truncated")
"""Kinds of rows of table ``quality`` that tell of events that are not there."""


@dataclass(frozen=True)
class Gaps:
    """When events were lost. A loss is somewhere between ``begin`` and ``end``, both exclusive.

    Attributes:
        begin: Place of the last event before each loss; ALWAYS: there is none.
        end: Place of the first event behind it; NEVER: there is none. Losses that overlap are one, and all
            are in order.
        spans: ``begin`` and ``end``, each in order, of the losses as they were told: they may overlap, and
            those of which nobody knows when they were are left out.
        seq, ts_ns: Place and time of each event.
    """

    begin: Int
    end: Int
    spans: tuple[Int, Int]
    seq: Int
    ts_ns: Int

    @classmethod
    def of(cls, quality: pl.DataFrame, events: Mapping[str, pl.DataFrame]) -> Gaps | None:
        """The losses of a capture; None: it has none.

        Args:
            quality: Table ``quality`` of the capture.
            events: The ``ev_*`` tables.
        """
        rows = quality.filter(pl.col("kind").is_in(KINDS))
        if rows.is_empty():
            return None
        order = pl.concat(frame.select("seq", "ts_ns") for frame in events.values()).sort("seq")
        seq, ts_ns = order["seq"].to_numpy(), order["ts_ns"].cum_max().to_numpy()
        before, behind = np.append(ALWAYS, seq), np.append(seq, NEVER)
        start, end = (rows[name].fill_null(0).to_numpy() for name in ("start_ns", "end_ns"))
        no_start, no_end = (rows[name].is_null().to_numpy() for name in ("start_ns", "end_ns"))
        first = np.where(no_start, ALWAYS, before[np.searchsorted(ts_ns, start, "right")])
        last = np.where(no_end, NEVER, behind[np.searchsorted(ts_ns, end, "left")])
        first, last = np.minimum(first, last), np.maximum(first, last)
        placed = ~(no_start & no_end)
        spans = (np.sort(first[placed]), np.sort(last[placed]))
        return cls(*_united(first, last), spans, seq, ts_ns)

    def within(self, after: Int, until: Int) -> Bool:
        """Whether events were lost somewhere between two places."""
        first = np.searchsorted(self.end, after, "right")
        return np.asarray(np.searchsorted(self.begin, until, "left") > first)

    def during(self, enter: Int, leave: Int) -> Bool:
        """Whether events are known to have been lost somewhere between two places."""
        begin, end = self.spans
        return np.asarray(np.searchsorted(begin, leave, "left") > np.searchsorted(end, enter, "right"))

    def first_behind(self, place: Int) -> Int:
        """Begin of the first loss that ends behind a place; NEVER: there is none."""
        return np.append(self.begin, NEVER)[np.searchsorted(self.end, place, "right")]

    def last_before(self, place: Int) -> Int:
        """End of the last loss that begins before a place; ALWAYS: there is none."""
        return np.append(ALWAYS, self.end)[np.searchsorted(self.begin, place, "left")]

    def deaths(self, born: Int, bound: Int) -> Int:
        """Where lives of unseen end ended: in the loss next to the proof that they did.

        Args:
            born: Place of their births.
            bound: Place at which something else has theirs; NEVER: nothing ever has.

        Returns:
            A place of each; NEVER: nothing tells.
        """
        before = self.last_before(bound)
        is_before = before > born
        before = np.minimum(before, bound)
        # A VMA is inserted before those whose place it takes are removed.
        number = np.searchsorted(self.begin, bound, "left")
        begin, behind = np.append(self.begin, NEVER)[number], np.append(self.end, NEVER)[number]
        is_before &= bound - before <= begin - bound
        return np.where(bound == NEVER, NEVER, np.where(is_before, before, behind))

    def births(self, since: Int, died: Int) -> Int:
        """Where lives of unseen begin began: in the loss next to the proof that they had not yet.

        Args:
            since: Place at which something else still had theirs; ALWAYS: nothing ever had.
            died: Place of their deaths.

        Returns:
            A place of each; ALWAYS: maybe before the first event.
        """
        number = np.searchsorted(self.end, since, "right")
        begin, end = np.append(self.begin, NEVER)[number], np.append(self.end, NEVER)[number]
        before = np.append(ALWAYS, self.end)[number]
        is_behind = (begin < died) & ((before == ALWAYS) | (begin - since <= since - before))
        behind = np.maximum(np.minimum(end, died - 1), since)
        return np.where(since == ALWAYS, ALWAYS, np.where(is_behind, behind, since))

    def time(self, place: Int) -> pl.Series:
        """Time of the first event at a place or behind it; null: none is known."""
        found = np.searchsorted(self.seq, place)
        times = pl.Series(np.append(self.ts_ns, 0)[found])
        known = pl.Series((place >= 0) & (found < len(self.seq)))
        return pl.select(pl.when(known).then(times)).to_series()


def _united(begin: Int, end: Int) -> tuple[Int, Int]:
    """Losses that overlap as one."""
    order = np.lexsort((end, begin))
    begin, reach = begin[order], np.maximum.accumulate(end[order])
    first = np.flatnonzero(np.append(True, begin[1:] >= reach[:-1]))
    return begin[first], reach[np.append(first[1:], len(begin)) - 1]
