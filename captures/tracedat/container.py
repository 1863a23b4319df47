"""The trace.dat container: where the formats, the tables and the CPUs' data are; reads no event.

What versions 6 and 7 share is read here. Sizes in the file are checked before they are used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from captures.cursor import Cursor
from captures.tracedat import constants as c
from captures.tracedat.pagelayout import PageLayout

if TYPE_CHECKING:
    from captures.compression import Codec
    from captures.cursor import ByteOrder


@dataclass(frozen=True)
class CpuData:
    """Where the ring buffer data of one CPU are.

    Attributes:
        cpu: CPU number.
        offset: Place in the file.
        size: Bytes in the file (compressed, if they are), as the file announces them; 0: no data.
    """

    cpu: int
    offset: int
    size: int


@dataclass(frozen=True)
class Buffer:
    """One ring buffer: the top one, or a tracefs instance.

    Attributes:
        name: Name of the instance; empty: the top one.
        clock: Trace clock; None: the file does not say.
        page_bytes: Size of a sub-buffer.
        is_compressed: Whether the data of its CPUs are.
        cpus: Its CPUs, in order of the CPU number.
    """

    name: str
    clock: str | None
    page_bytes: int
    is_compressed: bool
    cpus: tuple[CpuData, ...]


@dataclass
class Container:
    """What a trace.dat holds besides events.

    Attributes:
        version: 6 or 7.
        path: File named in errors.
        data: The file.
        order: Byte order of the traced machine.
        long_bytes: Size of a ``long`` of user space there.
        machine_page_bytes: Size of a page of memory there.
        compression: ``none``, ``zlib`` or ``zstd``.
        codec: Decompression; None: nothing is compressed.
        layout: Layout of a ring buffer page.
        event_texts: (system, format text) of every event.
        buffers: The ring buffers, the top one first.
        options: Content of every option, by id, in the order of the file.
        tables: Cursors over kallsyms, printk and command lines, by id; ``open_table`` reads one.
        damage: What is missing at the end of the file; None: nothing, as far as its tables tell.
    """

    version: int
    path: str
    data: memoryview
    order: ByteOrder
    long_bytes: int
    machine_page_bytes: int
    compression: str = "none"
    codec: Codec | None = None
    layout: PageLayout = field(default_factory=PageLayout)
    event_texts: list[tuple[str, bytes]] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    options: dict[int, list[bytes]] = field(default_factory=dict)
    tables: dict[int, tuple[Cursor, bool]] = field(default_factory=dict)
    damage: str | None = None
    _places: int = 0
    _cpu_bytes: int = 0
    _option_bytes: int = 0

    def add_buffer(self, buffer: Buffer, cursor: Cursor) -> None:
        """Keep a buffer; ``cursor``: where the file tells of it.

        Raises:
            CorruptError: All buffers together have more CPUs than can be, or more data than the file: some
                would be read many times.
        """
        self.buffers.append(buffer)
        self._places += len(buffer.cpus)
        self._cpu_bytes += sum(max(min(each.size, len(self.data) - each.offset), 0) for each in buffer.cpus)
        if self._places > c.MAX_PLACES or self._cpu_bytes > len(self.data):
            raise cursor.corrupt(
                "the data of the CPUs overlap",
                expected=f"at most {c.MAX_PLACES} CPUs in {len(self.data)} bytes",
                found=f"{self._places} CPUs in {self._cpu_bytes} bytes",
            )

    def add_option(self, number: int, content: bytes, cursor: Cursor) -> None:
        """Keep an option; ``cursor``: behind it.

        Raises:
            CorruptError: All options together have more bytes than the file: some were read many times.
        """
        self.options.setdefault(number, []).append(content)
        self._option_bytes += len(content) + 6
        if self._option_bytes > len(self.data) + c.MORE_OPTION_BYTES:
            raise cursor.corrupt("the options do not end", expected="each once", found="some again and again")

    def cursor(self, pos: int) -> Cursor:
        """A cursor at byte ``pos`` of the file."""
        return Cursor(self.data, self.path, pos=pos, order=self.order)

    def option_text(self, number: int) -> str | None:
        """The first option with that id as text, without NUL; None: there is none."""
        contents = self.options.get(number)
        return contents[0].split(b"\0")[0].decode("utf-8", "backslashreplace") if contents else None

    def option_cursor(self, content: bytes) -> Cursor:
        """A cursor over the content of an option."""
        return Cursor(memoryview(content), self.path, order=self.order, origin=None)


def is_tracedat(head: bytes) -> bool:
    """Whether a file that begins with ``head`` says that it is a trace.dat; no text begins like that."""
    return head.startswith(c.MAGIC[:3])


def check_page_bytes(cursor: Cursor, page_bytes: int) -> None:
    """Refuse a sub-buffer size that no kernel has.

    Raises:
        CorruptError: Not a multiple of 1024 bytes, zero, or above the limit.
    """
    if page_bytes % 1024 or not 0 < page_bytes <= c.MAX_SUBBUF_BYTES:
        raise cursor.corrupt(
            "the page size is wrong",
            expected=f"a multiple of 1024 up to {c.MAX_SUBBUF_BYTES}",
            found=str(page_bytes),
        )


def read_header_info(container: Container, cursor: Cursor) -> None:
    """Read ``header_page`` and ``header_event``: the layout of pages and records."""
    cursor.expect(c.HEADER_PAGE, "header_page")
    at = cursor.offset
    page = bytes(cursor.take(cursor.u64("the size of header_page"), "header_page"))
    cursor.expect(c.HEADER_EVENT, "header_event")
    event = bytes(cursor.take(cursor.u64("the size of header_event"), "header_event"))
    container.layout = PageLayout.parse(page, event, container.order, container.path, at)


def read_ftrace_events(container: Container, cursor: Cursor) -> None:
    """Read the formats of the ``ftrace`` system (print, function ...), which does not name itself."""
    _read_formats(container, cursor, "ftrace")


def read_event_formats(container: Container, cursor: Cursor) -> None:
    """Read the formats of all other systems."""
    for _ in range(cursor.u32("the number of event systems")):
        system = cursor.string("the name of an event system", 256)
        _read_formats(container, cursor, system)


def _read_formats(container: Container, cursor: Cursor, system: str) -> None:
    for _ in range(cursor.u32(f"the number of events of {system}")):
        size = cursor.u64(f"the size of a format of {system}")
        container.event_texts.append((system, bytes(cursor.take(size, f"a format of {system}"))))


def read_option(container: Container, cursor: Cursor, number: int) -> bytes:
    """Read the size and the content of one option and keep it."""
    content = bytes(cursor.take(cursor.u32(f"the size of option {number}"), f"option {number}"))
    container.add_option(number, content, cursor)
    return content


def current_clock(text: str | None) -> str | None:
    """The clock in brackets in the text of ``trace_clock``; None: the text names none."""
    if text is None or "[" not in text:
        return None
    return text.split("[", 1)[1].split("]", 1)[0] or None
