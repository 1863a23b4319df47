"""Captures: bytes in, event tables out. Knows formats, knows nothing of VMAs.

``open_capture`` looks at the first bytes and gives one interface whatever the format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.errors import UnknownFormatError, UsageError

if TYPE_CHECKING:
    import os

    from captures.info import Capture, CaptureInfo
    from captures.source import Source

__all__ = ["Capture", "CaptureInfo", "open_capture"]

_SNIFF_BYTES = 64


def open_capture(path: str | os.PathLike[str], ts2secs: int | None = None) -> Capture:
    """Open a capture: trace.dat 6 or 7, perf.data, or trace text, as it is or packed (.xz, .gz, .zst).

    Trace text is what tracefs, ``trace-cmd report`` or ``perf script`` print.

    Args:
        path: The file.
        ts2secs: Ticks a second of a trace clock that counts no ns; None: times are what the file says.

    Raises:
        UnknownFormatError: The file is in no format that is known.
        UsageError: ``ts2secs`` for a file that is no trace.dat: its times are ns, or text.
        TruncatedError, CorruptError: The file cannot be read.
        CaptureError: The file cannot be opened.
    """
    from captures.source import Source
    from captures.tracedat.container import is_tracedat

    # Only what the file needs is imported: polars alone, for text, costs as much as a small trace.dat.
    source = Source(path)
    try:
        head = bytes(source.data[:_SNIFF_BYTES])
        if is_tracedat(head):
            from captures.tracedat.capture import TraceDatCapture

            return TraceDatCapture(source, ts2secs)
        if ts2secs is not None:
            raise UsageError(
                "--ts2secs is for the ticks of a trace.dat",
                where=f"{source.path} is none",
                hint="leave it out; of text, print it again: trace-cmd report -t --ts2secs HZ",
            )
        from captures.perfdata.container import is_perfdata

        if is_perfdata(head):
            from captures.perfdata.capture import PerfCapture

            return PerfCapture(source)
        from captures.text.heads import is_text

        if is_text(head):
            from captures.text.capture import TextCapture

            return TextCapture(source)
        raise _unknown(source, head)
    except BaseException:
        source.close()
        raise


def _unknown(source: Source, head: bytes) -> UnknownFormatError:
    """The error for a file of no known format; says what it is, as far as its first bytes tell."""
    hint = "record one with: replay record, trace-cmd record -e ..., or perf record -e ..."
    found = f"bytes {head[:16].hex(' ')}" if head else "an empty file"
    return UnknownFormatError(
        "this is not a capture",
        path=source.path,
        offset=0,
        expected="the magic of trace.dat (17 08 44 'tracing') or of perf.data (PERFILE2), or trace text, "
        "or .xz, .gz, .zst of one",
        found=found,
        hint=hint,
    )


def __getattr__(name: str) -> object:
    """Load ``Capture`` and ``CaptureInfo`` when they are asked for (PEP 562)."""
    if name in ("Capture", "CaptureInfo"):
        from captures import info

        return getattr(info, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
