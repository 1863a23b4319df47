"""Cursor: reads numbers, strings and byte ranges of untrusted bytes, each checked before it is used."""

from __future__ import annotations

from typing import Literal

from schemas.errors import CaptureError, CorruptError, TruncatedError

HINT_TRUNCATED = "copy the file again, or record it again and let the recorder end by itself"
HINT_CORRUPT = "the file was damaged or is not what its header says: copy it again"

ByteOrder = Literal["little", "big"]


class Cursor:
    """A place in a range of bytes that moves on as values are read.

    Attributes:
        data: The bytes.
        pos: Next byte to read, from the start of ``data``.
        end: First byte that must not be read.
        order: Byte order of numbers.
        path: File named in errors.
        origin: Place in the file of byte 0 of ``data``; None: the bytes were decompressed.
    """

    def __init__(
        self,
        data: memoryview,
        path: str,
        *,
        pos: int = 0,
        end: int | None = None,
        order: ByteOrder = "little",
        origin: int | None = 0,
    ) -> None:
        """Start at ``pos``; ``end`` None: the end of ``data``."""
        self.data = data
        self.path = path
        self.pos = pos
        self.end = len(data) if end is None else end
        self.order = order
        self.origin = origin

    @property
    def offset(self) -> int | None:
        """Place in the file of the next byte; None: in decompressed bytes."""
        return None if self.origin is None else self.origin + self.pos

    @property
    def remaining(self) -> int:
        """Bytes that are left."""
        return max(self.end - self.pos, 0)

    def at(self, pos: int) -> Cursor:
        """Another cursor over the same bytes, at byte ``pos``; ``pos`` may lie behind the end."""
        return Cursor(self.data, self.path, pos=pos, end=self.end, order=self.order, origin=self.origin)

    def take(self, size: int, what: str) -> memoryview:
        """The next ``size`` bytes, which are ``what``.

        Raises:
            TruncatedError: The file ends before them.
            CorruptError: The section ends before them.
        """
        if size > self.remaining:
            raise self.short(what, expected=f"{size} bytes")
        self.pos += size
        return self.data[self.pos - size : self.pos]

    def short(self, what: str, *, expected: str) -> CaptureError:
        """The error for bytes that are not there: the file's end, or that of a section in it."""
        found = f"{self.remaining} bytes"
        if self.origin is not None and self.end == len(self.data):
            return TruncatedError(
                f"the file ends inside {what}",
                path=self.path,
                offset=self.offset,
                expected=expected,
                found=found,
                hint=HINT_TRUNCATED,
            )
        return self.corrupt(f"a section ends inside {what}", expected=expected, found=found)

    def corrupt(self, what: str, *, expected: str, found: str) -> CorruptError:
        """The error for bytes that cannot be right, at the current place."""
        return CorruptError(
            what, path=self.path, offset=self.offset, expected=expected, found=found, hint=HINT_CORRUPT
        )

    def unsigned(self, size: int, what: str) -> int:
        """The next ``size`` bytes as an unsigned number."""
        return int.from_bytes(self.take(size, what), self.order)

    def u16(self, what: str) -> int:
        """The next two bytes as an unsigned number."""
        return self.unsigned(2, what)

    def u32(self, what: str) -> int:
        """The next four bytes as an unsigned number."""
        return self.unsigned(4, what)

    def u64(self, what: str) -> int:
        """The next eight bytes as an unsigned number."""
        return self.unsigned(8, what)

    def string(self, what: str, limit: int = 4096) -> str:
        """The next NUL-ended string, without its NUL; at most ``limit`` bytes."""
        window = bytes(self.data[self.pos : min(self.pos + limit, self.end)])
        length = window.find(b"\0")
        if length < 0:
            if self.remaining < limit:
                raise self.short(what, expected="a string that ends with NUL")
            raise self.corrupt(f"{what} does not end", expected="NUL", found=f"{limit} bytes without one")
        self.pos += length + 1
        return window[:length].decode("utf-8", "backslashreplace")

    def expect(self, tag: bytes, what: str) -> None:
        """Read ``tag``.

        Raises:
            CorruptError: Something else is there.
        """
        start = self.pos
        found = bytes(self.take(len(tag), what))
        if found != tag:
            self.pos = start
            raise self.corrupt(f"no {what} where it should be", expected=repr(tag), found=repr(found))
