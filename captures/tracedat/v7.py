"""trace.dat version 7: sections with headers, found through chained lists of options."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captures.compression import codec, decompress
from captures.cursor import Cursor
from captures.tracedat import constants as c
from captures.tracedat import container as t
from captures.tracedat import salvage
from schemas.errors import TruncatedError, UnknownFormatError

if TYPE_CHECKING:
    from collections.abc import Callable


def read(container: t.Container, cursor: Cursor) -> None:
    """Read on behind the page size of the file header.

    Raises:
        UnknownFormatError: A compression that is not known, or a file of a latency tracer, which holds text.
        TruncatedError, CorruptError: The file ends before its tables, or contradicts itself.
    """
    name_at = cursor.pos
    container.compression = cursor.string("the name of the compression", 64)
    cursor.string("the version of the compression", 64)
    container.codec = codec(container.compression, container.path, name_at)
    options_at = cursor.pos
    behind, cut = _read_options(container, cursor.u64("the offset of the options"))
    readers: dict[int, Callable[[t.Container, Cursor], None]] = {
        c.HEADER_INFO: t.read_header_info,
        c.FTRACE_EVENTS: t.read_ftrace_events,
        c.EVENT_FORMATS: t.read_event_formats,
    }
    for number, read_section in readers.items():
        if number not in container.options:
            if not behind:
                raise _killed(cursor.at(options_at))
            raise cursor.corrupt(
                "a section is missing",
                expected=f"an option that leads to {c.SECTION_NAMES[number]}",
                found="none",
            )
        section, compressed = _section_of(container, number)
        read_section(container, open_table(container, section, compressed, c.SECTION_NAMES[number]))
    for number in (c.KALLSYMS, c.PRINTK, c.CMDLINES):
        if number in container.options:
            container.tables[number] = _section_of(container, number)
    clock = t.current_clock(container.option_text(c.TRACECLOCK))
    for content in container.options.get(c.BUFFER, []):
        container.add_buffer(_buffer(container, content, clock), container.option_cursor(content))
    if cut is not None or not container.buffers:
        _salvage(container, behind, clock, cut)


def _salvage(container: t.Container, behind: int, clock: str | None, cut: TruncatedError | None) -> None:
    """Find the CPU data of a file whose last options are missing.

    Raises:
        UnknownFormatError: A file of a latency tracer.
        TruncatedError: There are no data.
    """
    if c.BUFFER_TEXT in container.options:
        raise UnknownFormatError(
            "this trace.dat holds the text of a latency tracer, not events",
            path=container.path,
            expected="CPU data",
            found="latency text",
            hint="record events: trace-cmd record -e ...",
        )
    guessed = ""
    if not container.buffers:
        container.buffers.extend(salvage.find_buffers(container, behind, clock))
        count = sum(len(each.cpus) for each in container.buffers)
        guessed = f"; the data of {count} CPUs were found by looking at them"
    if not container.buffers:
        raise cut or _killed(container.cursor(behind))
    container.damage = f"the options that say where the CPUs' data are are not there{guessed}"


def _killed(cursor: Cursor) -> TruncatedError:
    """The error for a file to which trace-cmd had no time to write events."""
    return TruncatedError(
        "the trace.dat has no events yet",
        path=cursor.path,
        offset=cursor.offset,
        expected="options that lead to the data of the CPUs",
        found="none",
        hint="trace-cmd was killed: if there are files FILE.cpu0 ..., use trace-cmd restore",
    )


def _section_of(container: t.Container, number: int) -> tuple[Cursor, bool]:
    """The section that the last option with that id leads to, and whether it is compressed."""
    option = container.option_cursor(container.options[number][-1])
    return open_section(container, option.u64(f"the offset of {c.SECTION_NAMES[number]}"), number)


def open_section(container: t.Container, place: int, number: int) -> tuple[Cursor, bool]:
    """A cursor over the payload of the section at byte ``place``, and whether it is compressed.

    Raises:
        CorruptError: Another section is there.
        TruncatedError: The file ends before the end of the section.
    """
    name = c.SECTION_NAMES[number]
    section = container.cursor(place)
    found = section.u16(f"the header of {name}")
    if found != number:
        section.pos = place
        raise section.corrupt(
            f"no section {name} where it should be", expected=f"id {number}", found=f"id {found}"
        )
    flags = section.u16(f"the flags of {name}")
    section.u32(f"the description of {name}")
    size = section.u64(f"the size of {name}")
    if number != c.BUFFER:
        start = section.pos
        section.take(size, f"the section {name}")
        section.pos, section.end = start, start + size
    return section, bool(flags & c.SECTION_COMPRESSED)


def open_table(container: t.Container, section: Cursor, compressed: bool, name: str) -> Cursor:
    """A cursor over the content of a section, decompressed if it is compressed."""
    section = section.at(section.pos)
    if not compressed:
        return section
    if container.codec is None:
        raise section.corrupt(
            f"{name} is compressed", expected="a compression in the file header", found="none"
        )
    content = decompress(section, container.codec, c.MAX_SECTION_BYTES, name)
    return Cursor(memoryview(content), container.path, order=container.order, origin=None)


def _read_options(container: t.Container, place: int) -> tuple[int, TruncatedError | None]:
    """Read the chain of option sections: DONE holds the place of the next, 0 at the end.

    Returns:
        First byte behind the last section that is whole (0: there is none), and why the chain ends early.
    """
    seen: set[int] = set()
    total_bytes = behind = 0
    while place:
        if place in seen or total_bytes > c.MAX_SECTION_BYTES:
            raise container.cursor(place).corrupt(
                "the option sections do not end", expected="a chain that ends", found=f"{len(seen)} sections"
            )
        seen.add(place)
        try:
            section, compressed = open_section(container, place, 0)
        except TruncatedError as error:
            if not behind:
                raise
            return behind, error
        behind = section.end
        options = open_table(container, section, compressed, "OPTIONS")
        total_bytes += options.remaining
        place = 0
        while options.remaining:
            number = options.u16("the id of an option")
            content = t.read_option(container, options, number)
            if number == c.DONE:
                place = container.option_cursor(content).u64("the offset of the next options")
                break
    return behind, None


def _buffer(container: t.Container, content: bytes, default_clock: str | None) -> t.Buffer:
    """Read a BUFFER option: name, clock, page size and the place of each CPU's data."""
    option = container.option_cursor(content)
    _, compressed = open_section(container, option.u64("the offset of a buffer"), c.BUFFER)
    name = option.string("the name of a buffer")
    clock = option.string("the clock of a buffer", 256) or default_clock
    page_bytes = option.u32("the page size of a buffer")
    t.check_page_bytes(option, page_bytes)
    count = option.u32("the number of CPUs of a buffer")
    if count > c.MAX_CPUS:
        raise option.corrupt("too many CPUs", expected=f"at most {c.MAX_CPUS}", found=str(count))
    cpus = []
    for _ in range(count):
        cpu = option.u32("the number of a CPU")
        if cpu >= 1 << 31:
            raise option.corrupt("a CPU number is wrong", expected="less than 2^31", found=str(cpu))
        offset = option.u64(f"the offset of cpu {cpu}")
        size = option.u64(f"the size of cpu {cpu}")
        cpus.append(t.CpuData(cpu, offset, size))
    if compressed and container.codec is None:
        raise option.corrupt(
            "CPU data are compressed", expected="a compression in the file header", found="none"
        )
    return t.Buffer(name, clock, page_bytes, compressed, tuple(sorted(cpus, key=lambda each: each.cpu)))
