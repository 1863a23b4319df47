r"""What stands before the event's own fields on a line of trace text, and what kind of text a file is.

::

    tracefs trace, trace_pipe      TASK-PID   (TGID) [CPU] FLAGS SECONDS.MICROS: event: fields
    trace-cmd report               INSTANCE: TASK-PID   [CPU] FLAGS SECONDS.FRACTION: (+DIFF) event:    fields
    trace-cmd report -R            TASK-PID   [CPU]-0xFLAGS SECONDS.FRACTION: event:    name=value ...
    perf script                    COMM PID/TID [CPU] SECONDS.FRACTION: PERIOD system:event: fields

INSTANCE, (TGID), FLAGS, (+DIFF), PID/ and PERIOD may be missing. TASK may hold spaces, dashes and colons, so
the head ends at the first place where everything up to the event's name fits. Sources:
``trace_print_context()`` in kernel/trace/trace_output.c, ``tep_print_event()`` of libtraceevent,
``perf_sample__fprintf_start()`` in tools/perf/builtin-script.c.

All patterns mean the same to Python's ``re`` and to the regex crate under polars.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schemas.errors import UnknownFormatError

if TYPE_CHECKING:
    from captures.source import Source

SNIFF_BYTES: Final = 1 << 20
"""How far into a file the first event is looked for (perf's own head has a line for each event)."""

_SNIFF_LINES: Final = 20_000


@dataclass(frozen=True)
class Dialect:
    """How the lines of one family of tools begin.

    Attributes:
        name: What the text is called in ``CaptureInfo.format``.
        head: Pattern of the head; groups: head, task, pid, cpu, seconds, fraction, key. ``key`` is the
            event's name with what ends it: ``:``, or for system calls of tracefs ``(`` (entry) and `` -> `` (exit).
        lost: Pattern of a line that tells of lost events; groups: cpu, count (may be missing).
        other: Pattern of a line that is known to be no event.
    """

    name: str
    head: str
    lost: str
    other: str


FTRACE: Final = Dialect(
    name="ftrace text",
    head=(
        r"^((?:[^ :#]{1,255}: +)? *(.{0,64}?)-([0-9]{1,8}) +(?:\([ 0-9-]{1,10}\) +)?"
        r"\[([0-9]{1,5})\](?:-0x[0-9a-f]{1,8})?(?: +[.A-Za-z#][^ ]{2,9})? *"
        r"([0-9]{1,18})(?:\.([0-9]{6}|[0-9]{9}))?:(?: *\([+-][0-9]{1,18}\))? +"
        r"([A-Za-z_][A-Za-z0-9_.]{0,127}(?::|\(| -> | <-)|<(?:user )?stack trace ?>))"
    ),
    lost=r"^CPU:([0-9]{1,5}) \[(?:LOST )?(?:([0-9]{1,18}) )?EVENTS(?: DROPPED)?\]",
    other=r"^(?:#|\s*$| *=> |cpus=|version = |\tfor |#+ CPU )",
)
PERF: Final = Dialect(
    name="perf script text",
    head=(
        r"^( *(.{0,64}?) +(?:-?[0-9]{1,8}/)?(-?[0-9]{1,8}) +\[([0-9]{1,5})\] +"
        r"([0-9]{1,10})\.([0-9]{6}|[0-9]{9}): +(?:[0-9]{1,19} +)?"
        r"([A-Za-z_][A-Za-z0-9_-]{0,127}:[A-Za-z_][A-Za-z0-9_.]{0,127}:))"
    ),
    lost=r"\[([0-9]{1,5})\] +[0-9]+\.[0-9]+: PERF_RECORD_LOST(?:_SAMPLES)? +lost ([0-9]{1,18})",
    other=r"^(?:#|\s*$|[\t ]+[0-9a-f]{4,16} |.{0,120}: PERF_RECORD_)",
)

# What cannot be read, and what to do instead: (pattern of a line, what it is, hint).
_REFUSED: Final = (
    (
        r"^# (?:latency trace v|.*=> irqs-off.*\n)",
        "the latency format, whose times count from the first event and which cuts names",
        "read the trace again after: echo 0 > /sys/kernel/tracing/options/latency-format",
    ),
    (
        r"^ {0,8}\S.{0,15}-[0-9]+ +[0-9]+[.A-Za-z][^ ]{2,8} +[0-9]+(?:\.[0-9]+|us.): ",
        "the latency format, which cuts the names of tasks",
        "print it without the latency format: trace-cmd report without -l, or echo 0 > "
        "/sys/kernel/tracing/options/latency-format",
    ),
    (
        r"^[0-9]+ [0-9]+ [0-9]{4,} ",
        "the raw output of tracefs, which does not name its events",
        "read the trace again after: echo 0 > /sys/kernel/tracing/options/raw",
    ),
    (
        r"^[0-9a-f]{8,}(?: [0-9a-f]+)*\s*$",
        "the hex output of tracefs, which does not name its events",
        "read the trace again after: echo 0 > /sys/kernel/tracing/options/hex",
    ),
    (
        r"^ *[0-9]+\) +(?:[#!+*@$] )?(?:[0-9.]+ us)? +\|",
        "the output of the function_graph tracer",
        "record events: echo nop > /sys/kernel/tracing/current_tracer",
    ),
    (
        r"^ *\S.{0,64}? +(?:-?[0-9]+/)?-?[0-9]+ (?:\[[0-9]+\]|.*[0-9]\.[0-9]{6}:|.*[a-z_]+:[a-z_]+:)",
        "lines of perf script without all of thread id, cpu, time and event name",
        "print it with: perf script --ns -F comm,tid,cpu,time,event,trace",
    ),
)


def dialect_of(data: memoryview) -> Dialect | None:
    """The dialect of the first line that is an event; None: there is none within ``SNIFF_BYTES``."""
    for line in _first_lines(data):
        for dialect in (PERF, FTRACE):
            if re.match(dialect.head, line, re.ASCII):
                return dialect
    return None


def refusal(source: Source) -> UnknownFormatError:
    """The error for text without a line that is an event: says what the text is, as far as one can tell."""
    found, hint, offset, number = "no line with a task, a cpu, a time and an event", _HINT, 0, 1
    at = 0
    for count, line in enumerate(_first_lines(source.data), 1):
        reason = next((each for each in _REFUSED if re.match(each[0], line, re.ASCII)), None)
        if reason is not None:
            found, hint, offset, number = reason[1], reason[2], at, count
            break
        at += len(line.encode("latin-1")) + 1
    return UnknownFormatError(
        "this text cannot be read as a capture",
        path=source.path,
        offset=offset,
        expected="text as tracefs, `trace-cmd report` or `perf script` print it",
        found=f"{found} (line {number})",
        hint=hint,
    )


def is_text(head: bytes) -> bool:
    """Whether a file that begins with ``head`` can be text."""
    return bool(head) and all(byte >= 32 or byte in b"\t\n\r" for byte in head)


_HINT: Final = "name a trace.dat, or text of: cat /sys/kernel/tracing/trace, trace-cmd report, perf script"


def _first_lines(data: memoryview) -> list[str]:
    """The first lines of a file, bytes as characters; the last of them may be cut."""
    head = bytes(data[:SNIFF_BYTES]).decode("latin-1")
    return head.split("\n", _SNIFF_LINES)[:_SNIFF_LINES]
