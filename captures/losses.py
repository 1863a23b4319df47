"""What a capture lacks: lost events, damage and clock problems, as rows of table ``quality``."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from captures.tracedat import constants as c
from captures.tracedat.clock import NOT_NS
from schemas import TABLES
from schemas.provenance import CLOCKS_DIFFER, FOREIGN_ENTRIES, NO_NS, PAGE_BYTES, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from captures.eventfmt import EventFormat
    from captures.ringbuf import Longs
    from captures.tracedat.container import Container
    from captures.windows import Part, Window

_KNOWN_ENTRIES: Final = ("x86_64", None)

_STAT: Final = re.compile(r"^(CPU|overrun|commit overrun|dropped events):\s*(\d{1,18})\s*$", re.MULTILINE)
_STAT_TICKS: Final = re.compile(r"^now ts: *\d+\s*$", re.MULTILINE)
_STAT_BUFFER: Final = re.compile(r"^Buffer:\s*(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class QualityRow:
    """One row of table ``quality``; None: as its columns say."""

    kind: str
    cpu: int | None
    start_ns: int | None
    end_ns: int | None
    count: int | None
    effect: str
    severity: str


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


def file_rows(damage: str | None) -> Iterable[QualityRow]:
    """A row about the end of the file; ``damage``: what is missing there."""
    if damage is not None:
        text = f"the file was cut, or its recorder was killed: {damage}; later events are missing"
        yield QualityRow("truncated", None, None, None, None, text, "error")


def clock_rows(
    clocks: Iterable[str | None],
    *,
    has_tsc_conversion: bool,
    of_ticks: bool = False,
    ts2secs: int | None = None,
) -> Iterable[QualityRow]:
    """Rows about the trace clocks of the buffers.

    Args:
        clocks: What the file says they are.
        has_tsc_conversion: Whether it says how to make ns of cycles.
        of_ticks: Whether the kernel's statistics say that some count no ns.
        ts2secs: Ticks a second, by the user; None: the user does not say.
    """
    if ts2secs is not None:
        text = f"times were made of ticks, {ts2secs} of which are a second by --ts2secs, not by the capture"
        yield QualityRow("clock", None, None, None, None, text, "info")
    names = sorted({clock or "unknown" for clock in clocks})
    if len(names) > 1:
        text = f"its parts use different clocks ({', '.join(names)}): their events have no common order"
        yield QualityRow(CLOCKS_DIFFER, None, None, None, None, text, "error")
    for name in names:
        if name in NOT_NS and not has_tsc_conversion:
            unless = " without --ts2secs" if name == "x86-tsc" else ""
            text = f"the clock {name} {NOT_NS[name]}: durations are not known{unless}, "
            text += "a second stands for 10^9 of them"
            yield QualityRow(NO_NS, None, None, None, None, text, "warning")
        elif of_ticks and not has_tsc_conversion and name not in NOT_NS:
            text = f"the clock is {name} by the file, but counts no ns by the kernel's statistics: "
            text += "durations are not known, a second stands for 10^9 of its ticks"
            yield QualityRow(NO_NS, None, None, None, None, text, "warning")
        if name == "local":
            text = (
                "the clock local may run apart between CPUs: events of two CPUs that are close may be swapped"
            )
            yield QualityRow("clock", None, None, None, None, text, "info")


def machine_rows(arch: str | None, page_bytes: int | None) -> Iterable[QualityRow]:
    """Rows about a machine that results do not hold for; None: the capture does not say."""
    if page_bytes not in (PAGE_BYTES, None):
        text = f"a page of this machine has {page_bytes} bytes, and replay knows pages of {PAGE_BYTES} alone"
        yield QualityRow(PAGE_SIZE, None, None, None, None, text, "error")
    if arch not in _KNOWN_ENTRIES:
        text = f"page-table entries of {arch} are not read, so stock events alone do not tell of migrations"
        yield QualityRow(FOREIGN_ENTRIES, None, None, None, None, text, "info")


def unknown_rows(counts: Longs, formats: Mapping[str, EventFormat]) -> Iterable[QualityRow]:
    """A row about records of events without a format; ``counts``: records by event id."""
    known = {each.id for each in formats.values()}
    unknown = [number for number in np.flatnonzero(counts).tolist() if number not in known]
    if unknown:
        count = int(counts[unknown].sum())
        text = f"{count} records are of events without a format ({len(unknown)} ids): they were left out"
        yield QualityRow("unknown_event", None, None, None, count, text, "warning")


def broken_rows(broken: Mapping[str, tuple[int, int]]) -> Iterable[QualityRow]:
    """Rows about records that do not fit their format; ``broken``: too short, unreadable strings by event."""
    for name, (short, unreadable) in broken.items():
        text = f"{short} records of {name} are shorter than their format says and were left out, "
        text += f"{unreadable} strings in others lie outside their record and are null"
        yield QualityRow("corrupt", None, None, None, short + unreadable, text, "error")


def quality_table(rows: Iterable[QualityRow]) -> pa.Table:
    """Table ``quality`` from its rows."""
    schema = TABLES["quality"].arrow
    columns = list(zip(*map(astuple, rows), strict=True)) or [()] * len(schema)
    arrays = [pa.array(values, each.type) for values, each in zip(columns, schema, strict=True)]
    return TABLES["quality"].check(pa.table(arrays, schema=schema))
