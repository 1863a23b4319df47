"""Protocol buffers on the wire: the few field kinds that Perfetto's TrackEvent needs.

Encoding: https://protobuf.dev/programming-guides/encoding/ (varints, length-delimited fields).
"""

from __future__ import annotations


def varint(value: int) -> bytes:
    """An unsigned number, seven bits a byte, low bits first; negative ones as 64-bit two's complement."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """A varint field: integers, enums, booleans."""
    return varint(field << 3) + varint(value)


def message(field: int, *parts: bytes) -> bytes:
    """A length-delimited field: a message from its fields."""
    content = b"".join(parts)
    return varint(field << 3 | 2) + varint(len(content)) + content


def text(field: int, value: str) -> bytes:
    """A string field."""
    return message(field, value.encode("utf-8", "backslashreplace"))
