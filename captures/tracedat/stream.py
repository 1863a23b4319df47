"""The ring buffer data of one CPU as pages in the order of the file, decompressed if need be.

What the file does not hold whole is kept as ``damage`` and told in the quality table: the pages before it
are good.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import numpy as np

from captures.compression import chunks
from captures.tracedat import constants as c
from schemas.errors import CaptureError, TruncatedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from captures.ringbuf import Bytes
    from captures.tracedat.container import Buffer, Container, CpuData

MAX_RATIO: Final = 1 << 9
"""Most bytes that a compressed byte may give: pages that are nearly empty give about 100."""


class PageStream:
    """Pages of one CPU of one buffer; those that are not taken yet can be looked at.

    Attributes:
        buffer: The ring buffer.
        place: Where its data are.
        size: Bytes of them that the file has.
        offset: Byte of the file at which the first page that is not taken begins; None: they are not in the
            file as they are, ``copy`` gives them.
        damage: Why the data end early; None: they do not, as far as they were looked at.
        is_truncated: Whether the data end early because the file does.
    """

    def __init__(self, container: Container, buffer: Buffer, place: CpuData) -> None:
        """Nothing is read before ``look``."""
        self._container = container
        self.buffer = buffer
        self.place = place
        self.size = max(min(place.size, len(container.data) - place.offset), 0)
        self.damage: str | None = None
        self.is_truncated = False
        self.offset: int | None = None
        self._held: deque[Bytes] = deque()
        self._held_bytes = 0
        self._chunks: Iterator[Bytes] | None = self._unpacked()
        if not buffer.is_compressed:
            self._hold_file()

    @property
    def unpacked_bytes(self) -> int:
        """Bytes of memory that pages take which were looked at and not taken yet; 0: the file has them."""
        return self._held_bytes if self.offset is None else 0

    @property
    def page_bytes(self) -> int:
        """Size of a page."""
        return self.buffer.page_bytes

    def look(self, count: int) -> tuple[int, bool]:
        """Look at the next pages.

        Args:
            count: How many.

        Returns:
            How many there are, up to ``count``, and whether more come behind them.
        """
        wanted = (count + 1) * self.page_bytes
        while self._held_bytes < wanted and self._chunks is not None:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._chunks = None
                left = self._held_bytes % self.page_bytes
                if left and self.damage is None:
                    self._damaged(f"{left} bytes are left over behind the last page", truncated=False)
            else:
                self._held.append(chunk)
                self._held_bytes += len(chunk)
        available = self._held_bytes // self.page_bytes
        return min(available, count), available > count

    def copy(self, out: Bytes) -> None:
        """Copy the first bytes of the next pages; ``look`` told that they are there."""
        filled = 0
        for chunk in self._held:
            part = chunk[: len(out) - filled]
            out[filled : filled + len(part)] = part
            filled += len(part)
            if filled == len(out):
                return

    def take(self, count: int) -> None:
        """Go on behind the next ``count`` pages, which are not looked at again."""
        size = count * self.page_bytes
        self._held_bytes -= size
        if self.offset is not None:
            self.offset += size
        while size:
            chunk = self._held.popleft()
            if len(chunk) > size:
                self._held.appendleft(chunk[size:])
            size -= min(len(chunk), size)

    def _hold_file(self) -> None:
        """Hold the pages as the file has them."""
        if self.size < self.place.size:
            self._damaged(f"the file ends after {self.size} of {self.place.size} bytes", truncated=True)
        elif self.size % self.page_bytes:
            self._damaged(
                f"{self.size} bytes are no whole number of pages of {self.page_bytes} bytes", truncated=False
            )
        whole = self.size // self.page_bytes * self.page_bytes
        self._chunks = None
        if whole:
            self._held.append(np.frombuffer(self._container.data, np.uint8, whole, self.place.offset))
            self._held_bytes = whole
            self.offset = self.place.offset

    def _unpacked(self) -> Iterator[Bytes]:
        """Chunks are cut without regard to pages: a page may lie in two of them."""
        codec = self._container.codec
        assert codec is not None, "tracedat7 checks this"
        cursor = self._container.cursor(self.place.offset)
        # trace-cmd 3.1 leaves the number of chunks out of the size, later ones do not; chunks tell their own.
        end = self.place.offset + self.place.size + c.CHUNK_COUNT_BYTES
        cursor.end = min(end, len(self._container.data))
        allowed = MAX_RATIO * self.size
        try:
            limit = min(c.MAX_CHUNK_BYTES, allowed)
            for chunk in chunks(cursor, codec, limit, f"the data of cpu {self.place.cpu}"):
                allowed -= len(chunk)
                if allowed < 0:
                    self._damaged(f"they give more than {MAX_RATIO} times their size", truncated=False)
                    return
                if chunk:
                    yield np.frombuffer(chunk, dtype=np.uint8)
        except CaptureError as error:
            self._damaged(f"{error.what} ({error.where})", truncated=isinstance(error, TruncatedError))

    def _damaged(self, text: str, *, truncated: bool) -> None:
        self.damage = text
        self.is_truncated = truncated
