"""Windows of time over several CPUs, against sorting: whatever the pages and the size of a window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import open_capture, windows
from tests.test_ringbuf import LITTLE, event, read, write
from tests.tracedat_writer import Kernel

DATA = Path(__file__).parent / "data" / "tracedat"


_PAGE = st.tuples(
    st.sampled_from([0, 0, 0, 1, 5, 30, -3]), st.lists(st.sampled_from([0, 0, 1, 7]), max_size=4)
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.integers(0, 5), st.lists(_PAGE, max_size=12), min_size=1),
    st.sampled_from([1, 5 * 4096, 40 * 4096]),
    st.sampled_from(["none", "zstd"]),
)
def test_any_windows_give_the_order_of_time(
    tmp_path_factory: pytest.TempPathFactory,
    drawn: dict[int, list[tuple[int, list[int]]]],
    window_bytes: int,
    compression: str,
) -> None:
    """Drawn of each CPU: its pages, as the step of time to the page and the deltas of its records."""
    k = LITTLE
    pages: dict[int, list[bytes]] = {}
    events: list[tuple[int, int, int]] = []
    for cpu, of_cpu in drawn.items():
        ts = 100
        pages[cpu] = []
        for step, deltas in of_cpu:
            start = ts = ts + step
            records = []
            for delta in deltas:
                ts += delta
                records.append(k.data(delta, event(k, len(events))))
                events.append((ts, cpu, len(events)))
            pages[cpu].append(k.page(start, records))
    path = write(tmp_path_factory.mktemp("w") / "t.dat", pages, compression=compression, chunk_bytes=5000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "WINDOW_BYTES", window_bytes)
        assert read(path) == sorted(events, key=lambda each: each[:2])


@pytest.mark.parametrize("name", ["lost_events.dat", "zstd.dat", "two_buffers.dat", "function.dat"])
def test_real_captures_are_the_same_in_any_windows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def everything() -> tuple[Any, ...]:
        with open_capture(DATA / name) as capture:
            return capture.decode(list(capture.formats)), capture.quality(), capture.info

    whole = everything()
    monkeypatch.setattr(windows, "WINDOW_BYTES", 5 * 4096)
    assert everything() == whole


def test_times_that_go_back_are_sorted_and_told(tmp_path: Path) -> None:
    k = LITTLE
    pages = {
        0: [k.page(100, [k.data(0, event(k, 1))]), k.page(50, [k.data(0, event(k, 2))])],
        1: [k.page(70, [k.data(0, event(k, 3)), k.time_stamp(60), k.data(0, event(k, 4))])],
    }
    path = write(tmp_path / "t.dat", pages)
    assert read(path) == [(50, 0, 2), (60, 1, 4), (70, 1, 3), (100, 0, 1)]
    with open_capture(path) as capture:
        told = [(row["kind"], row["cpu"], row["count"]) for row in capture.quality().to_pylist()]
        assert (capture.info.first_ts_ns, capture.info.last_ts_ns) == (50, 100)
    assert told == [("clock", 0, 1), ("clock", 1, 1)]


def test_an_absolute_time_before_its_page_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In windows of two pages, the record at 5 belongs to a window that is over: all is read again."""
    k = LITTLE
    late = [k.page(10 * n, [k.data(0, event(k, n))]) for n in range(1, 9)]
    pages = {0: late, 1: [*late[:7], k.page(80, [k.time_stamp(5), k.data(0, event(k, 99))])]}
    monkeypatch.setattr(windows, "WINDOW_BYTES", 1)
    found = read(write(tmp_path / "t.dat", pages))
    assert found[0] == (5, 1, 99)
    assert len(found) == 16


def test_a_record_behind_the_begin_of_the_next_page_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    k = LITTLE
    pages = {
        0: [k.page(10, [k.data(0, event(k, 1)), k.data(90, event(k, 2))])]
        + [k.page(10 * n, []) for n in range(2, 6)]
        + [k.page(200, [k.data(0, event(k, 3))])],
        1: [k.page(10 * n, [k.data(0, event(k, 10 + n))]) for n in range(1, 12)],
    }
    monkeypatch.setattr(windows, "WINDOW_BYTES", 1)
    found = read(write(tmp_path / "t.dat", pages))
    assert [n for _, _, n in found if n < 10] == [1, 2, 3]
    assert found == sorted(found)


def test_cpus_that_unpack_to_much_are_read_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page takes few bytes in the file: what all CPUs hold together is bounded, whatever their number."""
    k = LITTLE
    pages = {cpu: [k.page(ts, [k.data(0, event(k, ts))]) for ts in (1, 20, 300)] for cpu in range(9)}
    path = write(tmp_path / "t.dat", pages, compression="zstd")
    whole = read(path)
    in_file_order = windows.WindowReader.in_file_order
    calls: list[int] = []
    monkeypatch.setattr(windows, "MAX_UNPACKED_BYTES", 20 * 4096)
    monkeypatch.setattr(
        windows.WindowReader, "in_file_order", lambda self: calls.append(1) or in_file_order(self)
    )
    assert read(path) == whole == sorted(whole)
    assert calls


@pytest.mark.parametrize("kernel", [Kernel("<", 4), Kernel(">", 8)], ids=["32-bit", "big-endian"])
def test_cpus_that_come_and_go(tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU hotplug: numbers with holes, a CPU with a few pages in the middle, CPUs without any page."""
    k = kernel
    pages = {
        cpu: [k.page(ts, [k.data(0, event(k, ts + cpu)), k.data(3, event(k, ts + cpu))]) for ts in times]
        for cpu, times in {0: range(100, 9000, 100), 3: range(4000, 4300, 50), 7: [], 12: [8999]}.items()
    }
    monkeypatch.setattr(windows, "WINDOW_BYTES", 3 * 4096)
    found = read(write(tmp_path / "t.dat", pages, k))
    assert len(found) == 2 * sum(map(len, pages.values()))
    assert found == sorted(found)
    assert {cpu for _, cpu, _ in found} == {0, 3, 12}
