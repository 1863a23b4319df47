"""Tables of a batch: what became of each capture, and what the captures of a fleet say together.

``captures`` is the manifest, ``captures.parquet`` in the folder of the batch. ``fleet``, ``fleet_miss`` and
``fleet_bins`` are written for every capture (``HASH12/tables/NAME.parquet``) and put together for the whole
batch as Parquet datasets ``tables/NAME/kernel_release=.../strategy=.../*.parquet``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.kinds import count, int64, real, text
from schemas.table import Table
from schemas.walks import STRATEGY_DOC, summary_columns

if TYPE_CHECKING:
    from schemas.table import Column

_BATCH = "replay: batch"
_UNAME = "uname in the capture"
_NOT_STORED = "the capture does not say"
_NOT_READ = "the capture was not read so far"
_NO_ERROR = "no error"

STATUS: Final = {
    "ok": "analysed; nothing is missing in the capture",
    "partial": "analysed; the capture lost events or is cut off, so the results rest on a part of it",
    "failed": "not analysed: replay says what is wrong with the capture, or with writing the results",
    "crashed": "not analysed: the process died, also when it was tried again alone, or it ran out of memory",
    "timeout": "not analysed within the time that was given",
    "skipped": "not analysed: the same bytes as another input, or the batch was stopped before it",
}
"""Values of ``captures.status``, each with its meaning."""

FAILED: Final = ("failed", "crashed", "timeout")
"""Values of ``captures.status`` that make a batch incomplete."""

CAPTURES: Final = Table(
    name="captures",
    version="1.0",
    doc="What became of one input of a batch: the manifest. In the order of the inputs.",
    columns=(
        text("path", "The capture as it was named; a URL without user, password and query.", _BATCH),
        text("sha256", "SHA-256 of the file, in hexadecimal.", _BATCH, null=_NOT_READ),
        text(
            "result",
            "Folder of its results in the folder of the batch: the first 12 digits of sha256.",
            _BATCH,
            null="it has no results",
        ),
        text("status", "; ".join(f"{name}: {meaning}" for name, meaning in STATUS.items()) + ".", _BATCH),
        text("error", "Kind of the error, such as TruncatedError or OutOfMemory.", _BATCH, null=_NO_ERROR),
        text("what", "What happened, as one sentence.", _BATCH, null=_NO_ERROR),
        text("where", "File and place in it, or the last words of the process.", _BATCH, null=_NO_ERROR),
        text("hint", "What the user can do.", _BATCH, null=_NO_ERROR),
        real("seconds", "Time that the analysis took.", _BATCH, null="not started", unit="s"),
        count(
            "peak_bytes",
            "Most resident memory of the process that analysed it, during that time.",
            "VmHWM in /proc/PID/status",
            null="not measured",
            unit="bytes",
        ),
        count("size_bytes", "Size of the file.", _BATCH, null=_NOT_READ, unit="bytes"),
        count("events", "Event records in the file.", "table capture", null="not analysed"),
        count(
            "events_lost",
            "Events that the kernel says it lost.",
            "table capture",
            null="not analysed, or lost and the number is not known",
        ),
    ),
)


def _whose() -> tuple[Column, ...]:
    """Columns that say which capture a row of a fleet is about."""
    return (
        text("path", "The capture as it was named.", _BATCH),
        text("sha256", "SHA-256 of the file, in hexadecimal.", _BATCH),
        text(
            "kernel_release",
            "Release of the kernel that was traced. It names folders of the dataset: what is not printable "
            "ASCII is shown as ?, and what goes beyond the kernel's own 64 characters is cut off.",
            _UNAME,
            null=_NOT_STORED,
        ),
    )


FLEET: Final = Table(
    name="fleet",
    version="1.2",
    doc="One capture of a batch under one strategy; maxima and sums as in summary.",
    columns=(
        *_whose(),
        text("arch", "Machine that was traced.", _UNAME, null=_NOT_STORED),
        count(
            "events_lost",
            "Events that the kernel says it lost.",
            "table capture",
            null="lost, number not known",
        ),
        text("strategy", STRATEGY_DOC, "replay: strategies"),
        *summary_columns(),
    ),
)

FLEET_MISS: Final = Table(
    name="fleet_miss",
    version="1.0",
    doc="Mappings that one strategy misses in one capture by one cause.",
    columns=(
        *_whose(),
        text("strategy", "The strategy that misses the mappings.", "replay: strategies"),
        text(
            "cause_event",
            "What moved or split the VMA: name of the system call or of the event.",
            "table miss",
            null="not found in the capture",
        ),
        count("mappings", "Rows of table miss.", "table miss"),
        count("walks", "Walks that miss at least one of them.", "table miss"),
    ),
)

FLEET_BINS: Final = Table(
    name="fleet_bins",
    version="1.0",
    doc="One bin of the values of one measure in one capture under one strategy; captures add up.",
    columns=(
        *_whose(),
        text("strategy", STRATEGY_DOC, "replay: strategies"),
        text(
            "measure",
            "iterations: of an inner loop (loop.iterations); observed_ns, predicted_ns: of a walk "
            "(walk.observed_ns of strategy observed, walk.predicted_ns).",
            "tables loop, walk",
        ),
        int64("low", "Smallest value of the bin. Up to 15 a bin is one value; then an octave has 8.", _BATCH),
        int64("high", "Largest value of the bin, inclusive.", _BATCH),
        count("values", "Loops or walks in the bin.", "tables loop, walk"),
    ),
)

TABLES: Final = (CAPTURES, FLEET, FLEET_MISS, FLEET_BINS)
