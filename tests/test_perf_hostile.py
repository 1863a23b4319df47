"""perf.data files are untrusted: cut, flipped and forged ones end in a result or a ReplayError, in bounded
time and memory.
"""

from __future__ import annotations

import lzma
import random
import resource
import time
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import open_capture
from schemas.errors import CorruptError, TruncatedError
from tests import perf_writer as w
from tests.perf_tool import DATA
from tests.test_hostile import OUTCOMES, survives
from tests.test_perf_layouts import FORMATS, LITTLE, insert, pair, samples

if TYPE_CHECKING:
    from pathlib import Path

ZSTD = {27: LITTLE.u(4, 1, 1, 1, 5, 1 << 20)}
VARIANTS = ["file", "pipe", "packed", "packed pipe", "call chains"]


def small(variant: str) -> bytes:
    """A file with every kind of record that is read, a few KiB long."""
    sample_type = w.TRACEPOINT_SAMPLE | (w.CALLCHAIN | w.READ if variant == "call chains" else 0)
    events = pair(sample_type, 0b1000)
    perf = w.Perf()
    records, _ = samples(events, 20, LITTLE, chain=(1, 2), group=(1, 2))
    records += [
        perf.comm(events[0], 5, b"name", 0),
        perf.fork(events[0], 6, 5, 700),
        perf.lost(events[0], 3, 710, 1),
        perf.exit(events[0], 6, 720),
        perf.lost_samples(events[0], 5),
        perf.record(68, b""),
    ]
    if "packed" in variant:
        records = perf.compressed(b"".join(records), 700)
    data = w.PerfData(events, records, FORMATS)
    data.features = {3: data.string("host"), 5: data.string("6.12"), 7: LITTLE.u(4, 2, 2)}
    data.features |= {11: LITTLE.u(4, 1) + data.string("perf")} | (ZSTD if "packed" in variant else {})
    return data.pipe() if "pipe" in variant else data.build()


@pytest.mark.parametrize("variant", VARIANTS)
def test_cut_anywhere(tmp_path: Path, variant: str) -> None:
    """An error or a note, and never a silent loss; a pipe may end after any record."""
    content = small(variant)
    last = len(content)
    lengths = sorted({*range(0, 120), *range(0, last, 61), *range(last - 120, last)})
    outcomes = {length: survives(tmp_path / "t.data", content[:length]) for length in lengths}
    assert set(outcomes.values()) <= OUTCOMES
    if "pipe" not in variant:
        assert [length for length, outcome in outcomes.items() if outcome == "whole"] == []
        assert "TruncatedError" in outcomes.values()
    assert "told" in outcomes.values()


@pytest.mark.parametrize("variant", VARIANTS)
def test_flipped_bytes(tmp_path: Path, variant: str) -> None:
    content = small(variant)
    chance = random.Random(variant)
    for _ in range(100):
        changed = bytearray(content)
        for place in chance.sample(range(len(content)), chance.choice((1, 1, 2, 8))):
            changed[place] ^= chance.choice((1, 0x80, 0xFF, chance.randrange(1, 256)))
        assert survives(tmp_path / "t.data", bytes(changed)) in OUTCOMES


@pytest.mark.parametrize("name", ["pipe_zstd", "lost_events", "call_graphs_zstd", "per_process"])
def test_flipped_and_cut_real_captures(tmp_path: Path, name: str) -> None:
    content = lzma.decompress((DATA / f"{name}.perf.data.xz").read_bytes())
    chance = random.Random(name)
    for _ in range(15):
        changed = bytearray(content)
        for _ in range(chance.choice((1, 4, 64))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        assert survives(tmp_path / "t.data", bytes(changed)) in OUTCOMES
        assert survives(tmp_path / "t.data", content[: chance.randrange(len(content))]) in OUTCOMES


@settings(max_examples=300)
@given(
    st.binary(max_size=400),
    st.sampled_from([b"", LITTLE.u(8, 16), LITTLE.u(8, 104, 144, 104, 144, 248, 8)]),
    st.sampled_from([b"PERFILE2", b"2ELIFREP"]),
)
def test_any_bytes_behind_the_magic(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, start: bytes, magic: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "t.data"
    assert survives(path, magic + start + content) in OUTCOMES


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 2, 3, 4, 5, 7, 9, 10, 13, 64, 66, 68, 71, 80, 81, 83, 300]),
            st.binary(max_size=120),
            st.integers(0, 1 << 16),
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_any_records(
    tmp_path_factory: pytest.TempPathFactory, made: list[tuple[int, bytes, int]], pipe: bool
) -> None:
    """Records of every type with any content; one of them may lie about its size."""
    perf = w.Perf()
    records = [
        perf.record(kind, body, misc=extra & 0xFFFF, size=extra & 0xFFFF if extra % 7 == 6 else None)
        for kind, body, extra in made
    ]
    data = w.PerfData(pair(), records, FORMATS)
    path = tmp_path_factory.mktemp("any") / "t.data"
    assert survives(path, data.pipe() if pipe else data.build()) in OUTCOMES


