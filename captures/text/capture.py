"""TextCapture: what tracefs, trace-cmd report or perf script printed, as a Capture."""

from __future__ import annotations

import difflib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
import pyarrow as pa

from captures.info import CaptureInfo, FromSource
from captures.losses import file_rows, quality_table
from captures.spans import Spans
from captures.text import limits
from captures.text.bodies import Body, body_of, is_probe
from captures.text.grammar import MARKER, PROBE_SYSTEM, SYSTEMS, TEMPLATES, UNKNOWN_SYSTEM, USER_STACK
from captures.text.heads import dialect_of, refusal
from captures.text.index import WORKERS, Index
from captures.text.preamble import Preamble
from schemas.errors import MissingEventsError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from captures.eventfmt import EventFormat
    from captures.source import Source
    from captures.text.index import Longs

CHUNK_LINES: Final = 1 << 16
"""Lines of one event whose fields are read at once."""

_RESERVED: Final = ("seq", "ts_ns", "cpu", "pid")


@dataclass(frozen=True)
class TextEvent:
    """One event of the text.

    Attributes:
        keys: Places of its names in ``Index.keys``.
        body: How its lines print its fields; text: why they cannot be read.
    """

    keys: tuple[int, ...]
    body: Body | str


class TextCapture(FromSource):
    """A capture as text. See ``captures.info.Capture``.

    Text names no system but in perf's: stock events with a role get theirs, probes the system ``probe``, all
    others ``unknown``. Fields of the place of a probe (``__probe_ip``) are not read.
    """

    def __init__(self, source: Source) -> None:
        """Find out what kind of text it is.

        Raises:
            UnknownFormatError: No line is an event, or the text is of a kind that cannot be read.
        """
        self._source = source
        dialect = dialect_of(source.data)
        if dialect is None:
            raise refusal(source)
        self._dialect = dialect
        self._broken: dict[str, tuple[int, int]] = {}

    @cached_property
    def info(self) -> CaptureInfo:
        """Where the capture comes from and what is in it."""
        index, preamble = self._index, self._preamble
        times = index.ts_ns[self._records]
        cpus = np.unique(index.cpu[self._records])
        return CaptureInfo(
            path=self._source.shown_path,
            format=f"{preamble.origin or self._dialect.name}{self._packing}",
            size_bytes=self._source.size_bytes,
            sha256=self._source.sha256,
            kernel_release=preamble.kernel_release,
            arch=preamble.arch,
            hostname=preamble.hostname,
            clock=None,
            cpus=preamble.cpus or len(cpus),
            first_ts_ns=int(times.min()) if len(times) else None,
            last_ts_ns=int(times.max()) if len(times) else None,
            events=len(self._records),
            events_lost=limits.events_lost(index, preamble),
            truncated=index.is_cut or self._source.damage is not None,
            tool=preamble.tool,
        )

    @cached_property
    def formats(self) -> dict[str, EventFormat]:
        """Format of every event that occurs and whose fields can be read, as its lines show it."""
        formats = {}
        for number, (full, event) in enumerate(self._events.items()):
            if isinstance(event.body, Body):
                system, _, name = full.partition(":")
                formats[full] = event.body.format(system, name, number, self.path)
        return formats

    def event_counts(self) -> dict[str, int]:
        """Events of each name; also of those whose fields cannot be read."""
        index = self._index
        counts = np.bincount(index.key[self._records], minlength=len(index.keys))
        return {name: int(counts[list(event.keys)].sum()) for name, event in self._events.items()}

    def event_spans(self) -> dict[str, tuple[int, int]]:
        """First and last time of each event. See ``captures.info.Capture.event_spans``."""
        index = self._index
        spans = Spans(len(index.keys))
        spans.note(index.key[self._records], index.ts_ns[self._records])
        found = {name: spans.of(event.keys) for name, event in self._events.items()}
        return {name: span for name, span in found.items() if span is not None}

    def decode(
        self, names: Iterable[str], columns: Mapping[str, Collection[str]] | None = None
    ) -> dict[str, pa.Table]:
        """The events as tables. See ``captures.info.Capture.decode``."""
        asked = list(dict.fromkeys(names))
        for name in asked:
            if name not in self.formats:
                raise self._missing(name)
        return {name: self._table(name, (columns or {}).get(name)) for name in asked}

    def quality(self) -> pa.Table:
        """Table ``quality``: what the text lacks."""
        rows = [
            *file_rows(self._source.damage),
            *limits.loss_rows(self._index, self._preamble),
            *limits.line_rows(self._index, self._preamble),
            *limits.time_rows(self._index),
            *limits.side_rows(self._dialect),
        ]
        counts = self.event_counts()
        for name, event in self._events.items():
            if isinstance(event.body, str) and self._has_role(name, event):
                rows.append(limits.left_out(name, event.body, counts[name]))
        rows += [limits.unread_event(name, *broken) for name, broken in self._broken.items()]
        return quality_table(rows)

    def comms(self) -> dict[int, str]:
        """Names of tasks by thread id: the last one that the text prints."""
        return dict(self._index.tasks.select("pid", "task").iter_rows())

    def stored_maps(self) -> str:
        """Empty: text holds none."""
        return ""

    def symbol(self, address: int) -> str | None:
        """None: text does not say where functions are."""
        return None

    @cached_property
    def _index(self) -> Index:
        index = Index.of(self._source.data, self._dialect, self.path)
        limits.check_times(index, self.path)
        return index

    @cached_property
    def _preamble(self) -> Preamble:
        return Preamble.of(self._source.data, self._dialect)

    @cached_property
    def _records(self) -> Longs:
        """Lines that are events."""
        return np.flatnonzero(self._index.key >= 0)

    @cached_property
    def _seq(self) -> Longs:
        """Place of each line among all events: by time, then by place in the file; -1: no event."""
        index = self._index
        order = self._records[np.argsort(index.ts_ns[self._records], kind="stable")]
        seq = np.full(len(index.key), -1, dtype=np.int64)
        seq[order] = np.arange(len(order))
        return seq

    @cached_property
    def _events(self) -> dict[str, TextEvent]:
        """Every event that occurs, by ``system:name``."""
        index = self._index
        places: dict[str, list[int]] = {}
        for place, key in enumerate(index.keys):
            places.setdefault(full_name(key, index.samples[place]), []).append(place)
        events = {}
        for name, keys in places.items():
            samples = [each for place in keys for each in index.samples[place]]
            is_marker = index.keys[keys[0]].startswith((f"{MARKER}:", f"{MARKER}+"))
            events[name] = TextEvent(tuple(keys), body_of(name, samples, is_marker=is_marker))
        return events

    def _table(self, name: str, needed: Collection[str] | None) -> pa.Table:
        """The table of one event, with the columns of its own fields that are needed; None: all of them."""
        index, event = self._index, self._events[name]
        assert isinstance(event.body, Body)
        names = {each: f"{each.name}_" if each.name in _RESERVED else each.name for each in event.body.fields}
        own = [each for each, column in names.items() if needed is None or column in needed]
        body = event.body.of(own)
        lines = np.flatnonzero(np.isin(index.key, event.keys))
        chunks = [lines[begin : begin + CHUNK_LINES] for begin in range(0, len(lines), CHUNK_LINES)]
        with ThreadPoolExecutor(WORKERS) as pool:
            parsed = list(pool.map(lambda chunk: body.parse(index.bodies(self._source.data, chunk)), chunks))
        parts = [[each.filter(complete) for each in columns] for columns, complete in parsed]
        kept = [chunk[found[1].to_numpy()] for chunk, found in zip(chunks, parsed, strict=True)]
        whole = np.concatenate(kept)
        if len(whole) < len(lines):
            missing = lines[~np.isin(lines, whole)]
            self._broken[name] = (len(missing), int(missing[0]))
        seq = self._seq[whole]
        order = np.argsort(seq, kind="stable")
        rows = whole[order]
        table: dict[str, Any] = {
            "seq": seq[order],
            "ts_ns": index.ts_ns[rows],
            "cpu": index.cpu[rows],
            "pid": index.pid[rows],
        }
        for probe in body.probe:
            if needed is None or probe in needed:
                table[probe] = pa.nulls(len(rows), pa.uint64())
        for place, each in enumerate(body.fields):
            values = pl.concat([part[place] for part in parts]).gather(order)
            type_ = pa.string() if each.kind == "text" else None
            table[names[each]] = values.to_arrow().cast(type_) if type_ else values.to_arrow()
        return pa.table(table)

    def _has_role(self, name: str, event: TextEvent) -> bool:
        """Whether results may lack something without the event."""
        samples = [each for place in event.keys for each in self._index.samples[place]]
        return name in (*TEMPLATES, USER_STACK) or name.startswith("syscalls:") or is_probe(samples)

    def _missing(self, name: str) -> MissingEventsError:
        event = self._events.get(name)
        if event is not None:
            found = f"its lines, but {event.body}"
        else:
            close = difflib.get_close_matches(name, self.formats, n=3)
            found = f"similar: {', '.join(close)}" if close else f"{len(self.formats)} other events"
        return MissingEventsError(
            f"the capture has no event {name}",
            path=self.path,
            expected=name,
            found=found,
            hint="record it: trace-cmd record -e SYSTEM:NAME; a trace.dat tells more than text",
        )


def full_name(key: str, samples: list[str]) -> str:
    """``system:name`` of an event.

    Args:
        key: The name and what ends it, as ``text_heads.Dialect.head`` finds them.
        samples: Its first bodies.
    """
    name = key.rstrip("(:<- >").removeprefix("<").partition("+")[0]
    if key.startswith("<"):
        return USER_STACK if name.startswith("user") else "ftrace:kernel_stack"
    if key.endswith(" <-"):
        return "ftrace:function"
    if name.startswith("sys_") and key.endswith(("(", " -> ")):
        return f"syscalls:sys_{'enter' if key.endswith('(') else 'exit'}_{name[4:]}"
    if ":" in name:
        return name
    if name == MARKER:
        return "ftrace:print"
    if name in SYSTEMS:
        return SYSTEMS[name]
    if name.startswith(("sys_enter_", "sys_exit_")):
        return f"syscalls:{name}"
    return f"{PROBE_SYSTEM if is_probe(samples) else UNKNOWN_SYSTEM}:{name}"
