"""The records of a perf.data as blocks of bytes with the place of each record, decompressed if need be.

Each record says how long it is, so their places can only be found one after the other. ``_walk_fast`` does
that from many places of a block at once; everything else works on whole blocks. What the file does not hold
whole is kept as ``damage`` and told in the quality table: the records before it are good.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import zstandard

from captures.decode import gather
from captures.perfdata import constants as c
from captures.source import unpacked_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from captures.perfdata.container import PerfData
    from captures.ringbuf import Bytes, Flags, Longs

    Kinds: TypeAlias = np.ndarray[Any, np.dtype[np.uint32]]
    Sizes: TypeAlias = np.ndarray[Any, np.dtype[np.uint16]]

BLOCK_BYTES: Final = 1 << 24
"""Bytes of records that are decoded at once (16 MiB)."""

_PIECE_BYTES: Final = 1 << 9
"""Compressed bytes inflated at once: small, so that the result of one piece stays below a block."""

_STRIP_WORDS: Final = 1 << 11
"""Words (8 bytes) of a block between the places from which its records are looked for (16 KiB)."""

_SEARCH_WORDS: Final = 1 << 6
"""Words of a strip in which its first record is looked for (512 bytes)."""

_SIZES: Final = np.arange(1 << 16)
_WORDS: Final = np.where(_SIZES & 7, 0, _SIZES >> 3).astype(np.uint16)
"""Words from a record of so many bytes to the next; 0: it has no whole words."""

_MOST_TYPES: Final = 128
"""Types of records are at most this: the kernel's begin with 1, those of perf with 64."""

_OUTSIDE: Final = (c.TRACING_DATA, c.AUXTRACE)
"""Records with content behind their end, which their size does not count."""
_PACKED: Final = (c.COMPRESSED, c.COMPRESSED2)


def _likely(kind: Kinds, size: Sizes, begin: Longs, end: Longs) -> Longs:
    """The first word of each strip that looks like a record before another one; else the strip's end.

    Args:
        kind: Type of a record, for each word of the block if one begins there.
        size: Its size in bytes, likewise.
        begin: First word of each strip; the first strip begins with a record.
        end: The word behind each.
    """
    found = end.copy()
    strip, at = np.arange(1, len(begin)), begin[1:]
    for _ in range(_SEARCH_WORDS):
        following = at + _WORDS.take(size[at])
        looks = (following > at) & (kind[at] - 1 < _MOST_TYPES)
        following = np.minimum(following, len(size) - 1)
        looks &= (kind[following] - 1 < _MOST_TYPES) & (size[following] >= c.RECORD_HEADER_BYTES)
        found[strip[looks]] = at[looks]
        left = ~looks & (at + 1 < end[strip])
        if not left.any():
            break
        strip, at = strip[left], at[left] + 1
    found[:1] = begin[:1]
    return found