@pytest.mark.parametrize(
    ("place", "value", "what"),
    [
        (16, LITTLE.u(8, 0), "size of an attribute"),
        (16, LITTLE.u(8, 145), "size of an attribute"),
        (16, LITTLE.u(8, 1 << 40), "size of an attribute"),
        (32, LITTLE.u(8, 1 << 60), "size of an attribute|ends inside"),
        (24, LITTLE.u(8, 1 << 63), "ends inside"),
        (40, LITTLE.u(8, 1 << 63), "ends inside"),
    ],
)
def test_wrong_file_headers(tmp_path: Path, place: int, value: bytes, what: str) -> None:
    content = bytearray(small("file"))
    content[place : place + len(value)] = value
    path = tmp_path / "t.data"
    path.write_bytes(content)
    with pytest.raises((CorruptError, TruncatedError), match=what) as caught:
        open_capture(path)
    assert caught.value.expected
    assert caught.value.hint


def test_a_pid_of_another_size(tmp_path: Path) -> None:
    formats = [
        (system, text.replace(b"common_pid;\toffset:4;\tsize:4", b"common_pid;\toffset:4;\tsize:2"))
        for system, text in FORMATS
    ]
    records, _ = samples(pair(), 3, LITTLE)
    path = tmp_path / "t.data"
    path.write_bytes(w.PerfData(pair(), records, formats).build())
    with open_capture(path) as capture, pytest.raises(CorruptError, match="common fields"):
        capture.decode(["sched:switch"])


def test_a_record_of_no_size_ends_the_records(tmp_path: Path) -> None:
    events = pair()
    records, expected = samples(events, 30, LITTLE)
    broken = w.Perf().record(68, b"", size=0)
    path = tmp_path / "t.data"
    path.write_bytes(w.PerfData(events, [*records[:20], broken, *records[20:]], FORMATS).build())
    with open_capture(path) as capture:
        assert capture.info.events == 20 < len(expected)
        assert not capture.info.truncated
        rows = capture.quality().to_pylist()
    assert [(row["kind"], row["severity"]) for row in rows] == [("corrupt", "error")]
    assert "says that it has 0 bytes" in rows[0]["effect"]


def test_samples_whose_parts_do_not_fit(tmp_path: Path) -> None:
    """Numbers of a call chain, of a group and of raw data that reach behind the record."""
    huge = [1 << 64 - 1, 1 << 61, 1 << 32, 40]
    chains, groups = pair(w.TRACEPOINT_SAMPLE | w.CALLCHAIN), pair(w.TRACEPOINT_SAMPLE | w.READ, 0b1100)
    perf = w.Perf()
    raw = insert(LITTLE, 1, b"")
    plain = perf.sample(pair()[0], raw, 5, 0)
    for events, number_at in ((chains, 56), (groups, 56)):
        good = perf.sample(events[0], raw, 5, 0, chain=(1,), group=(1,) if events is groups else None)
        bad = [good[:number_at] + LITTLE.u(8, number) + good[number_at + 8 :] for number in huge]
        path = tmp_path / "t.data"
        path.write_bytes(w.PerfData(events, [good, *bad], FORMATS).build())
        with open_capture(path) as capture:
            assert capture.info.events == 1
            row = next(row for row in capture.quality().to_pylist() if row["kind"] == "corrupt")
        assert row["count"] == len(huge)
    sizes = [
        perf.sample(pair()[0], raw, 5, 0, raw_size=size) for size in (0, 7, len(raw) + 64, (1 << 32) - 1)
    ]
    path.write_bytes(w.PerfData(pair(), [plain, *sizes], FORMATS).build())
    with open_capture(path) as capture:
        assert capture.info.events == 1
        assert capture.quality().to_pylist()[0]["count"] == 4


