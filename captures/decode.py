"""Records -> event columns: only of the events that are asked for, and of them only the fields.

``Decoder`` takes records as they come, window after window or block after block. It takes the fields out at
once, while the records are in the cache of the CPU, and keeps nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import pyarrow as pa

from captures.columns import arrow_type, fixed_column, list_column, numbers, reordered, variable_column
from captures.cursor import HINT_CORRUPT
from captures.ringbuf import payload_sizes
from schemas.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from captures.eventfmt import EventFormat, Field
    from captures.ringbuf import Bytes, Longs
    from captures.spans import Spans
    from captures.windows import Window

    Cpus: TypeAlias = np.ndarray[Any, np.dtype[np.int32]]
    Values: TypeAlias = np.ndarray[Any, np.dtype[Any]]

COMMON: Final = ("seq", "ts_ns", "cpu", "pid")
"""Columns that every event table begins with."""

_COMMON_TYPES: Final = (pa.int64(), pa.int64(), pa.int32(), pa.int32())

JOINED_ROWS: Final = 1 << 15
"""Rows up to which the parts of a table are joined."""

MAX_EVENT_BYTES: Final = 1 << 16
MAX_IDS: Final = (1 << 16) + 256
"""Ids of events: ``common_type`` has 16 bits; above are those of ``perfdata.side``."""


@dataclass
class EventParts:
    """What was kept of one event that was asked for, part by part.

    Attributes:
        format: Its format.
        pid: Its field ``common_pid``.
        asked: Its own fields that were asked for, in the order of the format.
        fixed: Those in the fixed part of the record.
        variable: Those that lie elsewhere.
        row_bytes: Bytes of the fixed part, from the start of the payload, that hold all fields.
        index: Place of each record among all records of the capture, in the order in which they come.
        values: Values of ``ts_ns``, ``cpu``, ``pid`` and each fixed field, one array a part.
        texts: Values of each variable field, one array a part.
        short: Records that were too short for their format, and are left out.
        unreadable: Variable values that would lie outside their record, and are null.
    """

    format: EventFormat
    pid: Field
    asked: list[Field]
    fixed: list[Field]
    variable: list[Field]
    row_bytes: int
    index: list[Longs] = field(default_factory=list)
    values: dict[str, list[Values]] = field(default_factory=dict)
    texts: dict[str, list[pa.Array[Any]]] = field(default_factory=dict)
    short: int = 0
    unreadable: int = 0

    @classmethod
    def of(cls, event: EventFormat, columns: Collection[str] | None) -> EventParts:
        """Plan the decoding of one event; ``columns``: those of its own fields that are needed, None: all.

        Raises:
            CorruptError: The format puts a field where none can be.
        """
        own = [each for each in event.fields.values() if each.size or each.is_tail]
        pid = event.common["common_pid"]
        row_bytes = max(each.offset + each.size for each in [pid, *own])
        if row_bytes > MAX_EVENT_BYTES:
            raise CorruptError(
                f"the format of {event.system}:{event.name} cannot be right",
                path=event.path,
                expected=f"fields within {MAX_EVENT_BYTES} bytes",
                found=f"{row_bytes} bytes",
                hint=HINT_CORRUPT,
            )
        asked = [each for each in own if columns is None or column_name(each.name) in columns]
        variable = [each for each in asked if each.is_dynamic or each.is_tail]
        fixed = [each for each in asked if not each.is_dynamic and not each.is_tail]
        return cls(event, pid, asked, fixed, variable, row_bytes)

    def keep(self, name: str, values: Values) -> None:
        """Keep the values of a column for the records of one part."""
        self.values.setdefault(name, []).append(values)


class Decoder:
    """Collects the records of one capture.

    Attributes:
        events: What is kept of each event that was asked for, by id.
        counts: Records by id. Shape (MAX_IDS,).
        records: Records seen so far.
        times: Time of every record in ns that did not come in order of time, one array a part.
    """

    def __init__(
        self,
        wanted: Mapping[EventFormat, Collection[str] | None],
        order: str,
        type_offset: int,
        spans: Spans | None = None,
    ) -> None:
        """Nothing is seen yet.

        Args:
            wanted: The events that are asked for, and of each the columns of its own fields; None: all.
            order: Byte order, ``<`` or ``>``.
            type_offset: Byte of the payload at which ``common_type`` is.
            spans: Takes the times of every record.
        """
        self.events = {each.id: EventParts.of(each, columns) for each, columns in wanted.items()}
        self.counts = np.zeros(MAX_IDS, dtype=np.int64)
        self.records = 0
        self.times: list[Longs] = []
        self._order = order
        self._type_offset = type_offset
        self._spans = spans
        # Number of an event among those that were asked for, from 1, by id; 0: it was not.
        self._parts = [each for number, each in self.events.items() if number < MAX_IDS]
        small = np.uint8 if len(self._parts) < 256 else np.uint16
        self._numbers = np.zeros(MAX_IDS, dtype=small)
        self._numbers[[each.format.id for each in self._parts]] = np.arange(1, len(self._parts) + 1)

    def add_window(self, window: Window) -> None:
        """Take the records of a window that are due."""
        words, records, due = window.words, window.records, window.due
        type_word = words.take(records.payload + self._type_offset // 4)
        is_upper = (self._type_offset % 4 == 2) != (self._order == ">")
        ids = (type_word >> 16 if is_upper else type_word).astype(np.uint16)
        if due is not None:
            ids = ids.take(due)
        else:
            self.times.append(window.ts_ns)
        self._count(ids)
        if self._spans is not None:
            self._spans.note(ids, window.ts_ns if due is None else window.ts_ns[due])
        chosen, bounds = self._wanted(ids)
        if len(chosen):
            record = chosen if due is None else due.take(chosen)
            payload = records.payload.take(record)
            size = payload_sizes(words, payload, records.is_large.take(record))
            cpu = window.cpu_of_page.take(records.page.take(record))
            ts_ns = window.ts_ns.take(record)
            self._take_all(bounds, words.view(np.uint8), chosen, payload * 4, size, ts_ns, cpu)
        self.records += len(ids)

    def add_payloads(
        self, block: Bytes, ids: Longs, start: Longs, size: Longs, ts_ns: Longs, cpu: Cpus
    ) -> None:
        """Take records of which it is known where their payloads are.

        Args:
            block: Bytes that hold the payloads, one after the other in memory.
            ids: Event of each; -1: its ``common_type`` tells.
            start: Byte of the block at which each begins.
            size: Bytes of each, all of them in the block, ``type_offset`` + 2 at least.
            ts_ns: Time of each.
            cpu: CPU of each.
        """
        untold = ids < 0
        types = gather(block, start[untold] + self._type_offset, np.dtype(f"{self._order}u2"))
        ids = ids.copy()
        ids[untold] = types
        self._count(ids)
        if self._spans is not None:
            self._spans.note(ids, ts_ns)
        chosen, bounds = self._wanted(ids)
        if len(chosen):
            self._take_all(bounds, block, chosen, start[chosen], size[chosen], ts_ns[chosen], cpu[chosen])
        self.records += len(ids)

    def _count(self, ids: Values) -> None:
        self.counts += np.bincount(ids, minlength=MAX_IDS)

    def _wanted(self, ids: Values) -> tuple[Longs, Longs]:
        """The records of events that were asked for, event after event, and where each event begins."""
        numbers = self._numbers.take(ids)
        chosen = np.flatnonzero(numbers)
        numbers = numbers.take(chosen)
        bounds = np.cumsum(np.bincount(numbers, minlength=len(self._parts) + 1))
        return chosen.take(np.argsort(numbers, kind="stable")), bounds

    def _take_all(
        self, bounds: Longs, block: Bytes, chosen: Longs, start: Longs, size: Longs, ts_ns: Longs, cpu: Cpus
    ) -> None:
        """Take records of several events, event after event, whose ends are ``bounds``."""
        places = chosen + self.records
        for number in np.flatnonzero(np.diff(bounds)).tolist():
            of = slice(int(bounds[number]), int(bounds[number + 1]))
            self._take(self._parts[number], block, places[of], start[of], size[of], ts_ns[of], cpu[of])

    def _take(
        self,
        parts: EventParts,
        block: Bytes,
        places: Longs,
        start: Longs,
        size: Longs,
        ts_ns: Longs,
        cpu: Cpus,
    ) -> None:
        """Keep the fields of records of one event.

        Args:
            parts: Where to keep them.
            block: The block.
            places: Place of each record among all of the capture.
            start: Byte of the block at which the payload of each begins.
            size: Bytes of the payload of each.
            ts_ns: The time of each.
            cpu: The CPU of each.
        """
        if int(size.min()) < parts.row_bytes:
            long_enough = np.flatnonzero(size >= parts.row_bytes)
            parts.short += len(size) - len(long_enough)
            if not len(long_enough):
                return
            places, start, size = places[long_enough], start[long_enough], size[long_enough]
            ts_ns, cpu = ts_ns[long_enough], cpu[long_enough]
        parts.index.append(places)
        parts.keep("ts_ns", ts_ns)
        parts.keep("cpu", cpu)
        rows = gather(block, start, np.dtype((np.void, parts.row_bytes)))
        parts.keep("pid", field_values(rows, parts.pid).copy())
        for each in parts.fixed:
            parts.keep(column_name(each.name), field_values(rows, each).copy())
        for each in parts.variable:
            at, length, valid = self._place(each, rows, start, size)
            parts.unreadable += len(valid) - int(np.count_nonzero(valid))
            column = variable_column(block, at, length, valid, is_string=each.is_string)
            if each.element_bytes > 1:
                column = list_column(column, each, self._order)
            parts.texts.setdefault(column_name(each.name), []).append(column)

    def _place(
        self, each: Field, rows: Values, start: Longs, size: Longs
    ) -> tuple[Longs, Longs, np.ndarray[Any, np.dtype[np.bool_]]]:
        """Where the values of a variable field are in the block, their lengths, and whether they can be."""
        if each.is_tail:
            at = np.full(len(start), each.offset, dtype=np.int64)
            length = (size - each.offset) // each.element_bytes * each.element_bytes
        else:
            location = field_values(rows, each).view(f"{self._order}u4").astype(np.int64)
            at = (location & 0xFFFF) + (each.offset + 4 if each.is_relative else 0)
            length = location >> 16
        return start + at, length, at + length <= size

    def table(self, number: int, rank: Longs | None = None) -> pa.Table:
        """The table of one event.

        Args:
            number: Its id.
            rank: Place in the total order of every record; None: that in which they came.

        Returns:
            Columns seq, ts_ns, cpu, pid, then the event's own fields that were asked for, in order of seq.
            An own field that has the name of one of the first four gets ``_`` behind its name.
        """
        parts = self.events[number]
        if not parts.index:  # most events of most captures
            own = [(column_name(each.name), arrow_type(each)) for each in parts.asked]
            return pa.schema([*zip(COMMON, _COMMON_TYPES, strict=True), *own]).empty_table()
        index = joined(parts.index, np.dtype(np.int64))
        seq = index if rank is None else rank[index]
        order = None if rank is None or bool((seq[1:] > seq[:-1]).all()) else np.argsort(seq, kind="stable")
        # A large table stays in the parts that it came in: joining them costs as much as taking them out.
        in_parts = rank is None and len(seq) > JOINED_ROWS

        def values(name: str, dtype: np.dtype[Any]) -> list[Values]:
            if in_parts:
                return parts.values[name]
            whole = joined(parts.values.get(name, []), dtype)
            return [whole if order is None else whole[order]]

        pid = [
            each.view(f"{self._order}i4").astype(np.int32, copy=False)
            for each in values("pid", element_type(parts.pid))
        ]
        columns: dict[str, Any] = {
            "seq": parts.index if in_parts else [seq if order is None else seq[order]],
            "ts_ns": values("ts_ns", np.dtype(np.int64)),
            "cpu": values("cpu", np.dtype(np.int32)),
            "pid": pid,
        }
        columns = {name: pa.chunked_array(map(numbers, each)) for name, each in columns.items()}
        for each in parts.asked:
            name = column_name(each.name)
            if each.is_dynamic or each.is_tail:
                texts = pa.chunked_array(parts.texts.get(name, []), arrow_type(each))
                texts = texts if in_parts else texts.combine_chunks()
                columns[name] = texts if order is None else reordered(texts, order)
            else:
                columns[name] = pa.chunked_array(
                    fixed_column(raw.view(np.uint8).reshape(-1, each.size), each, self._order)
                    for raw in values(name, element_type(each))
                )
        return pa.table(columns)


def column_name(field: str) -> str:
    """Name of the column of an event's own field."""
    return f"{field}_" if field in COMMON else field


