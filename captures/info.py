"""CaptureInfo and Capture: what every capture format offers to the rest of the program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import pyarrow as pa

    from captures.eventfmt import EventFormat
    from captures.source import Source


@dataclass(frozen=True)
class CaptureInfo:
    """Where a capture comes from and what is in it; columns of table ``capture``, None: not known.

    Attributes:
        path: The file as it was named.
        format: Container and version, such as ``trace.dat v7 (zstd)``.
        size_bytes: Size of the file.
        sha256: SHA-256 of the file, in hexadecimal.
        kernel_release: ``uname -r`` of the traced machine.
        arch: ``uname -m`` of it.
        hostname: ``uname -n`` of it.
        clock: Trace clock, such as ``mono``.
        cpus: CPUs that the capture has buffers for.
        first_ts_ns: Time of the first event; None: there is none.
        last_ts_ns: Time of the last event; None: there is none.
        events: Event records in the file.
        events_lost: Events that the kernel says it lost; None: their number is not known.
        truncated: Whether the file ends before its own headers say.
        tool: Program and version that made the file.
    """

    path: str
    format: str
    size_bytes: int
    sha256: str
    kernel_release: str | None
    arch: str | None
    hostname: str | None
    clock: str | None
    cpus: int
    first_ts_ns: int | None
    last_ts_ns: int | None
    events: int
    events_lost: int | None
    truncated: bool
    tool: str | None


class Capture(Protocol):
    """An open capture. Use it in a ``with`` statement."""

    @property
    def path(self) -> str:
        """The file as it was named."""
        ...

    @property
    def info(self) -> CaptureInfo:
        """Where it comes from and what is in it.

        The first use reads every record, unless ``decode`` did already: call it after ``decode``.
        """
        ...

    @property
    def formats(self) -> Mapping[str, EventFormat]:
        """Format of every event that the capture knows, by ``system:name``, recorded or not."""
        ...

    def event_counts(self) -> dict[str, int]:
        """Records of each event that occurs, by ``system:name``."""
        ...

    def event_spans(self) -> dict[str, tuple[int, int]]:
        """Time of the earliest and of the latest record of each event, in ns, both inclusive.

        The keys are those of ``event_counts``. Reads every record; so that the file is read once, call it
        before the others.
        """
        ...

    def decode(
        self, names: Iterable[str], columns: Mapping[str, Collection[str]] | None = None
    ) -> dict[str, pa.Table]:
        """The events ``system:name`` as tables, in order of ``seq``.

        Columns: seq int64 (place among all records of the capture), ts_ns int64, cpu int32, pid int32, then
        the event's own fields; a field that has the name of one of these gets ``_`` behind it. All names in
        one call cost one pass over the file.

        Args:
            names: The events.
            columns: By event, the columns of its own fields that are needed; all of an event that is not in
                it. None: all of every event.

        Raises:
            MissingEventsError: The capture does not know one of the names.
            CorruptError: The format of one of the events cannot be right.
        """
        ...

    def quality(self) -> pa.Table:
        """Table ``quality``: what the capture lacks, and what that does to results."""
        ...

    def comms(self) -> dict[int, str]:
        """Names of tasks by thread id, as far as the capture stores them."""
        ...

    def stored_maps(self) -> str:
        """Process maps that the recorder stored, as it wrote them; empty: none."""
        ...

    def symbol(self, address: int) -> str | None:
        """Name of the kernel function that begins at ``address``; None: the capture does not say."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...

    def __enter__(self) -> Self:
        """Nothing to do: the capture is open."""
        ...

    def __exit__(self, *args: object) -> None:
        """Close."""
        ...


class FromSource:
    """What a capture of any format does with its ``Source``."""

    _source: Source

    @property
    def path(self) -> str:
        """The file as it was named."""
        return self._source.path

    @property
    def _packing(self) -> str:
        """How the file is packed, to be said behind its format; empty: it is not."""
        return f", {self._source.packing}" if self._source.packing else ""

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    def __enter__(self) -> Self:
        """Return the capture, which is open."""
        return self

    def __exit__(self, *args: object) -> None:
        """Close."""
        self.close()
