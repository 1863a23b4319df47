"""Tables of ``replay inspect``: the events of a capture, what it answers, how to record what it lacks."""

from __future__ import annotations

from typing import Final

from schemas.kinds import count, int32, nanoseconds, real, text
from schemas.table import Table

_SPANS = "captures: event_spans"
_QUESTIONS = "captures: questions"
_RECIPES = "captures/probes"

EVENT: Final = Table(
    name="event",
    version="1.0",
    doc="One event that occurs in the capture.",
    columns=(
        text("name", "system:name.", "captures: formats"),
        count("records", "Records of it.", "captures: event_counts"),
        real(
            "per_second",
            "Records a second, over the time between the first and the last event of the capture.",
            "captures: event_counts",
            null="the capture has no duration, or its clock counts no ns",
            unit="1/s",
        ),
        nanoseconds(
            "first_ts_ns",
            "Time of the first record, trace clock.",
            _SPANS,
            null="some records tell of what was there before the capture began, and have no time",
        ),
        nanoseconds("last_ts_ns", "Time of the last record, trace clock.", _SPANS, null="as for first_ts_ns"),
        text(
            "read_as",
            "Table of events that its records become.",
            "captures: roles",
            null="replay does not use this event",
        ),
    ),
)

ANSWER: Final = Table(
    name="answer",
    version="1.0",
    doc="One question that replay answers from captures, and whether this capture has what it takes.",
    columns=(
        text("question", "Short name of the question.", _QUESTIONS),
        text("asks", "The question in words.", _QUESTIONS),
        text(
            "answer",
            "exact: from recorded facts; assumed: something is inferred, the reason says what; "
            "modelled: from state rebuilt by the kernel's rules; not: no answer.",
            _QUESTIONS,
        ),
        text("reason", "Why, as sentences.", _QUESTIONS),
        text(
            "lacking",
            "Events or fields whose recording would make the answer better, separated by commas.",
            _QUESTIONS,
            null="nothing that could be recorded is lacking",
        ),
    ),
)

RECORDING: Final = Table(
    name="recording",
    version="1.0",
    doc="One command of a recording that has what this capture lacks. Commands of one kernel and tool go "
    "together, in order of step.",
    columns=(
        text("kernel", "Kernel whose names the probes use: 6.12 or 7.3.", _RECIPES),
        text("applies_to", "The kernels that have these names.", _RECIPES),
        text("tool", "trace-cmd or perf.", _RECIPES),
        int32("step", "Place of the command, from 1.", _RECIPES),
        text("does", "What the command does.", _RECIPES),
        text("command", "The command, one line for a shell.", _RECIPES),
    ),
)

TABLES: Final = (EVENT, ANSWER, RECORDING)
