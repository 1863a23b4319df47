"""Records -> event columns: only the events that are asked for, with all their fields.

``Decoder`` takes the pages of every CPU block by block. Of each record it keeps the time; of the records that
were asked for it keeps the fixed part as raw bytes, and strings that lie elsewhere in the record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from captures.columns import arrow_type, fixed_column, variable_column
from captures.cursor import HINT_CORRUPT
from schemas.errors import CorruptError

if TYPE_CHECKING:
    from captures.eventfmt import EventFormat, Field
    from captures.ringbuf import Bytes, Longs, Records, Rows, Walker
    from captures.spans import Spans

    Cpus: TypeAlias = np.ndarray[Any, np.dtype[np.int32]]
    Shorts: TypeAlias = np.ndarray[Any, np.dtype[np.uint16]]

MAX_EVENT_BYTES = 1 << 16
MAX_IDS = (1 << 16) + 256
"""Ids of events: ``common_type`` has 16 bits; above are those of ``perfdata_side``."""


@dataclass
class EventParts:
    """What was kept of one event that was asked for, block by block.

    Attributes:
        format: Its format.
        fixed: Its fields in the fixed part of the record.
        variable: Its fields that lie elsewhere.
        row_bytes: Bytes of the fixed part, from the start of the payload, that hold all fields.
        rows: Raw fixed parts, one array a block. Shape (records,), type void of ``row_bytes``.
        index: Place of each record among all records of the capture, stream after stream.
        cpu: CPU of each record.
        texts: Values of each variable field, one array a block.
        short: Records that were too short for their format, and are left out.
        unreadable: Variable values that would lie outside their record, and are null.
    """

    format: EventFormat
    fixed: list[Field]
    variable: list[Field]
    row_bytes: int
    rows: list[np.ndarray[Any, Any]] = field(default_factory=list)
    index: list[Longs] = field(default_factory=list)
    cpu: list[Cpus] = field(default_factory=list)
    texts: dict[str, list[pa.Array[Any]]] = field(default_factory=dict)
    short: int = 0
    unreadable: int = 0

    @classmethod
    def of(cls, event: EventFormat) -> EventParts:
        """Plan the decoding of one event.

        Raises:
            CorruptError: The format puts a field where none can be.
        """
        own = list(event.fields.values())
        variable = [each for each in own if each.is_dynamic or each.is_tail]
        fixed = [each for each in own if not each.is_tail and not each.is_dynamic and each.size]
        placed = [event.common["common_pid"], *fixed, *variable]
        row_bytes = max(each.offset + each.size for each in placed)
        if row_bytes > MAX_EVENT_BYTES:
            raise CorruptError(
                f"the format of {event.system}:{event.name} cannot be right",
                path=event.path,
                expected=f"fields within {MAX_EVENT_BYTES} bytes",
                found=f"{row_bytes} bytes",
                hint=HINT_CORRUPT,
            )
        return cls(event, fixed, variable, row_bytes, texts={each.name: [] for each in variable})


class Decoder:
    """Collects the records of one capture.

    Attributes:
        events: What is kept of each event that was asked for, by id.
        counts: Records by id. Shape (MAX_IDS,).
        records: Records seen so far.
        times: Time of every record in ns, one array a block, stream after stream.
    """

    def __init__(
        self, wanted: list[EventFormat], order: str, type_offset: int, spans: Spans | None = None
    ) -> None:
        """Decode ``wanted``; ``order`` is ``<`` or ``>``, ``type_offset`` the byte of ``common_type``.

        ``spans``: takes the times of every record.
        """
        self.events = {each.id: EventParts.of(each) for each in wanted}
        self.counts = np.zeros(MAX_IDS, dtype=np.int64)
        self.records = 0
        self.times: list[Longs] = []
        self._order = order
        self._type_offset = type_offset
        self._spans = spans

    def add(self, walker: Walker, block: Bytes, records: Records, ts_ns: Longs, cpu: int) -> None:
        """Take the records of one block.

        Args:
            walker: The walker that made ``records``.
            block: The block.
            records: Its data records.
            ts_ns: Their times.
            cpu: Their CPU.
        """
        words = walker.words(block)
        header = words.take(records.word)
        is_large = walker.type_len(header) == 0
        payload = records.word + 1 + is_large
        ids = block.view(f"{self._order}u2").take(payload * 2 + self._type_offset // 2)
        for number, parts in self._present(ids, ts_ns):
            chosen = np.flatnonzero(ids == number)
            large = is_large[chosen]
            size = 4 * walker.type_len(header[chosen]).astype(np.int64)
            word = payload[chosen].astype(np.int64)
            size[large] = words[word[large] - 1].astype(np.int64) - 4
            self._take(parts, block, chosen, word * 4, size, cpu)
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
        for number, parts in self._present(ids, ts_ns):
            chosen = np.flatnonzero(ids == number)
            self._take(parts, block, chosen, start[chosen], size[chosen], cpu[chosen])
        self.records += len(ids)

    def _present(self, ids: Longs | Shorts, ts_ns: Longs) -> list[tuple[int, EventParts]]:
        """Count the records of a block, keep their times, and name the wanted events among them."""
        found = np.bincount(ids, minlength=MAX_IDS)
        self.counts += found
        self.times.append(ts_ns)
        if self._spans is not None:
            self._spans.note(ids, ts_ns)
        return [each for each in self.events.items() if each[0] < MAX_IDS and found[each[0]]]

    def _take(
        self, parts: EventParts, block: Bytes, chosen: Longs, start: Longs, size: Longs, cpu: int | Cpus
    ) -> None:
        """Keep the fixed part and the variable values of records of one event.

        Args:
            parts: Where to keep them.
            block: The block.
            chosen: Place of each record in the block's records.
            start: Byte of the block at which the payload of each begins.
            size: Bytes of the payload of each.
            cpu: The CPU of all, or of each.
        """
        long_enough = size >= parts.row_bytes
        if not long_enough.all():
            parts.short += int((~long_enough).sum())
            chosen, start, size = chosen[long_enough], start[long_enough], size[long_enough]
            cpu = cpu if isinstance(cpu, int) else cpu[long_enough]
        if not len(chosen):
            return
        kept = gather(block, start, np.dtype((np.void, parts.row_bytes)))
        parts.rows.append(kept)
        parts.index.append(chosen + self.records)
        parts.cpu.append(np.full(len(chosen), cpu, dtype=np.int32) if isinstance(cpu, int) else cpu)
        for each in parts.variable:
            at, length, valid = self._place(each, kept, start, size)
            parts.unreadable += int((~valid).sum())
            column = variable_column(block, at, length, valid, is_string=each.is_string)
            parts.texts[each.name].append(column)

    def _place(
        self, each: Field, rows: np.ndarray[Any, Any], start: Longs, size: Longs
    ) -> tuple[Longs, Longs, np.ndarray[Any, np.dtype[np.bool_]]]:
        """Where the values of a variable field are in the block, their lengths, and whether they can be."""
        if each.is_tail:
            at = np.full(len(start), each.offset, dtype=np.int64)
            length = size - each.offset
        else:
            location = field_bytes([rows], each).view(f"{self._order}u4")[:, 0].astype(np.int64)
            at = (location & 0xFFFF) + (each.offset + 4 if each.is_relative else 0)
            length = location >> 16
        return start + at, length, at + length <= size

    def table(self, number: int, rank: Longs, ts_ns: Longs) -> pa.Table:
        """The table of one event.

        Args:
            number: Its id.
            rank: Place in the total order of every record.
            ts_ns: Time of every record.

        Returns:
            Columns seq, ts_ns, cpu, pid, then the event's own fields, in order of seq. An own field that has
            the name of one of the first four gets ``_`` behind its name.
        """
        parts = self.events[number]
        index = _joined(parts.index, np.dtype(np.int64))
        seq = rank[index]
        order = None if bool((seq[1:] > seq[:-1]).all()) else np.argsort(seq, kind="stable")
        if order is not None:
            seq, index = seq[order], index[order]
        cpu = _joined(parts.cpu, np.dtype(np.int32))
        pid = field_bytes(parts.rows, parts.format.common["common_pid"], order).view(f"{self._order}i4")[:, 0]
        columns: dict[str, Any] = {
            "seq": seq,
            "ts_ns": ts_ns[index],
            "cpu": cpu if order is None else cpu[order],
            "pid": pid.astype(np.int32),
        }
        for name, each in parts.format.fields.items():
            column = f"{name}_" if name in ("seq", "ts_ns", "cpu", "pid") else name
            if name in parts.texts:
                values = pa.chunked_array(parts.texts[name], arrow_type(each)).combine_chunks()
                columns[column] = values if order is None else values.take(pa.array(order))
            elif each.size:
                columns[column] = fixed_column(field_bytes(parts.rows, each, order), each, self._order)
        return pa.table(columns)


def field_bytes(blocks: list[np.ndarray[Any, Any]], each: Field, order: Longs | None = None) -> Rows:
    """The bytes of one field of all rows of all blocks. Shape (rows, field.size), C order.

    Args:
        blocks: Raw fixed parts. Shape (records,), type void.
        each: The field.
        order: Order of the result; None: as in ``blocks``.
    """
    element = np.dtype(f"u{each.size}" if each.size in (1, 2, 4, 8) else (np.void, each.size))
    values = np.empty(sum(len(rows) for rows in blocks), dtype=element)
    start = 0
    for rows in blocks:
        stride = rows.dtype.itemsize
        values[start : start + len(rows)] = np.ndarray(
            len(rows), dtype=element, buffer=rows.data, offset=each.offset, strides=(stride,)
        )
        start += len(rows)
    if order is not None:
        values = values[order]
    return values.view(np.uint8).reshape(len(values), each.size)


def gather(block: Bytes, start: Longs, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """The elements that begin at the bytes ``start`` of a block, wherever that is.

    Args:
        block: The block, contiguous.
        start: First byte of each; the whole element lies in the block.
        dtype: Type of the elements.
    """
    if not len(start):
        return np.empty(0, dtype=dtype)
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


def _joined(parts: list[Any], dtype: np.dtype[Any]) -> Any:
    if not parts:
        return np.empty(0, dtype=dtype)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