def test_damaged_compressed_records(tmp_path: Path) -> None:
    events = pair()
    records, _ = samples(events, 200, LITTLE)
    perf = w.Perf()
    packed = perf.compressed(b"".join(records), 2000)
    changed = packed[4][:12] + b"\xff\xff\xff\xff" + packed[4][16:]
    path = tmp_path / "t.data"
    path.write_bytes(w.PerfData(events, [*packed[:4], changed, *packed[5:]], FORMATS, features=ZSTD).build())
    with open_capture(path) as capture:
        assert 0 < capture.info.events < 200
        rows = capture.quality().to_pylist()
    assert [row["kind"] for row in rows] == ["corrupt"]
    assert "cannot be decompressed" in rows[0]["effect"]


def test_compressed_records_before_the_damage_are_read(tmp_path: Path) -> None:
    events = pair()
    records, expected = samples(events, 200, LITTLE)
    perf = w.Perf()
    packed = [*perf.compressed(b"".join(records), 2000), perf.record(68, b"", size=3)]
    path = tmp_path / "t.data"
    path.write_bytes(w.PerfData(events, packed, FORMATS, features=ZSTD).build())
    with open_capture(path) as capture:
        assert capture.info.events == len(expected)
        assert [row["kind"] for row in capture.quality().to_pylist()] == ["corrupt"]


def test_compressed_records_that_lie(tmp_path: Path) -> None:
    perf = w.Perf()
    path = tmp_path / "t.data"
    for record in (perf.record(83, LITTLE.u(8, 1 << 40) + bytes(16)), perf.record(83, b"")):
        path.write_bytes(w.PerfData(pair(), [record], FORMATS, features=ZSTD).build())
        with open_capture(path) as capture:
            assert capture.info.events == 0
            assert [row["kind"] for row in capture.quality().to_pylist()] == ["corrupt"]


def rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("inner", ["zeros", "records"])
def test_a_bomb_takes_no_memory(tmp_path: Path, inner: str) -> None:
    """30 KB of compressed records that give 1 GiB: given up behind a quarter of that."""
    perf = w.Perf()
    piece = bytes(1 << 20) if inner == "zeros" else perf.record(68, bytes(65520)) * 16
    stream = zstandard.ZstdCompressor().compressobj()
    packed = b"".join(stream.compress(piece) for _ in range(1024)) + stream.flush()
    records = [perf.record(81, packed[n : n + 60_000]) for n in range(0, len(packed), 60_000)]
    path = tmp_path / "t.data"
    path.write_bytes(w.PerfData(pair(), records, FORMATS, features=ZSTD).build())
    before, started = rss(), time.process_time()
    with open_capture(path) as capture:
        assert capture.info.events == 0
        kinds = [row["kind"] for row in capture.quality().to_pylist()]
    assert kinds == ["corrupt"]
    assert rss() - before < 300_000  # KiB
    assert time.process_time() - started < 60


def test_many_records_with_content_behind_them_take_linear_time(tmp_path: Path) -> None:
    perf = w.Perf()
    aux = perf.record(71, LITTLE.u(8, 0)) * 400_000
    path = tmp_path / "t.data"
    path.write_bytes(w.PerfData(pair(), [aux], FORMATS).build())
    started = time.process_time()
    with open_capture(path) as capture:
        assert capture.info.events == 0
    assert time.process_time() - started < 20


def test_many_events_with_one_list_of_ids(tmp_path: Path) -> None:
    """Every attribute may point to the same ids: what they add up to is bounded by the file."""
    content = bytearray(w.PerfData([w.Event(1601, tuple(range(1000)))] + pair() * 20, [], FORMATS).build())
    entry, at, size = (int.from_bytes(content[n : n + 8], "little") for n in (16, 24, 32))
    for n in range(at, at + size, entry):
        content[n + entry - 16 : n + entry] = LITTLE.u(8, 104, 8000)
    path = tmp_path / "t.data"
    path.write_bytes(content)
    with pytest.raises(CorruptError, match="ids of an event"):
        open_capture(path)


def test_many_layouts(tmp_path: Path) -> None:
    events = [w.Event(1601, (n,), w.IDENTIFIER | w.RAW | n & 0xF, n >> 4 & 0b1111) for n in range(256)]
    events = [w.Event(each.config, each.ids, each.sample_type | w.READ, each.read_format) for each in events]
    path = tmp_path / "t.data"
    path.write_bytes(w.PerfData(events, [w.Perf().record(68, b"")], FORMATS).build())
    with open_capture(path) as capture, pytest.raises(CorruptError, match="told apart"):
        capture.event_counts()
