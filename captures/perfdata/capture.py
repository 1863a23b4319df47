"""PerfCapture: a perf.data as a Capture; one pass over the records answers all that is asked at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from captures import losses
from captures.binary import FromRecords
from captures.decode import Decoder, joined, type_offset
from captures.eventfmt import parse_formats
from captures.info import CaptureInfo
from captures.perfdata import constants as c
from captures.perfdata import quality as perfdata_quality
from captures.perfdata.container import no_formats, read_perfdata
from captures.perfdata.records import RecordStream
from captures.perfdata.rounds import in_order, time_order
from captures.perfdata.samples import SampleReader
from captures.perfdata.side import FIRST_ID, IDS, SIDE_EVENTS, side_formats
from captures.windows import OutOfOrder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from captures.decode import Cpus
    from captures.eventfmt import EventFormat
    from captures.perfdata.records import Records
    from captures.perfdata.samples import Payloads
    from captures.ringbuf import Longs
    from captures.source import Source
    from captures.spans import Spans

_ALWAYS: Final = ("perf:comm", "perf:exec", "perf:fork", "perf:lost_samples")
"""Events that every pass decodes: they are few, and tell names of tasks and losses."""

_NEVER: Final = 1 << 63


@dataclass(frozen=True)
class Scan:
    """What one pass over all records tells besides the events that were asked for.

    Attributes:
        counts: Records by event id. Shape (decode.MAX_IDS,).
        first_ts_ns: Time of the earliest sample; None: there is none.
        last_ts_ns: Time of the latest; None: there is none.
        cpus: CPUs that have samples.
        losses: What was lost.
        side: Tables of the events in ``_ALWAYS``, as they came.
        damage: Why the records end early; None: they do not.
        is_truncated: Whether that is because the file ends.
        foreign, unknown, short: As in SampleReader.
    """

    counts: Longs
    first_ts_ns: int | None
    last_ts_ns: int | None
    cpus: int
    losses: perfdata_quality.Losses
    side: dict[str, pa.Table]
    damage: str | None
    is_truncated: bool
    foreign: int
    unknown: int
    short: int


class PerfCapture(FromRecords[Scan]):
    """A capture of perf record, as a file or from a pipe. See ``captures.info.Capture``.

    Records that are no samples are events of the system ``perf`` (``perf:comm``, ``perf:fork``,
    ``perf:mmap2`` ...). Of ``perf:comm``, ``perf:mmap`` and ``perf:mmap2`` those with time 0 tell what perf
    found when it began.
    """

    record_line = "perf record -e SYSTEM:NAME"

    def __init__(self, source: Source) -> None:
        """Read the tables of the file, but no record.

        Raises:
            UnknownFormatError, TruncatedError, CorruptError: The tables cannot be read.
        """
        super().__init__()
        self._source = source
        self._perf = read_perfdata(source.data, source.path)
        self._side_formats = side_formats(source.path)

    @property
    def command_line(self) -> list[str]:
        """The command that recorded the file; empty: the file does not say."""
        return self._perf.command_line()

    @cached_property
    def formats(self) -> Mapping[str, EventFormat]:
        """Format of every event that the capture knows, by ``system:name``, recorded or not.

        Raises:
            TruncatedError: The file has tracepoints, but not their formats.
        """
        tables = self._perf.tables
        if tables is None and any(each.is_tracepoint for each in self._perf.attrs):
            raise no_formats(self._perf)
        own = parse_formats(tables.event_texts if tables else [], self.path)
        told = {f"perf:{each.name}" for each in SIDE_EVENTS if each.is_told}
        return own | {name: each for name, each in self._side_formats.items() if name in told}

    @cached_property
    def info(self) -> CaptureInfo:
        """Where the capture comes from and what is in it; ``events`` are the samples of tracepoints."""
        perf, scan = self._perf, self._scanned()
        kinds = ["pipe"] if perf.is_pipe else []
        kinds += ["zstd"] if perf.feature(c.FEATURE_COMPRESSED) is not None else []
        inner = f" ({', '.join(kinds)})" if kinds else ""
        version = perf.string(c.FEATURE_VERSION)
        return CaptureInfo(
            path=self._source.shown_path,
            format=f"perf.data{inner}{self._packing}",
            size_bytes=self._source.size_bytes,
            sha256=self._source.sha256,
            kernel_release=perf.string(c.FEATURE_OSRELEASE),
            arch=perf.string(c.FEATURE_ARCH),
            hostname=perf.string(c.FEATURE_HOSTNAME),
            clock=perf.attrs[0].clock if perf.attrs else None,
            cpus=perf.cpus_online() or scan.cpus,
            first_ts_ns=scan.first_ts_ns,
            last_ts_ns=scan.last_ts_ns,
            events=int(scan.counts[:FIRST_ID].sum()),
            events_lost=None if perf.is_backward else scan.losses.total,
            truncated=bool(perf.damage or self._source.damage) or scan.is_truncated,
            tool=f"perf {version}" if version else None,
        )

    def quality(self) -> pa.Table:
        """Table ``quality``: lost events, damage, clock problems and what was not recorded."""
        scan, perf = self._scanned(), self._perf
        rows = [
            *losses.file_rows(self._source.damage),
            *perfdata_quality.damage_rows(perf.damage, scan.damage, is_truncated=scan.is_truncated),
            *perfdata_quality.loss_rows(scan.losses),
            *perfdata_quality.sample_rows(scan.foreign, scan.unknown, scan.short),
            *perfdata_quality.overwritten_rows(is_backward=perf.is_backward),
            *perfdata_quality.attr_rows(perf.attrs, int(scan.counts[IDS["throttle"]])),
            *losses.clock_rows(
                {each.clock for each in perf.attrs if each.is_tracepoint}, has_tsc_conversion=False
            ),
        ]
        if perf.tables is not None:
            rows += losses.machine_rows(self.info.arch, perf.tables.machine_page_bytes)
            rows += losses.unknown_rows(scan.counts, {**self.formats, **self._side_formats})
        rows += losses.broken_rows(self._broken)
        return losses.quality_table(rows)

    def comms(self) -> dict[int, str]:
        """Names of tasks by thread id: the last one each had; a new task has that of its parent."""
        side = self._scanned().side
        told = pa.concat_tables(
            side[name].select(["ts_ns", "pid", "comm"]) for name in ("perf:comm", "perf:exec")
        )
        told = told.sort_by("ts_ns")
        names: dict[int, str] = dict(zip(told["pid"].to_pylist(), told["comm"].to_pylist(), strict=True))
        fork = side["perf:fork"].sort_by("ts_ns")
        for child, parent in zip(fork["child_pid"].to_pylist(), fork["pid"].to_pylist(), strict=True):
            if child not in names and parent in names:
                names[child] = names[parent]
        return names

    def stored_maps(self) -> str:
        """Empty: what perf finds when it begins are records."""
        return ""

    def symbol(self, address: int) -> str | None:
        """None: a perf.data does not say which functions the kernel has."""
        return None

    def _read(
        self, wanted: Mapping[EventFormat, Collection[str] | None], spans: Spans | None = None
    ) -> tuple[Decoder, Longs | None]:
        """See ``FromRecords``: one pass, or two where records are not in rounds (``rounds``)."""
        # Of records that are compressed it is not known in which of the rounds beside them they are.
        if not self._perf.is_backward and self._perf.feature(c.FEATURE_COMPRESSED) is None:
            try:
                return self._pass(wanted, spans, in_order), None
            except OutOfOrder:
                pass
        times: list[Longs] = []
        cpus: list[Cpus] = []

        def in_file_order(blocks: Iterable[tuple[Records, Payloads]]) -> Iterator[Payloads]:
            for _, found in blocks:
                times.append(found.ts_ns)
                cpus.append(found.cpu)
                yield found

        decoder = self._pass(wanted, spans, in_file_order)
        ts_ns, cpu = joined(times, np.dtype(np.int64)), joined(cpus, np.dtype(np.int32))
        rank = np.empty(len(ts_ns), dtype=np.int64)
        rank[time_order(ts_ns, cpu, backward=self._perf.is_backward)] = np.arange(len(ts_ns))
        return decoder, rank

    def _pass(
        self,
        wanted: Mapping[EventFormat, Collection[str] | None],
        spans: Spans | None,
        ordered: Callable[[Iterable[tuple[Records, Payloads]]], Iterator[Payloads]],
    ) -> Decoder:
        """One pass over all records; ``ordered`` gives the payloads of blocks in some order."""
        perf = self._perf
        always = [self._side_formats[name] for name in _ALWAYS]
        at = type_offset([each for each in wanted if each.id < FIRST_ID], self.path)
        order = "<" if perf.order == "little" else ">"
        decoder = Decoder({**wanted, **dict.fromkeys(always)}, order, at, spans)
        reader, stream = SampleReader(perf), RecordStream(perf)
        notes = perfdata_quality.LossNotes(np.dtype(f"{order}u8"))
        first, last, seen = _NEVER, -1, np.zeros(c.MAX_CPUS, dtype=np.bool_)

        def blocks() -> Iterator[tuple[Records, Payloads]]:
            for records in stream.blocks():
                found = reader.read(records)
                notes.note(found)
                yield records, found

        for found in ordered(blocks()):
            decoder.add_payloads(found.block, found.ids, found.start, found.size, found.ts_ns, found.cpu)
            times = found.ts_ns[found.ids < 0]
            if len(times):
                first, last = min(first, int(times.min())), max(last, int(times.max()))
                seen[found.cpu[found.cpu >= 0]] = True
        side = {each: decoder.table(self._side_formats[each].id) for each in _ALWAYS}
        self._scan = Scan(
            counts=decoder.counts,
            first_ts_ns=first if last >= 0 else None,
            last_ts_ns=last if last >= 0 else None,
            cpus=int(seen.sum()),
            losses=notes.losses(side["perf:lost_samples"]["lost"].to_numpy()),
            side=side,
            damage=stream.damage,
            is_truncated=stream.is_truncated,
            foreign=reader.foreign,
            unknown=reader.unknown,
            short=reader.short,
        )
        return decoder
