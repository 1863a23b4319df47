"""Any layout of samples, container and byte order: what was written is what is read, by us and by perf."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import open_capture
from schemas.errors import MissingEventsError, TruncatedError, UnknownFormatError
from tests import perf_writer as w
from tests.perf_tool import Event as Found
from tests.perf_tool import decoded, handled, same_value
from tests.tracedat_writer import Kernel, event_format

if TYPE_CHECKING:
    from pathlib import Path

INSERT = event_format(
    "avc_insert",
    1601,
    [
        ("unsigned long __probe_ip", 8, 8, 0),
        ("u64 avc", 16, 8, 0),
        ("u8 small", 24, 1, 0),
        ("u64 vma", 25, 8, 0),
        ("__data_loc char[] note", 36, 4, 1),
        ("s32 number", 40, 4, 1),
        ("u64 anon_vma", 44, 8, 0),
    ],
)
SWITCH = event_format("switch", 316, [("char comm[16]", 8, 16, 0), ("long state", 24, 8, 1)])
FORMATS = [("ksmprobe", INSERT), ("sched", SWITCH)]
LITTLE, BIG = Kernel("<"), Kernel(">")


def insert(k: Kernel, n: int, note: bytes) -> bytes:
    head = k.common(1601, n) + k.u(8, 0xFFFF0000, n << 40) + k.u(1, n & 255) + k.u(8, ~n) + bytes(3)
    return head + k.u(4, (len(note) + 1) << 16 | 52) + k.u(4, -n) + k.u(8, n + 7) + note + b"\0"


def switch(k: Kernel, n: int) -> bytes:
    return k.common(316, n) + (b"task %d" % n).ljust(16, b"\0") + k.u(8, -n)


def pair(sample_type: int = w.TRACEPOINT_SAMPLE, read_format: int = 0, **changes: Any) -> list[w.Event]:
    """Two tracepoints with two ids each."""
    clock = {"flags": w.SAMPLE_ID_ALL | w.USE_CLOCKID, "clockid": 1}
    return [
        w.Event(config, ids, sample_type, read_format, **(clock | changes))
        for config, ids in ((1601, (11, 12)), (316, (21, 22)))
    ]


def samples(
    events: list[w.Event], count: int, k: Kernel, **parts: Any
) -> tuple[list[bytes], list[tuple[int, int, int, str]]]:
    """Samples of both events on two CPUs, whose times are not in order, and what must come out."""
    perf = w.Perf(k)
    records, expected = [], []
    for n in range(count):
        cpu, ts = n & 1, 1000 + 10 * n - 7 * (n & 1) * (n % 5)
        which = n % 3 == 0
        event = events[which]
        raw = switch(k, n) if which else insert(k, n, b"note %d" % n)
        records.append(perf.sample(event, raw, ts, cpu, tid=n, number=event.ids[cpu], **parts))
        expected.append((ts, cpu, n, "sched:switch" if which else "ksmprobe:avc_insert"))
    order = sorted(range(count), key=lambda n: (expected[n][0], expected[n][1], n))
    return records, [expected[n] for n in order]


def check(found: list[Found], expected: list[tuple[int, int, int, str]]) -> None:
    assert [each.key for each in found] == expected
    for each in found:
        n = each.pid
        if each.name == "sched:switch":
            assert each.fields == {"comm": f"task {n}", "state": -n}
        else:
            own = {
                "avc": n << 40,
                "small": n & 255,
                "vma": ~n & (1 << 64) - 1,
                "number": -n,
                "anon_vma": n + 7,
            }
            assert each.fields == {"__probe_ip": 0xFFFF0000, "note": f"note {n}", **own}


MORE = w.TRACEPOINT_SAMPLE | w.ADDR | w.ID | w.STREAM
LAYOUTS: list[tuple[str, list[w.Event], dict[str, Any]]] = [
    ("default", pair(), {}),
    ("every fixed field", pair(MORE), {}),
    ("id alone", pair(MORE & ~w.IDENTIFIER), {}),
    ("call chains", pair(w.TRACEPOINT_SAMPLE | w.CALLCHAIN), {"chain": (1 << 64 - 9, 5, 6)}),
    ("values", pair(w.TRACEPOINT_SAMPLE | w.READ, 0b10111), {}),
    (
        "groups",
        pair(w.TRACEPOINT_SAMPLE | w.READ | w.CALLCHAIN, 0b11111),
        {"group": (7, 8, 9), "chain": (4,)},
    ),
    ("groups of one", pair(w.TRACEPOINT_SAMPLE | w.READ, 0b01100), {"group": (7,)}),
    (
        "two layouts",
        [pair()[0], replace(pair()[1], sample_type=w.TRACEPOINT_SAMPLE | w.ADDR | w.CALLCHAIN)],
        {"chain": (1, 2)},
    ),
]


@pytest.mark.parametrize("k", [LITTLE, BIG], ids=["little", "big"])
@pytest.mark.parametrize(
    ("events", "parts"), [each[1:] for each in LAYOUTS], ids=[each[0] for each in LAYOUTS]
)
def test_layouts(tmp_path: Path, events: list[w.Event], parts: dict[str, Any], k: Kernel) -> None:
    records, expected = samples(events, 100, k, **parts)
    path = tmp_path / "perf.data"
    data = w.PerfData(events, records, FORMATS, k)
    data.features = {3: data.string("a-host")}  # perf takes a big-endian file without it for a broken one
    path.write_bytes(data.build())
    found = decoded(path)
    check(found, expected)
    theirs = handled(path, tmp_path)
    assert [each.key for each in theirs] == expected
    for ours, other in zip(found, theirs, strict=True):
        assert all(same_value(ours.fields[name], value) for name, value in other.fields.items()), (
            ours,
            other,
        )


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("piece", [50, 333, 100_000])
@pytest.mark.parametrize("pipe", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize("k", [LITTLE, BIG], ids=["little", "big"])
def test_compressed_records(tmp_path: Path, version: int, piece: int, pipe: bool, k: Kernel) -> None:
    """Records straddle compressed records; others lie between them."""
    events = pair()
    records, expected = samples(events, 200, k)
    perf = w.Perf(k)
    packed = perf.compressed(b"".join(records), piece, version=version)
    between = [part for each in packed for part in (each, perf.record(68, b""))]
    features = {27: k.u(4, 1, 1, 1, 5, 1 << 20)}
    data = w.PerfData(events, between, FORMATS, k, features=features)
    path = tmp_path / "perf.data"
    path.write_bytes(data.pipe() if pipe else data.build())
    check(decoded(path), expected)
    with open_capture(path) as capture:
        assert capture.info.format == f"perf.data ({'pipe, ' if pipe else ''}zstd)"
        assert capture.quality().num_rows == 0
    if k is LITTLE and version == 1:  # perf of Linux 6.1 does not know the second kind
        assert [each.key for each in handled(path, tmp_path)] == expected


def test_several_streams_one_after_the_other(tmp_path: Path) -> None:
    """Not seen from perf, but each part is whole: a new zstd frame may begin where one ends."""
    import zstandard

    events = pair()
    records, expected = samples(events, 60, LITTLE)
    perf = w.Perf(LITTLE)
    frames = [zstandard.compress(b"".join(records[n : n + 20])) for n in (0, 20, 40)]
    packed = [perf.record(81, frames[0] + frames[1][:9]), perf.record(81, frames[1][9:] + frames[2])]
    path = tmp_path / "perf.data"
    path.write_bytes(
        w.PerfData(events, packed, FORMATS, features={27: LITTLE.u(4, 1, 1, 1, 5, 1 << 20)}).build()
    )
    check(decoded(path), expected)


@pytest.mark.parametrize("k", [LITTLE, BIG], ids=["little", "big"])
def test_a_pipe(tmp_path: Path, k: Kernel) -> None:
    events = pair(MORE)
    records, expected = samples(events, 50, k)
    data = w.PerfData(events, records, FORMATS, k)
    data.features = {3: data.string("a-host"), 4: data.string("6.12.1-test"), 5: data.string("6.16")}
    path = tmp_path / "perf.data"
    path.write_bytes(data.pipe())
    check(decoded(path), expected)
    with open_capture(path) as capture:
        info = capture.info
    assert (info.hostname, info.kernel_release, info.tool) == ("a-host", "6.12.1-test", "perf 6.16")
    assert info.format == "perf.data (pipe)"


def test_attributes_of_a_newer_kernel(tmp_path: Path) -> None:
    events = [replace(each, size=136) for each in pair()]
    records, expected = samples(events, 20, LITTLE)
    path = tmp_path / "perf.data"
    path.write_bytes(w.PerfData(events, records, FORMATS).build())
    check(decoded(path), expected)


def test_records_with_content_behind_them(tmp_path: Path) -> None:
    """AUXTRACE: the u64 behind its header tells of bytes that its size does not count."""
    events = pair()
    records, expected = samples(events, 40, LITTLE)
    perf = w.Perf(LITTLE)
    behind = bytes(range(256)) * 3
    aux = perf.record(71, LITTLE.u(8, len(behind), 0, 0, 0) + LITTLE.u(4, 0, 0)) + behind
    path = tmp_path / "perf.data"
    path.write_bytes(
        w.PerfData(events, [*records[:10], aux, *records[10:30], aux, *records[30:]], FORMATS).build()
    )
    check(decoded(path), expected)


def test_ties_go_by_cpu_then_by_place_in_the_file(tmp_path: Path) -> None:
    events = pair()
    perf = w.Perf()
    raws = [insert(LITTLE, n, b"") for n in range(4)]
    records = [perf.sample(events[0], raw, 50, cpu) for raw, cpu in zip(raws, (1, 0, 1, 0), strict=True)]
    path = tmp_path / "perf.data"
    path.write_bytes(w.PerfData(events, records, FORMATS).build())
    assert [each.pid for each in decoded(path)] == [1, 3, 0, 2]
    backward = [replace(each, flags=w.SAMPLE_ID_ALL | w.WRITE_BACKWARD) for each in events]
    path.write_bytes(w.PerfData(backward, records, FORMATS).build())
    assert [each.pid for each in decoded(path)] == [3, 1, 2, 0]
    with open_capture(path) as capture:
        assert capture.info.events_lost is None
        assert "overwritten" in capture.quality()["kind"].to_pylist()


def test_births_deaths_and_names(tmp_path: Path) -> None:
    from captures.canonical import canonical_events

    events = pair()
    perf = w.Perf()
    records = [
        perf.comm(events[0], 5, b"old", 0),
        perf.fork(events[0], 5, 1, 0),
        perf.fork(events[0], 6, 5, 100),
        perf.comm(events[0], 6, b"new-name", 110, is_exec=True),
        perf.fork(events[0], 7, 5, 120),
        perf.sample(events[1], switch(LITTLE, 6), 115, 0),
        perf.exit(events[0], 6, 130),
    ]
    path = tmp_path / "perf.data"
    path.write_bytes(w.PerfData(events, records, FORMATS).build())
    with open_capture(path) as capture:
        assert capture.comms() == {5: "old", 6: "new-name", 7: "old"}
        tasks = canonical_events(capture, ["ev_task"])["ev_task"].to_pylist()
        assert capture.info.events == 1
        assert capture.info.first_ts_ns == capture.info.last_ts_ns == 115
        assert capture.decode(["sched:switch"])["sched:switch"]["seq"].to_pylist() == [3]
    told = [(row["kind"], row["pid"], row["child_pid"], row["ts_ns"], row["seq"]) for row in tasks]
    # seq 0: the name that perf wrote down when it began
    assert told == [
        ("fork", 5, 6, 100, 1),
        ("exec", 6, None, 110, 2),
        ("fork", 5, 7, 120, 4),
        ("exit", 6, None, 130, 5),
    ]


@settings(max_examples=150)
@given(
    st.integers(0, 511),
    st.integers(0, 31),
    st.lists(st.integers(0, 9), max_size=3),
    st.lists(st.integers(0, 5), min_size=1, max_size=3),
    st.sampled_from([LITTLE, BIG]),
    st.integers(0, 1 << 30),
)
def test_any_layout(
    tmp_path_factory: pytest.TempPathFactory,
    bits: int,
    read_format: int,
    chain: list[int],
    group: list[int],
    k: Kernel,
    seed: int,
) -> None:
    """Layouts are drawn bit by bit; time, CPU, raw data and an id of the event are always there."""
    optional = [w.IP, w.TID, w.ADDR, w.STREAM, w.PERIOD, w.READ, w.CALLCHAIN, w.IDENTIFIER, w.ID]
    sample_type = w.TIME | w.CPU | w.RAW | sum(bit for n, bit in enumerate(optional) if bits >> n & 1)
    if not sample_type & (w.IDENTIFIER | w.ID):
        sample_type |= random.Random(seed).choice((w.IDENTIFIER, w.ID))
    parts = {"chain": tuple(chain), "group": tuple(group) if read_format & 8 else None}
    events = pair(sample_type, read_format)
    records, expected = samples(events, 12, k, **parts)
    path = tmp_path_factory.mktemp("any") / "perf.data"
    path.write_bytes(w.PerfData(events, records, FORMATS, k).build())
    check(decoded(path), expected)


def test_one_event_needs_no_id(tmp_path: Path) -> None:
    event = w.Event(1601, (), w.TRACEPOINT_SAMPLE & ~w.IDENTIFIER)
    perf = w.Perf()
    records = [perf.sample(event, insert(LITTLE, 3, b"x"), 9, 1, number=0)]
    path = tmp_path / "perf.data"
    path.write_bytes(w.PerfData([event], records, FORMATS).build())
    assert [each.key for each in decoded(path)] == [(9, 1, 3, "ksmprobe:avc_insert")]


@pytest.mark.parametrize(
    ("lacks", "found"), [(w.TIME, "time False"), (w.CPU, "CPU False"), (w.RAW, "raw False")]
)
def test_samples_that_lack_what_is_needed(tmp_path: Path, lacks: int, found: str) -> None:
    events = pair(w.TRACEPOINT_SAMPLE & ~lacks)
    records, _ = samples(events, 3, LITTLE)
    path = tmp_path / "perf.data"
    path.write_bytes(w.PerfData(events, records, FORMATS).build())
    with open_capture(path) as capture, pytest.raises(MissingEventsError, match=found):
        capture.event_counts()


def test_a_killed_recording(tmp_path: Path) -> None:
    """perf writes the formats at the end: what is left is counted, and the error says what to do."""
    events = pair()
    records, _ = samples(events, 30, LITTLE)
    data = w.PerfData(events, records, FORMATS, has_formats=False, data_size=0)
    path = tmp_path / "perf.data"
    path.write_bytes(data.build()[:-5])
    with open_capture(path) as capture:
        info = capture.info
        rows = capture.quality().to_pylist()
        with pytest.raises(TruncatedError, match="no event formats") as caught:
            _ = capture.formats
    assert info.truncated
    assert info.events == 29
    assert [row["kind"] for row in rows] == ["truncated", "truncated"]
    assert "was killed" in rows[0]["effect"]
    assert "perf record -o -" in caught.value.hint


def test_a_killed_recording_through_a_pipe(tmp_path: Path) -> None:
    events = pair()
    records, expected = samples(events, 30, LITTLE)
    path = tmp_path / "perf.data"
    path.write_bytes(w.PerfData(events, records, FORMATS).pipe()[:-5])
    written = expected.copy()
    written.remove(next(each for each in expected if each[2] == 29))
    check(decoded(path), written)
    with open_capture(path) as capture:
        assert capture.info.truncated
        assert [row["kind"] for row in capture.quality().to_pylist()] == ["truncated"]


def test_kinds_that_are_not_read(tmp_path: Path) -> None:
    events = pair()
    path = tmp_path / "perf.data"
    path.write_bytes(
        w.PerfData(events, [w.Perf().record(68, b"")], FORMATS, features={24: LITTLE.u(8, 1)}).build()
    )
    with pytest.raises(UnknownFormatError, match="directory"):
        open_capture(path)
    path.write_bytes(
        w.PerfData(
            events, [w.Perf().record(68, b"")], FORMATS, features={27: LITTLE.u(4, 1, 2, 1, 5, 4096)}
        ).build()
    )
    with pytest.raises(UnknownFormatError, match="compression"):
        open_capture(path)
    path.write_bytes(b"PERFILE2" + LITTLE.u(8, 72) + bytes(88))
    with pytest.raises(UnknownFormatError, match="kind of perf"):
        open_capture(path)


def test_what_was_not_recorded_is_told(tmp_path: Path) -> None:
    sampled = [replace(pair()[0], period=100), replace(pair()[1], flags=w.SAMPLE_ID_ALL | w.FREQ, period=99)]
    cycles = w.Event(0, (31,), w.IDENTIFIER | w.IP | w.TID | w.TIME, type=0)
    perf = w.Perf()
    records, expected = samples(sampled, 12, LITTLE)
    records += [perf.sample(cycles, b"", 5, 0), perf.sample(cycles, b"", 6, 0, number=99)]
    path = tmp_path / "perf.data"
    path.write_bytes(w.PerfData([*sampled, cycles], records, FORMATS).build())
    check(decoded(path), expected)
    with open_capture(path) as capture:
        rows = {(row["kind"], row["severity"]): row for row in capture.quality().to_pylist()}
        assert capture.info.events == 12
    assert rows["sampled", "error"]["count"] == 2
    assert "1 of 100" in rows["sampled", "error"]["effect"]
    assert rows["unknown_event", "info"]["count"] == 1
    assert rows["unknown_event", "warning"]["count"] == 1
    assert rows["clock", "info"]["effect"].startswith("the clock perf")


def test_members_of_a_group_that_are_only_counted_are_told(tmp_path: Path) -> None:
    leader, member = pair()[0], replace(pair()[1], period=0)
    records, _ = samples(pair(), 1, LITTLE)
    path = tmp_path / "perf.data"
    path.write_bytes(w.PerfData([leader, member], records, FORMATS).build())
    with open_capture(path) as capture:
        (row,) = (row for row in capture.quality().to_pylist() if row["kind"] == "sampled")
    assert (row["count"], row["severity"]) == (1, "error")
    assert row["effect"].startswith("1 events were only counted")


def test_losses_of_each_cpu(tmp_path: Path) -> None:
    events = [*pair()]
    perf = w.Perf()
    raw = insert(LITTLE, 1, b"")
    records = [
        perf.sample(events[0], raw, 100, 0),
        perf.lost(events[0], 4, 150, 1),
        perf.sample(events[0], raw, 200, 1),
        perf.sample(events[0], raw, 300, 0),
        perf.lost(events[0], 7, 350, 1),
        perf.lost(events[0], 2, 350, 0),
        perf.lost_samples(events[0], 20),
    ]
    path = tmp_path / "perf.data"
    path.write_bytes(w.PerfData(events, records, FORMATS).build())
    with open_capture(path) as capture:
        rows = [tuple(row.values())[:5] for row in capture.quality().to_pylist()]
        assert capture.info.events_lost == 20
        assert capture.info.clock == "mono"
    assert rows == [
        ("lost_events", 0, 300, 350, 2),
        ("lost_events", 1, None, 150, 4),
        ("lost_events", 1, 200, 350, 7),
        ("lost_events", None, None, None, 7),
    ]


def test_very_many_losses_are_told_together(tmp_path: Path) -> None:
    events = pair()
    perf = w.Perf()
    records = [perf.lost(events[0], 1, 100 + n, n & 1) for n in range(25_000)]
    path = tmp_path / "perf.data"
    path.write_bytes(w.PerfData(events, records, FORMATS).build())
    with open_capture(path) as capture:
        rows = [row for row in capture.quality().to_pylist() if row["kind"] == "lost_events"]
        assert capture.info.events_lost == 25_000
    assert len(rows) <= 10_002
    assert sum(row["count"] for row in rows) == 25_000
    assert min(row["end_ns"] for row in rows) >= 100
    assert max(row["end_ns"] for row in rows) == 25_099
