"""Exports read back by somebody else's decoder: Perfetto's own protobuf classes, polars' CSV reader."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import polars as pl
import pytest
from google.protobuf.internal.encoder import _VarintBytes  # the reference encoder of varints
from hypothesis import given
from hypothesis import strategies as st
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as protos
from report_tables import ANON_VMA, PAGES, SPLIT_NS, START_NS, sample_tables

from replay.results.export import Target, check_target, export
from replay.results.perfetto import perfetto_trace
from replay.results.protobuf import varint
from schemas.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path


def decoded() -> list[protos.TracePacket]:
    trace = protos.Trace()
    trace.ParseFromString(perfetto_trace(sample_tables(comm="ksm<é>")))
    return list(trace.packet)


def tracks(packets: list[protos.TracePacket]) -> dict[int, str]:
    return {
        packet.track_descriptor.uuid: packet.track_descriptor.name
        for packet in packets
        if packet.HasField("track_descriptor")
    }


@given(st.integers(0, 2**64 - 1))
def test_varints_are_those_of_the_reference(value: int) -> None:
    assert varint(value) == _VarintBytes(value)


def test_every_walk_is_a_slice_with_its_counts_at_its_own_time() -> None:
    packets = decoded()
    walk = next(uuid for uuid, name in tracks(packets).items() if name.startswith("rmap walks of pid 123"))
    events = [packet for packet in packets if packet.track_event.track_uuid == walk and packet.timestamp]
    kinds = Counter(packet.track_event.type for packet in events)
    assert kinds == {protos.TrackEvent.TYPE_SLICE_BEGIN: 16, protos.TrackEvent.TYPE_SLICE_END: 16}
    first, end = events[:2]
    assert (first.timestamp, end.timestamp) == (START_NS + 1_000_000_000, START_NS + 1_034_600_000)
    assert first.track_event.name == "try_to_migrate_one"
    last = {note.name: note.int_value for note in events[-2].track_event.debug_annotations}
    assert (last["walk_id"], last["full.iterations_max"], last["vm_pgoff.mappings_missed"]) == (15, 2000, 4)
    assert "observed.mappings_missed" not in last
    assert not first.HasField("timestamp_clock_id")


def test_the_population_is_a_counter_without_a_step_left_out() -> None:
    packets = decoded()
    uuid = next(uuid for uuid, name in tracks(packets).items() if name == f"VMAs on anon_vma {ANON_VMA:#x}")
    values = [
        (packet.timestamp, packet.track_event.counter_value)
        for packet in packets
        if packet.track_event.type == protos.TrackEvent.TYPE_COUNTER and packet.track_event.track_uuid == uuid
    ]
    # at the split the old VMA goes and the first new one comes
    assert values == [(START_NS, 1), *((SPLIT_NS + page * 1000, 1 + page) for page in range(PAGES))]


def test_missed_mappings_are_instants_with_their_cause() -> None:
    packets = decoded()
    uuid = next(uuid for uuid, name in tracks(packets).items() if name == "mappings that vm_pgoff misses")
    missed = [packet.track_event for packet in packets if packet.track_event.track_uuid == uuid]
    assert len(missed) == 30
    assert {event.name for event in missed} == {"missed, because of mprotect"}
    notes = {note.name: note for note in missed[0].debug_annotations}
    assert notes["address"].pointer_value == 0x7F0000000000 + 34 * 4096
    assert (notes["cause_event"].string_value, notes["cause_pid"].int_value) == ("mprotect", 123)


def test_every_track_hangs_below_one_that_names_capture_and_clock() -> None:
    packets = decoded()
    root, *others = [packet.track_descriptor for packet in packets if packet.HasField("track_descriptor")]
    assert root.name == "replay of split-6.12.dat (clock mono)"
    assert {other.parent_uuid for other in others} == {root.uuid}


def test_the_trace_is_in_the_clock_of_the_capture() -> None:
    snapshot, first, *_ = decoded()
    mono = protos.BUILTIN_CLOCK_MONOTONIC
    assert snapshot.clock_snapshot.primary_trace_clock == mono
    assert [(one.clock_id, one.timestamp) for one in snapshot.clock_snapshot.clocks] == [(mono, START_NS)]
    assert first.trace_packet_defaults.timestamp_clock_id == mono
    trace = protos.Trace()
    trace.ParseFromString(perfetto_trace(sample_tables(capture={"clock": "x86-tsc"})))
    assert not any(packet.HasField("clock_snapshot") for packet in trace.packet)
    assert not any(packet.HasField("trace_packet_defaults") for packet in trace.packet)


def test_csv_holds_every_row_and_null_is_not_zero(tmp_path: Path) -> None:
    tables = sample_tables(comm='a,"b"\n=c')
    export(tables, Target.CSV, tmp_path / "csv")
    for name, table in tables.items():
        frame = pl.DataFrame(table)
        if len(frame):
            read = pl.read_csv(tmp_path / "csv" / f"{name}.csv", schema=frame.schema)
            assert read.to_dicts() == frame.to_dicts()
    with pytest.raises(OutputError, match="without --force"):
        check_target(Target.CSV, tmp_path / "csv", force=False)
    with pytest.raises(OutputError, match="a file for Perfetto"):
        check_target(Target.PERFETTO, tmp_path / "csv", force=True)
