"""Source: a capture as random-access bytes, unpacked first when it is an .xz, .gz or .zst file."""

from __future__ import annotations

import hashlib
import mmap
import sys
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final
from weakref import WeakSet

from schemas.errors import CaptureError, CorruptError, TruncatedError, UnknownFormatError

if TYPE_CHECKING:
    import os

PACKED: Final = {b"\xfd7zXZ\0": "xz", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of the packed files that are read as what is in them."""

STDIN: Final = "-"
"""The name of standard input, which is copied to a temporary file first."""

MAX_UNPACKED_BYTES: Final = 1 << 34
"""Most bytes that a packed file, or standard input, may give (16 GiB)."""

MAX_RATIO: Final = 1 << 9
"""Most bytes that a packed byte may give, beyond the first FREE_BYTES; captures give 5 to 50."""

FREE_BYTES: Final = 1 << 28
"""Bytes that any packed file may give (256 MiB)."""

_PIECE_BYTES: Final = 1 << 12
"""Packed bytes unpacked at once: small, so that the result of one piece stays small whatever is in it."""

_SPOOL_BYTES: Final = 1 << 20

_PIECE_OF_DIGEST_BYTES: Final = 1 << 18

_XZ_MEMORY_BYTES: Final = 1 << 28


_mapped_sources: WeakSet[Source] = WeakSet()


def mapped_sources() -> list[Source]:
    """Sources that are open and whose bytes are those of a file that others may change."""
    return list(_mapped_sources)


class Source:
    """The bytes of one capture file, or of standard input.

    Attributes:
        path: The file as it was named; ``-``: standard input.
        size_bytes: Size of the file itself (packed, if it is packed).
        packing: ``xz``, ``gzip``, ``zstd``; None: the file is the capture itself.
        damage: Why the capture ends early, as the packed file does; None: it does not.
        data: The capture's bytes, read-only; empty for an empty file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Map the file.

        Raises:
            UnknownFormatError: It is not a regular file.
            CaptureError: It cannot be opened, or not be unpacked.
        """
        self.path = str(path)
        self.damage: str | None = None
        self._digest: str | None = None
        with _open(self.path) if self.path != STDIN else _temporary() as file:
            if self.path == STDIN:
                self._digest = _spool(file)
            self.size_bytes = file.seek(0, 2)
            file.seek(0)
            head = file.read(8)
            self.packing = next((name for magic, name in PACKED.items() if head.startswith(magic)), None)
            if self.packing is None:
                self.data = _mapped(file)
                _mapped_sources.add(self)
            else:
                file.seek(0)
                with _temporary() as unpacked:
                    self.damage = _unpack(self.path, file, self.packing, unpacked)
                    self.data = _mapped(unpacked)

    @property
    def shown_path(self) -> str:
        """``path`` as text: bytes of the name that are not UTF-8 are escapes."""
        return self.path.encode("utf-8", "backslashreplace").decode()

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file (packed, if it is packed), in hexadecimal; without what it grew by since."""
        if self._digest is not None:
            return self._digest
        digest, left, piece = hashlib.sha256(), self.size_bytes, memoryview(bytearray(_PIECE_OF_DIGEST_BYTES))
        with Path(self.path).open("rb", buffering=0) as file:
            while size := file.readinto(piece[:left]):
                digest.update(piece[:size])
                left -= size
        return digest.hexdigest()

    def forget(self, start: int, stop: int) -> None:
        """Let the memory of some bytes go; they are read from the file again if they are used again."""
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        size = stop // mmap.PAGESIZE * mmap.PAGESIZE - first
        if size > 0 and isinstance(self.data.obj, mmap.mmap):
            self.data.obj.madvise(mmap.MADV_DONTNEED, first, size)

    def close(self) -> None:
        """Let go of the bytes. The map goes when nothing refers to them any more."""
        self.data = memoryview(b"")
        _mapped_sources.discard(self)


def _mapped(file: IO[bytes]) -> memoryview:
    """The whole file in memory; the map outlives the file."""
    size = file.seek(0, 2)
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b"")


def _temporary() -> IO[bytes]:
    """A file without a name. Most captures need none, and the module is slow to import."""
    import tempfile

    return tempfile.TemporaryFile()


