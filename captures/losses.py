"""What a capture lacks: lost events, damage and clock problems, as rows of table ``quality``."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from schemas import TABLES
from schemas.provenance import CLOCKS_DIFFER, FOREIGN_ENTRIES, NO_NS, PAGE_BYTES, PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from captures.eventfmt import EventFormat
    from captures.ringbuf import Longs

NOT_NS: Final = {"counter": "counts events", "uptime": "counts jiffies", "x86-tsc": "counts CPU cycles"}
"""Clocks whose values are no ns unless the capture tells how to convert them."""

_KNOWN_ENTRIES: Final = ("x86_64", None)


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
