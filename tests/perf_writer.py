"""Writes perf.data files, right ones and wrong ones, from Python literals.

Independent of ``captures``: nothing is shared with the reader, not even a constant. What is written follows
tools/perf/Documentation/perf.data-file-format.txt and include/uapi/linux/perf_event.h. Every number that a
test may want to break is an argument or an attribute.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import zstandard

from tests.tracedat_writer import HEADER_EVENT, Kernel

IDENTIFIER, IP, TID, TIME, ADDR, ID, STREAM, CPU, PERIOD = 1 << 16, 1, 2, 4, 8, 1 << 6, 1 << 9, 1 << 7, 1 << 8
READ, CALLCHAIN, RAW = 1 << 4, 1 << 5, 1 << 10
TRACEPOINT_SAMPLE = IDENTIFIER | IP | TID | TIME | CPU | PERIOD | RAW
SAMPLE_ID_ALL, USE_CLOCKID, WRITE_BACKWARD, FREQ = 1 << 18, 1 << 25, 1 << 27, 1 << 10


@dataclass(frozen=True)
class Event:
    """One perf_event_attr and the ids of its records."""

    config: int
    ids: tuple[int, ...]
    sample_type: int = TRACEPOINT_SAMPLE
    read_format: int = 0
    type: int = 2
    flags: int = SAMPLE_ID_ALL
    period: int = 1
    clockid: int = 0
    size: int = 128


@dataclass(frozen=True)
class Perf:
    """The machine that is traced; makes attributes and records."""

    kernel: Kernel = field(default_factory=Kernel)

    def attr(self, event: Event) -> bytes:
        k = self.kernel
        flags = event.flags
        if k.order == ">":  # bit fields start at the high end
            flags = sum(1 << 63 - bit for bit in range(64) if flags >> bit & 1)
        start = k.u(4, event.type, event.size) + k.u(8, event.config, event.period)
        start += k.u(8, event.sample_type, event.read_format, flags)
        return start + bytes(92 - len(start)) + k.u(4, event.clockid) + bytes(event.size - 96)

    def record(self, kind: int, body: bytes, *, misc: int = 0, size: int | None = None) -> bytes:
        k = self.kernel
        return k.u(4, kind) + k.u(2, misc, 8 + len(body) if size is None else size) + body

    def sample(
        self,
        event: Event,
        raw: bytes,
        time: int,
        cpu: int,
        *,
        tid: int = 1,
        number: int | None = None,
        group: tuple[int, ...] | None = None,
        chain: tuple[int, ...] = (),
        raw_size: int | None = None,
    ) -> bytes:
        """A sample; ``group``: how much more than the time each member of a group has counted.

        perf leaves out a sample whose count is that of the one before, so counts go with the time; of a
        group it makes one sample for each member with an id that it knows, so all but the first have none.
        """
        k = self.kernel
        own = event.ids[0] if number is None else number
        words = {
            IDENTIFIER: k.u(8, own),
            IP: k.u(8, 0xFFFFFFFF81000000),
            TID: k.u(4, tid, tid),
            TIME: k.u(8, time),
            ADDR: k.u(8, 0xADD),
            ID: k.u(8, own),
            STREAM: k.u(8, own),
            CPU: k.u(4, cpu, 0),
            PERIOD: k.u(8, 1),
        }
        body = b"".join(content for bit, content in words.items() if event.sample_type & bit)
        if event.sample_type & READ:
            times = bytes(8 * (event.read_format & 3).bit_count())
            more = (event.read_format >> 2 & 1) + (event.read_format >> 4 & 1)
            members = [
                k.u(8, time + n, *([own if not at else 0] * more)) for at, n in enumerate(group or (0,))
            ]
            body += (k.u(8, len(members)) + times + b"".join(members)) if group else members[0][:8] + times
            body += b"" if group else members[0][8:]
        if event.sample_type & CALLCHAIN:
            body += k.u(8, len(chain), *chain)
        if event.sample_type & RAW:
            padded = raw + bytes(-(len(raw) + 4) % 8)
            body += k.u(4, len(padded) if raw_size is None else raw_size) + padded
        return self.record(9, body)

    def side(self, event: Event, kind: int, body: bytes, time: int, cpu: int, *, misc: int = 0) -> bytes:
        """A record that is no sample, with the end that sample_id_all asks for."""
        k = self.kernel
        own = event.ids[0] if time else 0
        words = {
            TID: k.u(4, 1, 1),
            TIME: k.u(8, time),
            ID: k.u(8, own),
            STREAM: k.u(8, own),
            CPU: k.u(4, cpu, 0),
            IDENTIFIER: k.u(8, own),
        }
        asked = event.flags & SAMPLE_ID_ALL
        end = b"".join(content for bit, content in words.items() if asked and event.sample_type & bit)
        return self.record(kind, body + end, misc=misc)

    def comm(self, event: Event, tid: int, name: bytes, time: int, *, is_exec: bool = False) -> bytes:
        text = name + bytes(8 - len(name) % 8)
        return self.side(event, 3, self.kernel.u(4, tid, tid) + text, time, 0, misc=is_exec << 13)

    def fork(self, event: Event, child: int, parent: int, time: int) -> bytes:
        body = self.kernel.u(4, child, parent, child, parent) + self.kernel.u(8, time)
        return self.side(event, 7, body, time, 0)

    def exit(self, event: Event, tid: int, time: int) -> bytes:
        return self.side(event, 4, self.kernel.u(4, tid, 1, tid, 1) + self.kernel.u(8, time), time, 0)

    def lost(self, event: Event, number: int, time: int, cpu: int) -> bytes:
        return self.side(event, 2, self.kernel.u(8, event.ids[0], number), time, cpu)

    def lost_samples(self, event: Event, number: int) -> bytes:
        return self.side(event, 13, self.kernel.u(8, number), 0, 0)

    def compressed(self, content: bytes, piece: int, *, version: int = 1) -> list[bytes]:
        """Records with parts of one zstd stream, each of ``piece`` bytes of ``content``."""
        stream = zstandard.ZstdCompressor().compressobj()
        records = []
        for at in range(0, len(content), piece):
            packed = stream.compress(content[at : at + piece])
            packed += stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
            if version == 1:
                records.append(self.record(81, packed))
            else:
                padding = bytes(-len(packed) % 8)
                records.append(self.record(83, self.kernel.u(8, len(packed)) + packed + padding))
        return records


@dataclass
class PerfData:
    """A file; ``build`` gives its bytes."""

    events: list[Event]
    records: list[bytes]
    formats: list[tuple[str, bytes]]
    kernel: Kernel = field(default_factory=Kernel)
    features: dict[int, bytes] = field(default_factory=dict)
    has_formats: bool = True
    data_size: int | None = None
    """What the header says; None: the truth."""
    attr_padding: int = 0
    """Bytes that a newer kernel's attribute has more."""

    def tracing_data(self) -> bytes:
        k = self.kernel
        page = k.header_page()
        start = b"\x17\x08\x44tracing0.6\0" + bytes([k.order == ">", k.long_bytes]) + k.u(4, 4096)
        start += b"header_page\0" + k.u(8, len(page)) + page
        start += b"header_event\0" + k.u(8, len(HEADER_EVENT)) + HEADER_EVENT + k.u(4, 0)
        systems: dict[str, list[bytes]] = {}
        for system, text in self.formats:
            systems.setdefault(system, []).append(text)
        start += k.u(4, len(systems))
        for system, texts in systems.items():
            start += system.encode() + b"\0" + k.u(4, len(texts))
            start += b"".join(k.u(8, len(text)) + text for text in texts)
        start += k.u(4, 0) + k.u(4, 0) + k.u(8, 0)
        return start + bytes(-len(start) % 8)

    def string(self, text: str) -> bytes:
        padded = text.encode() + bytes(64 - len(text) % 64)
        return self.kernel.u(4, len(padded)) + padded

    def build(self) -> bytes:
        k = self.kernel
        perf = Perf(k)
        ids = [k.u(8, *each.ids) for each in self.events]
        ids_at = [104 + sum(map(len, ids[:n])) for n in range(len(ids))]
        attrs_at = 104 + sum(map(len, ids))
        entries = [
            perf.attr(each) + bytes(self.attr_padding) + k.u(8, at, len(own))
            for each, at, own in zip(self.events, ids_at, ids, strict=True)
        ]
        attrs = b"".join(entries)
        data = b"".join(self.records)
        data_at = attrs_at + len(attrs)
        sections = {1: self.tracing_data()} | self.features if self.has_formats else dict(self.features)
        table_at = data_at + len(data)
        place = table_at + 16 * len(sections)
        table = b""
        for bit in sorted(sections):
            table += k.u(8, place, len(sections[bit]))
            place += len(sections[bit])
        bits = sum(1 << bit for bit in sections)
        head = (b"PERFILE2" if k.order == "<" else b"2ELIFREP") + k.u(8, 104, len(attrs) // len(entries))
        head += k.u(8, attrs_at, len(attrs), data_at, len(data) if self.data_size is None else self.data_size)
        head += k.u(8, 0, 0) + k.u(8, bits & (1 << 64) - 1, bits >> 64, 0, 0)
        whole = head + b"".join(ids) + attrs + data
        return whole + table + b"".join(sections[bit] for bit in sorted(sections))

    def pipe(self) -> bytes:
        k = self.kernel
        perf = Perf(k)
        out = (b"PERFILE2" if k.order == "<" else b"2ELIFREP") + k.u(8, 16)
        for each in self.events:
            out += perf.record(64, perf.attr(each) + k.u(8, *each.ids))
        for bit, content in self.features.items():
            out += perf.record(80, k.u(8, bit) + content)
        if self.has_formats:
            blob = self.tracing_data()
            out += perf.record(66, k.u(4, len(blob), 0)) + blob
        return out + b"".join(self.records)


def narrowed(content: bytes) -> bytes:
    """The same file (little endian) for a perf of Linux 6.1, which refuses attributes above 128 bytes."""
    if not content.startswith(b"PERFILE2"):
        return content
    changed = bytearray(content)
    entry, at, size = struct.unpack_from("<3Q", content, 16)
    if content.startswith(b"PERFILE2" + struct.pack("<Q", 16)) or entry == 144:
        return content
    entries = [content[at + n : at + n + entry] for n in range(0, size, entry)]
    assert all(not any(each[128 : entry - 16]) for each in entries), (
        "an attribute uses what 6.1 does not know"
    )
    table = b"".join(each[:4] + struct.pack("<I", 128) + each[8:128] + each[entry - 16 :] for each in entries)
    changed[at : at + len(table)] = table
    struct.pack_into("<Q", changed, 16, 144)
    struct.pack_into("<Q", changed, 32, len(table))
    return bytes(changed)
