"""A real trace.dat as another machine would have written it: other byte order, 4-byte longs, other records.

What is read of the original is read with plain Python here; formats and options come from ``captures``. A
4-byte long holds the low half of what the 8-byte long held; of page offsets the part stays that belongs to
such addresses. So a tree looks the same as long as its addresses do not differ in the upper half alone.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

from captures.eventfmt import EventFormat, Field, parse_formats
from captures.source import Source
from captures.tracedat import constants as c
from captures.tracedat.capture import TraceDatCapture
from captures.tracedat.stream import PageStream
from tests.tracedat_writer import Buffer, Kernel, TraceDat
from tests.trim_tracedat import all_pages

if TYPE_CHECKING:
    from pathlib import Path

ULONG_MAX = (1 << 64) - 1
TEXTS = (c.CPUSTAT, c.UNAME, c.VERSION)


def convert(source: Path, kernel: Kernel, version: int, *, left_out: tuple[str, ...] = ()) -> bytes:
    """The events of a file from a little-endian 64-bit machine, as ``kernel`` writes them.

    Every kind of record is among those that are written: time extends, absolute times, discarded events and
    padding, with pages that end early. Systems that are ``left_out`` have neither events nor formats.
    """
    capture = TraceDatCapture(Source(source))
    container = capture._container
    events = {
        each.id: Event(each, kernel) for each in capture.formats.values() if each.system not in left_out
    }
    texts = parse_formats(container.event_texts, str(source))
    kallsyms = [line.split(b" ", 1) for line in capture._kallsyms.splitlines(keepends=True)]
    buffers = []
    for each in container.buffers:
        cpus = {
            place.cpu: pages_of(
                records(all_pages(PageStream(container, each, place)), each.page_bytes), events, kernel
            )
            for place in each.cpus
        }
        buffers.append(Buffer(cpus, each.name, each.clock or ""))
    return TraceDat(
        formats=[
            (each.system, events[each.id].text)
            for each in texts.values()
            if each.system not in ("ftrace", *left_out)
        ],
        buffers=buffers,
        kernel=kernel,
        version=version,
        ftrace=[events[each.id].text for each in texts.values() if each.system == "ftrace"],
        kallsyms=b"".join(
            b"%0*x %s" % (2 * kernel.long_bytes, int(at, 16) & ULONG_MAX >> 64 - 8 * kernel.long_bytes, rest)
            for at, rest in kallsyms
        ),
        cmdlines=capture._table(c.CMDLINES),
        options=[(n, content) for n in TEXTS for content in container.options.get(n, [])],
    ).build()


def narrowed(name: str, value: int, long_bytes: int) -> int:
    """What is left of a value where a long has so many bytes."""
    if long_bytes == 8:
        return value
    if name in ("anon_pgoff_hi", "anon_pgoff_lo", "first", "last", "linear_page_index", "vm_pgoff"):
        if value == ULONG_MAX:
            return ULONG_MAX >> 32
        return 0 if name == "anon_pgoff_hi" else value & ULONG_MAX >> 44
    return value & ULONG_MAX >> 32


class Event:
    """One event: its format text for the other machine, and its payloads.

    Attributes:
        text: Its format there.
    """

    def __init__(self, old: EventFormat, kernel: Kernel) -> None:
        """Lay the fields out again: those of a probe one behind the other, others as C does."""
        self._kernel = kernel
        self._packed = any(name.startswith("__probe_") for name in old.fields)
        self._fields: list[tuple[Field, int, int]] = []
        at = 0
        for field in old.all_fields:
            is_long = field.size == 8 and field.length is None and is_of_long_size(field, self._packed)
            size = kernel.long_bytes if is_long else field.size
            align = size if size in (2, 4, 8) and not self._packed and field.length is None else 1
            at = -(-at // align) * align
            self._fields.append((field, at, size))
            at += size
        self._bytes = at

        places = iter(self._fields)

        def placed(match: re.Match[bytes]) -> bytes:
            _, at, size = next(places)
            return b"field:%s;\toffset:%d;\tsize:%d;" % (match[1], at, size)

        head, _, rest = old.text.partition(b"\nprint fmt:")
        self.text = re.sub(rb"field:([^;]+);\s*offset:\d+;\s*size:\d+;", placed, head)
        self.text += b"\nprint fmt:" + rest
        self._in_pages: tuple[str, ...] = ()
        if kernel.long_bytes == 4 and old.name.endswith(("enter_mmap", "exit_mmap")):
            # SYSCALL_DEFINE6(mmap_pgoff): what 32-bit machines have.
            self.text = self.text.replace(b"_mmap\n", b"_mmap_pgoff\n", 1)
            self._in_pages = ("off",)

    def payload(self, old: bytes) -> bytes:
        """A payload with the same values."""
        k = self._kernel
        out, behind = bytearray(self._bytes), b""
        for field, at, size in self._fields:
            if field.is_dynamic:
                place, length = struct.unpack_from("<HH", old, field.offset)
                word = self._bytes + len(behind) | length << 16
                behind += old[place : place + length]
                out[at : at + 4] = k.u(4, word)
            elif field.is_tail:
                behind += old[field.offset :]
            elif field.length is not None:
                assert field.is_string, f"array {field}"
                out[at : at + size] = old[field.offset : field.offset + size]
            else:
                raw = old[field.offset : field.offset + field.size]
                value = int.from_bytes(raw, "little") >> (12 if field.name in self._in_pages else 0)
                out[at : at + size] = k.u(size, narrowed(field.name, value, k.long_bytes))
        return bytes(out) + behind


def is_of_long_size(field: Field, packed: bool) -> bool:
    """Whether the type is as large as a long: pointers, arguments of system calls, what our probes fetch."""
    return not re.search(r"64|long long", field.type) or (packed and field.type == "u64")


def records(pages: bytes, page_bytes: int) -> list[tuple[int, bytes]]:
    """(time, payload) of the records of a little-endian 64-bit machine."""
    found = []
    for page in range(0, len(pages), page_bytes):
        ts, commit = struct.unpack_from("<QI", pages, page)
        assert not commit >> 30, "events were lost"
        at, end = page + 16, page + 16 + (commit & (1 << 27) - 1)
        while at < end:
            head, after = struct.unpack_from("<II", pages, at)
            kind, delta = head & 31, head >> 5
            assert kind != 29, "padding inside the data"
            if kind == 30:
                ts += after << 27 | delta
                at += 8
            elif kind == 31:
                ts = ts >> 59 << 59 | after << 27 | delta
                at += 8
            else:
                ts += delta
                start, size = (at + 4, 4 * kind) if kind else (at + 8, after - 4)
                found.append((ts, pages[start : start + size]))
                at = start + -(-size // 4) * 4
    return found


def pages_of(found: list[tuple[int, bytes]], events: dict[int, Event], k: Kernel) -> bytes:
    """Pages with these records; between them what else a ring buffer may hold."""
    pages, held, start, last, room = [], [], 0, 0, 0
    for number, (ts, old) in enumerate(found):
        event = events.get(struct.unpack_from("<H", old)[0])
        if event is None:
            continue
        payload = event.payload(old)
        if room < len(payload) + 100 or number % 97 == 96:
            if held:
                pages.append(k.page(start, held))
            held, start, last, room = [], ts, ts, 4096 - 8 - k.long_bytes
        delta, before = ts - last, []
        if number % 50 < 9 and delta > 9:
            before, delta = [k.discarded(delta // 4, 24)], delta - delta // 4
        if number % 70 == 9:
            before, delta = [*before, k.time_stamp(ts)], 0
        elif delta >= 1 << 27 or number % 60 == 8:
            before, delta = [*before, k.time_extend(delta)], 0
        new = [*before, k.data(delta, payload)]
        held += new
        room -= sum(map(len, new))
        last = ts
    return b"".join([*pages, k.page(start, held)]) if held else b""
