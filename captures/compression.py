"""Decompression of untrusted frames: the size of the result is known, checked and bounded beforehand."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

import zstandard

from captures.cursor import HINT_CORRUPT
from schemas.errors import CorruptError, UnknownFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from captures.cursor import Cursor


class Codec(Protocol):
    """One compression of trace.dat."""

    def __call__(self, frame: memoryview, size: int) -> bytes:
        """Decompress ``frame`` to exactly ``size`` bytes, or raise ValueError."""
        ...


def zlib_frame(frame: memoryview, size: int) -> bytes:
    """Decompress one zlib stream to exactly ``size`` bytes."""
    stream = zlib.decompressobj()
    try:
        result = stream.decompress(frame, size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    return _exactly(result, size)


def zstd_frame(frame: memoryview, size: int) -> bytes:
    """Decompress one zstd frame to exactly ``size`` bytes.

    The frame's own content size is checked first, because the library allocates that much.
    """
    try:
        announced = zstandard.get_frame_parameters(frame).content_size
        if announced not in (size, zstandard.CONTENTSIZE_UNKNOWN):
            raise ValueError(f"a frame of {announced} bytes")
        result = zstandard.ZstdDecompressor().decompress(frame, max_output_size=size)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    return _exactly(result, size)


def codec(name: str, path: str, offset: int) -> Codec | None:
    """The codec that a trace.dat v7 names; None for ``none``.

    Raises:
        UnknownFormatError: For a compression that is not known.
    """
    known: dict[str, Codec | None] = {"none": None, "zlib": zlib_frame, "zstd": zstd_frame}
    if name not in known:
        raise UnknownFormatError(
            f"the compression {name!r} is not known",
            path=path,
            offset=offset,
            expected="none, zlib or zstd",
            found=repr(name),
            hint="convert the file: trace-cmd convert --compression zstd -i IN -o OUT",
        )
    return known[name]


def decompress(cursor: Cursor, decode: Codec, limit: int, what: str) -> bytes:
    """Read u32 compressed size, u32 size and one frame; return what the frame holds.

    Raises:
        CorruptError: The frame is damaged, does not give the announced size, or that exceeds ``limit``.
        TruncatedError: The file ends inside the frame.
    """
    start = cursor.pos
    packed = cursor.u32(f"the compressed size of {what}")
    size = cursor.u32(f"the size of {what}")
    if size > limit:
        cursor.pos = start
        raise cursor.corrupt(f"{what} is too large", expected=f"at most {limit} bytes", found=f"{size} bytes")
    frame = cursor.take(packed, what)
    try:
        return decode(frame, size)
    except ValueError as error:
        raise CorruptError(
            f"{what} cannot be decompressed",
            path=cursor.path,
            offset=None if cursor.origin is None else cursor.origin + start,
            expected=f"{packed} compressed bytes that give {size}",
            found=str(error),
            hint=HINT_CORRUPT,
        ) from error


def chunks(cursor: Cursor, decode: Codec, limit: int, what: str) -> Iterator[bytes]:
    """The chunks of one CPU's compressed data, in order: u32 count, then frames with their sizes."""
    count = cursor.u32(f"the number of chunks of {what}")
    for _ in range(count):
        yield decompress(cursor, decode, limit, what)


def _exactly(result: bytes, size: int) -> bytes:
    if len(result) != size:
        more = "more than " if len(result) > size else ""
        raise ValueError(f"{more}{min(len(result), size)} bytes")
    return result