def element_type(each: Field) -> np.dtype[Any]:
    """Type whose elements are as large as a field."""
    return np.dtype(f"u{each.size}" if each.size in (1, 2, 4, 8) else (np.void, each.size))


def field_values(rows: Values, each: Field) -> Values:
    """The bytes of one field of some rows, in ``element_type``: a view of them.

    Args:
        rows: Raw fixed parts. Shape (records,), type void.
        each: The field.
    """
    return np.ndarray(
        len(rows),
        dtype=element_type(each),
        buffer=rows.data,
        offset=each.offset,
        strides=(rows.dtype.itemsize,),
    )


def gather(block: Bytes, start: Longs, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """The elements that begin at the bytes ``start`` of a block, wherever that is.

    Args:
        block: The block, contiguous.
        start: First byte of each; the whole element lies in the block.
        dtype: Type of the elements.
    """
    if not len(start):
        return np.empty(0, dtype=dtype)
    size = dtype.itemsize
    if size in (2, 4, 8) and block.ctypes.data % size == 0 and not (start & (size - 1)).any():
        # As words: a fifth of the time.
        return block[: len(block) // size * size].view(dtype).take(start >> size.bit_length() - 1)
    # One void element at every byte of the block, overlapping: indexing copies whole elements.
    whole = np.dtype((np.void, dtype.itemsize))
    places = len(block) - dtype.itemsize + 1
    return np.ndarray((places,), dtype=whole, buffer=block.data, strides=(1,))[start].view(dtype)


def type_offset(wanted: list[EventFormat], path: str) -> int:
    """Byte of the payload at which every record has its event id; 0: nothing is wanted.

    Raises:
        CorruptError: The formats do not agree, or lack the common fields.
    """
    places = {
        (each.common["common_type"].offset, each.common["common_type"].size)
        for each in wanted
        if "common_type" in each.common and "common_pid" in each.common
    }
    complete = all(
        {"common_type", "common_pid"} <= each.common.keys() and each.common["common_pid"].size == 4
        for each in wanted
    )
    if not wanted:
        return 0
    if not complete or len(places) != 1 or min(places)[1] != 2 or min(places)[0] % 2 or min(places)[0] > 64:
        raise CorruptError(
            "the event formats disagree about the common fields",
            path=path,
            expected="common_type (2 bytes, one place) and common_pid (4 bytes) in every format",
            found=f"common_type at {sorted(places)}",
            hint="the file was damaged: copy it again",
        )
    return min(places)[0]


def joined(parts: list[Any], dtype: np.dtype[Any]) -> Any:
    """Arrays one after the other."""
    if not parts:
        return np.empty(0, dtype=dtype)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
