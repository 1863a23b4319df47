"""Progress of a batch on stderr: a bar on a terminal, a line every 30 s anywhere else."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

LINE_SECONDS: Final = 30.0
BAR_SECONDS: Final = 0.2
BAR_WIDTH: Final = 24
TIME_LEFT_AFTER: Final = 3
"""Captures that have to be analysed before a time is guessed from them."""


class Progress:
    """How far a batch is.

    Attributes:
        failed: Captures that failed so far.
    """

    def __init__(
        self,
        total: int,
        total_bytes: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            total: Number of captures.
            total_bytes: Their size together, as far as it is known.
            stream: Where to write; None: stderr.
            clock: Seconds.
        """
        self.failed = 0
        self._total = total
        self._total_bytes = total_bytes
        self._stream = sys.stderr if stream is None else stream
        self._bar = self._stream.isatty()
        self._clock = clock
        self._started = self._shown = clock()
        self._done = 0
        self._bytes = 0
        self._fresh = 0
        self._fresh_bytes = 0

    def add(self, size_bytes: int, *, failed: bool, fresh: bool) -> None:
        """One more capture is done; ``fresh``: it took time, unlike one that was done before."""
        self._done += 1
        self._bytes += size_bytes
        self.failed += failed
        self._fresh += fresh
        self._fresh_bytes += size_bytes if fresh else 0
        self.tick()

    def tick(self) -> None:
        """Show it, if it is time to."""
        now = self._clock()
        if now - self._shown >= (BAR_SECONDS if self._bar else LINE_SECONDS):
            self._shown = now
            self._show(now)

    def end(self) -> None:
        """Show it for the last time, where there is a bar."""
        if self._bar:
            self._show(self._clock())
            self._stream.write("\n")
            self._stream.flush()

    def line(self, now: float) -> str:
        """Captures, bytes, failures, time left."""
        parts = [
            f"{self._done:,}/{self._total:,} captures",
            f"{_megabytes(self._bytes)}/{_megabytes(self._total_bytes)} MB",
            f"{self.failed:,} failed",
        ]
        left = self._seconds_left(now)
        if left is not None:
            parts.append(f"{_duration(left)} left")
        return ", ".join(parts)

    def _seconds_left(self, now: float) -> float | None:
        """Guessed from the captures of this run, by their bytes; None: too early."""
        if self._fresh < TIME_LEFT_AFTER or self._done == self._total:
            return None
        rest = max(0, self._total_bytes - self._bytes)
        speed = self._fresh_bytes / max(now - self._started, 1e-9)
        return rest / speed if speed else None

    def _show(self, now: float) -> None:
        text = self.line(now)
        if self._bar:
            filled = BAR_WIDTH * self._done // max(1, self._total)
            text = f"[{'#' * filled:<{BAR_WIDTH}}] {text}"
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[K{text[:width]}")
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
