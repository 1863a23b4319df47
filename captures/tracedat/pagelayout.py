"""PageLayout: where time stamp, commit word and records are in a ring buffer page.

From the texts ``header_page`` and ``header_event`` that a capture carries: 32-bit and 64-bit kernels differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from captures.cursor import HINT_CORRUPT
from captures.tracedat import constants as c
from schemas.errors import CorruptError

if TYPE_CHECKING:
    from captures.cursor import ByteOrder

_FIELD: Final = re.compile(rb"\bfield:[^;]{1,64}?\s(\w+);\s*offset:(\d{1,9});\s*size:(\d{1,9});")
_BITS: Final = re.compile(rb"\b(type_len|time_delta)\s*:\s*(\d{1,3}) bits")


@dataclass(frozen=True)
class PageLayout:
    """Layout of a ring buffer page.

    Attributes:
        order: Byte order.
        commit_offset: Bytes from the start of the page to the commit word (a kernel long).
        commit_bytes: Size of the commit word: 4 or 8.
        data_offset: Bytes from the start of the page to the first record.
        page_bytes: Size of a page of the top buffer.
    """

    order: ByteOrder = "little"
    commit_offset: int = 8
    commit_bytes: int = 8
    data_offset: int = 16
    page_bytes: int = 4096

    @classmethod
    def parse(
        cls, header_page: bytes, header_event: bytes, order: ByteOrder, path: str, offset: int | None
    ) -> PageLayout:
        """Read both texts.

        Args:
            header_page: Text of events/header_page.
            header_event: Text of events/header_event.
            order: Byte order.
            path: File named in errors.
            offset: Place of ``header_page`` in the file, for errors.

        Raises:
            CorruptError: A field is missing or in an impossible place, or the bit widths are not 5 and 27.
        """
        fields = {name: (int(at), int(size)) for name, at, size in _FIELD.findall(header_page)}
        bits = dict(_BITS.findall(header_event))

        def corrupt(expected: str, found: str) -> CorruptError:
            return CorruptError(
                "the layout of ring buffer pages cannot be read",
                path=path,
                offset=offset,
                expected=expected,
                found=found,
                hint=HINT_CORRUPT,
            )

        for name in (b"timestamp", b"commit", b"data"):
            if name not in fields:
                raise corrupt(f"a field {name.decode()} in header_page", "none")
        if fields[b"timestamp"] != (0, 8):
            raise corrupt("timestamp at 0, 8 bytes", str(fields[b"timestamp"]))
        commit_offset, commit_bytes = fields[b"commit"]
        data_offset, data_bytes = fields[b"data"]
        if commit_offset != 8 or commit_bytes not in (4, 8) or data_offset != 8 + commit_bytes:
            raise corrupt(
                "commit at 8 and data behind it", f"commit at {commit_offset}, data at {data_offset}"
            )
        if data_offset + data_bytes > c.MAX_SUBBUF_BYTES:
            raise corrupt(f"a page of at most {c.MAX_SUBBUF_BYTES} bytes", f"{data_bytes} bytes of data")
        wanted = {b"type_len": b"%d" % c.TYPE_LEN_BITS, b"time_delta": b"%d" % c.TIME_DELTA_BITS}
        if bits != wanted:
            raise corrupt("header_event with type_len : 5 bits, time_delta : 27 bits", repr(bits))
        return cls(order, commit_offset, commit_bytes, data_offset, data_offset + data_bytes)