def _right_records(
    is_record: Flags, size: Sizes, begin: Longs, end: Longs, behind: Longs
) -> tuple[Longs, int, bool]:
    """The records that follow each other from the first; those found in a strip may begin at a wrong word.

    Args:
        is_record: Whether a record was found at each word.
        size: As for ``_likely``.
        begin: First word of each strip.
        end: The word behind each.
        behind: The word that the records found in each strip lead to.

    Returns:
        As ``RecordStream._walk_fast``, in words.
    """
    strips = len(begin)
    first = np.concatenate([np.zeros(1, np.int64), behind])  # the right first record of each strip
    is_right = (first[:-1] < end) & is_record[np.minimum(first[:-1], len(size) - 1)] & (behind >= end)
    is_cut = False
    for suspect in np.flatnonzero(~is_right).tolist():
        strip = suspect
        while strip < strips and not is_cut:
            pos, stop = int(first[strip]), int(end[strip])
            if pos < stop and is_record[pos]:
                pos = int(behind[strip])
                is_last = pos >= stop
            else:
                is_last = False
                is_record[begin[strip] : stop] = False
                while pos < stop and (words := int(_WORDS[size[pos]])):
                    is_record[pos] = True
                    pos += words
            first[strip + 1] = behind[strip] = pos
            is_cut = pos < stop
            strip += 1
            if is_last:
                break
        if is_cut:
            is_record[pos:] = False
            first[strip:] = pos
            break
    found = np.flatnonzero(is_record)
    return found[found >= first[found // _STRIP_WORDS]], int(first[-1]), is_cut


@dataclass(frozen=True)
class Records:
    """Records of one block.

    Attributes:
        block: The bytes: of the whole file, or what was decompressed.
        start: First byte of each record in the block.
        size: Bytes of each, all of them in the block.
        type: Type of each. Shape of ``start``, uint32.
        misc: Flags of each, uint16.
    """

    block: Bytes
    start: Longs
    size: Longs
    type: Kinds
    misc: Sizes

    def only(self, chosen: Flags) -> Records:
        """Some of the records."""
        return Records(
            self.block, self.start[chosen], self.size[chosen], self.type[chosen], self.misc[chosen]
        )


class RecordStream:
    """The records of one file, in the order of the file; compressed ones behind the others of their block.

    Attributes:
        damage: Why the records end early; None: they do not.
        is_truncated: Whether that is because the file ends.
    """

    def __init__(self, perf: PerfData) -> None:
        """Nothing is read before ``blocks``."""
        self._perf = perf
        self._mark = "<" if perf.order == "little" else ">"
        self._head = struct.Struct(f"{self._mark}IHH")
        self.damage: str | None = None
        self.is_truncated = False

    def blocks(self) -> Iterator[Records]:
        """Blocks of whole records. A block holds until the next is taken."""
        inflater = _Inflater(unpacked_limit(len(self._perf.data)))
        inflated = bytearray()
        for outer in self._plain():
            packed = np.isin(outer.type, _PACKED)
            if not packed.any():
                yield outer
                continue
            yield outer.only(~packed)
            damage = self.damage  # of the file: what is compressed before it is good
            for part in self._inflate(inflater, outer.only(packed)):
                inflated += part
                if len(inflated) >= BLOCK_BYTES:
                    records, inflated = self._inner(inflated)
                    yield records
                if self.damage is not damage:
                    break
            records, inflated = self._inner(inflated)
            yield records
            if self.damage is not damage:
                return
        if inflated and self.damage is None:
            self._damaged(f"{len(inflated)} decompressed bytes are no whole record", truncated=True)

    def _inflate(self, inflater: _Inflater, packed: Records) -> Iterator[bytes]:
        """What compressed records give, in small parts."""
        for piece in self._pieces(packed):
            try:
                yield inflater.inflate(piece)
            except (zstandard.ZstdError, ValueError) as error:
                self._damaged(f"compressed records cannot be decompressed ({error})", truncated=False)
                return

    def _plain(self) -> Iterator[Records]:
        """The records as they are in the file."""
        pos, end = self._perf.begin, self._perf.end
        file = np.frombuffer(self._perf.data, dtype=np.uint8)
        while pos < end and self.damage is None:
            view = self._perf.data[pos : min(pos + BLOCK_BYTES, end)]
            is_last = pos + len(view) == end
            records, used = self._walk(view, pos)
            yield replace(records, block=file, start=records.start + pos)
            if self.damage is None and (used == 0 or (is_last and used < len(view))):
                text = f"the file ends inside the record at byte {pos + used}"
                self._damaged(text, truncated=True)
            pos += used
        if pos > end and self.damage is None:
            self._damaged(
                f"the file ends {pos - end} bytes before the end of its last record", truncated=True
            )

    def _inner(self, inflated: bytearray) -> tuple[Records, bytearray]:
        """The whole records of decompressed bytes, and the bytes behind them."""
        records, used = self._walk(memoryview(inflated), None)
        if np.isin(records.type, (*_PACKED, *_OUTSIDE)).any():
            self._damaged("compressed records hold records that cannot be in there", truncated=False)
        return records, inflated[used:]

    def _walk(self, view: memoryview, origin: int | None) -> tuple[Records, int]:
        """Find the records of a block.

        Args:
            view: The block; it begins with a record and may end inside one.
            origin: Byte of the file at which it begins; None: it was compressed.

        Returns:
            The whole records, and the place of the first one that is not in the block whole. With content
            behind the last record it may lie behind the block.
        """
        start, pos, unusual = self._walk_fast(view)
        block = np.frombuffer(view, dtype=np.uint8)
        head = gather(block, start, np.dtype("u8"))
        outside = np.flatnonzero(np.isin(self._kinds(head), _OUTSIDE if origin is not None else ()))
        if len(outside):
            start, pos, unusual = start[: outside[0]], int(start[outside[0]]), True
        if unusual:
            more, pos = self._walk_slowly(view, pos, origin)
            start = np.concatenate([start, np.array(more, dtype=np.int64)])
            head = gather(block, start, np.dtype("u8"))
        kind, (misc, size) = self._kinds(head), head.view(f"{self._mark}u2").reshape(-1, 4).T[2:]
        return Records(block, start, size.astype(np.int64), kind, misc.astype(np.uint16)), pos

    def _kinds(self, head: np.ndarray[Any, Any]) -> Kinds:
        """Types of records; ``head``: their headers, 8 bytes each."""
        return head.view(f"{self._mark}u4")[::2].astype(np.uint32)

    def _walk_fast(self, view: memoryview) -> tuple[Longs, int, bool]:
        """Places of whole records, where to go on, and whether an odd size, or none, is the reason.

        The kernel's records have whole words. What looks like a record is searched in every strip of the
        block, and the records from there on are followed in all strips at the same time. Where the records
        of one strip lead to one that was found in the next, that strip was right from there on; where they
        do not, its records are followed one by one. So a wrong guess costs time only.
        """
        whole = view[: len(view) & ~7]
        size = np.frombuffer(whole, dtype=f"{self._mark}u2")[3::4]  # the last two bytes of a record's header
        last = len(size)
        begin = np.arange(0, last, _STRIP_WORDS)
        end = np.minimum(begin + _STRIP_WORDS, last)
        is_record = np.zeros(last, dtype=np.bool_)
        kind = np.frombuffer(whole, dtype=f"{self._mark}u4")[::2]
        at = _likely(kind, size, begin, end)
        strip = np.flatnonzero(at < end)
        here, until = at[strip], end[strip]
        while len(strip):
            is_record[here] = True
            step = _WORDS.take(size[here])
            further = here + step
            going = (further < until) & (step > 0)
            if going.all():
                here = further
                continue
            at[strip] = further
            strip, here, until = strip[going], further[going], until[going]
        found, pos, unusual = _right_records(is_record, size, begin, end, at)
        if pos > last:
            found, pos = found[:-1], int(found[-1])
        return 8 * found, 8 * pos, unusual

    def _walk_slowly(self, view: memoryview, pos: int, origin: int | None) -> tuple[list[int], int]:
        """The same for records of any size, and those with content behind them."""
        found = []
        end = len(view)
        unpack = self._head.unpack_from
        while pos + c.RECORD_HEADER_BYTES <= end:
            kind, _, size = unpack(view, pos)
            if size < c.RECORD_HEADER_BYTES:
                where = "in compressed records" if origin is None else f"at byte {origin + pos}"
                self._damaged(f"the record {where} says that it has {size} bytes", truncated=False)
                break
            if pos + size > end:
                break
            content = 0
            if kind in _OUTSIDE and origin is not None:
                width = 4 if kind == c.TRACING_DATA else 8
                if size < c.RECORD_HEADER_BYTES + width:
                    self._damaged(f"the record at byte {origin + pos} is too short", truncated=False)
                    break
                content = int.from_bytes(view[pos + 8 : pos + 8 + width], self._perf.order)
            found.append(pos)
            pos += size + content
        return found, pos

    def _pieces(self, packed: Records) -> Iterator[memoryview]:
        """The compressed bytes of records, in small pieces."""
        view = packed.block.data
        for start, size, kind in zip(
            packed.start.tolist(), packed.size.tolist(), packed.type.tolist(), strict=True
        ):
            begin, end = start + c.RECORD_HEADER_BYTES, start + size
            if kind == c.COMPRESSED2:
                announced = int.from_bytes(view[begin : begin + 8], self._perf.order)
                begin += 8
                if begin > end or announced > end - begin:
                    self._damaged(f"a compressed record says that it has {announced} bytes", truncated=False)
                    return
                end = begin + announced
            for at in range(begin, end, _PIECE_BYTES):
                yield view[at : min(at + _PIECE_BYTES, end)]

    def _damaged(self, text: str, *, truncated: bool) -> None:
        self.damage = text
        self.is_truncated = truncated


class _Inflater:
    """All compressed records of a file are one zstd stream, or several one after the other."""

    def __init__(self, limit: int) -> None:
        self._stream = zstandard.ZstdDecompressor().decompressobj()
        self._left = limit
        self._limit = limit

    def inflate(self, piece: memoryview) -> bytes:
        """What a piece of the stream gives.

        Raises:
            ZstdError: It is damaged.
            ValueError: It gives too much.
        """
        result = self._stream.decompress(piece)
        while self._stream.eof:
            rest = self._stream.unused_data
            self._stream = zstandard.ZstdDecompressor().decompressobj()
            if not rest:
                break
            result += self._stream.decompress(rest)
        self._left -= len(result)
        if self._left < 0:
            raise ValueError(f"they give more than {self._limit} bytes")
        return bytes(result)
