"""Event formats: the ``format`` text that a capture carries for each event -> fields with place and type.

Everything comes from the text, the common fields too: RT and vendor kernels have more of them. Nothing
here depends on a kernel version.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final

from captures.cursor import HINT_CORRUPT
from schemas.errors import CorruptError, MissingEventsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_FIELD: Final = re.compile(
    rb"^\tfield:([^;]{1,256});\s*offset:(\d{1,7});\s*size:(\d{1,7});(?:\s*signed:(\d))?",
    re.MULTILINE,
)
_DECL: Final = re.compile(r"^(?P<type>.*?)\s*(?P<name>\w+)\s*(?:\[(?P<length>[^\]]*)\])?\s*$", re.DOTALL)
_HEAD: Final = re.compile(rb"name:\s*(?P<name>[^\s]+)\s*\nID:\s*(?P<id>\d{1,9})\s*\n")

MAX_ID: Final = (1 << 16) - 1
"""``common_type`` has 16 bits."""

MAX_FIELDS: Final = 512
"""Most fields of one event; real ones have at most about 40."""


@dataclass(frozen=True)
class Field:
    """One field of an event.

    Attributes:
        name: Name of the field.
        type: C type without the name, such as ``unsigned long`` or ``__data_loc char[]``.
        offset: Bytes from the start of the record's payload.
        size: Bytes; 0: runs to the end of the record.
        signed: Whether a number is signed.
        length: What stands in the ``[...]`` behind the name; None: not an array.
        element_bytes: Of an array of numbers that runs to the end of the record, bytes of each; 1: of bytes.
    """

    name: str
    type: str
    offset: int
    size: int
    signed: bool
    length: str | None
    element_bytes: int = 1

    @property
    def is_dynamic(self) -> bool:
        """Whether the field is a u32 that says where the value is: its place (low 16 bits) and length."""
        return self.type.startswith(("__data_loc", "__rel_loc")) and self.size == 4

    @property
    def is_relative(self) -> bool:
        """Whether a dynamic field's place counts from the end of its u32, not from the payload."""
        return self.type.startswith("__rel_loc")

    @property
    def is_tail(self) -> bool:
        """Whether the value runs to the end of the record, such as ``char buf[]`` of ``print``."""
        return self.length is not None and self.size == 0

    @property
    def element(self) -> str:
        """C type of one element: the type without ``__data_loc``, ``const`` and ``[]``."""
        return _element(self.type)

    @property
    def is_string(self) -> bool:
        """Whether the value is text: a ``char`` array of any kind."""
        return self.element == "char" and (self.length is not None or self.is_dynamic)


# Most fields are declared in many events, the common ones in all.
@lru_cache(maxsize=4096)
def _declaration(text: bytes) -> tuple[str, str, str | None] | None:
    """Name, C type and what stands in ``[...]``; None: it is no declaration."""
    found = _DECL.match(text.decode("utf-8", "backslashreplace"))
    return None if found is None else (found["name"], found["type"], found["length"])


@lru_cache(maxsize=4096)
def _element(type_: str) -> str:
    """``Field.element`` of a C type."""
    return re.sub(r"__data_loc|__rel_loc|const|\[\]", "", type_).strip()


