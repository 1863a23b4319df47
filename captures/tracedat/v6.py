"""trace.dat version 6: one straight sequence, and at its end where the data of each CPU are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captures.tracedat import constants as c
from captures.tracedat import container as t
from schemas.errors import UnknownFormatError

if TYPE_CHECKING:
    from captures.cursor import Cursor


def read(container: t.Container, cursor: Cursor) -> None:
    """Read on behind the page size.

    Raises:
        UnknownFormatError: A file of a latency tracer, which holds text instead of events.
        TruncatedError, CorruptError: The file ends inside its tables, or contradicts itself.
    """
    read_tables(container, cursor)
    cpus_at = cursor.pos
    cpus = cursor.u32("the number of CPUs")
    tag = _read_tags(container, cursor)
    if tag == c.TAG_LATENCY:
        raise UnknownFormatError(
            "this trace.dat holds the text of a latency tracer, not events",
            path=container.path,
            offset=cursor.pos - c.TAG_BYTES,
            expected="flyrecord data",
            found="latency text",
            hint="record events: trace-cmd record -e ...",
        )
    counted = container.options.get(c.CPUCOUNT)
    if counted:
        cpus = container.option_cursor(counted[-1]).u32("the number of CPUs")
    if cpus > c.MAX_CPUS:
        raise cursor.at(cpus_at).corrupt("too many CPUs", expected=f"at most {c.MAX_CPUS}", found=str(cpus))
    t.check_page_bytes(cursor.at(cpus_at), container.layout.page_bytes)
    clock = t.current_clock(container.option_text(c.TRACECLOCK))
    container.add_buffer(_buffer(container, cursor, "", cpus, clock), cursor)
    for content in container.options.get(c.BUFFER, []):
        option = container.option_cursor(content)
        place = option.u64("the offset of an instance")
        name = option.string("the name of an instance")
        instance = container.cursor(place)
        _read_tags(container, instance)
        container.add_buffer(_buffer(container, instance, name, cpus, clock), instance)


def read_tables(container: t.Container, cursor: Cursor) -> None:
    """Read the layout of pages, the formats, and where kallsyms, printk formats and command lines are.

    A perf.data has the same tables in its feature TRACING_DATA.

    Raises:
        TruncatedError, CorruptError: The file ends inside its tables, or contradicts itself.
    """
    t.read_header_info(container, cursor)
    t.read_ftrace_events(container, cursor)
    t.read_event_formats(container, cursor)
    _skip_table(container, cursor, c.KALLSYMS, cursor.u32("the size of kallsyms"))
    _skip_table(container, cursor, c.PRINTK, cursor.u32("the size of printk_formats"))
    _skip_table(container, cursor, c.CMDLINES, cursor.u64("the size of saved_cmdlines"))


def _skip_table(container: t.Container, cursor: Cursor, number: int, size: int) -> None:
    """Note where a table is and go past it."""
    table = cursor.at(cursor.pos)
    cursor.take(size, c.SECTION_NAMES[number].lower())
    table.end = cursor.pos
    container.tables[number] = (table, False)


def _read_tags(container: t.Container, cursor: Cursor) -> bytes:
    """Read tags up to that of the CPU data, with the options between; return the last tag."""
    tag = bytes(cursor.take(c.TAG_BYTES, "the tag of the options or the CPU data"))
    if tag == c.TAG_OPTIONS:
        while (number := cursor.u16("the id of an option")) != c.DONE:
            t.read_option(container, cursor, number)
        tag = bytes(cursor.take(c.TAG_BYTES, "the tag of the CPU data"))
    if tag not in (c.TAG_FLYRECORD, c.TAG_LATENCY):
        cursor.pos -= c.TAG_BYTES
        raise cursor.corrupt(
            "no CPU data where they should be", expected=repr(c.TAG_FLYRECORD), found=repr(tag)
        )
    return tag


def _buffer(container: t.Container, cursor: Cursor, name: str, cpus: int, clock: str | None) -> t.Buffer:
    """Read (offset, size) of each CPU, (0, 0) for a CPU without data, and the clock behind them."""
    places = []
    for cpu in range(cpus):
        offset = cursor.u64(f"the offset of cpu {cpu}")
        size = cursor.u64(f"the size of cpu {cpu}")
        places.append(t.CpuData(cpu, offset, size))
    if c.TRACECLOCK in container.options:
        text = bytes(cursor.take(cursor.u64("the size of the clock"), "the clock"))
        clock = t.current_clock(text.decode("utf-8", "backslashreplace")) or clock
    return t.Buffer(name, clock, container.layout.page_bytes, False, tuple(places))
