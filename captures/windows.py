"""The records of all CPUs in order of time, window after window: memory for one window, whatever the file.

A window is a span of time. The pages of every CPU that begin in it are decoded together, so that a capture of
many CPUs costs no more steps than one of few; what is behind its end stays for the next. That needs times
that never go back on one CPU. Where they do, ``OutOfOrder`` is raised, and the caller reads the file again,
CPU after CPU, and sorts at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from captures.ringbuf import MAX_PAGES, Walker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from captures.ringbuf import Longs, Pages, Records, Times, Words
    from captures.source import Source
    from captures.tracedat.pagelayout import PageLayout
    from captures.tracedat.stream import PageStream

WINDOW_BYTES = 1 << 24
"""Bytes of pages that are decoded at once (16 MiB: 4096 pages of 4 KiB)."""


MAX_UNPACKED_BYTES = 1 << 28
"""Most bytes that unpacked pages of all CPUs may take together (256 MiB)."""


class OutOfOrder(Exception):
    """Windows cannot be cut: the times of one CPU go back, or too much would have to be kept."""


@dataclass(frozen=True)
class Part:
    """The pages that a window holds of one stream.

    Attributes:
        stream: Number of the stream.
        first: The first of them that was not in the window before, too.
        stop: Behind the last.
    """

    stream: int
    first: int
    stop: int


@dataclass(frozen=True)
class Window:
    """Pages that are decoded at once, and which of their records are due.

    Attributes:
        words: Memory that the pages are in.
        pages: Their headers, stream after stream.
        page_ns: Their time stamps in ns.
        records: Their records, page after page.
        ts_ns: The time of each record.
        first_record: The first record of each page, and the number of all. Shape (pages + 1,).
        due: Records that no other window gives, in order of time (ties: by stream, then place in it). None:
            all of them, in the order of the stream; this window has pages of one stream only.
        parts: Which pages are of which stream.
        cpu_of_page: CPU of each page.
    """

    words: Words
    pages: Pages
    page_ns: Longs
    records: Records
    ts_ns: Longs
    first_record: Longs
    due: Longs | None
    parts: Sequence[Part]
    cpu_of_page: np.ndarray[tuple[int], np.dtype[np.int32]]


class WindowReader:
    """Cuts streams into windows."""

    def __init__(
        self,
        source: Source,
        layout: PageLayout,
        streams: Sequence[PageStream],
        convert: Callable[[Times], Longs],
    ) -> None:
        """Read ``streams`` of ``source``, whose order breaks ties of time; ``convert`` gives ns."""
        self._source = source
        self._streams = streams
        self._convert = convert
        self._walker = Walker(layout)
        self._copies = not _in_memory_order(streams)
        self._memory = np.frombuffer(b"" if self._copies else source.data, dtype=np.uint8)

    def in_file_order(self) -> Iterator[Window]:
        """Windows of one stream each, stream after stream."""
        unknown = [False] * len(self._streams)
        for number, stream in enumerate(self._streams):
            batch = min(max(WINDOW_BYTES // stream.page_bytes, 1), MAX_PAGES)
            while count := stream.look(batch)[0]:
                words, start, page_bytes = self._place([(stream, count)])
                pages = self._walker.headers(words, start, page_bytes)
                yield self._decode(words, pages, self._convert(pages.ts), np.full(count, number), unknown)
                self._take(stream, count)

    def in_order(self) -> Iterator[Window]:
        """Windows in order of time.

        Raises:
            OutOfOrder: The times of a stream go back, or too many pages would have to be kept.
        """
        if not self._streams:
            return
        total = sum(each.size for each in self._streams) or 1
        usual = [max(WINDOW_BYTES * each.size // total // each.page_bytes, 2) for each in self._streams]
        known = [False] * len(usual)
        begin: int = np.iinfo(np.int64).min
        batch, end = usual, None
        while True:
            seen = self._look(batch)
            found = [count for count, _ in seen]
            words, start, page_bytes = self._place(list(zip(self._streams, found, strict=True)))
            pages = self._walker.headers(words, start, page_bytes)
            page_ns = self._convert(pages.ts)
            owner = np.repeat(np.arange(len(found)), found)
            if bool(((page_ns[1:] < page_ns[:-1]) & (owner[1:] == owner[:-1])).any()):
                raise OutOfOrder
            # Nothing that is still unread begins before the last page that is seen of its stream.
            last = np.cumsum(found) - 1
            ends = {n: int(page_ns[last[n]]) for n, (_, has_more) in enumerate(seen) if has_more}
            end = min(ends.values(), default=None)
            if end is not None and (end <= begin or int(page_ns.min()) >= end):
                batch = [2 * each if ends.get(n) == end else each for n, each in enumerate(batch)]
                continue
            batch = usual
            if end is not None:
                chosen = np.flatnonzero(page_ns < end)
                pages, page_ns, owner = pages.of(chosen), page_ns[chosen], owner[chosen]
            window = self._decode(words, pages, page_ns, owner, known)
            _check_order(window, owner)
            yield replace(window, due=_due(window.ts_ns, begin, end, sort=len(window.parts) > 1))
            for part in window.parts:
                number = part.stream
                count = part.stop - part.first + known[number]
                stop = int(window.first_record[part.stop])
                has_rest = end is not None and stop > 0 and int(window.ts_ns[stop - 1]) >= end
                has_rest &= stop > int(window.first_record[part.stop - 1])
                known[number] = has_rest
                self._take(self._streams[number], count - has_rest)
            if end is None:
                return
            begin = end

    def _look(self, batch: Sequence[int]) -> list[tuple[int, bool]]:
        """Look at the next pages of every stream; see ``PageStream.look``.

        Raises:
            OutOfOrder: They are too many, or take too much memory, to be looked at together.
        """
        seen: list[tuple[int, bool]] = []
        pages = memory_bytes = 0
        for stream, wanted in zip(self._streams, batch, strict=True):
            seen.append(stream.look(wanted))
            pages += seen[-1][0]
            memory_bytes += stream.unpacked_bytes
            if pages > MAX_PAGES or memory_bytes > MAX_UNPACKED_BYTES:
                raise OutOfOrder
        return seen

    def _place(self, pages: Sequence[tuple[PageStream, int]]) -> tuple[Words, Longs, Longs]:
        """Where the next pages of some streams are.

        Returns:
            The memory that they are in; the word at which each begins, and its size in bytes.
        """
        size = [np.full(count, stream.page_bytes, dtype=np.int64) for stream, count in pages]
        page_bytes = np.concatenate(size)
        if not self._copies:
            start = [(stream.offset or 0) + np.arange(count) * stream.page_bytes for stream, count in pages]
            return self._walker.words(self._memory), np.concatenate(start) // 4, page_bytes
        ends = np.cumsum(page_bytes)
        if len(ends) and int(ends[-1]) > len(self._memory):
            self._memory = np.empty(int(ends[-1]), dtype=np.uint8)
        at = 0
        for stream, count in pages:
            stream.copy(self._memory[at : at + count * stream.page_bytes])
            at += count * stream.page_bytes
        return self._walker.words(self._memory), (ends - page_bytes) // 4, page_bytes

    def _decode(
        self, words: Words, pages: Pages, page_ns: Longs, owner: Longs, known: Sequence[bool]
    ) -> Window:
        """Decode pages; ``owner``: the stream of each; ``known``: whether its first was decoded before."""
        records = self._walker.walk(words, pages)
        first_record = np.zeros(len(page_ns) + 1, dtype=np.int64)
        np.cumsum(np.bincount(records.page, minlength=len(page_ns)), out=first_record[1:])
        numbers, first = np.unique(owner, return_index=True)
        bounds = [*first.tolist(), len(owner)]
        parts = [
            Part(number, begin + known[number], stop)
            for number, begin, stop in zip(numbers.tolist(), bounds[:-1], bounds[1:], strict=True)
        ]
        cpus = np.array([each.place.cpu for each in self._streams], dtype=np.int32)
        ts_ns = self._convert(records.ts)
        return Window(words, pages, page_ns, records, ts_ns, first_record, None, parts, cpus[owner])

    def _take(self, stream: PageStream, count: int) -> None:
        """Go on behind pages; what the file has of them need not stay in memory."""
        begin = stream.offset
        stream.take(count)
        if begin is not None and stream.offset is not None:
            self._source.forget(begin, stream.offset)


def _in_memory_order(streams: Sequence[PageStream]) -> bool:
    """Whether the file has the pages of all streams as they are, in this order, at whole words."""
    end = 0
    for stream in streams:
        if stream.offset is None or stream.offset % 4 or stream.offset < end:
            return False
        end = stream.offset + stream.size
    return True


def _check_order(window: Window, owner: Longs) -> None:
    """Make sure that no record is outside the time from its page to the next, or earlier than the last.

    Raises:
        OutOfOrder: One is.
    """
    ts_ns, begin = window.ts_ns, window.first_record[:-1]
    end = window.first_record[1:]
    filled = np.flatnonzero(end > begin)
    early = ts_ns[begin[filled]] < window.page_ns[filled]
    following = filled[:-1] + 1 if len(filled) and filled[-1] + 1 == len(owner) else filled + 1
    before = filled[: len(following)]
    late = (ts_ns[end[before] - 1] > window.page_ns[following]) & (owner[before] == owner[following])
    if early.any() or late.any():
        raise OutOfOrder
    back = np.flatnonzero(ts_ns[1:] < ts_ns[:-1])
    page = window.records.page
    if (owner[page[back]] == owner[page[back + 1]]).any():
        raise OutOfOrder


def _due(ts_ns: Longs, begin: int, end: int | None, *, sort: bool) -> Longs:
    """The records with times from ``begin`` up to ``end`` (exclusive; None: all), in order of time."""
    is_due = ts_ns >= begin
    if end is not None:
        is_due &= ts_ns < end
    due = np.flatnonzero(is_due)
    return due[np.argsort(ts_ns[due], kind="stable")] if sort else due
