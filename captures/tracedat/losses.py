"""What a trace.dat lacks: events lost, pages and times that are wrong, as rows of table ``quality``."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from captures.losses import QualityRow
from captures.tracedat import constants as c

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from captures.tracedat.container import Container
    from captures.windows import Part, Window

_STAT: Final = re.compile(r"^(CPU|overrun|commit overrun|dropped events):\s*(\d{1,18})\s*$", re.MULTILINE)
_STAT_TICKS: Final = re.compile(r"^now ts: *\d+\s*$", re.MULTILINE)
_STAT_BUFFER: Final = re.compile(r"^Buffer:\s*(\S+)", re.MULTILINE)


@dataclass
class StreamFacts:
    """What was seen of one CPU of one buffer.

    Attributes:
        buffer: Name of the buffer; empty: the top one.
        cpu: CPU.
        gaps: (start_ns, end_ns, count) of each loss; None: open, or number not known.
        bad_pages: Pages that were given up.
        bad_start_ns: Time of the first of them.
        bad_end_ns: Time of the last of them.
        backward: Events whose time is before that of their predecessor.
        first_ns: Time of the earliest event so far; None: none yet.
        latest_ns: Time of the latest event so far; None: none yet.
        last_ns: Time of the last event so far in the order of the file; None: none yet.
        records: Events so far.
        damage: Why the data end early; None: they do not.
        is_truncated: Whether that is because the file ends.
    """

    buffer: str
    cpu: int
    gaps: list[tuple[int | None, int, int | None]] = field(default_factory=list)
    bad_pages: int = 0
    bad_start_ns: int | None = None
    bad_end_ns: int | None = None
    backward: int = 0
    first_ns: int | None = None
    latest_ns: int | None = None
    last_ns: int | None = None
    records: int = 0
    damage: str | None = None
    is_truncated: bool = False

    def note(self, window: Window, part: Part) -> None:
        """Take the next pages of the stream and their records."""
        pages, first_record = window.pages, window.first_record
        first, stop = int(first_record[part.first]), int(first_record[part.stop])
        self.records += stop - first
        for page in (np.flatnonzero(pages.lost[part.first : part.stop]) + part.first).tolist():
            place = int(first_record[page])
            has_event = place < int(first_record[page + 1])
            before = int(window.ts_ns[place - 1]) if place > first else self.last_ns
            after = int(window.ts_ns[place]) if has_event else int(window.page_ns[page])
            number = int(pages.lost_count[page])
            self.gaps.append((before, after, None if number < 0 else number))
        bad = np.flatnonzero(pages.is_bad[part.first : part.stop]) + part.first
        if len(bad):
            self.bad_pages += len(bad)
            if self.bad_start_ns is None:
                self.bad_start_ns = int(window.page_ns[bad[0]])
            self.bad_end_ns = int(window.page_ns[bad[-1]])
        if first < stop:
            ts_ns = window.ts_ns[first:stop]
            self.backward += self.last_ns is not None and int(ts_ns[0]) < self.last_ns
            low, high = int(ts_ns[0]), int(ts_ns[-1])
            if window.due is None:
                self.backward += int((ts_ns[1:] < ts_ns[:-1]).sum())
                low, high = int(ts_ns.min()), int(ts_ns.max())
            self.first_ns = low if self.first_ns is None else min(self.first_ns, low)
            self.latest_ns = high if self.latest_ns is None else max(self.latest_ns, high)
            self.last_ns = int(ts_ns[-1])

    @property
    def lost(self) -> int | None:
        """Events lost according to the pages; None: some, number not known."""
        counts = [count for _, _, count in self.gaps]
        return None if None in counts else sum(count for count in counts if count is not None)


def kernel_statistics(container: Container) -> dict[tuple[str, int], int]:
    """Events lost by (buffer, cpu) according to per_cpu/cpuN/stats, which trace-cmd keeps in the file."""
    lost: dict[tuple[str, int], int] = defaultdict(int)
    for buffer, text in _statistics(container):
        values = dict(_STAT.findall(text))
        if "CPU" in values:
            parts = ("overrun", "commit overrun", "dropped events")
            lost[buffer, int(values["CPU"])] += sum(int(values.get(part, 0)) for part in parts)
    return dict(lost)


def buffers_of_ticks(container: Container) -> set[str]:
    """Buffers whose clock counts no ns: their per_cpu/cpuN/stats print times without a decimal point.

    The file may name another clock: trace-cmd 3.1 gives an instance that it extracts that of the top one.

    Kernel: kernel/trace/trace.c tracing_stats_read().
    """
    return {buffer for buffer, text in _statistics(container) if _STAT_TICKS.search(text)}


def _statistics(container: Container) -> Iterator[tuple[str, str]]:
    """Each option CPUSTAT with the buffer that it is about."""
    buffer = ""
    for content in container.options.get(c.CPUSTAT, []):
        text = content.decode("utf-8", "replace").replace("\0", "")
        if named := _STAT_BUFFER.search(text):
            buffer = named[1]
        yield buffer, text


def events_lost(streams: Iterable[StreamFacts], statistics: dict[tuple[str, int], int]) -> int | None:
    """Events lost in the whole capture; None: some, number not known.

    The pages tell where events are missing, the kernel's statistics how many: the larger number counts.
    """
    by_key = {(each.buffer, each.cpu): each.lost for each in streams}
    total = 0
    for key in by_key.keys() | statistics.keys():
        by_pages = by_key.get(key, 0)
        by_kernel = statistics.get(key, 0)
        if by_pages is None and not by_kernel:
            return None
        total += max(by_pages or 0, by_kernel)
    return total


def stream_rows(stream: StreamFacts, by_kernel: int) -> Iterable[QualityRow]:
    """Rows about one CPU of one buffer; ``by_kernel``: events lost according to the kernel's statistics."""
    where = f"cpu {stream.cpu}" + (f" of instance {stream.buffer}" if stream.buffer else "")
    for start, end, count in stream.gaps:
        number = "an unknown number of events" if count is None else f"{count} events"
        yield QualityRow(
            "lost_events",
            stream.cpu,
            start,
            end,
            count,
            f"{number} of {where} were lost in this range: state that they changed is unknown from there on",
            "warning",
        )
    if stream.lost is not None and by_kernel > stream.lost:
        yield QualityRow(
            "lost_events",
            stream.cpu,
            None,
            None,
            by_kernel - stream.lost,
            f"the kernel's statistics count {by_kernel} lost events of {where}, "
            f"the pages tell where {stream.lost} of them are missing",
            "warning",
        )
    if stream.bad_pages:
        yield QualityRow(
            "corrupt",
            stream.cpu,
            stream.bad_start_ns,
            stream.bad_end_ns,
            stream.bad_pages,
            f"{stream.bad_pages} pages of {where} contradict themselves; what follows the first wrong record "
            "of each was left out",
            "error",
        )
    if stream.damage is not None:
        yield QualityRow(
            "truncated" if stream.is_truncated else "corrupt",
            stream.cpu,
            stream.last_ns,
            None,
            None,
            f"the data of {where} end early: {stream.damage}; later events are missing",
            "error",
        )
    if stream.backward:
        yield QualityRow(
            "clock",
            stream.cpu,
            None,
            None,
            stream.backward,
            f"{stream.backward} events of {where} have an earlier time than the event before them: "
            "its events keep their order, that of events of other CPUs around them is not known",
            "warning",
        )