def _spool(out: IO[bytes]) -> str:
    """Copy standard input to a file; return its SHA-256."""
    digest = hashlib.sha256()
    total = 0
    while piece := sys.stdin.buffer.read(_SPOOL_BYTES):
        total += len(piece)
        if total > MAX_UNPACKED_BYTES:
            raise CorruptError(
                "standard input gives too much",
                path=STDIN,
                expected=f"at most {MAX_UNPACKED_BYTES} bytes",
                found="more",
                hint="write it to a file and name the file",
            )
        digest.update(piece)
        _write(STDIN, out, piece)
    out.flush()
    return digest.hexdigest()


def _open(path: str) -> IO[bytes]:
    """Open a regular file; never wait for a pipe."""
    try:
        if (Path(path) / "data").is_file():
            threads = (Path(path) / "data.0").exists()
            raise UnknownFormatError(
                f"this is a directory of perf record {'--threads' if threads else '--kcore'}",
                path=path,
                expected="a capture file",
                found=f"a directory with the file{'s data.0 ...' if threads else ' data'}",
                hint="record without --threads" if threads else f"name its file: {Path(path) / 'data'}",
            )
        if Path(path).exists() and not Path(path).is_file():
            many = Path(path).is_dir()
            raise UnknownFormatError(
                "this is not a file",
                path=path,
                expected="a capture file",
                found="a directory" if many else "a device, pipe or socket",
                hint="name a file; for many captures use: replay batch DIRECTORY -o OUT"
                if many
                else "give it as standard input, with - as the name: replay analyze - < PIPE",
            )
        return Path(path).open("rb")
    except OSError as error:
        raise CaptureError(
            "the capture cannot be opened",
            path=path,
            found=error.strerror or str(error),
            hint="check the name and the permissions",
        ) from error


def _unpack(path: str, packed: IO[bytes], packing: str, out: IO[bytes]) -> str | None:
    """Write what ``packed`` holds to ``out``: one stream or several, one after the other.

    Returns:
        Why that is not everything; None: it is.
    """
    decoder = _decoder(packing)
    errors = _errors(packing)
    limit = unpacked_limit(packed.seek(0, 2))
    packed.seek(0)
    written = 0
    rest = b""
    while rest or (rest := packed.read(_PIECE_BYTES)):
        try:
            piece = decoder.decompress(rest)
        except errors as error:
            raise CorruptError(
                f"the {packing} file cannot be unpacked",
                path=path,
                expected=f"{packing} data",
                found=str(error),
                hint="copy the file again",
            ) from error
        written += len(piece)
        if written > limit:
            raise CorruptError(
                f"the {packing} file gives too much",
                path=path,
                expected=f"at most {limit} bytes",
                found="more",
                hint="unpack the file by hand, look at it, and name the unpacked file",
            )
        _write(path, out, piece)
        rest = decoder.unused_data.lstrip(b"\0") if decoder.eof else b""
        if rest:
            decoder = _decoder(packing)
    out.flush()
    if decoder.eof:
        return None
    if not written:
        raise TruncatedError(
            f"the {packing} file ends too early",
            path=path,
            expected="the end mark of the packed data",
            found=f"the end of the file, after {packed.tell()} bytes that give nothing",
            hint="copy the file again",
        )
    return f"the {packing} file has no end mark; its {packed.tell()} bytes give {written}"


def unpacked_limit(packed_bytes: int) -> int:
    """Most bytes that so many packed bytes may give."""
    return min(FREE_BYTES + MAX_RATIO * packed_bytes, MAX_UNPACKED_BYTES)


def _write(path: str, out: IO[bytes], piece: bytes) -> None:
    import tempfile

    try:
        out.write(piece)
    except OSError as error:
        raise CaptureError(
            "the capture cannot be written to a temporary file",
            path=path,
            found=f"{error.strerror or error} in {tempfile.gettempdir()}",
            hint="make room there, or set TMPDIR to a place with room",
        ) from error


def _decoder(packing: str) -> Any:
    """An object with ``decompress``, ``eof`` and ``unused_data`` for one stream."""
    if packing == "xz":
        import lzma

        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)
    if packing == "gzip":
        import zlib

        return zlib.decompressobj(wbits=31)
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


def _errors(packing: str) -> tuple[type[Exception], ...]:
    """What the decoder raises for bad data."""
    if packing == "xz":
        import lzma

        return ValueError, lzma.LZMAError
    if packing == "gzip":
        import zlib

        return ValueError, zlib.error
    import zstandard

    return ValueError, zstandard.ZstdError
