"""From the first bytes of a trace.dat to its container, by its version; reads no events."""

from __future__ import annotations

from captures.cursor import Cursor
from captures.tracedat import constants as c
from captures.tracedat import v6, v7
from captures.tracedat.container import Container, check_page_bytes
from schemas.errors import UnknownFormatError


def read_container(data: memoryview, path: str) -> Container:
    """Read everything but the events.

    Raises:
        UnknownFormatError: A version or compression that is not known.
        TruncatedError, CorruptError: The file ends inside its tables, or contradicts itself.
    """
    start = Cursor(data, path)
    start.expect(c.MAGIC, "magic number")
    version_at = start.pos
    version = start.string("the version", 16)
    if version not in ("6", "7"):
        raise UnknownFormatError(
            f"trace.dat version {version} is not known",
            path=path,
            offset=version_at,
            expected="version 6 or 7",
            found=repr(version),
            hint="convert it: trace-cmd convert --file-version 7 -i IN -o OUT",
        )
    endian = start.unsigned(1, "the byte order")
    if endian > 1:
        start.pos -= 1
        raise start.corrupt(
            "the byte order is not known", expected="0 (little) or 1 (big)", found=str(endian)
        )
    start.order = "big" if endian else "little"
    long_bytes = start.unsigned(1, "the size of a long")
    if long_bytes not in (4, 8):
        start.pos -= 1
        raise start.corrupt("the size of a long is wrong", expected="4 or 8", found=str(long_bytes))
    page_at = start.pos
    page_bytes = start.u32("the page size")
    check_page_bytes(start.at(page_at), page_bytes)
    container = Container(int(version), path, data, start.order, long_bytes, page_bytes)
    if version == "6":
        v6.read(container, start)
    else:
        v7.read(container, start)
    return container
