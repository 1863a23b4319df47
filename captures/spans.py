"""First and last time of every event of a capture, taken while its records go by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from captures.eventfmt import EventFormat
    from captures.ringbuf import Longs

_NEVER: Final = np.iinfo(np.int64)


class Spans:
    """Earliest and latest time by event id."""

    def __init__(self, ids: int) -> None:
        """Nothing is seen yet of the events 0 to ``ids`` - 1."""
        self._first = np.full(ids, _NEVER.max, dtype=np.int64)
        self._last = np.full(ids, _NEVER.min, dtype=np.int64)

    def note(self, ids: np.ndarray[Any, Any], ts_ns: Longs) -> None:
        """Take the next records, in any order: the id and the time of each."""
        places = ids.astype(np.intp)
        np.minimum.at(self._first, places, ts_ns)
        np.maximum.at(self._last, places, ts_ns)

    def of(self, ids: Sequence[int]) -> tuple[int, int] | None:
        """First and last time, both inclusive, of some of the events together; None: none was seen."""
        places = list(ids)
        first, last = int(self._first[places].min()), int(self._last[places].max())
        return (first, last) if first <= last else None

    def by_name(self, formats: Mapping[str, EventFormat]) -> dict[str, tuple[int, int]]:
        """``of`` each of the events that was seen."""
        spans = {name: self.of([each.id]) for name, each in formats.items()}
        return {name: span for name, span in spans.items() if span is not None}
