"""Records of a perf.data -> time, CPU and payload of each: samples, and what has a name in perfdata_side."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from captures.cursor import HINT_CORRUPT
from captures.decode import gather
from captures.perfdata import constants as c
from captures.perfdata.chains import user_stacks
from captures.perfdata.side import IDS, happened, side_ids
from captures.tracedat.clock import MAX_NS
from schemas.errors import CorruptError, MissingEventsError

if TYPE_CHECKING:
    from captures.decode import Cpus
    from captures.perfdata.container import PerfData
    from captures.perfdata.records import Records
    from captures.ringbuf import Bytes, Flags, Longs

T = TypeVar("T")

_MOST_LAYOUTS: Final = 64
_SMALL_IDS: Final = 1 << 16
_LEAST_PAYLOAD: Final = 8
"""Bytes of the shortest payload: the common fields."""


@dataclass(frozen=True)
class Payloads:
    """Records of one block that are events.

    Attributes:
        block: Bytes that hold the payloads.
        place: Number of each record in the block.
        ids: Event of each, as ``perfdata.side`` numbers them; -1: a sample, whose payload tells.
        start: First byte of the payload of each in the block; of a record that is no sample, of the record.
        size: Bytes of the payload of each.
        ts_ns: Time of each.
        cpu: CPU of each; -1: not known.
    """

    block: Bytes
    place: Longs
    ids: Longs
    start: Longs
    size: Longs
    ts_ns: Longs
    cpu: Cpus

    def behind(self, records: int) -> Payloads:
        """The same, where so many records come before those of the block."""
        return replace(self, place=self.place + records) if records else self

    def take(self, chosen: Longs | Flags) -> Payloads:
        """Some of them, or in another order."""
        return Payloads(self.block, *(getattr(self, each.name)[chosen] for each in fields(self)[1:]))

    @classmethod
    def joined(cls, parts: list[Payloads]) -> Payloads:
        """All of them, in the order of the file."""
        parts = [each for each in parts if len(each.place)] or parts[:1]
        if len(parts) == 1:
            return parts[0]
        if len({id(part.block) for part in parts}) > 1:
            used = [part.block[int(part.start.min()) : int((part.start + part.size).max())] for part in parts]
            begin = np.cumsum([0, *map(len, used[:-1])]).tolist()
            block = np.concatenate(used)
            parts = [
                replace(part, block=block, start=part.start - part.start.min() + at)
                for part, at in zip(parts, begin, strict=True)
            ]
        columns = ([getattr(part, each.name) for part in parts] for each in fields(cls)[1:])
        whole = cls(parts[0].block, *(np.concatenate(column) for column in columns))
        is_sorted = bool((whole.place[1:] >= whole.place[:-1]).all())
        return whole if is_sorted else whole.take(np.argsort(whole.place, kind="stable"))


class SampleReader:
    """Finds the payloads of one file's records.

    Attributes:
        foreign: Samples of events that are no tracepoints.
        unknown: Samples with an id that no event has.
        short: Samples that end before their raw data do.
    """

    def __init__(self, perf: PerfData) -> None:
        """Group the events by the layout of their samples.

        Raises:
            CorruptError: Nothing in a sample tells of which event it is.
        """
        self._path, self._is_backward = perf.path, perf.is_backward
        self._u8 = np.dtype("<u8" if perf.order == "little" else ">u8")
        self._u4 = np.dtype("<u4" if perf.order == "little" else ">u4")
        kinds = [(each.sample, each.is_tracepoint) for each in perf.attrs]
        self._kinds, self._kind_of = _numbered(kinds)
        self._trailers, self._trailer_of = _numbered([each.trailer for each in perf.attrs])
        ids = [np.frombuffer(each.ids, self._u8).astype(np.uint64) for each in perf.attrs]
        owner = np.repeat(np.arange(len(ids)), [len(each) for each in ids])
        whole = np.concatenate([*ids, np.empty(0, dtype=np.uint64)])
        order = np.argsort(whole, kind="stable")
        self._ids, self._owner = whole[order], owner[order]
        # The kernel counts ids from 1: as long as they are small, they are places in a table.
        self._by_id = np.full(_SMALL_IDS, -1, dtype=np.int64)
        if len(whole) and self._ids[-1] < _SMALL_IDS - 1:
            self._by_id[self._ids[::-1].astype(np.int64)] = self._owner[::-1]
        self.foreign = self.unknown = self.short = 0
        places = {layout.id for layout, _ in self._kinds}
        if len(self._kinds) > 1 and (len(places) > 1 or None in places or len(self._kinds) > _MOST_LAYOUTS):
            raise CorruptError(
                "the samples of this perf.data cannot be told apart",
                path=self._path,
                expected=f"an event id at one place in all samples, and at most {_MOST_LAYOUTS} layouts",
                found=f"{len(self._kinds)} layouts, ids at bytes {', '.join(sorted(map(str, places))[:8])}",
                hint=HINT_CORRUPT,
            )

    def read(self, records: Records) -> Payloads:
        """The events among the records of a block, in the order of the file.

        Raises:
            MissingEventsError: Samples of a tracepoint lack their time, CPU or raw data.
        """
        sample = np.flatnonzero(records.type == c.SAMPLE)
        parts = []
        for kind, chosen in self._by_kind(records, sample):
            found, chains = self._samples(records, chosen, kind)
            # A stack comes behind its sample, which has its time: there a later place is an earlier event.
            parts += [*chains, found] if self._is_backward else [found, *chains]
        other = np.flatnonzero(records.type != c.SAMPLE)
        ids = side_ids(records.type[other], records.misc[other])
        parts.append(self._others(records, other[ids >= 0], ids[ids >= 0]))
        return Payloads.joined(parts)

    def _by_kind(self, records: Records, sample: Longs) -> list[tuple[int, Longs]]:
        """The samples of tracepoints by the kind of their event: number of the kind, places of records."""
        if not len(sample) or not self._kinds:
            self.unknown += len(sample)
            return []
        if len(self._kinds) == 1:
            by_kind = [(0, sample)]
        else:
            at = self._kinds[0][0].id
            assert at is not None, "else the file is refused"
            fits = records.size[sample] >= at + 8
            self.short += int((~fits).sum())
            sample = sample[fits]
            owner = self._owners(gather(records.block, records.start[sample] + at, self._u8))
            self.unknown += int((owner < 0).sum())
            kind = np.where(owner < 0, -1, self._kind_of[owner])
            by_kind = [(number, sample[kind == number]) for number in range(len(self._kinds))]
        self.foreign += sum(len(chosen) for kind, chosen in by_kind if not self._kinds[kind][1])
        return [(kind, chosen) for kind, chosen in by_kind if self._kinds[kind][1] and len(chosen)]

    def _owners(self, ids: np.ndarray[Any, Any]) -> Longs:
        """Number of the event that each id belongs to; -1: none."""
        if not len(self._ids):
            return np.full(len(ids), -1, dtype=np.int64)
        if self._ids[-1] < _SMALL_IDS - 1:
            known: Longs = self._by_id[np.minimum(ids, np.uint64(_SMALL_IDS - 1)).astype(np.int64)]
            return known
        at = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        return np.where(self._ids[at] == ids, self._owner[at], np.int64(-1))

    def _samples(self, records: Records, chosen: Longs, kind: int) -> tuple[Payloads, list[Payloads]]:
        """Samples with one layout, and their user stacks; those that end too early are left out."""
        layout = self._kinds[kind][0]
        if layout.time is None or layout.cpu is None or not layout.has_raw:
            raise MissingEventsError(
                "the samples of this perf.data lack their time, CPU or raw data",
                path=self._path,
                expected="PERF_SAMPLE_TIME, PERF_SAMPLE_CPU and PERF_SAMPLE_RAW of every tracepoint",
                found=f"time {layout.time is not None}, CPU {layout.cpu is not None}, raw {layout.has_raw}",
                hint="record it again: perf record -R -T --sample-cpu ...",
            )
        block = records.block
        count = len(chosen)
        (chosen,) = _only(records.size[chosen] >= layout.fixed_bytes, chosen)
        start = records.start[chosen]
        end = start + records.size[chosen]
        raw = start + layout.fixed_bytes
        if layout.group_head_bytes:
            raw = self._behind_array(block, raw, end, layout.group_head_bytes, layout.group_member_bytes)
        chain = raw
        if layout.has_callchain:
            raw = self._behind_array(block, raw, end, 8, 8)
        chosen, start, end, raw, chain = _only(raw + 4 <= end, chosen, start, end, raw, chain)
        size = gather(block, raw, self._u4).astype(np.int64)
        whole = (size >= _LEAST_PAYLOAD) & (raw + 4 + size <= end)
        chosen, start, raw, chain, size = _only(whole, chosen, start, raw, chain, size)
        self.short += count - len(chosen)
        ts_ns = _ns(gather(block, start + layout.time, self._u8))
        cpu = _cpus(gather(block, start + layout.cpu, self._u4))
        found = Payloads(block, chosen, np.full(len(chosen), -1, np.int64), raw + 4, size, ts_ns, cpu)
        if not layout.has_callchain or layout.tid is None:
            return found, []
        tid = gather(block, start + layout.tid, self._u4)
        own, whose, begin, length = user_stacks(block, chain, tid, self._u8)
        ids = np.full(len(whose), IDS["user_stack"], np.int64)
        return found, [Payloads(own, chosen[whose], ids, begin, length, ts_ns[whose], cpu[whose])]

    def _behind_array(self, block: Bytes, at: Longs, end: Longs, head: int, member: int) -> Longs:
        """First byte behind a u64 count, a head that it is part of, and as many members; ``end``: none."""
        fits = at + head <= end
        behind = end.copy()
        count = gather(block, at[fits], self._u8).astype(np.uint64)
        room = ((end[fits] - at[fits] - head) // member).astype(np.uint64)
        behind[fits] = np.where(
            count <= room, at[fits] + head + np.minimum(count, room).astype(np.int64) * member, end[fits]
        )
        return behind

    def _others(self, records: Records, chosen: Longs, ids: Longs) -> Payloads:
        """Records that are no samples, with the time and CPU that sample_id_all puts at their end.

        ``ids`` are their events. Records that perf made up at its begin have id 0 there, which no event has,
        and time 0.
        """
        start, size = records.start[chosen], records.size[chosen]
        ts_ns, cpu = np.zeros(len(chosen), dtype=np.int64), np.full(len(chosen), -1, dtype=np.int32)
        if len(self._trailers) == 1:
            owner = np.zeros(len(chosen), dtype=np.int64)
        else:
            at = (self._trailers[0].id if self._trailers else None) or 8
            fits = size >= at + c.RECORD_HEADER_BYTES
            owner = np.full(len(chosen), -1, dtype=np.int64)
            owner[fits] = self._owners(gather(records.block, (start + size - at)[fits], self._u8))
        for number, trailer in enumerate(self._trailers):
            mine = (owner >= 0) & (size >= trailer.size + c.RECORD_HEADER_BYTES)
            mine &= self._trailer_of[owner] == number
            end = (start + size)[mine]
            if trailer.time is not None:
                ts_ns[mine] = _ns(gather(records.block, end - trailer.time, self._u8))
            if trailer.cpu is not None:
                cpu[mine] = _cpus(gather(records.block, end - trailer.cpu, self._u4))
        kept = happened(ids, ts_ns)
        return Payloads(records.block, chosen, ids, start, size, ts_ns, cpu).take(kept)


def _numbered(values: list[T]) -> tuple[list[T], Longs]:
    """The different values, and for each of the given ones the number of its value."""
    numbers: dict[T, int] = {}
    number_of = [numbers.setdefault(each, len(numbers)) for each in values]
    return list(numbers), np.array(number_of, dtype=np.int64)


def _only(chosen: Flags, *columns: Longs) -> tuple[Longs, ...]:
    """The chosen rows of some columns."""
    return columns if chosen.all() else tuple(each[chosen] for each in columns)


def _ns(ts: np.ndarray[Any, Any]) -> Longs:
    """Times as int64; what does not fit is clipped."""
    native = ts.astype(np.uint64, copy=False)
    if len(native) and int(native.max()) > MAX_NS:
        native = np.minimum(native, np.uint64(MAX_NS))
    return native.view(np.int64)


def _cpus(cpu: np.ndarray[Any, Any]) -> Cpus:
    """CPUs as int32; -1: none that can be."""
    return np.where(cpu < c.MAX_CPUS, cpu, np.uint32(0xFFFFFFFF)).astype(np.uint32).view(np.int32)
