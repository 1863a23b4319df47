"""Makes a small fixture of a kernel's BTF: the functions that probes are on, and the structs on their paths.

    python tests/trim_btf.py /sys/kernel/btf/vmlinux OUT FUNCTION...

Parameters, sizes and offsets stay as the kernel has them; a struct that no path enters keeps its name and
size and loses its members, a pointer to one points to void.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

STRUCTS = {
    "anon_vma",
    "anon_vma_chain",
    "atomic_t",
    "folio",
    "ksm_rmap_item",
    "ksm_stable_node",
    "rmap_walk_control",
    "vm_area_struct",
}
INT, PTR, STRUCT, UNION, TYPEDEF, FUNC, FUNC_PROTO = 1, 2, 4, 5, 8, 12, 13
FIXED = {INT: 4, 3: 12, 14: 4, 17: 4}
MEMBER = {STRUCT: 12, UNION: 12, 6: 8, FUNC_PROTO: 8, 15: 12, 19: 12}


class Kernel:
    """The types of a whole kernel, by number: (name, info, size or type, body)."""

    def __init__(self, data: bytes) -> None:
        header, type_at, type_bytes, string_at, _ = struct.unpack_from("<5I", data, 4)
        strings = data[header + string_at :]
        self.types: list[tuple[bytes, int, int, bytes]] = [(b"", 0, 0, b"")]
        at = header + type_at
        while at < header + type_at + type_bytes:
            name, info, size = struct.unpack_from("<3I", data, at)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            body = FIXED.get(kind, 0) + MEMBER.get(kind, 0) * count
            self.types.append((_text(strings, name), info, size, data[at + 12 : at + 12 + body]))
            at += 12 + body
        self.strings = strings


class Trimmed:
    """The types that are kept, numbered anew."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.numbers: dict[int, int] = {0: 0}
        self.types: list[bytes] = []
        self.strings = b"\0"

    def string(self, text: bytes) -> int:
        at = self.strings.find(b"\0" + text + b"\0")
        if text and at < 0:
            at = len(self.strings) - 1
            self.strings += text + b"\0"
        return at + 1 if text else 0

    def keep(self, number: int) -> int:
        """The new number of a type."""
        if number in self.numbers:
            return self.numbers[number]
        self.types.append(b"")
        new = self.numbers[number] = len(self.types)
        name, info, size, body = self.kernel.types[number]
        kind = info >> 24 & 0x1F
        if kind in (STRUCT, UNION):
            if name and name not in {each.encode() for each in STRUCTS}:
                info, body = info & ~0xFFFF, b""
            else:
                body = b"".join(
                    struct.pack("<3I", self.string(self.name(own)), self.keep(of), bits)
                    for own, of, bits in struct.iter_unpack("<3I", body)
                )
        elif kind == FUNC_PROTO:
            size = 0
            body = b"".join(
                struct.pack("<2I", self.string(self.name(own)), self.keep(of))
                for own, of in struct.iter_unpack("<2I", body)
            )
        elif kind == PTR:
            size = self.keep(size) if self.enters(size) else 0
        elif kind == 3:
            of, index, length = struct.unpack("<3I", body)
            body = struct.pack("<3I", self.keep(of), self.keep(index), length)
        elif kind == 6 or kind == 19:
            info, body = info & ~0xFFFF, b""
        elif kind not in (INT, 7):
            size = self.keep(size)
        self.types[new - 1] = struct.pack("<3I", self.string(name), info, size) + body
        return new

    def enters(self, number: int) -> bool:
        """Whether a path may go through the type."""
        name, info, size, _ = self.kernel.types[number]
        if info >> 24 & 0x1F in (TYPEDEF, 9, 10, 11):
            return self.enters(size)
        return name.decode() in STRUCTS

    def name(self, offset: int) -> bytes:
        return _text(self.kernel.strings, offset)

    def bytes(self) -> bytes:
        types = b"".join(self.types)
        return (
            struct.pack("<HBB5I", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(self.strings))
            + types
            + self.strings
        )


def _text(strings: bytes, offset: int) -> bytes:
    return strings[offset : strings.index(b"\0", offset)]


if __name__ == "__main__":
    kernel = Kernel(Path(sys.argv[1]).read_bytes())
    trimmed = Trimmed(kernel)
    wanted = {each.encode() for each in sys.argv[3:]}
    for number, (name, info, _, _) in enumerate(kernel.types):
        if info >> 24 & 0x1F == FUNC and name in wanted:
            trimmed.keep(number)
    Path(sys.argv[2]).write_bytes(trimmed.bytes())
