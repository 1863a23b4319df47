"""perf_event_attr: what was recorded, and where the fields of its records lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from captures.perfdata import constants as c

if TYPE_CHECKING:
    from captures.cursor import Cursor


@dataclass(frozen=True)
class SampleLayout:
    """Where the fields of a sample lie that come before its raw data.

    Attributes:
        id: Byte of the event's id from the start of the record; None: the sample has none.
        time: Byte of the time; None: the sample has none.
        cpu: Byte of the CPU; None: the sample has none.
        tid: Byte of the thread id; None: the sample has none.
        fixed_bytes: Bytes of the record, its header among them, that come before the parts of varying size.
        group_head_bytes: Bytes of a group's values before its members; 0: the sample holds no group.
        group_member_bytes: Bytes of one member of a group.
        has_callchain: Whether there is a call chain.
        has_raw: Whether there are raw data.
    """

    id: int | None
    time: int | None
    cpu: int | None
    tid: int | None
    fixed_bytes: int
    group_head_bytes: int
    group_member_bytes: int
    has_callchain: bool
    has_raw: bool


@dataclass(frozen=True)
class TrailerLayout:
    """Where the fields of sample_id_all lie at the end of a record that is no sample.

    Attributes:
        id: Bytes from the end of the record back to the event's id; None: there is none.
        time: Bytes back to the time; None: there is none.
        cpu: Bytes back to the CPU; None: there is none.
        size: Bytes of all fields.
    """

    id: int | None
    time: int | None
    cpu: int | None
    size: int


@dataclass(frozen=True)
class Attr:
    """One event that was asked for, as perf_event_open() got it.

    Attributes:
        type: PERF_TYPE_*; 2: a tracepoint.
        config: For a tracepoint, its ``common_type``.
        sample_period: Every how many events one is recorded, or how many a second (FLAG_FREQ).
        sample_type: PERF_SAMPLE_* bits.
        read_format: PERF_FORMAT_* bits.
        flags: The bit fields, bit 0 (``disabled``) lowest.
        clockid: Clock of the times, if FLAG_USE_CLOCKID is set.
        ids: Ids of its records, as little-endian or big-endian u64 (as the file has them).
    """

    type: int
    config: int
    sample_period: int
    sample_type: int
    read_format: int
    flags: int
    clockid: int
    ids: bytes

    @property
    def is_tracepoint(self) -> bool:
        """Whether its samples are records of a tracepoint or probe."""
        return self.type == c.TYPE_TRACEPOINT

    @property
    def clock(self) -> str:
        """Name of the clock of its times."""
        if not self.flags & c.FLAG_USE_CLOCKID:
            return "perf"
        return c.CLOCKS.get(self.clockid, f"clock {self.clockid}")

    @cached_property
    def sample(self) -> SampleLayout:
        """Layout of its samples (kernel: perf_output_sample())."""
        places = {}
        at = c.RECORD_HEADER_BYTES
        for bit in c.SAMPLE_FIXED:
            if self.sample_type & bit:
                places[bit] = at
                at += 8
        times = 8 * sum(
            bool(self.read_format & bit) for bit in (c.FORMAT_TOTAL_TIME_ENABLED, c.FORMAT_TOTAL_TIME_RUNNING)
        )
        member = 8 + 8 * sum(bool(self.read_format & bit) for bit in (c.FORMAT_ID, c.FORMAT_LOST))
        reads = bool(self.sample_type & c.SAMPLE_READ)
        group = reads and bool(self.read_format & c.FORMAT_GROUP)
        if reads and not group:
            at += times + member
        return SampleLayout(
            id=places.get(c.SAMPLE_IDENTIFIER, places.get(c.SAMPLE_ID)),
            time=places.get(c.SAMPLE_TIME),
            cpu=places.get(c.SAMPLE_CPU),
            tid=places[c.SAMPLE_TID] + 4 if c.SAMPLE_TID in places else None,
            fixed_bytes=at,
            group_head_bytes=8 + times if group else 0,
            group_member_bytes=member,
            has_callchain=bool(self.sample_type & c.SAMPLE_CALLCHAIN),
            has_raw=bool(self.sample_type & c.SAMPLE_RAW),
        )

    @cached_property
    def trailer(self) -> TrailerLayout:
        """Layout of the end of its other records (kernel: perf_event__output_id_sample())."""
        places: dict[int, int] = {}
        at = 0
        if self.flags & c.FLAG_SAMPLE_ID_ALL:
            for bit in reversed(c.SAMPLE_ID_FIELDS):
                if self.sample_type & bit:
                    at += 8
                    places[bit] = at
        return TrailerLayout(
            id=places.get(c.SAMPLE_IDENTIFIER, places.get(c.SAMPLE_ID)),
            time=places.get(c.SAMPLE_TIME),
            cpu=places.get(c.SAMPLE_CPU),
            size=at,
        )


def attr_bytes(cursor: Cursor) -> int:
    """Size of the perf_event_attr at the cursor, as it says itself; the cursor stays.

    Raises:
        TruncatedError, CorruptError: There is none, or it says a size that none has.
    """
    peek = cursor.at(cursor.pos + c.ATTR_SIZE)
    size = peek.u32("the size of an event attribute") or c.ATTR_SIZE_VER0
    if size % 8 or not c.ATTR_SIZE_VER0 <= size <= c.MAX_ATTR_BYTES:
        raise cursor.corrupt(
            "the size of an event attribute is wrong",
            expected=f"a multiple of 8 from {c.ATTR_SIZE_VER0} to {c.MAX_ATTR_BYTES}",
            found=str(size),
        )
    return size


def parse_attr(content: Cursor, ids: bytes) -> Attr:
    """Read a perf_event_attr, of whatever version.

    Args:
        content: A cursor at its start, with ``c.ATTR_SIZE_VER0`` bytes at least.
        ids: Ids of its records.
    """
    start = content.pos
    what = "an event attribute"
    flags = content.at(start + c.ATTR_FLAGS).u64(what)
    if content.order == "big":  # bit fields begin at the other end of the word
        flags = int(f"{flags:064b}"[::-1], 2)
    clock = content.at(start + c.ATTR_CLOCKID)
    return Attr(
        type=content.at(start).u32(what),
        config=content.at(start + c.ATTR_CONFIG).u64(what),
        sample_period=content.at(start + c.ATTR_SAMPLE_PERIOD).u64(what),
        sample_type=content.at(start + c.ATTR_SAMPLE_TYPE).u64(what),
        read_format=content.at(start + c.ATTR_READ_FORMAT).u64(what),
        flags=flags,
        clockid=clock.u32(what) if clock.remaining >= 4 else 0,
        ids=ids,
    )
