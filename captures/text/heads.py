r"""What stands before the event's own fields on a line of trace text, and what kind of text a file is.

::

    tracefs trace, trace_pipe      TASK-PID   (TGID) [CPU] FLAGS SECONDS.MICROS: event: fields
    trace-cmd report               INSTANCE: TASK-PID   [CPU] FLAGS SECONDS.FRACTION: (+DIFF) event:    fields
    trace-cmd report -R            TASK-PID   [CPU]-0xFLAGS SECONDS.FRACTION: event:    name=value ...
    perf script                    COMM PID/TID [CPU] SECONDS.FRACTION: PERIOD system:event: fields

INSTANCE, (TGID), FLAGS, (+DIFF), COMM, PID/ and PERIOD may be missing. TASK may hold spaces, dashes and
colons, so the head ends at the first place where everything up to the event's name fits. Sources:
``trace_print_context()`` in kernel/trace/trace_output.c, ``tep_print_event()`` of libtraceevent,
``perf_sample__fprintf_start()`` in tools/perf/builtin-script.c.

Patterns run in polars (the regex crate): linear time, whatever the line. They have no counted repeats, which
are several times slower there; a number that is too long fails when it is converted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from schemas.errors import UnknownFormatError

if TYPE_CHECKING:
    from captures.source import Source

SNIFF_BYTES: Final = 1 << 20
"""How far into a file the first event is looked for (perf's own head has a line for each event)."""


@dataclass(frozen=True)
class Dialect:
    """How the lines of one family of tools begin.

    Attributes:
        name: What the text is called in ``CaptureInfo.format``.
        head: Pattern of the head; groups: head, task, pid, cpu, seconds, fraction, key. The key is
            the name of the event with what ends it: ``:``; for system calls of tracefs ``(`` (entry) and
            `` -> `` (exit). With the option sym-offset, the function that stands in the place of ``print``
            has its offset.
        plain: The same for most lines, those of tasks without dashes, colons or spaces in their names: each
            character leaves one way to go on, which takes a third of the time. Where it fits, ``head`` finds
            the same.
        lost: Pattern of a line that tells of lost events; groups: cpu, count (may be missing).
        other: Pattern of a line that is known to be no event.
    """

    name: str
    head: str
    plain: str
    lost: str
    other: str


FTRACE: Final = Dialect(
    name="ftrace text",
    head=(
        r"^((?:[^ :#]+: +)? *(.*?)-([0-9]+) +(?:\([ 0-9-]+\) +)?"
        r"\[([0-9]+)\](?:-0x[0-9a-f]+)?(?: +[.A-Za-z#][^ ]*)? *"
        r"([0-9]+)(?:\.([0-9]+))?:(?: *\([+-][0-9]+\))? +"
        r"([A-Za-z_][A-Za-z0-9_.]*(?:\+0x[0-9a-f/x]+)?(?::|\(| -> | <-)|<(?:user )?stack trace ?>))"
    ),
    plain=(
        r"^( *([^ :-]+)-([0-9]+) +(?:\([ 0-9-]+\) +)?"
        r"\[([0-9]+)\](?:-0x[0-9a-f]+)? +(?:[.A-Za-z#][^ ]* +)?"
        r"([0-9]+)(?:\.([0-9]+))?: +(?:\([+-][0-9]+\) +)?"
        r"([A-Za-z_][A-Za-z0-9_.]*(?:\+0x[0-9a-f/x]+)?(?::|\(| (?:-> |<-))|<(?:user )?stack trace ?>))"
    ),
    lost=r"^(?:[^ :#]+: +)?CPU:([0-9]+) \[(?:LOST )?(?:([0-9]+) )?EVENTS(?: DROPPED)?\]",
    other=r"^(?:#|\s*$| *=> |cpus=|version = |\tfor |#+ CPU )",
)
PERF: Final = Dialect(
    name="perf script text",
    head=(
        r"^( *(?:(.*?) +)??(?:-?[0-9]+/)?(-?[0-9]+) +\[([0-9]+)\] +"
        r"([0-9]+)\.([0-9]+): +(?:[0-9]+ +)?"
        r"([A-Za-z_][A-Za-z0-9_-]*:[A-Za-z_][A-Za-z0-9_.]*:))"
    ),
    plain=(
        r"^( *([^ 0-9-][^ ]*) +([0-9]+) +\[([0-9]+)\] +"
        r"([0-9]+)\.([0-9]+): +(?:[0-9]+ +)?"
        r"([A-Za-z_][A-Za-z0-9_-]*:[A-Za-z_][A-Za-z0-9_.]*:))"
    ),
    lost=r"\[([0-9]+)\] +[0-9]+\.[0-9]+: PERF_RECORD_LOST(?:_SAMPLES)? +lost ([0-9]+)",
    other=r"^(?:#|\s*$|[\t ]+[0-9a-f]+ |.*[0-9]: PERF_RECORD_)",
)

# What cannot be read, and what to do instead: (pattern of a line, what it is, hint).
_REFUSED: Final = (
    (
        r"^# (?:[a-z_]+ )?latency trace v",
        "the latency format, whose times count from the first event and which cuts the names of tasks",
        "read the trace again after: echo 0 > /sys/kernel/tracing/options/latency-format",
    ),
    (
        r"^ *[^ ].*-[0-9]+ +[0-9]+[.A-Za-z][^ ]* *[0-9]+(?:\.[0-9]+|us.)?: ",
        "the latency format, which cuts the names of tasks",
        "use trace-cmd report without -l, or echo 0 > /sys/kernel/tracing/options/latency-format",
    ),
    (
        r"^[0-9]+ [0-9]+ [0-9]{4,} ",
        "the raw output of tracefs, which does not name its events",
        "read the trace again after: echo 0 > /sys/kernel/tracing/options/raw",
    ),
    (
        r"^[0-9a-f]{8}[0-9a-f ]*\s*$",
        "the hex output of tracefs, which does not name its events",
        "read the trace again after: echo 0 > /sys/kernel/tracing/options/hex",
    ),
    (
        r"^ *[0-9]+\) +(?:[#!+*@$] )?(?:[0-9.]+ us)? +\|",
        "the output of the function_graph tracer",
        "record events: echo nop > /sys/kernel/tracing/current_tracer",
    ),
    (
        r"^ *[^ ].* (?:-?[0-9]+/)?-?[0-9]+ .*[a-z_]+:[a-z_0-9]+:",
        "lines of perf script that lack the thread id, cpu, time or event name",
        "print it with: perf script --ns -F comm,tid,cpu,time,event,trace",
    ),
)


def dialect_of(data: memoryview) -> Dialect | None:
    """The dialect of the first line that is an event; None: there is none within ``SNIFF_BYTES``."""
    lines = first_lines(data)
    places = {each: lines.str.contains(each.head).arg_true() for each in (PERF, FTRACE)}
    firsts = {each: int(found[0]) for each, found in places.items() if len(found)}
    return min(firsts, key=firsts.__getitem__, default=None)


def refusal(source: Source) -> UnknownFormatError:
    """The error for text without a line that is an event: says what the text is, as far as one can tell."""
    lines = first_lines(source.data)
    found, hint, number = "text without a line that has a task, a cpu, a time and an event", _HINT, 0
    for pattern, what, instead in reversed(_REFUSED):
        matching = lines.str.contains(pattern)
        if matching.any():
            found, hint, number = what, instead, matching.arg_max() or 0
    return UnknownFormatError(
        "this text cannot be read as a capture",
        path=source.path,
        offset=int(lines.head(number).str.len_chars().sum()) + number,
        expected="text as tracefs, `trace-cmd report` or `perf script` print it",
        found=f"{found} (line {number + 1})",
        hint=hint,
    )


def first_lines(data: memoryview) -> pl.Series:
    """The first lines of a file, bytes as characters, without their ends; the last of them may be cut."""
    head = bytes(data[:SNIFF_BYTES]).decode("latin-1")
    return pl.Series(head.split("\n"), dtype=pl.String)


def is_text(head: bytes) -> bool:
    """Whether a file that begins with ``head`` can be text."""
    return bool(head) and 0 not in head and (head[0] >= 32 or head[0] in b"\t\n\r")


_HINT: Final = "name a trace.dat, or text of: cat /sys/kernel/tracing/trace, trace-cmd report, perf script"
