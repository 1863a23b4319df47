"""A file that gets shorter while it is mapped: reading what is gone is a signal (SIGBUS), no exception.

Python cannot handle that signal: its handlers run later, when the instruction that failed has ended, and it
never does. So the handler is the C library's, which calls back at once, and it has to end the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from captures.source import mapped_sources
from schemas.errors import CaptureError, TruncatedError

if TYPE_CHECKING:
    from collections.abc import Callable

_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)


def end_on_bus_error(report: Callable[[CaptureError], int]) -> None:
    """From now on a capture that is cut while it is read ends the process, with a word about it.

    Args:
        report: Says what happened; returns the exit code.
    """

    def told(_: int) -> None:
        try:
            os._exit(report(bus_error()))
        finally:
            os._exit(CaptureError.exit_code)

    kept = _HANDLER(told)
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, _HANDLER), ctypes.c_void_p
    libc.signal(signal.SIGBUS, kept)
    _kept.append(kept)


_kept: list[object] = []
"""Handlers: the C library has their addresses."""


def bus_error() -> CaptureError:
    """The error for the capture that is open and shorter than it was; else for one that cannot be read."""
    path = "a capture"
    for source in mapped_sources():
        path = source.path
        size = Path(path).stat().st_size if Path(path).exists() else source.size_bytes
        if size < source.size_bytes:
            return TruncatedError(
                "the capture was cut while it was read",
                path=path,
                expected=f"{source.size_bytes} bytes, as at the beginning",
                found=f"{size} bytes",
                hint="wait until whatever writes it has ended, and try again",
            )
    return CaptureError(
        "the capture cannot be read",
        path=path,
        found="a bus error (SIGBUS): its disk failed, or memory did",
        hint="copy the file, and try the copy",
    )
