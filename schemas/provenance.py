"""Result tables about the capture itself: where it comes from and what it lacks."""

from __future__ import annotations

from typing import Final

from schemas.kinds import count, flag, int32, nanoseconds, text
from schemas.table import Table

_CAPTURES = "captures: the container"
_UNAME = "uname in the capture"
_NOT_STORED = "the capture does not say"

NO_NS: Final = "no_ns"
"""Kind of the rows about times that are no ns: differences of them are no durations."""

CLOCKS_DIFFER: Final = "clocks_differ"
"""Kind of the row about events that have no common order."""

PAGE_SIZE: Final = "page_size"
"""Kind of the row about a machine whose pages are larger or smaller than those that replay knows."""

PAGE_BYTES: Final = 4096
"""Size of the pages that all results are about."""

FOREIGN_ENTRIES: Final = "foreign_entries"
"""Kind of the row about page-table entries of an architecture that replay does not know."""

CAPTURE: Final = Table(
    name="capture",
    version="1.0",
    doc="The capture: where it comes from and what is in it. One row.",
    columns=(
        text("path", "The file as it was named.", "command line"),
        text("format", "Container and version, such as trace.dat v7.", _CAPTURES),
        count("size_bytes", "Size of the file.", _CAPTURES, unit="bytes"),
        text("sha256", "SHA-256 of the file, in hexadecimal.", _CAPTURES),
        text("kernel_release", "Release of the kernel that was traced (uname -r).", _UNAME, null=_NOT_STORED),
        text("arch", "Machine that was traced (uname -m).", _UNAME, null=_NOT_STORED),
        text("hostname", "Host that was traced (uname -n).", _UNAME, null=_NOT_STORED),
        text("clock", "Trace clock, such as local or mono.", "trace_clock in the capture", null=_NOT_STORED),
        int32("cpus", "CPUs that the capture has buffers for.", _CAPTURES, unit="count"),
        nanoseconds("first_ts_ns", "Time of the first event, trace clock.", _CAPTURES, null="no event"),
        nanoseconds("last_ts_ns", "Time of the last event, trace clock.", _CAPTURES, null="no event"),
        count("events", "Event records in the file.", _CAPTURES),
        count("events_decoded", "Event records that were decoded for this analysis.", "captures: decode"),
        count(
            "events_lost",
            "Events that the kernel says it lost. 0: it says that none was.",
            "missed-events marks of ring buffer pages, perf LOST records",
            null="events were lost, their number is not known",
        ),
        flag("truncated", "The file ends before its own headers say.", _CAPTURES),
        text("tool", "Program and version that made the file.", "version in the capture", null=_NOT_STORED),
        text("replay_version", "Version of replay that made these tables.", "replay"),
        text(
            "page_offset_rule",
            "Key of the anon_vma tree: vm_pgoff (up to 7.2) or anon_pgoff (from 7.3 on).",
            "fields of ev_avc",
            null="the capture has no event that tells",
        ),
        text(
            "native_strategy",
            "Strategy that the traced kernel itself runs.",
            "linear_page_index in ev_append, ev_obs_loop.strategy",
            null="the capture has no event that tells",
        ),
    ),
)

QUALITY: Final = Table(
    name="quality",
    version="1.0",
    doc="One defect of the capture, or one assumption, and what it does to the results.",
    columns=(
        text(
            "kind",
            "lost_events, truncated, censored_avc, censored_rmap_item, clock, assumption and so on.",
            "captures, replay",
        ),
        int32("cpu", "CPU that it concerns.", "captures, replay", null="not one CPU"),
        nanoseconds(
            "start_ns", "Start of the time range, trace clock.", "captures, replay", null="open, or no range"
        ),
        nanoseconds(
            "end_ns", "End of the time range, trace clock.", "captures, replay", null="open, or no range"
        ),
        count("count", "How many (events, intervals, items ...).", "captures, replay", null="not known"),
        text("effect", "What it does to the results, as one sentence.", "captures, replay"),
        text(
            "severity",
            "info: the results hold; warning: some rows are affected; error: do not rely on the results.",
            "captures, replay",
        ),
    ),
)

TABLES: Final = (CAPTURE, QUALITY)
