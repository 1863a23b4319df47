"""The ring buffer data of one CPU as blocks of whole pages, decompressed if need be.

What the file does not hold whole is kept as ``damage`` and told in the quality table: the pages before it
are good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from captures import c_tracedat as c
from captures.compression import chunks
from schemas.errors import CaptureError, TruncatedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from captures.ringbuf import Bytes
    from captures.tracedat import Buffer, Container, CpuData


class PageStream:
    """Pages of one CPU of one buffer.

    Attributes:
        buffer: The ring buffer.
        place: Where its data are.
        damage: Why the data end early; None: they do not.
        is_truncated: Whether the data end early because the file does.
    """

    def __init__(self, container: Container, buffer: Buffer, place: CpuData) -> None:
        """Nothing is read before ``blocks``."""
        self._container = container
        self.buffer = buffer
        self.place = place
        self.damage: str | None = None
        self.is_truncated = False

    def blocks(self, block_pages: int) -> Iterator[Bytes]:
        """Blocks of whole pages, at most ``block_pages`` each. A block holds until the next is taken."""
        if self.buffer.is_compressed:
            yield from self._compressed(block_pages)
        else:
            yield from self._plain(block_pages)

    def _plain(self, block_pages: int) -> Iterator[Bytes]:
        page_bytes = self.buffer.page_bytes
        file_bytes = len(self._container.data)
        available = max(min(self.place.size, file_bytes - self.place.offset), 0)
        if available < self.place.size:
            self._damaged(f"the file ends after {available} of {self.place.size} bytes", truncated=True)
        elif available % page_bytes:
            self._damaged(
                f"{available} bytes are no whole number of pages of {page_bytes} bytes", truncated=False
            )
        whole = available // page_bytes * page_bytes
        if not whole:
            return
        data = np.frombuffer(self._container.data, np.uint8, whole, self.place.offset)
        for start in range(0, whole, block_pages * page_bytes):
            block = data[start : start + block_pages * page_bytes]
            yield block if self.place.offset % 4 == 0 else block.copy()

    def _compressed(self, block_pages: int) -> Iterator[Bytes]:
        """Chunks are cut without regard to pages: a page may lie in two of them."""
        page_bytes = self.buffer.page_bytes
        block = np.empty(block_pages * page_bytes, dtype=np.uint8)
        filled = 0
        for chunk in self._chunks():
            data = np.frombuffer(chunk, dtype=np.uint8)
            while len(data):
                part = data[: len(block) - filled]
                block[filled : filled + len(part)] = part
                filled += len(part)
                data = data[len(part) :]
                if filled == len(block):
                    yield block
                    filled = 0
        whole = filled // page_bytes * page_bytes
        if filled % page_bytes and self.damage is None:
            self._damaged(f"{filled % page_bytes} bytes are left over behind the last page", truncated=False)
        if whole:
            yield block[:whole]

    def _chunks(self) -> Iterator[bytes]:
        codec = self._container.codec
        assert codec is not None, "tracedat7 checks this"
        cursor = self._container.cursor(self.place.offset)
        # trace-cmd 3.1 leaves the number of chunks out of the size, later ones do not; chunks tell their own.
        end = self.place.offset + self.place.size + c.CHUNK_COUNT_BYTES
        cursor.end = min(end, len(self._container.data))
        try:
            yield from chunks(cursor, codec, c.MAX_CHUNK_BYTES, f"the data of cpu {self.place.cpu}")
        except CaptureError as error:
            self._damaged(f"{error.what} ({error.where})", truncated=isinstance(error, TruncatedError))

    def _damaged(self, text: str, *, truncated: bool) -> None:
        self.damage = text
        self.is_truncated = truncated