@dataclass(frozen=True)
class EventFormat:
    """The format of one event.

    Attributes:
        system: Such as ``syscalls``.
        name: Such as ``sys_enter_mmap``.
        id: The value of ``common_type`` in its records, in this capture.
        text: The ``format`` text itself.
        path: File named in errors.
    """

    system: str
    name: str
    id: int
    text: bytes
    path: str

    @cached_property
    def all_fields(self) -> tuple[Field, ...]:
        """Every field, the common ones first.

        Raises:
            CorruptError: A declaration without a name, or too many fields.
        """
        body = self.text.split(b"\nprint fmt:", 1)[0]
        matches = list(_FIELD.finditer(body))
        if len(matches) > MAX_FIELDS:
            raise self._corrupt(f"at most {MAX_FIELDS} fields", f"{len(matches)} fields")
        fields = [self._field(match) for match in matches]
        # An array at the end of an ftrace event is as long as its record: kernel_stack says caller[8] and
        # holds as many entries as the stack is deep.
        if self.system in ("ftrace", "perf") and fields and fields[-1].length is not None:
            count = int(fields[-1].length) if re.fullmatch(r"[1-9]\d{0,3}", fields[-1].length) else 0
            each = fields[-1].size // count if count and fields[-1].size % count == 0 else 1
            fields[-1] = replace(fields[-1], size=0, element_bytes=each if each in (2, 4, 8) else 1)
        return tuple(fields)

    @cached_property
    def common(self) -> Mapping[str, Field]:
        """The ``common_*`` fields by name."""
        return {f.name: f for f in self.all_fields if f.name.startswith("common_")}

    @cached_property
    def fields(self) -> Mapping[str, Field]:
        """The event's own fields by name, in the order of the text.

        Raises:
            CorruptError: Two fields have one name.
        """
        own = [f for f in self.all_fields if not f.name.startswith("common_")]
        by_name = {f.name: f for f in own}
        if len(by_name) != len(own):
            raise self._corrupt("fields with different names", "one name twice")
        return by_name

    def _field(self, match: re.Match[bytes]) -> Field:
        declared, offset, size, signed = match.groups()
        decl = _declaration(declared)
        if decl is None:
            raise self._corrupt("a C declaration", repr(declared.decode("utf-8", "backslashreplace")))
        name, type_, length = decl
        return Field(name, type_, int(offset), int(size), signed == b"1", length)

    def _corrupt(self, expected: str, found: str) -> CorruptError:
        return CorruptError(
            f"the format of {self.system}:{self.name} cannot be read",
            path=self.path,
            expected=expected,
            found=found,
            hint=HINT_CORRUPT,
        )


def parse_formats(texts: Iterable[tuple[str, bytes]], path: str) -> dict[str, EventFormat]:
    """All formats of a capture by ``system:name``; the fields are parsed when they are asked for.

    Args:
        texts: (system, format text) of each event.
        path: File named in errors.

    Raises:
        CorruptError: A text without name and ID, an ID too large, or two events with one ID or one name.
    """
    formats: dict[str, EventFormat] = {}
    by_id: dict[int, str] = {}
    for system, text in texts:
        head = _HEAD.match(text)
        if head is None:
            raise _formats_corrupt(path, "name: and ID: lines", repr(text[:40]))
        name = f"{system}:{head['name'].decode('utf-8', 'backslashreplace')}"
        number = int(head["id"])
        if number > MAX_ID:
            raise _formats_corrupt(path, f"IDs up to {MAX_ID}", f"{number} of {name}")
        if name in formats and formats[name].id == number:
            continue
        if name in formats:
            raise _formats_corrupt(path, "one format for each event", f"two of {name}")
        if number in by_id:
            raise _formats_corrupt(path, "one event for each ID", f"{number} is {by_id[number]} and {name}")
        by_id[number] = name
        formats[name] = EventFormat(system, name.partition(":")[2], number, text, path)
    return formats


def find_formats(
    formats: Mapping[str, EventFormat], names: list[str], path: str, record: str
) -> list[EventFormat]:
    """The formats of the events that are asked for.

    Args:
        formats: All formats of the capture by ``system:name``.
        names: The events.
        path: File named in errors.
        record: Command that records an event.

    Raises:
        MissingEventsError: The capture does not know one of the names.
    """
    missing = [name for name in names if name not in formats]
    if missing:
        import difflib

        close = difflib.get_close_matches(missing[0], formats, n=3)
        raise MissingEventsError(
            f"the capture has no event {', '.join(missing)}",
            path=path,
            expected=missing[0],
            found=f"similar: {', '.join(close)}" if close else f"{len(formats)} other events",
            hint=f"record it: {record}; `replay inspect` lists what is there",
        )
    return [formats[name] for name in names]


def _formats_corrupt(path: str, expected: str, found: str) -> CorruptError:
    return CorruptError(
        "the event formats cannot be read", path=path, expected=expected, found=found, hint=HINT_CORRUPT
    )
