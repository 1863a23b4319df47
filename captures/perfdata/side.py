"""The records of a perf.data that are no samples, as events of the system ``perf`` with formats of their own.

So they are decoded, ordered and named as all other events are. Layouts: include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from captures.eventfmt import EventFormat
from captures.perfdata import constants as c

if TYPE_CHECKING:
    from captures.ringbuf import Flags, Longs

USER_STACK: Final = 1 << 32
"""In place of PERF_RECORD_*, which has 32 bits: the user's part of a sample's call chain."""

FIRST_ID: Final = 1 << 16
"""Ids of these events begin here: those of tracepoints have 16 bits."""


@dataclass(frozen=True)
class SideEvent:
    """One kind of record.

    Attributes:
        name: Name of the event; its system is ``perf``.
        type: PERF_RECORD_*.
        fields: C declaration, byte and size of each field; ``common_pid`` is the thread that was running.
        misc: Bit of the flags that the record has, and that records of the event before it in ``SIDE_EVENTS``
            lack; 0: any.
        is_told: Whether users see the event; else it only serves ``quality``.
        from_begin: Whether perf writes such records for what was there before it began, with time 0; of an
            event without this they are left out.
    """

    name: str
    type: int
    fields: tuple[tuple[str, int, int], ...]
    misc: int = 0
    is_told: bool = True
    from_begin: bool = False

    def format(self, number: int, path: str) -> EventFormat:
        """Its format; ``number``: its id."""
        lines = [
            f"\tfield:{text};\toffset:{at};\tsize:{size};\tsigned:0;\n" for text, at, size in self.fields
        ]
        text = f"name: {self.name}\nID: {number}\nformat:\n{''.join(lines)}"
        return EventFormat("perf", self.name, number, text.encode(), path)


_TASK: Final = (("u32 tgid", 8, 4), ("int common_pid", 12, 4))
_COMM: Final = (*_TASK, ("char comm[]", 16, 0))
_MAP: Final = (*_TASK, ("u64 addr", 16, 8), ("u64 len", 24, 8), ("u64 pgoff", 32, 8))
_MAP2: Final = (
    *_MAP,
    ("u32 maj", 40, 4),
    ("u32 min", 44, 4),
    ("u64 ino", 48, 8),
    ("u64 ino_generation", 56, 8),
    ("u32 prot", 64, 4),
    ("u32 flags", 68, 4),
    ("char filename[]", 72, 0),
)
_FORK: Final = (
    ("u32 child_tgid", 8, 4),
    ("u32 parent_tgid", 12, 4),
    ("u32 child_pid", 16, 4),
    ("int common_pid", 20, 4),
)
_EXIT: Final = (("u32 tgid", 8, 4), ("int common_pid", 16, 4))

SIDE_EVENTS: Final = (
    SideEvent("comm", c.COMM, _COMM, from_begin=True),
    SideEvent("exec", c.COMM, _COMM, misc=c.MISC_COMM_EXEC),
    SideEvent("fork", c.FORK, _FORK),
    SideEvent("exit", c.EXIT, _EXIT),
    SideEvent("mmap", c.MMAP, (*_MAP, ("char filename[]", 40, 0)), from_begin=True),
    SideEvent("mmap2", c.MMAP2, _MAP2, from_begin=True),
    SideEvent("lost", c.LOST, (("int common_pid", 0, 4), ("u64 lost", 16, 8)), is_told=False),
    SideEvent(
        "lost_samples",
        c.LOST_SAMPLES,
        (("int common_pid", 0, 4), ("u64 lost", 8, 8)),
        is_told=False,
        from_begin=True,
    ),
    SideEvent(
        "lost_to_filter",
        c.LOST_SAMPLES,
        (("int common_pid", 0, 4), ("u64 lost", 8, 8)),
        misc=c.MISC_LOST_SAMPLES_BPF,
        is_told=False,
        from_begin=True,
    ),
    SideEvent("throttle", c.THROTTLE, (("int common_pid", 0, 4),), is_told=False),
    SideEvent("user_stack", USER_STACK, (("int common_pid", 0, 4), ("u64 caller[1]", 8, 8))),
)

IDS: Final = {each.name: FIRST_ID + number for number, each in enumerate(SIDE_EVENTS)}
"""Id of each event by its name without ``perf:``."""

_ALWAYS_KEPT: Final = np.array([each.from_begin for each in SIDE_EVENTS])


def side_formats(path: str) -> dict[str, EventFormat]:
    """Formats of all events by ``perf:name``; ``path``: file named in errors."""
    return {f"perf:{each.name}": each.format(IDS[each.name], path) for each in SIDE_EVENTS}


def side_ids(type_: np.ndarray[Any, Any], misc: np.ndarray[Any, Any]) -> Longs:
    """Id of the event of each record; -1: the record is of another type."""
    ids = np.full(len(type_), -1, dtype=np.int64)
    for each in SIDE_EVENTS:
        ids[(type_ == each.type) & (misc & each.misc == each.misc)] = IDS[each.name]
    return ids


def happened(ids: Longs, ts_ns: Longs) -> Flags:
    """Whether each record tells of something that happened, not of what perf found when it began."""
    kept: Flags = (ts_ns != 0) | _ALWAYS_KEPT[ids - FIRST_ID]
    return kept
