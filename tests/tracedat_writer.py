"""Writes trace.dat files, right ones and wrong ones, from Python literals.

Independent of ``captures``: nothing is shared with the reader, not even a constant. What is written
follows trace-cmd.dat.v6(5), trace-cmd.dat.v7(5) and include/linux/ring_buffer.h. Every number that a test
may want to break is an argument or an attribute.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

import zstandard

MAGIC = b"\x17\x08\x44tracing"


@dataclass(frozen=True)
class Kernel:
    """The machine that is traced: byte order and size of a long."""

    order: str = "<"
    long_bytes: int = 8

    def u(self, size: int, *values: int) -> bytes:
        letter = {1: "B", 2: "H", 4: "I", 8: "Q"}[size]
        return struct.pack(f"{self.order}{len(values)}{letter}", *(v & (1 << 8 * size) - 1 for v in values))

    def word(self, type_len: int, delta: int) -> bytes:
        """Header of a record: the bit field starts at the low end, or on big endian at the high end."""
        return self.u(4, type_len << 27 | delta if self.order == ">" else delta << 5 | type_len)

    # Records of a page.

    def data(self, delta: int, payload: bytes, *, large: bool | None = None) -> bytes:
        """A data record; ``large``: with its length in a word of its own (None: when it has to)."""
        padded = payload + bytes(-len(payload) % 4)
        if large is None:
            large = len(padded) > 112
        if large:
            return self.word(0, delta) + self.u(4, len(padded) + 4) + padded
        return self.word(len(padded) // 4, delta) + padded

    def time_extend(self, delta: int) -> bytes:
        return self.word(30, delta & (1 << 27) - 1) + self.u(4, delta >> 27)

    def time_stamp(self, ts: int) -> bytes:
        """An absolute time: its low 59 bits."""
        ts &= (1 << 59) - 1
        return self.word(31, ts & (1 << 27) - 1) + self.u(4, ts >> 27)

    def padding(self) -> bytes:
        """The rest of the page is empty."""
        return self.word(29, 0) + self.u(4, 0)

    def discarded(self, delta: int, size: int) -> bytes:
        """An event that was thrown away: ``size`` bytes behind its header, its length word among them."""
        return self.word(29, delta) + self.u(4, size) + b"\xee" * (size - 4)

    def page(
        self,
        ts: int,
        records: list[bytes],
        *,
        size: int = 4096,
        lost: int | bool = False,
        commit: int | None = None,
    ) -> bytes:
        """One sub-buffer; ``lost`` True: number unknown. Stale bytes are behind the records."""
        body = b"".join(records)
        word = len(body) if commit is None else commit
        stored = b""
        if lost is True:
            word |= 1 << 31
        elif lost:
            word |= 1 << 31 | 1 << 30
            stored = self.u(self.long_bytes, lost)
        if lost and self.long_bytes == 8:
            word |= 0xFFFFFFFF << 32  # the kernel adds a negative int to the long
        head = self.u(8, ts) + self.u(self.long_bytes, word)
        rest = size - len(head) - len(body) - len(stored)
        assert rest >= 0, "the records do not fit the page"
        return head + body + stored + (b"\xab\xcd" * size)[:rest]

    # Texts.

    def header_page(self, page_bytes: int = 4096) -> bytes:
        n = self.long_bytes
        return (
            f"\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
            f"\tfield: local_t commit;\toffset:8;\tsize:{n};\tsigned:1;\n"
            f"\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
            f"\tfield: char data;\toffset:{8 + n};\tsize:{page_bytes - 8 - n};\tsigned:1;\n"
        ).encode()

    def common(self, event_id: int, pid: int) -> bytes:
        """The common fields of a record's payload, as ``event_format`` declares them."""
        return self.u(2, event_id) + b"\0\0" + self.u(4, pid)


HEADER_EVENT = (
    b"# compressed entry header\n"
    b"\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n\tarray       :   32 bits\n\n"
    b"\tpadding     : type == 29\n\ttime_extend : type == 30\n\ttime_stamp : type == 31\n"
    b"\tdata max type_len  == 28\n"
)


