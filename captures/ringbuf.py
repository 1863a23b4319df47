"""Ring buffer pages -> records, decoded in lockstep over many pages with numpy.

A page is independent of the others: it has its own time stamp and its own size. So step k decodes record
k of every page at once; about as many steps as the fullest page has records replace a Python
loop over all records. Kernel: kernel/trace/ring_buffer.c, rb_iter_peek() and rb_update_iter_read_stamp();
include/linux/ring_buffer.h, enum ring_buffer_type.

A page whose records contradict its size is given up from that record on and counted, never guessed at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from captures.tracedat import constants as c

if TYPE_CHECKING:
    from captures.tracedat.pagelayout import PageLayout

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
_DELTA_BITS: Final = np.uint64(c.TIME_DELTA_BITS)
_DELTA_MASK: Final = np.uint32((1 << c.TIME_DELTA_BITS) - 1)
_LEN_MASK: Final = np.uint32((1 << c.TYPE_LEN_BITS) - 1)
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
        self._at = np.empty(0, dtype=np.int64)
        self._page = np.empty(0, dtype=np.uint16)

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
            pages: At most ``MAX_PAGES`` of its pages, in the order in which they lie in it; where ``is_bad``
                is set here, the page was given up.
        """
        at = self._lockstep(words, pages)
        kind, delta = self._split(words.take(at))
        first = np.searchsorted(at, pages.begin)
        count = np.diff(first, append=len(at))
        step = delta.astype(np.uint64)
        page = np.repeat(np.arange(len(count), dtype=np.uint16), count)
        if not self._has_special(kind):
            return Records(page, at + 1, np.zeros(len(at), dtype=np.bool_), _times(pages.ts, first, step))
        stamp, low = self._special(words, at, kind, step)
        ts = _times_with_stamps(pages.ts, first, step, stamp, low)
        is_data = np.flatnonzero(kind < c.TYPE_PADDING)
        is_large = kind.take(is_data) == 0
        return Records(page.take(is_data), at.take(is_data) + 1 + is_large, is_large, ts.take(is_data))

    def _lockstep(self, words: Words, pages: Pages) -> Longs:
        """Words of the headers of all records, those that hold only a time among them, in their order."""
        capacity = int((pages.end - pages.begin).sum()) + len(pages.ts)
        if capacity > len(self._at):
            self._at = np.empty(capacity, dtype=np.int64)
            self._page = np.empty(capacity, dtype=np.uint16)
        filled_pages = np.flatnonzero(pages.begin < pages.end)
        at, end, page = pages.begin[filled_pages], pages.end[filled_pages], filled_pages.astype(np.uint16)
        filled = 0
        while len(at):
            kind, _ = self._split(words.take(at))
            following = at + kind
            following += 1
            if self._has_special(kind):
                self._set_following(words, at, end, kind, following)
            left = end - following
            least = int(left.min())
            if least < 0:
                # A record that runs over the end, and one of no length, spoil the page.
                good = np.flatnonzero(left >= 0)
                pages.is_bad[page[left < 0]] = True
                at, end, page = at[good], end[good], page[good]
                following, left = following[good], left[good]
            self._at[filled : filled + len(at)] = at
            self._page[filled : filled + len(at)] = page
            filled += len(at)
            if least > 0:
                at = following
            else:
                going = np.flatnonzero(left)
                at, end, page = following.take(going), end.take(going), page.take(going)
        # Steps come page by page within a step. 16 bits are sorted by their digits: in a third of the time.
        return self._at[:filled].take(np.argsort(self._page[:filled], kind="stable"))

    def _split(self, header: Words) -> tuple[Words, Words]:
        """type_len and time_delta of record headers."""
        if self._is_big:
            header = header.astype(np.uint32)
            return header >> np.uint32(c.TIME_DELTA_BITS), header & _DELTA_MASK
        return header & _LEN_MASK, header >> np.uint32(c.TYPE_LEN_BITS)

    @staticmethod
    def _has_special(kind: Words) -> bool:
        """Whether there are records whose length is not ``type_len``."""
        return bool((kind - np.uint32(_SHORTEST)).max(initial=0) >= _LONGEST)

    def _set_following(self, words: Words, at: Longs, end: Longs, kind: Words, following: Longs) -> None:
        """Set ``following`` of records whose length is not ``type_len``: behind ``end`` if they cannot be."""
        some = np.flatnonzero((kind - np.uint32(_SHORTEST)) >= _LONGEST)
        kind, at, end = kind[some], at[some], end[some]
        delta = self._split(words.take(at))[1]
        has_next = at + 1 < end
        number = words.take(np.where(has_next, at + 1, at)).astype(np.int64)
        # Large and discarded records: the next word is the length in bytes of what follows the header.
        is_right = has_next & ((kind >= c.TYPE_TIME_EXTEND) | (number >= 4))
        length = np.where(kind >= c.TYPE_TIME_EXTEND, 2, 1 + (number + 3) // 4)
        is_rest = (kind == c.TYPE_PADDING) & (delta == 0)
        following[some] = np.where(is_rest, end, np.where(is_right, at + length, end + 1))

    def _special(self, words: Words, at: Longs, kind: Words, step: Times) -> tuple[Longs, Times]:
        """Set the ``step`` of time of records that are no plain data.

        Returns:
            Records that hold an absolute time, and its low 59 bits.
        """
        extend = np.flatnonzero(kind == c.TYPE_TIME_EXTEND)
        step[extend] += words.take(at[extend] + 1).astype(np.uint64) << _DELTA_BITS
        # A discarded event whose delta is exactly 1 had a delta of 0 (rb_event_discard()).
        step[(kind == c.TYPE_PADDING) & (step == 1)] = 0
        stamp = np.flatnonzero(kind == c.TYPE_TIME_STAMP)
        low = words.take(at[stamp] + 1).astype(np.uint64) << _DELTA_BITS
        low = (low & _TS_LOW) | step[stamp]
        step[stamp] = 0
        return stamp, low


def _times(page_ts: Times, first: Longs, step: Times) -> Times:
    """Times of records from the steps between them.

    Args:
        page_ts: Time stamp of each page, from which its first record steps.
        first: The first record of each page.
        step: Time from the record before. Shape (records,).
    """
    ts = np.cumsum(step)
    # What the sum has gathered before the page is taken off again; numbers wrap at 64 bits.
    before = np.concatenate([ts[:1] * 0, ts])[first] if len(ts) else np.zeros(len(first), dtype=np.uint64)
    ts += np.repeat(page_ts - before, np.diff(first, append=len(step)))
    return ts


def _times_with_stamps(page_ts: Times, first: Longs, step: Times, stamp: Longs, low: Times) -> Times:
    """As ``_times``, where some records set the time: ``stamp``, to ``low`` in its low 59 bits."""
    starts = np.concatenate([first, stamp])
    order = np.argsort(starts, kind="stable")
    ts = _times(np.concatenate([page_ts, low])[order], starts[order], step)
    if len(stamp) and max(int(page_ts.max()), int(ts.max())) > int(_TS_LOW):
        absolute = _absolute(page_ts, first, step, stamp, low)
        ts = _times(np.concatenate([page_ts, absolute])[order], starts[order], step)
    return ts


def _absolute(page_ts: Times, first: Longs, step: Times, stamp: Longs, low: Times) -> Times:
    """Absolute times whose top 5 bits come from the time before: rb_fix_abs_ts(). One after the other."""
    gathered = [0, *np.cumsum(step).tolist()]
    page = np.searchsorted(first, stamp, side="right") - 1
    result: list[int] = []
    last = -1
    for place, of, bits in zip(stamp.tolist(), page.tolist(), low.tolist(), strict=True):
        start = int(first[of])
        base, start = (result[-1], last) if last >= start else (int(page_ts[of]), start)
        running = base + gathered[place] - gathered[start] & (1 << 64) - 1
        top = running & int(_TS_TOP)
        time = bits | top
        # Smaller than the time before: its top bits moved on meanwhile.
        result.append(time + (1 << 59 if top and time < running else 0) & (1 << 64) - 1)
        last = place
    return np.array(result, dtype=np.uint64)


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
