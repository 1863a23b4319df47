"""The perf.data container: what was recorded, the formats, and where the records are; reads no event.

A file has its attributes before, and its features behind the records. What came through a pipe is records
from its first byte on, and these come as records too, before all others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from captures.cursor import Cursor
from captures.perfdata import constants as c
from captures.perfdata.attr import attr_bytes, parse_attr
from captures.tracedat import v6 as tracedat6
from captures.tracedat.container import Container
from schemas.errors import TruncatedError, UnknownFormatError

if TYPE_CHECKING:
    from captures.cursor import ByteOrder
    from captures.perfdata.attr import Attr

HINT_RECORD = (
    "copy the file again, or record it again and end perf with Ctrl-C; a killed recording can be read "
)
HINT_RECORD += "if it goes through a pipe: perf record -o - ... > FILE"


@dataclass
class PerfData:
    """What a perf.data holds besides records.

    Attributes:
        path: File named in errors.
        data: The file.
        order: Byte order of the traced machine.
        is_pipe: Whether it came through a pipe.
        begin: First byte of the records.
        end: First byte behind them.
        damage: Why the file holds less than it should; None: it does not.
        attrs: The events that were asked for.
        features: Places (first byte, first byte behind) of the feature sections, by bit.
        tables: The formats and tables of feature TRACING_DATA; None: it is not there.
    """

    path: str
    data: memoryview
    order: ByteOrder
    is_pipe: bool
    begin: int
    end: int
    damage: str | None = None
    attrs: list[Attr] = field(default_factory=list)
    features: dict[int, tuple[int, int]] = field(default_factory=dict)
    tables: Container | None = None

    def cursor(self, pos: int, end: int | None = None) -> Cursor:
        """A cursor at byte ``pos`` of the file."""
        return Cursor(self.data, self.path, pos=pos, end=end, order=self.order)

    def feature(self, bit: int) -> Cursor | None:
        """A cursor over a feature section; None: it is not there."""
        place = self.features.get(bit)
        return None if place is None else self.cursor(*place)

    def string(self, bit: int) -> str | None:
        """A feature that is one string (HOSTNAME ...); None: it is not there."""
        section = self.feature(bit)
        return None if section is None else _string(section) or None

    def cpus_online(self) -> int | None:
        """CPUs that were online; None: the file does not say."""
        section = self.feature(c.FEATURE_NRCPUS)
        if section is None:
            return None
        section.u32("the number of available CPUs")
        return min(section.u32("the number of CPUs that are online"), c.MAX_CPUS)

    @property
    def is_backward(self) -> bool:
        """Whether the file has the newest record of each buffer first."""
        return any(each.flags & c.FLAG_WRITE_BACKWARD for each in self.attrs)

    def command_line(self) -> list[str]:
        """The command that recorded the file; empty: the file does not say."""
        section = self.feature(c.FEATURE_CMDLINE)
        if section is None:
            return []
        return [_string(section) for _ in range(section.u32("the length of the command line"))]


def is_perfdata(head: bytes) -> bool:
    """Whether a file that begins with ``head`` says that it is a perf.data."""
    return head.startswith((c.MAGIC, c.MAGIC_SWAPPED))


def read_perfdata(data: memoryview, path: str) -> PerfData:
    """Read everything but the records.

    Raises:
        UnknownFormatError: A kind of perf.data that is not known.
        TruncatedError, CorruptError: The file ends inside its tables, or contradicts itself.
    """
    order: ByteOrder = "little" if bytes(data[:8]) == c.MAGIC else "big"
    start = Cursor(data, path, pos=8, order=order)
    at = start.at(8)
    size = start.u64("the size of the header")
    if size == c.PIPE_HEADER_BYTES:
        perf = PerfData(path, data, order, True, start.pos, len(data))
        _read_head_records(perf)
    elif size == c.HEADER_BYTES:
        perf = _read_file(start)
    else:
        raise UnknownFormatError(
            "this kind of perf.data is not known",
            path=path,
            offset=at.pos,
            expected=f"a header of {c.HEADER_BYTES} bytes (file) or {c.PIPE_HEADER_BYTES} (pipe)",
            found=f"{size} bytes",
            hint="record with perf record -o FILE; files of perf before Linux 2.6.38 are not read",
        )
    _refuse_unread_kinds(perf)
    tracing = perf.feature(c.FEATURE_TRACING_DATA)
    if tracing is not None:
        perf.tables = _read_tracing_data(tracing)
    return perf


def _read_file(start: Cursor) -> PerfData:
    """Read the header of a file, its attributes, and where its features are."""
    at = start.pos
    entry = start.u64("the size of an attribute")
    attrs_at, attrs_bytes = start.u64("the place of the attributes"), start.u64("the size of the attributes")
    data_at, data_bytes = start.u64("the place of the records"), start.u64("the size of the records")
    start.take(16, "the place of the event types")
    bits = [start.u64("the features") for _ in range(c.FEATURE_BITS // 64)]
    available = len(start.data)
    if data_at > available:
        raise start.at(available).short("the header", expected=f"records at byte {data_at}")
    perf = PerfData(start.path, start.data, start.order, False, data_at, min(data_at + data_bytes, available))
    if not c.ATTR_SIZE_VER0 + 16 <= entry <= c.MAX_ATTR_BYTES or entry % 8 or attrs_bytes % entry:
        raise start.at(at).corrupt(
            "the size of an attribute is wrong",
            expected=f"a multiple of 8 from {c.ATTR_SIZE_VER0 + 16}, and whole attributes",
            found=f"{entry} bytes, {attrs_bytes} in all",
        )
    _read_attrs(perf, attrs_at, attrs_bytes // entry, entry)
    if not data_bytes:
        perf.end = available
        perf.damage = "perf record was killed: the header does not say where the records end"
    elif perf.end < data_at + data_bytes:
        perf.damage = f"the file ends after {perf.end - data_at} of {data_bytes} bytes of records"
    else:
        _read_features(
            perf, [64 * word + bit for word in range(4) for bit in range(64) if bits[word] >> bit & 1]
        )
    return perf


def _read_attrs(perf: PerfData, attrs_at: int, count: int, entry: int) -> None:
    table = perf.cursor(attrs_at)
    allowed = len(perf.data)
    for _ in range(count):
        begin = table.pos
        table.take(entry, "the attributes")
        place = table.at(table.pos - 16)
        at, size = place.u64("the place of ids"), place.u64("the size of ids")
        ids = bytes(perf.cursor(at).take(size, "the ids of an event")) if size else b""
        allowed -= size
        if allowed < 0 or size % 8:
            raise place.corrupt(
                "the ids of an event are wrong", expected="whole ids, once", found=f"{size} bytes"
            )
        used = attr_bytes(table.at(begin))
        content = perf.cursor(begin, min(begin + used, table.pos - 16))
        perf.attrs.append(parse_attr(content, ids))


def _read_features(perf: PerfData, bits: list[int]) -> None:
    """Note where the sections are; those that are not there whole are left out."""
    table = perf.cursor(perf.end)
    for bit in bits:
        if table.remaining < 16:
            perf.damage = "the file ends inside the table of features"
            return
        at, size = table.u64("the place of a feature"), table.u64("the size of a feature")
        if at + size <= len(perf.data):
            perf.features[bit] = (at, at + size)
        else:
            perf.damage = f"the file ends inside feature {bit}"


def _read_head_records(perf: PerfData) -> None:
    """Read attributes, features and formats from the records before the first sample."""
    cursor = perf.cursor(perf.begin)
    while cursor.remaining >= c.RECORD_HEADER_BYTES:
        begin = cursor.pos
        kind = cursor.u32("the type of a record")
        cursor.u16("the flags of a record")
        end = begin + cursor.u16("the size of a record")
        if kind in (c.SAMPLE, c.COMPRESSED, c.COMPRESSED2) or not cursor.pos <= end <= len(perf.data):
            return
        if kind == c.HEADER_ATTR:
            content = perf.cursor(cursor.pos, end)
            size = attr_bytes(content)
            ids = bytes(perf.cursor(cursor.pos + size, end).data[cursor.pos + size : end])
            content.end = min(end, content.pos + size)
            perf.attrs.append(parse_attr(content, ids[: len(ids) & ~7]))
        elif kind == c.HEADER_FEATURE:
            bit = perf.cursor(cursor.pos, end).u64("the number of a feature")
            perf.features[bit] = (cursor.pos + 8, end)
        elif kind == c.TRACING_DATA:
            size = perf.cursor(cursor.pos, end).u32("the size of the formats")
            perf.features[c.FEATURE_TRACING_DATA] = (end, end + size)
            if end + size > len(perf.data):
                raise perf.cursor(end).short("the event formats", expected=f"{size} bytes")
            end += size
        cursor.pos = end


def _refuse_unread_kinds(perf: PerfData) -> None:
    """Refuse a directory's header file, and compressions other than zstd.

    Raises:
        UnknownFormatError: It is one of these.
    """
    if c.FEATURE_DIR_FORMAT in perf.features and not perf.is_pipe:
        raise UnknownFormatError(
            "this is the header of a perf.data directory",
            path=perf.path,
            expected="records in the file itself",
            found="feature DIR_FORMAT: they are in the files beside it",
            hint="record without --threads",
        )
    section = perf.feature(c.FEATURE_COMPRESSED)
    if section is not None:
        section.u32("the version of the compression")
        at = section.pos
        kind = section.u32("the type of the compression")
        if kind != c.COMPRESSION_ZSTD:
            raise UnknownFormatError(
                "the compression of this perf.data is not known",
                path=perf.path,
                offset=at,
                expected=f"{c.COMPRESSION_ZSTD} (zstd)",
                found=str(kind),
                hint="decompress it: perf inject -i FILE -o OUT",
            )


def _read_tracing_data(section: Cursor) -> Container:
    """Read the formats: the same tables as in a trace.dat of version 6, behind a head of their own."""
    section.expect(c.TRACING_DATA_MAGIC, "magic number of the event formats")
    section.string("the version of the event formats", 16)
    endian = section.unsigned(1, "the byte order")
    long_bytes = section.unsigned(1, "the size of a long")
    if endian > 1 or long_bytes not in (4, 8):
        raise section.corrupt(
            "the head of the event formats is wrong",
            expected="byte order 0 or 1, long of 4 or 8 bytes",
            found=f"{endian}, {long_bytes}",
        )
    section.order = "big" if endian else "little"
    page_bytes = section.u32("the page size")
    tables = Container(6, section.path, section.data, section.order, long_bytes, page_bytes)
    tracedat6.read_tables(tables, section)
    return tables


def no_formats(perf: PerfData) -> TruncatedError:
    """The error for a file that has tracepoints but lost their formats, which perf writes at the end."""
    return TruncatedError(
        "the perf.data has no event formats",
        path=perf.path,
        offset=perf.end,
        expected="the feature TRACING_DATA behind the records",
        found=perf.damage or "no such feature",
        hint=HINT_RECORD,
    )


def _string(section: Cursor) -> str:
    """A string of a feature: u32 length with padding, then bytes that end at a NUL."""
    content = bytes(section.take(section.u32("the length of a string"), "a string of a feature"))
    return content.split(b"\0")[0].decode("utf-8", "backslashreplace")
