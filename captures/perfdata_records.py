"""The records of a perf.data as blocks of bytes with the place of each record, decompressed if need be.

Each record says how long it is, so their places can only be found one after the other: two short loops do
that, everything else works on whole blocks. What the file does not hold whole is kept as ``damage`` and told
in the quality table: the records before it are good.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import zstandard

from captures import c_perf as c
from captures.decode import gather
from captures.source import unpacked_limit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from captures.perfdata import PerfData
    from captures.ringbuf import Bytes, Flags, Longs

BLOCK_BYTES: Final = 1 << 24
"""Bytes of records that are decoded at once (16 MiB)."""

_PIECE_BYTES: Final = 1 << 9
"""Compressed bytes inflated at once: small, so that the result of one piece stays below a block."""

_STOP: Final = 1 << 40
_OUTSIDE: Final = (c.TRACING_DATA, c.AUXTRACE)
"""Records with content behind their end, which their size does not count."""
_PACKED: Final = (c.COMPRESSED, c.COMPRESSED2)


def _steps(order: str) -> list[int]:
    """For each u16 as this machine reads it, how many u16 it is to the next record; else ``_STOP``."""
    size = np.arange(1 << 16, dtype=np.uint16)
    if order != sys.byteorder:
        size = size.byteswap()
    usable = (size >= c.RECORD_HEADER_BYTES) & (size % 2 == 0)
    return [int(each) for each in np.where(usable, size.astype(np.int64) // 2, _STOP)]


@dataclass(frozen=True)
class Records:
    """Records of one block.

    Attributes:
        block: The bytes.
        start: First byte of each record in the block.
        size: Bytes of each, all of them in the block.
        type: Type of each. Shape of ``start``, uint32.
        misc: Flags of each, uint16.
    """

    block: Bytes
    start: Longs
    size: Longs
    type: np.ndarray[Any, np.dtype[np.uint32]]
    misc: np.ndarray[Any, np.dtype[np.uint16]]

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
        self._steps = _steps(perf.order)
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
        while pos < end and self.damage is None:
            view = self._perf.data[pos : min(pos + BLOCK_BYTES, end)]
            is_last = pos + len(view) == end
            records, used = self._walk(view, pos)
            yield records
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
        kind = gather(block, start, np.dtype(f"{self._mark}u4"))
        outside = np.flatnonzero(np.isin(kind, _OUTSIDE)) if origin is not None else np.empty(0, np.int64)
        if len(outside):
            start, pos, unusual = start[: outside[0]], int(start[outside[0]]), True
        if unusual:
            more, pos = self._walk_slowly(view, pos, origin)
            start = np.concatenate([start, np.array(more, dtype=np.int64)])
            kind = gather(block, start, np.dtype(f"{self._mark}u4"))
        sizes = gather(block, start + 6, np.dtype(f"{self._mark}u2")).astype(np.int64)
        misc = gather(block, start + 4, np.dtype(f"{self._mark}u2"))
        return Records(block, start, sizes, kind.astype(np.uint32), misc.astype(np.uint16)), pos

    def _walk_fast(self, view: memoryview) -> tuple[Longs, int, bool]:
        """Places of whole records, where to go on, and whether a size that is odd or none is the reason."""
        halves = view[: len(view) & ~1].cast("H")
        steps = self._steps
        found: list[int] = []
        append = found.append
        at, last = 3, len(halves)
        while at < last:
            append(at)
            at += steps[halves[at]]
        unusual = at >= _STOP
        if found and (unusual or at > last + 3):
            at = found.pop()
        return 2 * np.array(found, dtype=np.int64) - 6, 2 * at - 6, unusual

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
