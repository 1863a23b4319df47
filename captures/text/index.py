"""One pass over trace text: where each event is, and its time, CPU, task and name; the fields come later.

Everything is done on columns of lines, slice by slice; memory is about 40 bytes a line besides the file.
"""

from __future__ import annotations

import codecs
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import CorruptError

if TYPE_CHECKING:
    from captures.text.heads import Dialect

    Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
    Longs: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
    Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int32]]

SLICE_BYTES: Final = 1 << 24
"""Bytes of text that are looked at at once (16 MiB)."""

WORKERS: Final = min(len(os.sched_getaffinity(0)), 4)
"""Threads that read slices side by side."""

MAX_LINE_BYTES: Final = 1 << 20
"""Longest line; the kernel's own lines have at most 8 KiB."""

MAX_KEYS: Final = 2048
"""Most different event names; real captures have some dozens."""

SAMPLES: Final = 8
"""Lines kept of each event to tell its fields from."""

_SAMPLE_CHARS: Final = 2048
_MAX_SECONDS: Final = (1 << 63) // 10**9 - 1

codecs.register_error("replay.question", lambda error: ("?" * (error.end - error.start), error.end))  # type: ignore[attr-defined]


@dataclass
class Index:
    """Every line of the text; columns have one entry a line.

    Attributes:
        cuts: Bytes of the file: start of a line, end of its head, start of the next line, ..., end of
            the last line. Shape (2 * lines + 1,). A line that is no event has an empty head.
        key: Place in ``keys`` of the event's name; -1: the line is no event.
        ts_ns: Its time (without a decimal point: the number as it is).
        cpu, pid: Its CPU and thread id.
        keys: Names of events, with what ends them (see ``text_heads.Dialect.head``).
        samples: First bodies of each key.
        tasks: Columns pid, task: the last name of each thread id.
        lost: Columns line, cpu, count (null: not known): lines that tell of lost events.
        unread: Lines that are neither an event nor known to be none.
        first_unread: The first of them, from 0; None: there is none.
        digits: Digits behind the decimal point that occur: 0, 6, 9.
        is_cut: Whether the last line has no end; it is left out.
    """

    cuts: Longs
    key: Ints
    ts_ns: Longs
    cpu: Ints
    pid: Ints
    keys: list[str] = field(default_factory=list)
    samples: list[list[str]] = field(default_factory=list)
    tasks: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema={"pid": pl.Int32, "task": pl.String})
    )
    lost: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema={"line": pl.Int64, "cpu": pl.Int32, "count": pl.Int64})
    )
    unread: int = 0
    first_unread: int | None = None
    digits: set[int] = field(default_factory=set)
    is_cut: bool = False

    @classmethod
    def of(cls, data: memoryview, dialect: Dialect, path: str) -> Index:
        """Read the heads of all lines.

        Raises:
            CorruptError: A line is too long, or there are too many different names.
        """
        starts, is_cut = _line_starts(data, path)
        lines = len(starts) - 1
        cuts = np.repeat(starts, 2)[:-1]
        index = cls(
            cuts=cuts,
            key=np.full(lines, -1, dtype=np.int32),
            ts_ns=np.zeros(lines, dtype=np.int64),
            cpu=np.full(lines, -1, dtype=np.int32),
            pid=np.full(lines, -1, dtype=np.int32),
            is_cut=is_cut,
        )
        ends = [0]
        while ends[-1] < lines:
            end = int(np.searchsorted(starts, starts[ends[-1]] + SLICE_BYTES, side="right")) - 1
            ends.append(min(max(end, ends[-1] + 1), lines))
        slices = list(pairwise(ends))
        with ThreadPoolExecutor(WORKERS) as pool:
            for begin in range(0, len(slices), WORKERS):
                batch = slices[begin : begin + WORKERS]
                heads = pool.map(lambda each: _heads(data, starts, each[0], each[1], dialect), batch)
                for (first, last), frame in zip(batch, heads, strict=True):
                    index._take(frame, first, last, dialect, path)
        return index

    def bodies(self, data: memoryview, lines: Longs) -> pl.Series:
        """What stands behind the event's name on some lines, without the line's end."""
        buffers = [None, pa.py_buffer(self.cuts), pa.py_buffer(data)]
        whole = pa.Array.from_buffers(pa.large_binary(), len(self.cuts) - 1, buffers)
        taken = whole.take(pa.array(2 * lines + 1))
        offsets = np.frombuffer(taken.buffers()[1], dtype=np.int64)[: len(lines) + 1]
        block = memoryview(taken.buffers()[2] or b"")[: int(offsets[-1])]
        return _strings(block, offsets).str.strip_suffix("\n").str.strip_suffix("\r")

    def _take(self, head: pl.DataFrame, first: int, last: int, dialect: Dialect, path: str) -> None:
        """Take the heads of the lines first..last-1: a frame of ``_heads``."""
        seconds = head["seconds"].cast(pl.Int64, strict=False)
        has_point = head["fraction"].is_not_null()
        digits = head["fraction"].str.len_bytes().fill_null(0)
        cpu, pid = (head[name].cast(pl.Int32, strict=False) for name in ("cpu", "pid"))
        is_event = seconds.is_not_null() & cpu.is_not_null() & pid.is_not_null()
        is_event &= ~has_point | ((seconds <= _MAX_SECONDS) & digits.is_in([6, 9]))
        self.digits |= set(digits.filter(is_event).unique().to_list())
        scale = (digits == 6).cast(pl.Int64) * 999 + 1
        fraction = head["fraction"].cast(pl.Int64, strict=False) * scale
        ts_ns = pl.select(
            pl.when(is_event & has_point)
            .then(seconds * 10**9 + fraction)
            .when(is_event)
            .then(seconds)
            .otherwise(0)
        ).to_series()
        here = slice(first, last)
        self.ts_ns[here] = ts_ns.to_numpy()
        self.cpu[here] = cpu.fill_null(-1).to_numpy()
        self.pid[here] = pid.fill_null(-1).to_numpy()
        keys = head["key"].set(~is_event, None)
        self.key[here] = self._codes(keys, path, first)
        is_line = self.key[here] >= 0
        self.cuts[2 * first + 1 : 2 * last : 2] += np.where(
            is_line, head["head"].str.len_bytes().fill_null(0), 0
        )
        self._keep_samples(head, here)
        # A task whose name the tool does not know: perf prints its thread id, the kernel dots.
        named = ~head["task"].is_in(["<...>", ""]) & (head["task"] != ":" + head["pid"])
        self.tasks = pl.concat(
            [self.tasks, head.filter(is_event & named).select(pl.col("pid").cast(pl.Int32), "task")]
        )
        self.tasks = self.tasks.unique("pid", keep="last", maintain_order=True)
        self._others(head["line"].filter(~is_event), np.flatnonzero(~is_line) + first, dialect)

    def _codes(self, keys: pl.Series, path: str, first: int) -> Ints:
        """Place of each key in ``keys``, which grows; -1: none."""
        coded = pc.dictionary_encode(keys.to_arrow())
        coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
        known = {name: place for place, name in enumerate(self.keys)}
        names = coded.dictionary.to_pylist()
        for name in names:
            if name not in known:
                known[name] = len(self.keys)
                self.keys.append(name)
                self.samples.append([])
        if len(self.keys) > MAX_KEYS:
            raise CorruptError(
                f"the text has too many different events (soon after line {first + 1})",
                path=path,
                offset=int(self.cuts[2 * first]),
                expected=f"at most {MAX_KEYS} event names",
                found="more",
                hint="is this trace text? Look at the lines there",
            )
        places = np.array([known[name] for name in names] or [-1], dtype=np.int32)
        indices = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return np.where(indices < 0, np.int32(-1), places[indices])

    def _keep_samples(self, head: pl.DataFrame, here: slice) -> None:
        """Keep the first bodies of keys that have not enough of them yet."""
        codes = self.key[here]
        wanting = [place for place, kept in enumerate(self.samples) if len(kept) < SAMPLES]
        order = np.argsort(codes, kind="stable")
        begins = np.searchsorted(codes, wanting, side="left", sorter=order)
        ends = np.searchsorted(codes, wanting, side="right", sorter=order)
        for place, begin, end in zip(wanting, begins.tolist(), ends.tolist(), strict=True):
            chosen = order[begin : min(end, begin + SAMPLES - len(self.samples[place]))]
            for line, begin_text in head.select("line", "head")[chosen].iter_rows():
                body = line.removeprefix(begin_text)[:_SAMPLE_CHARS]
                self.samples[place].append(body.removesuffix("\n").removesuffix("\r"))

    def _others(self, lines: pl.Series, numbers: Longs, dialect: Dialect) -> None:
        """Sort the lines that are no events: losses, known ones, and what cannot be read."""
        if lines.is_empty():
            return
        lost = lines.str.extract_groups(dialect.lost).struct.unnest()
        lost.columns = ["cpu", "count"]
        is_lost = lost["cpu"].is_not_null()
        found = lost.with_columns(line=pl.Series(numbers)).filter(is_lost)
        found = found.select(
            "line", pl.col("cpu").cast(pl.Int32, strict=False), pl.col("count").cast(pl.Int64, strict=False)
        )
        self.lost = pl.concat([self.lost, found])
        unread = numbers[(~is_lost & ~lines.str.contains(dialect.other)).to_numpy()]
        if len(unread) and self.first_unread is None:
            self.first_unread = int(unread[0])
        self.unread += len(unread)


