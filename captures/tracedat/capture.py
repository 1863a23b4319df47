"""TraceDatCapture: a trace.dat as a Capture; one pass over the pages answers all that is asked at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from captures import losses
from captures.binary import FromRecords
from captures.decode import Decoder, joined, type_offset
from captures.eventfmt import parse_formats
from captures.info import CaptureInfo
from captures.tracedat import constants as c
from captures.tracedat import losses as stream_losses
from captures.tracedat.clock import TimeConversion
from captures.tracedat.read import read_container
from captures.tracedat.stream import PageStream
from captures.tracedat.v7 import open_table
from captures.windows import OutOfOrder, WindowReader

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    import pyarrow as pa

    from captures.eventfmt import EventFormat
    from captures.ringbuf import Longs
    from captures.source import Source
    from captures.spans import Spans
    from captures.tracedat.container import Buffer
    from captures.windows import Window


@dataclass(frozen=True)
class Scan:
    """What one pass over all records tells besides the events that were asked for.

    Attributes:
        counts: Records by event id. Shape (decode.MAX_IDS,).
        events: Records.
        first_ts_ns: Time of the earliest; None: there is none.
        last_ts_ns: Time of the latest; None: there is none.
        streams: What was seen of each CPU of each buffer.
    """

    counts: Longs
    events: int
    first_ts_ns: int | None
    last_ts_ns: int | None
    streams: tuple[stream_losses.StreamFacts, ...]


class TraceDatCapture(FromRecords[Scan]):
    """A capture in the format of trace-cmd, version 6 or 7. See ``captures.info.Capture``."""

    record_line = "trace-cmd record -e SYSTEM:NAME"

    def __init__(self, source: Source, ts2secs: int | None = None) -> None:
        """Read the tables of the file, but no event.

        Args:
            source: The file.
            ts2secs: Ticks a second of its clock; None: its times are ns, or it says what they are.

        Raises:
            UnknownFormatError, TruncatedError, CorruptError: The tables cannot be read.
        """
        super().__init__()
        self._source = source
        self._container = read_container(source.data, source.path)
        self._formats = parse_formats(self._container.event_texts, source.path)
        self._ts2secs = ts2secs
        self._convert = TimeConversion.of(self._container, ts2secs)

    @property
    def formats(self) -> Mapping[str, EventFormat]:
        """Format of every event that the capture knows, by ``system:name``, recorded or not."""
        return self._formats

    @cached_property
    def info(self) -> CaptureInfo:
        """Where the capture comes from and what is in it."""
        container, scan = self._container, self._scanned()
        uname = (container.option_text(c.UNAME) or "").split()
        version = container.option_text(c.VERSION)
        inner = f" ({container.compression})" if container.codec else ""
        return CaptureInfo(
            path=self._source.shown_path,
            format=f"trace.dat v{container.version}{inner}{self._packing}",
            size_bytes=self._source.size_bytes,
            sha256=self._source.sha256,
            kernel_release=uname[2] if len(uname) > 2 else None,
            arch=uname[-1] if len(uname) > 3 else None,
            hostname=uname[1] if len(uname) > 1 else None,
            clock=(self._used_buffers or container.buffers)[0].clock if container.buffers else None,
            cpus=len({place.cpu for buffer in container.buffers for place in buffer.cpus}),
            first_ts_ns=scan.first_ts_ns,
            last_ts_ns=scan.last_ts_ns,
            events=scan.events,
            events_lost=stream_losses.events_lost(scan.streams, stream_losses.kernel_statistics(container)),
            truncated=bool(container.damage or self._source.damage)
            or any(each.is_truncated for each in scan.streams),
            tool=f"trace-cmd {version.split()[0]}" if version and version.split() else None,
        )

    def quality(self) -> pa.Table:
        """Table ``quality``: lost events, damage and clock problems."""
        scan = self._scanned()
        statistics = stream_losses.kernel_statistics(self._container)
        rows = [
            row
            for stream in scan.streams
            for row in stream_losses.stream_rows(stream, statistics.get((stream.buffer, stream.cpu), 0))
        ]
        rows += [*losses.file_rows(self._container.damage), *losses.file_rows(self._source.damage)]
        used = self._used_buffers
        rows += losses.clock_rows(
            (each.clock for each in used),
            has_tsc_conversion=self._convert.is_tsc,
            ts2secs=self._ts2secs,
            of_ticks=bool({each.name for each in used} & stream_losses.buffers_of_ticks(self._container)),
        )
        rows += losses.machine_rows(self.info.arch, self._container.machine_page_bytes)
        rows += losses.unknown_rows(scan.counts, self.formats)
        rows += losses.broken_rows(self._broken)
        return losses.quality_table(rows)

    def comms(self) -> dict[int, str]:
        """Names of tasks by thread id (saved_cmdlines: at most 128 by default)."""
        names = {}
        for line in self._table(c.CMDLINES).decode("utf-8", "backslashreplace").splitlines():
            pid, _, comm = line.partition(" ")
            if pid.isdecimal() and comm:
                names[int(pid)] = comm
        return names

    def stored_maps(self) -> str:
        """Content of the options PROCMAPS (trace-cmd record --proc-map)."""
        return "\n".join(
            each.decode("utf-8", "replace") for each in self._container.options.get(c.PROCMAPS, [])
        )

    def symbol(self, address: int) -> str | None:
        """Name of the kernel function that begins at ``address``; None: kallsyms does not say."""
        text = self._kallsyms
        digits = self._container.layout.commit_bytes * 2
        start = text.find(b"%0*x " % (digits, address))
        if start < 0 or (start and text[start - 1] != 0x0A):
            return None
        line = text[start : start + 512].split(b"\n", 1)[0].split()
        return line[2].decode("utf-8", "backslashreplace") if len(line) > 2 else None

    @property
    def _used_buffers(self) -> list[Buffer]:
        """The buffers that have data."""
        return [each for each in self._container.buffers if any(place.size for place in each.cpus)]

    @cached_property
    def _kallsyms(self) -> bytes:
        return self._table(c.KALLSYMS)

    def _table(self, number: int) -> bytes:
        """Content of kallsyms, printk formats or command lines; empty: the file has none."""
        if number not in self._container.tables:
            return b""
        section, compressed = self._container.tables[number]
        name = c.SECTION_NAMES[number]
        table = open_table(self._container, section, compressed, name)
        size = table.remaining
        if self._container.version == 7:
            size = (
                table.u64(f"the size of {name}") if number == c.CMDLINES else table.u32(f"the size of {name}")
            )
        return bytes(table.take(size, name))

    def _read(
        self, wanted: Mapping[EventFormat, Collection[str] | None], spans: Spans | None = None
    ) -> tuple[Decoder, Longs | None]:
        """See ``FromRecords``: one pass, or two where times go back."""
        try:
            return self._pass(wanted, spans, WindowReader.in_order), None
        except OutOfOrder:
            decoder = self._pass(wanted, spans, WindowReader.in_file_order)
            lengths = [each.records for each in self._scanned().streams]
            return decoder, _ranks(joined(decoder.times, np.dtype(np.int64)), lengths)

    def _pass(
        self,
        wanted: Mapping[EventFormat, Collection[str] | None],
        spans: Spans | None,
        windows: Callable[[WindowReader], Iterator[Window]],
    ) -> Decoder:
        """One pass over all records."""
        order = "<" if self._container.order == "little" else ">"
        decoder = Decoder(wanted, order, type_offset(list(wanted), self.path), spans)
        streams = self._streams()
        facts = [stream_losses.StreamFacts(each.buffer.name, each.place.cpu) for each in streams]
        reader = WindowReader(self._source, self._container.layout, streams, self._convert)
        for window in windows(reader):
            decoder.add_window(window)
            for part in window.parts:
                facts[part.stream].note(window, part)
        for stream, seen in zip(streams, facts, strict=True):
            seen.damage, seen.is_truncated = stream.damage, stream.is_truncated
        self._scan = Scan(
            counts=decoder.counts,
            events=decoder.records,
            first_ts_ns=min((each.first_ns for each in facts if each.first_ns is not None), default=None),
            last_ts_ns=max((each.latest_ns for each in facts if each.latest_ns is not None), default=None),
            streams=tuple(facts),
        )
        return decoder

    def _streams(self) -> list[PageStream]:
        """The data of all CPUs in the order that breaks ties of time: by CPU, then by buffer."""
        streams = [
            PageStream(self._container, buffer, place)
            for buffer in self._container.buffers
            for place in buffer.cpus
            if place.size
        ]
        return sorted(streams, key=lambda each: each.place.cpu)


def _ranks(ts_ns: Longs, lengths: list[int]) -> Longs:
    """Place of each record in the total order.

    By time, ties in the order of the argument; but the records of one stream stay in their order also where
    its clock jumps back, as when trace-cmd report merges them.

    Args:
        ts_ns: Time of each record, stream after stream.
        lengths: Records of each stream.
    """
    reached = np.empty_like(ts_ns)
    begin = 0
    for length in lengths:
        np.maximum.accumulate(ts_ns[begin : begin + length], out=reached[begin : begin + length])
        begin += length
    rank = np.empty(len(ts_ns), dtype=np.int64)
    rank[np.argsort(reached, kind="stable")] = np.arange(len(ts_ns))
    return rank
