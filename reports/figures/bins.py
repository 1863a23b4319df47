"""Few enough points to draw: intervals alive over time, waits and walks over time. For the eye only.

A capture may hold millions of them; a figure holds a few hundred bins. Every bin keeps its count and its
extremes, and each figure says beside it what was put together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

TIME_BINS: Final = 400
TREES: Final = 4
"""Number of anon_vmas whose population is drawn: the ones with most intervals alive at once."""

MAX_SPANS: Final = 300
"""Boxes of one lane of waits or walks."""


@dataclass(frozen=True)
class Population:
    """Intervals alive on the tree of one anon_vma.

    Attributes:
        anon_vma: Its address.
        peak: Most intervals alive at once.
        alive: For each time bin, most intervals alive at once within it.
        from_before: Intervals that were there before the capture; counted from its start.
        to_end: Intervals still there at its end; counted to its end.
    """

    anon_vma: int
    peak: int
    alive: Sequence[int]
    from_before: int
    to_end: int


@dataclass(frozen=True)
class TimeAxis:
    """Equal bins over the time of the capture.

    Attributes:
        start_ns: Trace clock at the start of the first bin.
        width_ns: Width of a bin, at least 1.
        bins: Number of bins.
    """

    start_ns: int
    width_ns: int
    bins: int

    @classmethod
    def over(cls, start_ns: int, end_ns: int, detail: float = 1) -> TimeAxis:
        """Bins over ``[start_ns, end_ns]``, at most ``detail`` times `TIME_BINS`."""
        width = max(1, -(-(end_ns - start_ns + 1) // round(TIME_BINS * detail)))
        return cls(start_ns, width, max(1, -(-(end_ns - start_ns + 1) // width)))

    def of(self, column: str) -> pl.Expr:
        """Number of the bin of a time, times outside the axis in the first or the last bin."""
        return ((pl.col(column) - self.start_ns) // self.width_ns).clip(0, self.bins - 1)

    def seconds(self, number: int) -> float:
        """Start of a bin in seconds after the start of the axis."""
        return number * self.width_ns / 1e9


def populations(avc: pa.Table, axis: TimeAxis) -> list[Population]:
    """Count the intervals alive on the biggest trees over time, biggest first.

    An interval without a birth counts from the start of the axis, one without a death to its end. Rows
    without an anon_vma are left out.
    """
    lives = pl.DataFrame(avc.select(["anon_vma", "born_ts_ns", "born_seq", "died_ts_ns", "died_seq"]))
    lives = lives.drop_nulls("anon_vma")
    if lives.is_empty():
        return []
    born = lives.select(
        "anon_vma", pl.col("born_ts_ns").fill_null(axis.start_ns), pl.col("born_seq").fill_null(-1)
    )
    died = lives.drop_nulls("died_ts_ns").select("anon_vma", "died_ts_ns", pl.col("died_seq").fill_null(-1))
    tree, ts_ns, seq = (
        np.concatenate((up.to_numpy(), down.to_numpy())) for up, down in zip(born, died, strict=True)
    )
    order = np.lexsort((seq, ts_ns, tree))
    tree, ts_ns, total = tree[order], ts_ns[order], np.cumsum(np.where(order < len(born), 1, -1))
    begins = np.flatnonzero(np.append(True, tree[1:] != tree[:-1]))
    ends = np.append(begins[1:], len(tree))
    alive = total - np.repeat(np.append(0, total)[begins], ends - begins)
    peaks = np.maximum.reduceat(alive, begins)
    found = []
    for place in np.lexsort((tree[begins], -peaks))[:TREES].tolist():
        own = slice(begins[place], ends[place])
        steps = pl.DataFrame({"ts_ns": ts_ns[own], "alive": alive[own]})
        found.append(_population(int(tree[begins[place]]), int(peaks[place]), steps, lives, axis))
    return found


def walks_by_time(walk: pa.Table, axis: TimeAxis) -> list[tuple[int, int]]:
    """Number of walks that began in each bin: (bin, walks), bins without a walk left out."""
    once = pl.DataFrame(walk.select(["walk_id", "ts_ns"])).unique("walk_id")
    return list(once.group_by(axis.of("ts_ns")).len().sort("ts_ns").iter_rows())


def merged_spans(
    rows: pl.DataFrame, start_ns: int, end_ns: int, detail: float = 1
) -> list[tuple[int, int, int, int]]:
    """Spans of time that begin close together as one: begin, end, how many, what they take together (ns).

    Args:
        rows: ``ts_ns`` and ``end_ns``, no nulls.
        start_ns: Start of the time drawn.
        end_ns: End of the time drawn.
        detail: Factor on `MAX_SPANS`.
    """
    width = max(1, (end_ns - start_ns) // round(MAX_SPANS * detail))
    merged = (
        rows.group_by(((pl.col("ts_ns") - start_ns) // width).alias("bin"))
        .agg(
            begin=pl.col("ts_ns").min(),
            end=pl.col("end_ns").max(),
            count=pl.len(),
            took=(pl.col("end_ns") - pl.col("ts_ns")).sum(),
        )
        .sort("begin")
    )
    return list(merged.select("begin", "end", "count", "took").iter_rows())


def _population(tree: int, peak: int, steps: pl.DataFrame, lives: pl.DataFrame, axis: TimeAxis) -> Population:
    within = steps.group_by(axis.of("ts_ns"), maintain_order=True).agg(
        most=pl.col("alive").max(), after=pl.col("alive").last()
    )
    alive, before, last_bin = [], 0, 0
    for number, most, after in within.iter_rows():
        alive += [before] * (number - last_bin)
        alive.append(max(before, most))
        before, last_bin = after, number + 1
    alive += [before] * (axis.bins - last_bin)
    own = lives.filter(anon_vma=tree)
    return Population(tree, peak, alive, own["born_ts_ns"].null_count(), own["died_ts_ns"].null_count())