def event_format(name: str, event_id: int, fields: list[tuple[str, int, int, int]]) -> bytes:
    """Format text; fields: (declaration, offset, size, signed)."""
    common = [
        ("unsigned short common_type", 0, 2, 0),
        ("unsigned char common_flags", 2, 1, 0),
        ("unsigned char common_preempt_count", 3, 1, 0),
        ("int common_pid", 4, 4, 1),
    ]

    def line(each: tuple[str, int, int, int]) -> str:
        return "\tfield:{};\toffset:{};\tsize:{};\tsigned:{};\n".format(*each)

    text = f"name: {name}\nID: {event_id}\nformat:\n" + "".join(map(line, common)) + "\n"
    return (text + "".join(map(line, fields)) + '\nprint fmt: "%d", REC->common_pid\n').encode()


@dataclass
class Buffer:
    """One ring buffer: raw pages of each CPU."""

    cpus: dict[int, bytes]
    name: str = ""
    clock: str = "mono"
    page_bytes: int = 4096


@dataclass
class TraceDat:
    """A file; ``build`` gives its bytes."""

    formats: list[tuple[str, bytes]]
    buffers: list[Buffer]
    kernel: Kernel = field(default_factory=Kernel)
    version: int = 7
    compression: str = "none"
    chunk_bytes: int = 40960
    sizes_count_chunks: bool = True  # trace-cmd 3.1: False
    ftrace: list[bytes] = field(default_factory=list)
    header_page: bytes | None = None
    header_event: bytes = HEADER_EVENT
    kallsyms: bytes = b""
    cmdlines: bytes = b""
    options: list[tuple[int, bytes]] = field(default_factory=list)
    packed_buffers: bool = True
    """Whether CPU data are compressed where the file is."""

    def build(self) -> bytes:
        return self._version6() if self.version == 6 else self._version7()

    def _start(self) -> bytes:
        k = self.kernel
        return MAGIC + b"%d\0" % self.version + bytes([k.order == ">", k.long_bytes]) + k.u(4, 4096)

    def _header_info(self) -> bytes:
        k = self.kernel
        page = self.header_page if self.header_page is not None else k.header_page()
        return (
            b"header_page\0" + k.u(8, len(page)) + page + b"header_event\0" + k.u(8, len(self.header_event))
        ) + self.header_event

    def _texts(self, texts: list[bytes]) -> bytes:
        k = self.kernel
        return k.u(4, len(texts)) + b"".join(k.u(8, len(text)) + text for text in texts)

    def _event_formats(self) -> bytes:
        systems: dict[str, list[bytes]] = {}
        for system, text in self.formats:
            systems.setdefault(system, []).append(text)
        parts = [self.kernel.u(4, len(systems))]
        for system, texts in systems.items():
            parts.append(system.encode() + b"\0" + self._texts(texts))
        return b"".join(parts)

    def _version6(self) -> bytes:
        k = self.kernel
        head = self._start() + self._header_info() + self._texts(self.ftrace) + self._event_formats()
        head += k.u(4, len(self.kallsyms)) + self.kallsyms + k.u(4, 0)
        head += k.u(8, len(self.cmdlines)) + self.cmdlines
        top = next((each for each in self.buffers if not each.name), Buffer({}))
        count = max((max(each.cpus) for each in self.buffers if each.cpus), default=0) + 1
        clock = f"[{top.clock}]".encode()
        out = [head + k.u(4, count), b"options  \0"]
        for number, content in [(4, clock), *self.options]:
            out.append(k.u(2, number) + k.u(4, len(content)) + content)
        instances = [each for each in self.buffers if each.name]
        fixed = sum(map(len, out)) + sum(14 + len(each.name) + 1 for each in instances) + 2
        table_bytes = 10 + 16 * count + 8 + len(clock)
        places = [fixed + table_bytes * number for number in range(1 + len(instances))]
        data_at = -(-(places[-1] + table_bytes) // 4096) * 4096
        for each, place in zip(instances, places[1:], strict=True):
            content = k.u(8, place) + each.name.encode() + b"\0"
            out.append(k.u(2, 3) + k.u(4, len(content)) + content)
        out.append(k.u(2, 0))
        data = b""
        for each in [top, *instances]:
            out.append(b"flyrecord\0")
            for cpu in range(count):
                pages = each.cpus.get(cpu, b"")
                out.append(k.u(8, data_at + len(data) if pages else 0, len(pages)))
                data += pages
            text = f"[{each.clock}]".encode()
            assert len(text) == len(clock), "all clocks must be of one length"
            out.append(k.u(8, len(text)) + text)
        start = b"".join(out)
        return start + bytes(data_at - len(start)) + data

    def chunk(self, content: bytes) -> bytes:
        """One chunk of a CPU's data, with its two sizes."""
        return self._packed(content)

    def _packed(self, content: bytes) -> bytes:
        pack = {"zlib": zlib.compress, "zstd": zstandard.ZstdCompressor().compress}[self.compression]
        frame = pack(content)
        return self.kernel.u(4, len(frame), len(content)) + frame

    def _section(self, number: int, content: bytes) -> bytes:
        is_packed = self.compression != "none" and number != 0
        if is_packed:
            content = self._packed(content)
        return self._section_head(number, is_packed, len(content)) + content

    def _section_head(self, number: int, is_packed: bool, size: int) -> bytes:
        k = self.kernel
        return k.u(2, number, is_packed) + k.u(4, 0) + k.u(8, size)

    def _version7(self) -> bytes:
        k = self.kernel
        version = {"none": b"", "zlib": b"1.3.1", "zstd": b"1.5.7"}[self.compression]
        out = bytearray(self._start() + self.compression.encode() + b"\0" + version + b"\0")
        first_options_at = len(out)
        out += k.u(8, 0)
        found = []
        sections = {
            16: self._header_info(),
            17: self._texts(self.ftrace),
            18: self._event_formats(),
            19: k.u(4, len(self.kallsyms)) + self.kallsyms,
            20: k.u(4, 0),
            21: k.u(8, len(self.cmdlines)) + self.cmdlines,
        }
        for number, content in sections.items():
            found.append((number, k.u(8, len(out))))
            out += self._section(number, content)
        out += self._section(15, b"\0")
        # Two chained option sections, as trace-cmd writes them: the tables first, the buffers at the end.
        first_at = len(out)
        options, link_at = self._options([*found, *self.options])
        out += options
        buffers = [(3, self._buffer(out, each)) for each in self.buffers]
        last_at = len(out)
        out += self._options(buffers)[0]
        out[first_options_at : first_options_at + 8] = k.u(8, first_at)
        out[first_at + link_at : first_at + link_at + 8] = k.u(8, last_at)
        return bytes(out)

    def _options(self, options: list[tuple[int, bytes]]) -> tuple[bytes, int]:
        """An option section, and where in it the place of the next one is."""
        k = self.kernel
        ended = [*options, (0, k.u(8, 0))]
        body = b"".join(k.u(2, n) + k.u(4, len(content)) + content for n, content in ended)
        section = self._section(0, body)
        return section, len(section) - 8

    def _buffer(self, out: bytearray, buffer: Buffer) -> bytes:
        """Append the section and the data of a buffer; return its option."""
        k = self.kernel
        is_packed = self.compression != "none" and self.packed_buffers
        at = len(out)
        out += self._section_head(3, is_packed, 0)
        option = k.u(8, at) + buffer.name.encode() + b"\0" + buffer.clock.encode() + b"\0"
        option += k.u(4, buffer.page_bytes, len(buffer.cpus))
        for cpu, pages in buffer.cpus.items():
            out += bytes(-len(out) % 4096)
            data = pages
            if is_packed and pages:
                chunks = [pages[n : n + self.chunk_bytes] for n in range(0, len(pages), self.chunk_bytes)]
                data = k.u(4, len(chunks)) + b"".join(map(self.chunk, chunks))
            left_out = 4 if is_packed and pages and not self.sizes_count_chunks else 0
            option += k.u(4, cpu) + k.u(8, len(out), len(data) - left_out)
            out += data
        out[at + 8 : at + 16] = k.u(8, len(out) - at - 16)
        return option
