"""What captures of binary records share: one pass over the records answers all that is asked at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from captures.decode import MAX_IDS
from captures.eventfmt import find_formats
from captures.info import FromSource
from captures.spans import Spans

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import pyarrow as pa

    from captures.decode import Decoder
    from captures.eventfmt import EventFormat
    from captures.ringbuf import Longs


class Counted(Protocol):
    """What one pass tells besides the events that were asked for."""

    @property
    def counts(self) -> Longs:
        """Records by event id. Shape (decode.MAX_IDS,)."""
        ...


ScanT = TypeVar("ScanT", bound=Counted)


class FromRecords(FromSource, ABC, Generic[ScanT]):
    """A capture whose events are records with an id, and formats that tell where their fields are.

    Attributes:
        record_line: The command that records an event.
    """

    record_line: str

    def __init__(self) -> None:
        """Nothing is read yet."""
        self._scan: ScanT | None = None
        self._broken: dict[str, tuple[int, int]] = {}

    @property
    @abstractmethod
    def formats(self) -> Mapping[str, EventFormat]:
        """Format of every event that the capture knows, by ``system:name``, recorded or not."""

    @abstractmethod
    def _read(
        self, wanted: Mapping[EventFormat, Collection[str] | None], spans: Spans | None = None
    ) -> tuple[Decoder, Longs | None]:
        """Read all records, and set ``_scan``.

        Args:
            wanted: Events to decode, and the columns of each (None: all).
            spans: Takes the times of every record.

        Returns:
            What was decoded, and the place of each record in the total order; None: they came in order.
        """

    def _scanned(self) -> ScanT:
        if self._scan is None:
            self._read({})
        assert self._scan is not None, "_read sets it"
        return self._scan

    def event_counts(self) -> dict[str, int]:
        """Records of each event that occurs, by ``system:name``."""
        counts = self._scanned().counts
        return {name: int(counts[each.id]) for name, each in self.formats.items() if counts[each.id]}

    def event_spans(self) -> dict[str, tuple[int, int]]:
        """First and last time of each event that occurs. See ``captures.info.Capture.event_spans``."""
        spans = Spans(MAX_IDS)
        self._read({}, spans)
        return spans.by_name(self.formats)

    def decode(
        self, names: Iterable[str], columns: Mapping[str, Collection[str]] | None = None
    ) -> dict[str, pa.Table]:
        """The events as tables. See ``captures.info.Capture.decode``."""
        asked = list(dict.fromkeys(names))
        wanted = find_formats(self.formats, asked, self.path, self.record_line)
        needed = {each: (columns or {}).get(name) for name, each in zip(asked, wanted, strict=True)}
        decoder, rank = self._read(needed)
        tables = {}
        for name, each in zip(asked, wanted, strict=True):
            tables[name] = decoder.table(each.id, rank)
            parts = decoder.events.pop(each.id)
            if parts.short or parts.unreadable:
                self._broken[name] = (parts.short, parts.unreadable)
        return tables
