"""CPU data of a trace.dat version 7 that ends before it says where they are.

trace-cmd writes the place of the CPUs' data behind the data. Where a copy was cut, or trace-cmd was killed
while it wrote, sections BUFFER are still behind the last options that are whole, and in each the data of the
CPUs are one after the other. Compressed data tell their own length. Of pages as they are, those of the next
CPU begin where time goes back.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from captures.tracedat import constants as c
from captures.tracedat.container import Buffer, CpuData

if TYPE_CHECKING:
    from collections.abc import Iterator

    from captures.tracedat.container import Container

PLACE_BYTES: Final = 4096
"""The data of every CPU begin at a multiple of this."""


def find_buffers(container: Container, behind: int, clock: str | None) -> list[Buffer]:
    """The buffers whose sections begin at a byte of the file, one behind the other.

    Args:
        container: The file; its tables are read.
        behind: First byte behind the last options.
        clock: The clock that the options name.
    """
    buffers: list[Buffer] = []
    while True:
        section = container.cursor(behind)
        if section.remaining <= c.SECTION_HEADER_BYTES or section.u16("the header of BUFFER") != c.BUFFER:
            return buffers
        is_compressed = bool(section.u16("the flags of BUFFER") & c.SECTION_COMPRESSED)
        section.u32("the description of BUFFER")
        size = section.u64("the size of BUFFER")
        # The size is written at the end: 0 says that the section was being written.
        end = min(section.pos + size, len(container.data)) if size else len(container.data)
        first = _aligned(section.pos)
        places = list(_compressed(container, first, end) if is_compressed else _plain(container, first, end))
        if not places or len(places) > c.MAX_CPUS or (is_compressed and container.codec is None):
            return buffers
        cpus = tuple(CpuData(cpu, start, stop - start) for cpu, (start, stop) in enumerate(places))
        name = f"unknown-{len(buffers) + 1}" if buffers else ""
        buffers.append(Buffer(name, clock, container.layout.page_bytes, is_compressed, cpus))
        behind = end


def _compressed(container: Container, start: int, end: int) -> Iterator[tuple[int, int]]:
    """First and last byte, end exclusive, of the data of each CPU: a number of chunks, then the chunks."""
    while start + c.CHUNK_COUNT_BYTES <= end:
        cursor = container.cursor(start)
        cursor.end = end
        count = cursor.u32("the number of chunks")
        if not count:
            return
        while count and cursor.remaining >= c.CHUNK_HEADER_BYTES:
            packed = cursor.u32("the compressed size of a chunk")
            cursor.u32("the size of a chunk")
            cursor.pos += packed
            count -= 1
        yield start, min(cursor.pos, end)
        start = _aligned(max(cursor.pos, start + 1))


def _plain(container: Container, start: int, end: int) -> Iterator[tuple[int, int]]:
    """First and last byte, end exclusive, of the whole pages of each CPU."""
    page_bytes = container.layout.page_bytes
    count = max(end - start, 0) // page_bytes
    if page_bytes % 8 or not count:
        return
    order = "<" if container.order == "little" else ">"
    ts = np.frombuffer(container.data, f"{order}u8", count * page_bytes // 8, start)[:: page_bytes // 8]
    for first, stop in pairwise([0, *(np.flatnonzero(ts[1:] < ts[:-1]) + 1).tolist(), count]):
        if ts[first]:
            yield start + first * page_bytes, start + stop * page_bytes


def _aligned(place: int) -> int:
    return -(-place // PLACE_BYTES) * PLACE_BYTES
