"""Ring buffer pages -> records, decoded in lockstep over many pages with numpy.

A page is independent of the others: it has its own time stamp and its own size. So step k decodes record
k of every page of a block at once; about as many steps as the fullest page has records replace a Python
loop over all records. Kernel: kernel/trace/ring_buffer.c, rb_iter_peek() and rb_update_iter_read_stamp();
include/linux/ring_buffer.h, enum ring_buffer_type.

A page whose records contradict its size is given up from that record on and counted, never guessed at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from captures import c_tracedat as c

if TYPE_CHECKING:
    from captures.pagelayout import PageLayout

    Words = np.ndarray[tuple[int], np.dtype[np.uint32]]
    Kinds = np.ndarray[tuple[int], np.dtype[np.uint8]]
    Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
    Rows = np.ndarray[tuple[int, int], np.dtype[np.uint8]]
    Ints = np.ndarray[tuple[int], np.dtype[np.int32]]
    Longs = np.ndarray[tuple[int], np.dtype[np.int64]]
    Times = np.ndarray[tuple[int], np.dtype[np.uint64]]
    Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]

_TS_LOW: Final = np.uint64((1 << 59) - 1)
_TS_TOP: Final = np.uint64(~((1 << 59) - 1) & (1 << 64) - 1)
_TS_WRAP: Final = np.uint64(1 << 59)
_DELTA_BITS: Final = np.uint64(c.TIME_DELTA_BITS)
_MIN_RECORD_WORDS: Final = 2

# Words of a whole record by type_len; 0: its length, or its meaning, is elsewhere.
_LENGTH: Final = np.array([0, *range(2, 30), 0, 0, 0], dtype=np.int32)


@dataclass(frozen=True)
class Pages:
    """The headers of the pages of one block. Arrays: one value a page.

    Attributes:
        ts: Time stamp of the page, in units of the clock.
        end: Word of the block behind the last record.
        lost: Whether events were lost before the page.
        lost_count: How many; -1: the number is not known.
        is_bad: Whether the page or one of its records contradicts its size.
    """

    ts: Times
    end: Ints
    lost: Flags
    lost_count: Longs
    is_bad: Flags


@dataclass(frozen=True)
class Records:
    """The data records of one block in order of page, then of place in the page. Arrays: one value a record.

    The arrays are views of the walker's own memory: they hold until its next block.

    Attributes:
        pages: The headers of the pages.
        page: Page of the record, from 0 in the block.
        word: Word of the block at which the record's header is.
        ts: Time, in units of the clock.
    """

    pages: Pages
    page: np.ndarray[tuple[int], np.dtype[np.uint16]]
    word: Ints
    ts: Times


class Walker:
    """Decodes blocks of pages of one size; keeps its working memory from block to block.

    Attributes:
        layout: Layout of a page.
        page_bytes: Size of a page of this buffer.
        block_pages: Most pages of one block.
    """

    def __init__(self, layout: PageLayout, page_bytes: int, block_pages: int) -> None:
        """Reserve memory for the records of one block (untouched until it is needed)."""
        if not 0 < block_pages <= 1 << 16:
            raise ValueError("a block has 1..65536 pages")
        self.layout = layout
        self.page_bytes = page_bytes
        self.block_pages = block_pages
        capacity = block_pages * (page_bytes // 4 // _MIN_RECORD_WORDS)
        self._page = np.empty(capacity, dtype=np.uint16)
        self._word = np.empty(capacity, dtype=np.int32)
        self._ts = np.empty(capacity, dtype=np.uint64)
        self._is_big = layout.order == "big"

    def words(self, block: Bytes) -> Words:
        """The block as words of the traced machine."""
        return block.view(">u4" if self._is_big else "<u4")

    def headers(self, words: Words) -> Pages:
        """Read the header of each page.

        Args:
            words: Whole pages. Shape (pages * page_bytes / 4,).
        """
        order = ">" if self._is_big else "<"
        grid = words.reshape(-1, self.page_bytes // 4)
        data_word = self.layout.data_offset // 4
        ts = np.ascontiguousarray(grid[:, :2]).view(f"{order}u8")[:, 0].astype(np.uint64)
        # Only the low 32 bits of a 64-bit commit word count: the kernel adds a negative int to it.
        commit_word = self.layout.commit_offset // 4 + (self.layout.commit_bytes // 4 - 1) * self._is_big
        commit = grid[:, commit_word].astype(np.uint32)
        size = (commit & np.uint32(c.COMMIT_SIZE_MASK)).astype(np.int64)
        is_bad = (size > self.page_bytes - self.layout.data_offset) | (size % 4 != 0)
        size[is_bad] = 0
        pages = np.arange(len(grid), dtype=np.int64)
        end = pages * grid.shape[1] + data_word + size // 4
        lost = (commit & np.uint32(c.RB_MISSED_EVENTS)) != 0
        long_words = self.layout.commit_bytes // 4
        room = (pages + 1) * grid.shape[1] - end >= long_words
        stored = np.flatnonzero(lost & room & ~is_bad & ((commit & np.uint32(c.RB_MISSED_STORED)) != 0))
        count = np.where(lost, np.int64(-1), np.int64(0))
        places = end[stored, None] + np.arange(long_words)
        value = np.ascontiguousarray(words[places]).view(f"{order}i{4 * long_words}")[:, 0].astype(np.int64)
        count[stored] = np.where(value > 0, value, -1)
        return Pages(ts, end.astype(np.int32), lost, count, is_bad)

    def walk(self, block: Bytes) -> Records:
        """Decode all records of a block.

        Args:
            block: Whole pages, at most ``block_pages``. Shape (pages * page_bytes,), first byte aligned to 4.
        """
        words = self.words(block)
        pages = self.headers(words)
        filled = self._lockstep(words, pages)
        # Steps come page by page within a step; a stable sort by page gives page order. 16 bits: radix sort.
        order = np.argsort(self._page[:filled], kind="stable")
        return Records(
            pages,
            self._page[:filled][order],
            self._word[:filled][order],
            self._ts[:filled][order],
        )

    def _lockstep(self, words: Words, pages: Pages) -> int:
        """Fill the working memory step by step; return the number of records."""
        stride = self.page_bytes // 4
        first = np.arange(len(pages.ts), dtype=np.int32) * stride + self.layout.data_offset // 4
        page = np.flatnonzero(first < pages.end).astype(np.uint16)
        at, end, ts = first[page], pages.end[page], pages.ts[page]
        filled = 0
        while len(page):
            header = words.take(at)
            kind, delta = self._split(header)
            length = _LENGTH.take(kind)
            before = ts
            ts = ts + delta
            is_data = None
            if not length.all():
                is_data = self._special(words, at, end, kind, delta, before, ts, length)
            following = at + length
            # A record that runs over the end, and one of no length (see _special), spoil the page.
            bad = (following > end) | (length <= 0)
            if bad.any():
                pages.is_bad[page[bad]] = True
                following[bad] = end[bad]
                is_data = ~bad if is_data is None else is_data & ~bad
            filled = self._keep(filled, page, at, ts, is_data)
            going = following < end
            if going.all():
                at = following
            else:
                at, end, ts, page = following[going], end[going], ts[going], page[going]
        return filled

    def type_len(self, header: Words) -> Kinds:
        """type_len of record headers; 0: the record's length is in the next word."""
        kind = header >> c.TIME_DELTA_BITS if self._is_big else header & ((1 << c.TYPE_LEN_BITS) - 1)
        return kind.astype(np.uint8)

    def _split(self, header: Words) -> tuple[Kinds, Times]:
        """type_len and time_delta of record headers."""
        delta = header & ((1 << c.TIME_DELTA_BITS) - 1) if self._is_big else header >> c.TYPE_LEN_BITS
        return self.type_len(header), delta.astype(np.uint64)

    def _special(
        self,
        words: Words,
        at: Ints,
        end: Ints,
        kind: Kinds,
        delta: Times,
        before: Times,
        ts: Times,
        length: Ints,
    ) -> Flags:
        """Set ``length`` and ``ts`` of records whose length is not in ``type_len``; return which hold data.

        ``length`` stays 0 where the record cannot be right.
        """
        some = np.flatnonzero(length == 0)
        kind_s, delta_s, at_s, end_s = kind[some], delta[some], at[some], end[some]
        is_data = np.ones(len(at), dtype=np.bool_)
        is_data[some] = kind_s == 0
        empty_rest = (kind_s == c.TYPE_PADDING) & (delta_s == 0)
        has_next = at_s + 1 < end_s
        following = words.take(np.where(has_next, at_s + 1, at_s)).astype(np.int64)
        # Large and discarded records: the next word is the length in bytes of what follows the header.
        sized = np.where(following < 4, 0, 1 + np.minimum(following + 3, 1 << 28) // 4)
        new_length = np.where(has_next, np.where(kind_s >= c.TYPE_TIME_EXTEND, 2, sized), 0)
        length[some] = np.where(empty_rest, end_s - at_s, new_length)

        upper = following.astype(np.uint64) << _DELTA_BITS
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
        page: np.ndarray[tuple[int], np.dtype[np.uint16]],
        at: Ints,
        ts: Times,
        is_data: Flags | None,
    ) -> int:
        """Note the data records of one step; return how many are noted now."""
        if is_data is not None:
            page, at, ts = page[is_data], at[is_data], ts[is_data]
        stop = filled + len(page)
        self._page[filled:stop] = page
        self._word[filled:stop] = at
        self._ts[filled:stop] = ts
        return stop
