"""A Perfetto trace of the results: walks as slices, VMAs as counters, missed mappings as instants.

Field numbers are those of protos/perfetto/trace/trace_packet.proto, track_event/track_event.proto,
track_descriptor.proto, counter_descriptor.proto, debug_annotation.proto and clock_snapshot.proto. Timestamps
are the capture's own. Where Perfetto knows the capture's clock, the trace is in that clock; else it is in its
default one, with the clock's name on the first track.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polars as pl

from replay.results.protobuf import message, number, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

MAX_COUNTERS: Final = 16
"""Trees whose population becomes a counter: those with most walks."""

_SEQUENCE: Final = 1
_ROOT: Final = 1
_FIRST_TRACK: Final = 2
_CLOCKS: Final = {"mono": 3, "mono_raw": 5, "boot": 6}
"""Trace clocks that are one of Perfetto's (BUILTIN_CLOCK_MONOTONIC, _MONOTONIC_RAW, _BOOTTIME)."""

_SLICE_BEGIN, _SLICE_END, _INSTANT, _COUNTER = 1, 2, 3, 4
_OF_A_WALK: Final = ("walk_id", "cpu", "folio", "stable_node", "observed_ns")
_PER_STRATEGY: Final = (
    "iterations_total",
    "iterations_max",
    "skip_addr_out_of_range_max",
    "skip_mm_mismatch_max",
    "rmap_one_calls",
    "mappings_missed",
    "predicted_ns",
)


def perfetto_trace(tables: Mapping[str, pa.Table]) -> bytes:
    """Encode the results as a Perfetto trace (a ``perfetto.protos.Trace`` message).

    Args:
        tables: Result tables by name; ``capture``, ``walk``, ``miss``, ``loop`` and ``avc`` are read.
    """
    capture = tables["capture"].to_pylist()[0]
    root = f"replay of {capture['path']} (clock {capture['clock'] or 'not known'})"
    clock = _CLOCKS.get(capture["clock"])
    packets = [] if clock is None else [_clock(clock, capture["first_ts_ns"] or 0)]
    packets.append(_track(_ROOT, root, first=True, clock=clock))
    uuids = iter(range(_FIRST_TRACK, 2**62))
    packets += _walks(tables["walk"], uuids)
    packets += _misses(tables["miss"], tables["walk"], uuids)
    packets += _populations(tables, uuids)
    return b"".join(packets)


def _walks(walk: pa.Table, uuids: Iterator[int]) -> list[bytes]:
    frame = pl.DataFrame(walk)
    packets = []
    tracks: dict[int | None, int] = {}
    once = frame.unique("walk_id", keep="first", maintain_order=True).sort("ts_ns", "walk_id")
    counts = frame.select("walk_id", "strategy", *_PER_STRATEGY).partition_by("walk_id", as_dict=True)
    for row in once.iter_rows(named=True):
        pid = row["pid"]
        if pid not in tracks:
            tracks[pid] = next(uuids)
            who = "asked for" if pid is None else f"of pid {pid} {row['comm'] or ''}".rstrip()
            packets.append(_track(tracks[pid], f"rmap walks {who}"))
        notes = [_annotation(name, row[name]) for name in _OF_A_WALK]
        for values in counts[(row["walk_id"],)].iter_rows(named=True):
            strategy = values["strategy"]
            notes += [_annotation(f"{strategy}.{name}", values[name]) for name in _PER_STRATEGY]
        name = row["caller"] or "rmap_walk_ksm"
        kind = _INSTANT if row["end_ns"] is None else _SLICE_BEGIN
        packets.append(_event(row["ts_ns"], tracks[pid], kind, text(23, name), *notes))
        if row["end_ns"] is not None:
            packets.append(_event(row["end_ns"], tracks[pid], _SLICE_END))
    return packets


