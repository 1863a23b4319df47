"""BTF, the kernel's own type information: parameters of functions, offsets and sizes of fields.

What ``record`` needs where the kernel's tracefs does not take arguments by name. The format is that of
Documentation/bpf/btf.rst, the file /sys/kernel/btf/vmlinux or what ``pahole --btf_encode_detached`` makes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schemas.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC: Final = 0xEB9F
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _TYPEDEF = 1, 2, 3, 4, 5, 6, 8
_VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO, _TYPE_TAG, _ENUM64 = 9, 10, 11, 12, 13, 18, 19
_MODIFIERS: Final = {_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG}
_EXTRA: Final = {_INT: 4, _ARRAY: 12, 14: 4, 17: 4}
"""Kinds followed by a fixed number of bytes. 14: BTF_KIND_VAR, 17: BTF_KIND_DECL_TAG."""
_PER_MEMBER: Final = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, 15: 12, _ENUM64: 12}
"""Kinds followed by so many bytes a member. 15: BTF_KIND_DATASEC."""
_SIGNED, _BOOL = 1, 4


@dataclass(frozen=True)
class Field:
    """A field of a struct, or a parameter.

    Attributes:
        offset: Bytes from the start of the outermost struct; 0 for a parameter.
        type_id: Its type.
    """

    offset: int
    type_id: int


@dataclass(frozen=True)
class _Type:
    name: str
    kind: int
    bitfields: bool
    size: int
    """Bytes, or the type that this one refers to: the format keeps both in one place."""
    body: int
    members: int


class Btf:
    """The types of one kernel."""

    def __init__(self, data: bytes, path: Path) -> None:
        """Index the types of ``data``, the content of ``path``.

        Raises:
            UsageError: It is not BTF, or it is cut off.
        """
        self._data = data
        self._types = [_Type("void", 0, False, 0, 0, 0)]
        self._functions: dict[str, int] = {}
        try:
            self._index()
        except (struct.error, IndexError, ValueError) as error:
            raise UsageError(
                "not the type information of a kernel (BTF)",
                where=str(path),
                hint="take /sys/kernel/btf/vmlinux of the kernel to be traced",
            ) from error

    def _index(self) -> None:
        order = "<" if self._data[:2] == b"\x9f\xeb" else ">"
        self._order = order
        magic, _version, _flags, header = struct.unpack_from(f"{order}HBBI", self._data)
        if magic != _MAGIC:
            raise ValueError
        types, types_bytes, strings, strings_bytes = struct.unpack_from(f"{order}4I", self._data, 8)
        at, end = header + types, header + types + types_bytes
        self._strings = self._data[header + strings : header + strings + strings_bytes]
        if len(self._strings) != strings_bytes:
            raise ValueError
        entry = struct.Struct(f"{order}3I")
        while at < end:
            name, info, size = entry.unpack_from(self._data, at)
            kind, members = info >> 24 & 0x1F, info & 0xFFFF
            body = at + entry.size
            if kind == _FUNC:
                self._functions[self._text(name)] = len(self._types)
            self._types.append(_Type(self._text(name), kind, bool(info >> 31), size, body, members))
            fixed, each = _EXTRA.get(kind, 0), _PER_MEMBER.get(kind, 0)
            at = body + fixed + each * members

    def has_function(self, name: str) -> bool:
        """Whether the kernel has the function, as one that can be called (not inlined everywhere)."""
        return name in self._functions

    def parameter(self, function: str, name: str) -> tuple[int, int] | None:
        """Place (from 1) and type of a parameter; None: there is no such function or parameter."""
        found = self._functions.get(function)
        if found is None:
            return None
        prototype = self._types[self._types[found].size]
        for place in range(prototype.members):
            own, type_id = struct.unpack_from(f"{self._order}2I", self._data, prototype.body + 8 * place)
            if self._text(own) == name:
                return place + 1, type_id
        return None

    def pointed_to(self, type_id: int) -> int | None:
        """What a pointer points to; None: the type is no pointer."""
        found = self._plain(type_id)
        return found.size if found.kind == _PTR else None

    def field(self, type_id: int, name: str) -> Field | None:
        """A field of a struct or union, also one inside its unnamed ones; None: there is none."""
        found = self._plain(type_id)
        if found.kind not in (_STRUCT, _UNION):
            return None
        for place in range(found.members):
            own, of, bits = struct.unpack_from(f"{self._order}3I", self._data, found.body + 12 * place)
            offset = (bits & 0xFFFFFF if found.bitfields else bits) // 8
            if self._text(own) == name:
                return Field(offset, of)
            inner = self.field(of, name) if own == 0 else None
            if inner is not None:
                return Field(offset + inner.offset, inner.type_id)
        return None

    def fetch_type(self, type_id: int) -> str | None:
        """The type as a definition in dynamic_events names it (``x64``, ``s32``); None: not a plain value."""
        found = self._plain(type_id)
        if found.kind == _PTR:
            return "x64"
        if found.kind in (_ENUM, _ENUM64):
            return f"u{8 * found.size}"
        if found.kind != _INT:
            return None
        (encoding,) = struct.unpack_from(f"{self._order}I", self._data, found.body)
        signed = encoding >> 24 & _SIGNED and not encoding >> 24 & _BOOL
        return f"{'s' if signed else 'u'}{8 * found.size}"

    def _plain(self, type_id: int) -> _Type:
        """The type without typedef, const and the like."""
        found = self._types[type_id]
        while found.kind in _MODIFIERS:
            found = self._types[found.size]
        return found

    def _text(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode("ascii", "replace")
