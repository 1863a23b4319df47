"""What the tools print before the first event: number of events and CPUs, and the machine."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from captures.text.heads import Dialect, first_lines

_ENTRIES: Final = re.compile(
    r"^# entries-in-buffer/entries-written: *([0-9]{1,18})/([0-9]{1,18}) +#P:([0-9]{1,5})", re.MULTILINE
)
_CPUS: Final = re.compile(r"^cpus=([0-9]{1,5})\s*$", re.MULTILINE)
_PERF: Final = re.compile(
    r"^# (hostname|os release|arch|perf version|nrcpus online) : (.{1,200}?)\s*$", re.MULTILINE
)


@dataclass(frozen=True)
class Preamble:
    """What stands before the first event; None: it does not.

    Attributes:
        origin: Which program printed the text.
        cpus: CPUs of the machine.
        entries: Events that were in the buffer when it was printed.
        written: Events that were ever written to it; more than ``entries``: the rest was overwritten.
        kernel_release: ``uname -r``.
        arch: ``uname -m``.
        hostname: ``uname -n``.
        tool: Program and version that recorded the events.
    """

    origin: str | None = None
    cpus: int | None = None
    entries: int | None = None
    written: int | None = None
    kernel_release: str | None = None
    arch: str | None = None
    hostname: str | None = None
    tool: str | None = None

    @classmethod
    def of(cls, data: memoryview, dialect: Dialect) -> Preamble:
        """Read it: a few lines, or hundreds from ``perf script --header``."""
        lines = first_lines(data)
        events = lines.str.contains(dialect.head).arg_true()
        head = "\n".join(lines.head(events[0]) if len(events) else lines)
        entries, cpus = _ENTRIES.search(head), _CPUS.search(head)
        if entries is not None:
            in_buffer, written, number = map(int, entries.groups())
            return cls("tracefs text", number, in_buffer, written)
        if cpus is not None:
            return cls("trace-cmd report text", int(cpus[1]))
        facts = dict(_PERF.findall(head))
        online = facts.get("nrcpus online", "")
        return cls(
            cpus=int(online) if online.isdecimal() and len(online) < 6 else None,
            kernel_release=facts.get("os release"),
            arch=facts.get("arch"),
            hostname=facts.get("hostname"),
            tool=f"perf {facts['perf version']}" if "perf version" in facts else None,
        )
