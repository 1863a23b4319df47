"""Ring buffer pages -> records, decoded in lockstep over many pages with numpy.

A page is independent of the others: it has its own time stamp and its own size. So step k decodes record
k of every page at once; about as many steps as the fullest page has records replace a Python
loop over all records. Kernel: kernel/trace/ring_buffer.c, rb_iter_peek() and rb_update_iter_read_stamp();
include/linux/ring_buffer.h, enum ring_buffer_type.

A page whose records contradict its size is given up from that record on and counted, never guessed at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from captures import c_tracedat as c

if TYPE_CHECKING:
    from captures.pagelayout import PageLayout

    Words: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint32]]
    Bytes: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint8]]
    Rows: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.uint8]]
    Longs: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]
    Times: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint64]]
    Flags: TypeAlias = np.ndarray[tuple[int], np.dtype[np.bool_]]
    PageNumbers: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint16]]

MAX_PAGES: Final = 1 << 16
"""Most pages that are walked at once: their numbers take 16 bits."""

_TS_LOW: Final = np.uint64((1 << 59) - 1)
_TS_TOP: Final = np.uint64(~((1 << 59) - 1) & (1 << 64) - 1)
_TS_WRAP: Final = np.uint64(1 << 59)
_DELTA_BITS: Final = np.uint64(c.TIME_DELTA_BITS)
_DELTA_MASK: Final = np.uint32((1 << c.TIME_DELTA_BITS) - 1)
_LEN_MASK: Final = np.uint32((1 << c.TYPE_LEN_BITS) - 1)
_MIN_RECORD_BYTES: Final = 8
_SHORTEST: Final = 1
_LONGEST: Final = 28


@dataclass(frozen=True)
class Pages:
    """Pages by their headers. Arrays: one value a page.

    Attributes:
        ts: Time stamp of the page, in units of the clock.
        begin: Word of the block at which the first record is.
        end: Word of the block behind the last record.
        lost: Whether events were lost before the page.
        lost_count: How many; -1: the number is not known.
        is_bad: Whether the page or one of its records contradicts its size.
    """

    ts: Times
    begin: Longs
    end: Longs
    lost: Flags
    lost_count: Longs
    is_bad: Flags

    def of(self, chosen: Longs) -> Pages:
        """Some of them, by their numbers."""
        return Pages(
            self.ts[chosen],
            self.begin[chosen],
            self.end[chosen],
            self.lost[chosen],
            self.lost_count[chosen],
            self.is_bad[chosen],
        )


@dataclass(frozen=True)
class Records:
    """The data records of some pages in order of page, then of place in the page. Arrays: one value a record.

    Attributes:
        page: Page of the record, from 0.
        payload: Word of the block at which the record's payload begins.
        is_large: Whether the word before the payload is the payload's length, not the record's header.
        ts: Time, in units of the clock.
    """

    page: PageNumbers
    payload: Longs
    is_large: Flags
    ts: Times


class Walker:
    """Decodes pages; keeps its working memory from one call to the next.

    A *block* is the memory that the pages are in, wherever in it, seen as words of 4 bytes.

    Attributes:
        layout: Layout of a page.
    """

    def __init__(self, layout: PageLayout) -> None:
        """Nothing is reserved before ``walk``."""
        self.layout = layout
        self._is_big = layout.order == "big"
        self._reserve(0)

    def _reserve(self, capacity: int) -> None:
        """Make room for that many records; memory is untouched until it is needed."""
        self._page = np.empty(capacity, dtype=np.uint16)
        self._payload = np.empty(capacity, dtype=np.int64)
        self._ts = np.empty(capacity, dtype=np.uint64)
        self._large = np.empty(capacity, dtype=np.bool_)

    def words(self, block: Bytes) -> Words:
        """The block as words of the traced machine; bytes behind its last whole word are left out."""
        return block[: len(block) // 4 * 4].view(">u4" if self._is_big else "<u4")

    def headers(self, words: Words, start: Longs, page_bytes: Longs) -> Pages:
        """Read the header of each page.

        Args:
            words: The block.
            start: Word of the block at which the page begins. Shape (pages,).
            page_bytes: Size of each page, all of it in the block. Shape (pages,).
        """
        high, low = (0, 1) if self._is_big else (1, 0)
        ts = self._long(words, start, high, low)
        # Only the low 32 bits of a 64-bit commit word count: the kernel adds a negative int to it.
        commit_word = self.layout.commit_offset // 4 + (self.layout.commit_bytes // 4 - 1) * self._is_big
        commit = words.take(start + commit_word).astype(np.uint32)
        size = (commit & np.uint32(c.COMMIT_SIZE_MASK)).astype(np.int64)
        is_bad = (size > page_bytes - self.layout.data_offset) | (size % 4 != 0)
        size[is_bad] = 0
        begin = start + self.layout.data_offset // 4
        end = begin + size // 4
        lost = (commit & np.uint32(c.RB_MISSED_EVENTS)) != 0
        count = np.where(lost, np.int64(-1), np.int64(0))
        if lost.any():
            long_words = self.layout.commit_bytes // 4
            room = start + page_bytes // 4 - end >= long_words
            stored = np.flatnonzero(lost & room & ~is_bad & ((commit & np.uint32(c.RB_MISSED_STORED)) != 0))
            if long_words == 2:
                value = self._long(words, end[stored], high, low).view(np.int64)
            else:
                value = words.take(end[stored]).astype(np.uint32).view(np.int32).astype(np.int64)
            count[stored] = np.where(value > 0, value, -1)
        return Pages(ts, begin, end, lost, count, is_bad)

    def _long(self, words: Words, at: Longs, high: int, low: int) -> Times:
        """The 8 bytes at each of some words."""
        upper = words.take(at + high).astype(np.uint64) << np.uint64(32)
        return upper | words.take(at + low).astype(np.uint64)

    def walk(self, words: Words, pages: Pages) -> Records:
        """Decode all records of some pages.

        Args:
            words: The block.
            pages: At most ``MAX_PAGES`` of its pages; where ``is_bad`` is set here, the page was given up.
        """
        capacity = int((pages.end - pages.begin).sum()) * 4 // _MIN_RECORD_BYTES + len(pages.ts)
        if capacity > len(self._page):
            self._reserve(capacity)
        filled = self._lockstep(words, pages)
        # Steps come page by page within a step; a stable sort by page gives page order. 16 bits: radix sort.
        order = np.argsort(self._page[:filled], kind="stable")
        return Records(
            self._page[:filled].take(order),
            self._payload[:filled].take(order),
            self._large[:filled].take(order),
            self._ts[:filled].take(order),
        )

    def _lockstep(self, words: Words, pages: Pages) -> int:
        """Fill the working memory step by step; return the number of records."""
        page = np.flatnonzero(pages.begin < pages.end).astype(np.uint16)
        at, end, ts = pages.begin[page], pages.end[page], pages.ts[page]
        filled = 0
        while len(page):
            kind, delta = self._split(words.take(at))
            before, ts = ts, ts + delta
            payload = at + 1
            following = payload + kind
            is_data = is_large = None
            if self._has_special(kind):
                is_large = kind == 0
                is_data = self._special(words, at, end, kind, delta, before, ts, following)
                payload += is_large
            left = end - following
            ended = left.min() <= 0
            if ended and left.min() < 0:
                # A record that runs over the end, and one of no length (see _special), spoil the page.
                bad = left < 0
                pages.is_bad[page[bad]] = True
                left[bad] = 0
                is_data = ~bad if is_data is None else is_data & ~bad
            filled = self._keep(filled, page, payload, is_large, ts, is_data)
            if ended:
                going = np.flatnonzero(left)
                at, end, ts, page = following[going], end[going], ts[going], page[going]
            else:
                at = following
        return filled

    def _split(self, header: Words) -> tuple[Words, Words]:
        """type_len and time_delta of record headers."""
        if self._is_big:
            header = header.astype(np.uint32)
            return header >> np.uint32(c.TIME_DELTA_BITS), header & _DELTA_MASK
        return header & _LEN_MASK, header >> np.uint32(c.TYPE_LEN_BITS)

    @staticmethod
    def _has_special(kind: Words) -> bool:
        """Whether there are records whose length is not ``type_len``."""
        return bool(((kind - np.uint32(_SHORTEST)) >= _LONGEST).any())

    def _special(
        self,
        words: Words,
        at: Longs,
        end: Longs,
        kind: Words,
        delta: Words,
        before: Times,
        ts: Times,
        following: Longs,
    ) -> Flags:
        """Set ``following`` and ``ts`` of records whose length is not in ``type_len``.

        Returns which records hold data; ``following`` is behind ``end`` where the record cannot be right.
        """
        some = np.flatnonzero((kind - np.uint32(_SHORTEST)) >= _LONGEST)
        kind_s, delta_s, at_s, end_s = kind[some], delta[some].astype(np.uint64), at[some], end[some]
        is_data = np.ones(len(at), dtype=np.bool_)
        is_data[some] = kind_s == 0
        empty_rest = (kind_s == c.TYPE_PADDING) & (delta_s == 0)
        has_next = at_s + 1 < end_s
        number = words.take(np.where(has_next, at_s + 1, at_s)).astype(np.int64)
        # Large and discarded records: the next word is the length in bytes of what follows the header.
        is_right = has_next & ((kind_s >= c.TYPE_TIME_EXTEND) | (number >= 4))
        length = np.where(kind_s >= c.TYPE_TIME_EXTEND, 2, 1 + (number + 3) // 4)
        length = np.where(is_right, length, end_s + 1 - at_s)
        following[some] = np.where(empty_rest, end_s, at_s + length)

        upper = number.astype(np.uint64) << _DELTA_BITS
        extend = kind_s == c.TYPE_TIME_EXTEND
        ts[some[extend]] += upper[extend]
        # rb_fix_abs_ts(): the top 5 bits come from the running time; smaller than that means they moved on.
        stamp = kind_s == c.TYPE_TIME_STAMP
        running = before[some[stamp]]
        absolute = (upper[stamp] & _TS_LOW | delta_s[stamp]) | running & _TS_TOP
        wrapped = (absolute < running) & (running & _TS_TOP != 0)
        ts[some[stamp]] = absolute + np.where(wrapped, _TS_WRAP, np.uint64(0))
        # A discarded event whose delta is exactly 1 had a delta of 0 (rb_event_discard()).
        undone = (kind_s == c.TYPE_PADDING) & (delta_s == 1)
        ts[some[undone]] -= np.uint64(1)
        return is_data

    def _keep(
        self,
        filled: int,
        page: PageNumbers,
        payload: Longs,
        is_large: Flags | None,
        ts: Times,
        is_data: Flags | None,
    ) -> int:
        """Note the data records of one step; return how many are noted now."""
        large: Any = False if is_large is None else is_large
        if is_data is not None:
            page, payload, ts = page[is_data], payload[is_data], ts[is_data]
            large = large if is_large is None else is_large[is_data]
        stop = filled + len(page)
        self._page[filled:stop] = page
        self._payload[filled:stop] = payload
        self._large[filled:stop] = large
        self._ts[filled:stop] = ts
        return stop


def payload_sizes(words: Words, payload: Longs, is_large: Flags) -> Longs:
    """Bytes of the payload of records.

    Args:
        words: The block.
        payload: As in ``Records``.
        is_large: As in ``Records``.
    """
    before = words.take(payload - 1)
    if words.dtype == np.dtype(">u4"):
        size = (before >> c.TIME_DELTA_BITS).astype(np.int64) * 4
    else:
        size = (before & _LEN_MASK).astype(np.int64) * 4
    if is_large.any():
        size[is_large] = before[is_large].astype(np.int64) - 4
    return size