def _heads(data: memoryview, starts: Longs, first: int, last: int, dialect: Dialect) -> pl.DataFrame:
    """Columns line, and the groups of ``Dialect.head``, of the lines first..last-1."""
    begin = int(starts[first])
    lines = _strings(data[begin : int(starts[last])], starts[first : last + 1] - begin)
    return heads(lines, dialect).with_columns(line=lines)


def heads(lines: pl.Series, dialect: Dialect) -> pl.DataFrame:
    """The groups of ``Dialect.head``, a row a line; null where the line is no event."""
    plain = lines.str.extract_groups(dialect.plain).struct.unnest()
    plain.columns = ["head", "task", "pid", "cpu", "seconds", "fraction", "key"]
    others = pl.select(pl.when(plain["head"].is_null()).then(lines)).to_series()
    if others.null_count() == len(lines):
        return plain
    rest = others.str.extract_groups(dialect.head).struct.unnest()
    return pl.select(
        pl.coalesce(mine, other).alias(mine.name) for mine, other in zip(plain, rest, strict=True)
    )


def _line_starts(data: memoryview, path: str) -> tuple[Longs, bool]:
    """First byte of each line, and behind the last whole line; whether half a line follows.

    Raises:
        CorruptError: A line is longer than ``MAX_LINE_BYTES``.
    """
    block: Bytes = np.frombuffer(data, dtype=np.uint8)
    parts = [np.zeros(1, dtype=np.int64)]
    for begin in range(0, len(block), SLICE_BYTES):
        parts.append(np.flatnonzero(block[begin : begin + SLICE_BYTES] == 0x0A) + (begin + 1))
    starts = np.concatenate(parts)
    is_cut = int(starts[-1]) != len(block)
    lengths = np.diff(starts, append=len(block))
    if len(lengths) and int(lengths.max()) > MAX_LINE_BYTES:
        line = int(np.argmax(lengths > MAX_LINE_BYTES))
        raise CorruptError(
            f"line {line + 1} is too long",
            path=path,
            offset=int(starts[line]),
            expected=f"at most {MAX_LINE_BYTES} bytes",
            found=f"{int(lengths[line])} bytes",
            hint="is this trace text? Look at the file there",
        )
    return starts, is_cut


def _strings(block: memoryview, offsets: Longs) -> pl.Series:
    """Text of consecutive ranges; every byte that is not UTF-8 becomes a question mark, so places stay."""
    data: memoryview | bytes = block
    if len(block) and int(np.frombuffer(block, dtype=np.uint8).max()) >= 0x80:
        data = bytes(block).decode("utf-8", "replay.question").encode()
    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(data)]
    return pl.Series(pa.Array.from_buffers(pa.large_string(), len(offsets) - 1, buffers))
