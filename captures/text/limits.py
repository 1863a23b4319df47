"""What trace text lacks, as rows of table ``quality``: losses, lines that cannot be read, coarse times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from captures.losses import QualityRow
from captures.text.heads import PERF
from schemas.errors import CorruptError
from schemas.provenance import NO_NS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from captures.text.heads import Dialect
    from captures.text.index import Index
    from captures.text.preamble import Preamble

LEAST_EVENTS: Final = 100
"""Of fewer events, the order of their times is no sign of what the times are."""


def events_lost(index: Index, preamble: Preamble) -> int | None:
    """Events that the text says are lost; None: some, their number is not known."""
    if index.lost["count"].null_count():
        return None
    return int(index.lost["count"].sum()) + _overwritten(preamble)


def loss_rows(index: Index, preamble: Preamble) -> Iterator[QualityRow]:
    """Rows about lost events: one for the start of the buffer, one for each line that tells of a loss."""
    if count := _overwritten(preamble):
        text = f"{count} events were overwritten before the first that is left: state from before is unknown"
        yield QualityRow("lost_events", None, None, _time(index, 0), count, text, "warning")
    for cpu in index.lost["cpu"].unique(maintain_order=True).to_list():
        mine = index.lost.filter(index.lost["cpu"] == cpu)
        events = np.flatnonzero((index.cpu == cpu) & (index.key >= 0))
        after = np.searchsorted(events, mine["line"].to_numpy())
        for place, count in zip(after.tolist(), mine["count"].to_list(), strict=True):
            number = "an unknown number of events" if count is None else f"{count} events"
            text = (
                f"{number} of cpu {cpu} were lost in this range: "
                "state that they changed is unknown from there on"
            )
            start = int(index.ts_ns[events[place - 1]]) if place else None
            end = int(index.ts_ns[events[place]]) if place < len(events) else None
            yield QualityRow("lost_events", cpu, start, end, count, text, "warning")


def line_rows(index: Index, preamble: Preamble) -> Iterator[QualityRow]:
    """Rows about lines that are missing, cut, or cannot be read."""
    if index.is_cut:
        text = "the last line has no end, and was left out: the file was cut there, later events are missing"
        yield QualityRow("truncated", None, _time(index, -1), None, None, text, "error")
    if index.unread:
        first = 0 if index.first_unread is None else index.first_unread
        text = f"{index.unread} lines are no events, and were left out (the first is line {first + 1})"
        yield QualityRow("unread_lines", None, None, None, index.unread, text, "warning")
    present = int((index.key >= 0).sum()) + index.unread + index.is_cut
    if preamble.entries is not None and preamble.entries > present:
        text = (
            f"the head of the text tells of {preamble.entries} events, {present} are in it: "
            "it was cut or filtered, or tracing went on while it was read"
        )
        missing = preamble.entries - present
        yield QualityRow("missing_lines", None, None, None, missing, text, "warning")


def side_rows(dialect: Dialect) -> Iterator[QualityRow]:
    """What a perf.data has beside its samples; perf script prints that only if it is asked to."""
    if dialect is PERF:
        text = (
            "records beside the samples (fork, exec, comm, mmap) are not read from the text of perf script, "
            "as they are from a perf.data; losses are known where it prints them (perf script "
            "--show-lost-events)"
        )
        yield QualityRow("no_side_band", None, None, None, None, text, "info")


def check_times(index: Index, path: str) -> None:
    """Refuse times that are differences: tools print in order of time, with a step back here and there.

    Raises:
        CorruptError: Of many events, each fourth and more is before its predecessor.
    """
    times = index.ts_ns[index.key >= 0]
    backward = int((times[1:] < times[:-1]).sum())
    if len(times) >= LEAST_EVENTS and 4 * backward > len(times):
        raise CorruptError(
            "the times of this text are differences, or of no order",
            path=path,
            expected="the time of each event",
            found=f"{backward} of {len(times)} events before their predecessors",
            hint="print it again without --deltatime",
        )


def time_rows(index: Index) -> Iterator[QualityRow]:
    """Rows about the times."""
    if 0 in index.digits:
        text = (
            "the times have no decimal point, so they count cycles, jiffies or events: durations are not "
            "known, a second stands for 10^9"
        )
        yield QualityRow(NO_NS, None, None, None, None, text, "warning")
    if 6 in index.digits:
        text = (
            "times are printed in microseconds: events within one microsecond keep the order of the text, "
            "and durations are that coarse"
        )
        yield QualityRow("clock", None, None, None, None, text, "info")
    times = index.ts_ns[index.key >= 0]
    if backward := int((times[1:] < times[:-1]).sum()):
        text = (
            f"{backward} events have an earlier time than the event before them: they were sorted by time, "
            "and the order of events at one time is not known"
        )
        yield QualityRow("clock", None, None, None, backward, text, "warning")


def left_out(name: str, reason: str, count: int) -> QualityRow:
    """The row about an event whose fields cannot be read."""
    text = f"{count} events {name} were left out: {reason}"
    return QualityRow("unread_event", None, None, None, count, text, "warning")


def unread_event(name: str, count: int, first: int) -> QualityRow:
    """The row about lines of an event that are unlike its other lines."""
    text = f"{count} lines of {name} cannot be read, and were left out (the first is line {first + 1})"
    return QualityRow("corrupt", None, None, None, count, text, "error")


def _overwritten(preamble: Preamble) -> int:
    if preamble.entries is None or preamble.written is None:
        return 0
    return max(preamble.written - preamble.entries, 0)


def _time(index: Index, place: int) -> int | None:
    """Time of an event by its place in the text; None: there is none."""
    times = index.ts_ns[index.key >= 0]
    return int(times[place]) if len(times) else None
