"""Ring buffer pages with every kind of record, written by ``tracedat_writer`` and read back.

Expected times are computed here, in Python integers, from what include/linux/ring_buffer.h says.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import open_capture
from tests.test_tracedat_report import trace_cmd
from tests.tracedat_writer import Buffer, Kernel, TraceDat, event_format

if TYPE_CHECKING:
    from pathlib import Path

NUMBER = 300
"""Id of the event that the tests write: a u32 ``n``."""
LITTLE = Kernel()
KERNELS = [Kernel(order, size) for order in "<>" for size in (4, 8)]
FORMAT = event_format("e", NUMBER, [("u32 n", 8, 4, 0)])


def event(kernel: Kernel, n: int, extra: bytes = b"") -> bytes:
    return kernel.common(NUMBER, 42) + kernel.u(4, n) + extra


def write(path: Path, cpus: dict[int, list[bytes]], kernel: Kernel = LITTLE, **changes: Any) -> Path:
    """A file with these pages of each CPU."""
    page_bytes = changes.pop("page_bytes", 4096)
    buffer = Buffer({cpu: b"".join(pages) for cpu, pages in cpus.items()}, page_bytes=page_bytes)
    path.write_bytes(TraceDat([("t", FORMAT)], [buffer], kernel, **changes).build())
    return path


def read(path: Path) -> list[tuple[int, int, int]]:
    """(ts_ns, cpu, n) of the events, in order of seq."""
    with open_capture(path) as capture:
        table = capture.decode(["t:e"])["t:e"]
        assert table["seq"].to_pylist() == list(range(table.num_rows))
        assert set(table["pid"].to_pylist()) <= {42}
        return list(
            zip(table["ts_ns"].to_pylist(), table["cpu"].to_pylist(), table["n"].to_pylist(), strict=True)
        )


def quality(path: Path) -> list[dict[str, Any]]:
    with open_capture(path) as capture:
        return capture.quality().to_pylist()


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: f"{k.order}{k.long_bytes}")
@pytest.mark.parametrize("version", [6, 7])
def test_every_kind_of_record(tmp_path: Path, kernel: Kernel, version: int) -> None:
    k = kernel
    records = [
        k.data(0, event(k, 1)),
        k.data(5, event(k, 2, bytes(200))),
        k.time_extend(3 << 27 | 7),
        k.data(1, event(k, 3)),
        k.discarded(11, 20),
        k.data(2, event(k, 4), large=True),
        k.time_stamp(123456789012345),
        k.data(0, event(k, 5)),
        k.data((1 << 27) - 1, event(k, 6)),
        k.padding(),
    ]
    path = write(tmp_path / "t.dat", {0: [k.page(1000, records)]}, k, version=version)
    extended = 1000 + 5 + (3 << 27 | 7) + 1
    assert read(path) == [
        (1000, 0, 1),
        (1005, 0, 2),
        (extended, 0, 3),
        (extended + 11 + 2, 0, 4),
        (123456789012345, 0, 5),
        (123456789012345 + (1 << 27) - 1, 0, 6),
    ]
    assert quality(path) == []


def test_discarded_event_with_delta_one_takes_no_time(tmp_path: Path) -> None:
    """rb_event_discard() stores a delta of 0 as 1, because 0 would mean that the page ends."""
    k = LITTLE
    records = [k.data(0, event(k, 1)), k.discarded(1, 8), k.data(4, event(k, 2))]
    path = write(tmp_path / "t.dat", {0: [k.page(50, records)]})
    assert read(path) == [(50, 0, 1), (54, 0, 2)]


def test_time_stamp_takes_its_top_bits_from_the_running_time(tmp_path: Path) -> None:
    """rb_fix_abs_ts(): 59 bits are stored; smaller than the running time means that the rest moved on."""
    k = LITTLE
    base = 3 << 59
    records = [
        k.data(0, event(k, 1)),
        k.time_stamp(base + 500),
        k.data(0, event(k, 2)),
        k.time_stamp(400),
        k.data(0, event(k, 3)),
    ]
    path = write(tmp_path / "t.dat", {0: [k.page(base, records)]})
    assert read(path) == [(base, 0, 1), (base + 500, 0, 2), (base + (1 << 59) + 400, 0, 3)]


def test_empty_pages_and_a_page_of_time_alone(tmp_path: Path) -> None:
    k = LITTLE
    pages = [
        k.page(10, []),
        k.page(20, [k.data(0, event(k, 1))]),
        k.page(30, [k.time_extend(1 << 30)]),
        k.page(40, [k.padding()]),
        k.page(50, [k.data(0, event(k, 2))]),
    ]
    assert read(write(tmp_path / "t.dat", {0: pages})) == [(20, 0, 1), (50, 0, 2)]


def test_nothing_behind_the_size_is_read(tmp_path: Path) -> None:
    """Behind the data lie old records that look right."""
    k = LITTLE
    stale = [k.data(0, event(k, 1)), k.data(1, event(k, 2)), k.data(1, event(k, 3))]
    path = write(tmp_path / "t.dat", {0: [k.page(10, stale, commit=len(stale[0]))]})
    assert read(path) == [(10, 0, 1)]


def test_cpus_are_merged_by_time_and_ties_by_cpu(tmp_path: Path) -> None:
    k = LITTLE

    def page(start: int, *numbers: int) -> bytes:
        return k.page(start, [k.data(10 if n else 0, event(k, number)) for n, number in enumerate(numbers)])

    path = write(tmp_path / "t.dat", {5: [page(100, 1, 2, 3)], 2: [page(95, 4, 5)], 0: [page(110, 6)]})
    assert read(path) == [(95, 2, 4), (100, 5, 1), (105, 2, 5), (110, 0, 6), (110, 5, 2), (120, 5, 3)]


def test_buffers_are_merged_like_cpus(tmp_path: Path) -> None:
    k = LITTLE
    path = tmp_path / "t.dat"
    top = Buffer({1: k.page(100, [k.data(0, event(k, 1)), k.data(10, event(k, 2))])})
    other = Buffer({0: k.page(100, [k.data(0, event(k, 3)), k.data(5, event(k, 4))])}, name="other")
    path.write_bytes(TraceDat([("t", FORMAT)], [top, other]).build())
    assert read(path) == [(100, 0, 3), (100, 1, 1), (105, 0, 4), (110, 1, 2)]


def test_the_numbers_do_not_depend_on_what_else_is_asked_for(tmp_path: Path) -> None:
    k = LITTLE
    records = [
        k.data(0, event(k, 1)),
        k.data(1, k.common(NUMBER + 1, 7) + k.u(4, 9)),
        k.data(1, event(k, 2)),
    ]
    other = event_format("other", NUMBER + 1, [("u32 n", 8, 4, 0)])
    formats = [("t", FORMAT), ("t", other)]
    path = tmp_path / "t.dat"
    path.write_bytes(TraceDat(formats, [Buffer({0: k.page(1, records)})]).build())
    with open_capture(path) as capture:
        both = capture.decode(["t:e", "t:other"])
        assert capture.decode(["t:e"])["t:e"].equals(both["t:e"])
        assert both["t:e"]["seq"].to_pylist() == [0, 2]
        assert both["t:other"]["seq"].to_pylist() == [1]
        assert both["t:other"]["pid"].to_pylist() == [7]
        assert capture.event_counts() == {"t:e": 2, "t:other": 1}


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: f"{k.order}{k.long_bytes}")
def test_lost_events_with_and_without_a_number(tmp_path: Path, kernel: Kernel) -> None:
    k = kernel
    one = [k.data(0, event(k, 1)), k.data(7, event(k, 2))]
    pages = [
        k.page(100, one, lost=396535),
        k.page(200, one),
        k.page(300, one, lost=12),
        k.page(400, [k.time_extend(50), *one], lost=True),
    ]
    path = write(tmp_path / "t.dat", {3: pages}, k)
    rows = [row for row in quality(path) if row["kind"] == "lost_events"]
    assert [(row["cpu"], row["start_ns"], row["end_ns"], row["count"]) for row in rows] == [
        (3, None, 100, 396535),
        (3, 207, 300, 12),
        (3, 307, 450, None),
    ]
    assert {row["severity"] for row in rows} == {"warning"}
    with open_capture(path) as capture:
        assert capture.info.events == 8
        assert capture.info.events_lost is None


def test_number_of_lost_events_that_does_not_fit_the_page(tmp_path: Path) -> None:
    """A full page has no room for the number: the kernel sets no bit 30; a bit 30 there is not believed."""
    k = LITTLE
    full = k.data(0, event(k, 1, bytes(4080 - 8 - 12)))
    page = bytearray(k.page(100, [full]))
    page[8:16] = k.u(8, 0xFFFFFFFF << 32 | 1 << 31 | 1 << 30 | len(full))
    path = write(tmp_path / "t.dat", {0: [bytes(page)]})
    assert [row["count"] for row in quality(path)] == [None]
    assert read(path) == [(100, 0, 1)]


def test_statistics_of_the_kernel_say_how_many_where_pages_do_not(tmp_path: Path) -> None:
    k = LITTLE
    stats = [
        (2, b"CPU: 0\nentries: 1\noverrun: 40\ncommit overrun: 1\ndropped events: 2\nread events: 1\n\0")
    ]
    pages = [k.page(100, [k.data(0, event(k, 1))], lost=30)]
    path = write(tmp_path / "t.dat", {0: pages}, options=stats)
    assert [(row["start_ns"], row["end_ns"], row["count"]) for row in quality(path)] == [
        (None, 100, 30),
        (None, None, 13),
    ]
    with open_capture(path) as capture:
        assert capture.info.events_lost == 43


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_pages_that_lie_in_two_chunks(tmp_path: Path, compression: str) -> None:
    """Sub-buffers of 16 KiB in chunks of 40960 bytes. trace-cmd 3.1 to 3.4 stop at the first such page."""
    k = LITTLE
    pages = [
        k.page(1000 * p, [k.data(1, event(k, 1000 * p + n)) for n in range(900)], size=16384)
        for p in range(9)
    ]
    path = write(
        tmp_path / "t.dat",
        {0: pages},
        compression=compression,
        page_bytes=16384,
        header_page=k.header_page(16384),
    )
    assert [n for _, _, n in read(path)] == [1000 * p + n for p in range(9) for n in range(900)]


def test_sixteen_kib_pages_of_which_only_four_are_filled(tmp_path: Path) -> None:
    """``trace-cmd extract`` does that."""
    k = LITTLE
    pages = [k.page(p, [k.data(1, event(k, p))], size=16384) for p in range(3)]
    path = write(tmp_path / "t.dat", {0: pages}, page_bytes=16384)
    assert [n for _, _, n in read(path)] == [0, 1, 2]


def test_pages_larger_than_64_kib(tmp_path: Path) -> None:
    k = LITTLE
    records = [k.data(1, event(k, n)) for n in range(6000)]
    path = write(tmp_path / "t.dat", {0: [k.page(0, records, size=1 << 17)]}, page_bytes=1 << 17)
    assert [n for _, _, n in read(path)] == list(range(6000))


def test_blocks_of_pages_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from captures import windows

    k = LITTLE
    pages = [k.page(100 * p, [k.data(1, event(k, 10 * p + n)) for n in range(5)]) for p in range(11)]
    path = write(tmp_path / "t.dat", {0: pages, 1: pages[3:]}, compression="zstd")
    whole = read(path)
    monkeypatch.setattr(windows, "WINDOW_BYTES", 3 * 4096)
    assert read(path) == whole
    assert len(whole) == 95


@pytest.mark.parametrize("header", [28, 0 | 1 << 5, 29 | 5 << 5], ids=["too long", "large", "discarded"])
@pytest.mark.parametrize("length", [0, 3, 1 << 20, 0xFFFFFFFF])
def test_records_that_contradict_the_page_end_it_and_are_told(
    tmp_path: Path, header: int, length: int
) -> None:
    k = LITTLE
    good = k.data(0, event(k, 1))
    bad = k.u(4, header, length) + bytes(8)
    pages = [k.page(10, [good, bad]), k.page(20, [good])]
    path = write(tmp_path / "t.dat", {0: pages})
    assert [ts for ts, _, _ in read(path)][:1] == [10]
    assert read(path)[-1] == (20, 0, 1)
    rows = quality(path)
    assert [(row["kind"], row["severity"], row["count"], row["start_ns"]) for row in rows] == [
        ("corrupt", "error", 1, 10)
    ]


def test_page_that_says_it_holds_more_than_it_can(tmp_path: Path) -> None:
    k = LITTLE
    pages = [k.page(10, [k.data(0, event(k, 1))], commit=5000), k.page(20, [k.data(0, event(k, 2))])]
    path = write(tmp_path / "t.dat", {0: pages})
    assert read(path) == [(20, 0, 2)]
    assert [row["kind"] for row in quality(path)] == ["corrupt"]


@st.composite
def pages(draw: st.DrawFn) -> tuple[Kernel, list[bytes], list[tuple[int, int]]]:
    """A kernel, pages of it, and the (ts, n) of the events in them."""
    k = draw(st.sampled_from(KERNELS))
    out, expected = [], []
    start = 0
    for _ in range(draw(st.integers(1, 4))):
        start += draw(st.integers(0, 1 << 40))
        ts, records, room = start, [], 4096 - 16
        kinds = draw(st.lists(st.sampled_from("ddddlesx"), max_size=60))
        for kind in kinds:
            delta = draw(st.integers(2, (1 << 27) - 1))
            n = draw(st.integers(0, (1 << 32) - 1))
            extra = 4 * draw(st.integers(0, 40))
            if kind in "dl":
                record = k.data(delta, event(k, n, bytes(extra)), large=True if kind == "l" else None)
            elif kind == "e":
                delta = draw(st.integers(0, (1 << 50) - 1))
                record = k.time_extend(delta)
            elif kind == "s":
                delta = draw(st.integers(0, 1 << 50))
                record = k.time_stamp(ts + delta)
            else:
                record = k.discarded(delta, 4 + extra)
            if len(record) > room:
                break
            room -= len(record)
            ts += delta
            records.append(record)
            if kind in "dl":
                expected.append((ts, n))
        out.append(k.page(start, records))
        start = ts
    return k, out, expected


@settings(max_examples=150)
@given(pages())
def test_any_pages(tmp_path_factory: pytest.TempPathFactory, drawn: tuple[Any, Any, Any]) -> None:
    kernel, content, expected = drawn
    path = write(tmp_path_factory.mktemp("any") / "t.dat", {0: content}, kernel)
    assert [(ts, n) for ts, _, n in read(path)] == expected
    assert quality(path) == []


@pytest.mark.parametrize("version", [6, 7])
def test_trace_cmd_reads_the_written_files_alike(tmp_path: Path, version: int) -> None:
    """The writer itself is checked: trace-cmd finds the events that we find."""
    k = LITTLE
    records = [
        k.data(0, event(k, 1)),
        k.time_extend(1 << 28),
        k.data(3, event(k, 2, bytes(400))),
        k.discarded(11, 20),
        k.time_stamp(999999999999),
        k.data(0, event(k, 3)),
    ]
    path = write(
        tmp_path / "t.dat", {0: [k.page(77, records)], 1: [k.page(78, records[:1])]}, version=version
    )
    done = subprocess.run(
        [trace_cmd(), "report", "-R", "-t", "-i", str(path)], capture_output=True, text=True, check=True
    )
    lines = [line.split() for line in done.stdout.splitlines() if " e:" in line]
    printed = [
        (int(words[2].strip(":").replace(".", "")), int(words[1].strip("[]")), int(words[-1].split("=")[1]))
        for words in lines
    ]
    assert printed == read(path)
    assert len(printed) == 4