def _misses(miss: pa.Table, walk: pa.Table, uuids: Iterator[int]) -> list[bytes]:
    starts = pl.DataFrame(walk.select(["walk_id", "ts_ns"])).unique("walk_id")
    frame = pl.DataFrame(miss).join(starts, on="walk_id").sort("strategy", "ts_ns", maintain_order=True)
    packets = []
    tracks: dict[str, int] = {}
    shown = ("walk_id", "address", "vm_start", "vm_end", "cause_event", "cause_ts_ns", "cause_pid")
    for row in frame.iter_rows(named=True):
        strategy = row["strategy"]
        if strategy not in tracks:
            tracks[strategy] = next(uuids)
            packets.append(_track(tracks[strategy], f"mappings that {strategy} misses"))
        notes = [_annotation(name, row[name]) for name in shown]
        name = text(23, f"missed, because of {row['cause_event'] or 'what is not known'}")
        packets.append(_event(row["ts_ns"], tracks[strategy], _INSTANT, name, *notes))
    return packets


def _populations(tables: Mapping[str, pa.Table], uuids: Iterator[int]) -> list[bytes]:
    first = tables["capture"]["first_ts_ns"][0].as_py()
    if first is None:
        return []
    walked = pl.DataFrame(tables["loop"].select(["anon_vma"])).drop_nulls().group_by("anon_vma").len()
    ranked = walked.sort(["len", "anon_vma"], descending=[True, False])
    trees = ranked["anon_vma"].head(MAX_COUNTERS).to_list()
    lives = pl.DataFrame(tables["avc"].select(["anon_vma", "born_ts_ns", "died_ts_ns"]))
    packets = []
    for tree in trees:
        own = lives.filter(anon_vma=tree)
        born = own.select(ts=pl.col("born_ts_ns").fill_null(first), step=pl.lit(1, pl.Int64))
        died = own.drop_nulls("died_ts_ns").select(ts="died_ts_ns", step=pl.lit(-1, pl.Int64))
        steps = pl.concat([born, died]).group_by("ts").agg(pl.col("step").sum()).sort("ts")
        counts = steps.select("ts", alive=pl.col("step").cum_sum())
        track = next(uuids)
        packets.append(_track(track, f"VMAs on anon_vma {tree:#x}", counter=True))
        packets += [_event(ts, track, _COUNTER, number(30, alive)) for ts, alive in counts.iter_rows()]
    return packets


def _packet(*parts: bytes) -> bytes:
    """Trace.packet with its sequence."""
    return message(1, *parts, number(10, _SEQUENCE))


def _clock(clock: int, ts_ns: int) -> bytes:
    """TracePacket.clock_snapshot: this clock is that of the trace, and of all timestamps."""
    return _packet(message(6, message(1, number(1, clock), number(2, ts_ns)), number(2, clock)))


def _track(
    uuid: int, name: str, *, first: bool = False, counter: bool = False, clock: int | None = None
) -> bytes:
    parts = [number(1, uuid), text(2, name)]
    if uuid != _ROOT:
        parts.append(number(5, _ROOT))
    if counter:
        parts.append(message(8, number(3, 2)))  # counter.unit = UNIT_COUNT
    cleared = [number(13, 1)] if first else []  # SEQ_INCREMENTAL_STATE_CLEARED
    if clock is not None:
        cleared.append(message(59, number(58, clock)))  # trace_packet_defaults.timestamp_clock_id
    return _packet(message(60, *parts), *cleared)


def _event(ts_ns: int, track: int, kind: int, *parts: bytes) -> bytes:
    return _packet(number(8, ts_ns), message(11, number(9, kind), number(11, track), *parts))


def _annotation(name: str, value: Any) -> bytes:
    """TrackEvent.debug_annotations; nothing for null."""
    if value is None:
        return b""
    if isinstance(value, str):
        return message(4, text(10, name), text(6, value))
    pointer = name in ("folio", "stable_node", "address", "vm_start", "vm_end")
    return message(4, text(10, name), number(7 if pointer else 4, value))
