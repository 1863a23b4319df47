"""Windows of time over several CPUs, against sorting: whatever the pages and the size of a window."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import open_capture, windows
from tests.test_ringbuf import LITTLE, event, read, write
from tests.test_tracedat_report import trace_cmd
from tests.tracedat_writer import Kernel

DATA = Path(__file__).parent / "data" / "tracedat"


_PAGE = st.tuples(
    st.sampled_from([0, 0, 0, 1, 5, 30, -3]), st.lists(st.sampled_from([0, 0, 1, 7]), max_size=4)
)


def merged(events: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Always the earliest of the CPUs' next events, the lower CPU's of two."""
    waiting: dict[int, list[tuple[int, int, int]]] = {}
    for each in events:
        waiting.setdefault(each[1], []).append(each)
    order = []
    while any(waiting.values()):
        _, cpu = min((left[0][0], cpu) for cpu, left in waiting.items() if left)
        order.append(waiting[cpu].pop(0))
    return order


@settings(max_examples=200)
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
        assert read(path) == merged(events)


@pytest.mark.parametrize("name", ["lost_events.dat", "zstd.dat", "two_buffers.dat", "function.dat"])
def test_real_captures_are_the_same_in_any_windows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def everything() -> tuple[Any, ...]:
        with open_capture(DATA / name) as capture:
            return capture.decode(list(capture.formats)), capture.quality(), capture.info

    whole = everything()
    monkeypatch.setattr(windows, "WINDOW_BYTES", 5 * 4096)
    assert everything() == whole


def test_the_events_of_a_cpu_whose_clock_jumps_back_keep_their_order(tmp_path: Path) -> None:
    """In the order of trace-cmd report, which takes the earliest of the CPUs' next events; and told."""
    k = LITTLE
    pages = {
        0: [k.page(100, [k.data(0, event(k, 1))]), k.page(50, [k.data(0, event(k, 2))])],
        1: [k.page(70, [k.data(0, event(k, 3)), k.time_stamp(60), k.data(0, event(k, 4))])],
        2: [k.page(90, [k.data(0, event(k, 5)), k.data(15, event(k, 6))])],
    }
    path = write(tmp_path / "t.dat", pages)
    done = subprocess.run(
        [trace_cmd(), "report", "-R", "-t", "-i", str(path)], capture_output=True, text=True, check=True
    )
    printed = [int(line.rsplit("=", 1)[1]) for line in done.stdout.splitlines() if " e:" in line]
    assert [number for _, _, number in read(path)] == printed == [3, 4, 5, 1, 2, 6]
    with open_capture(path) as capture:
        told = [(row["kind"], row["cpu"], row["count"]) for row in capture.quality().to_pylist()]
        assert (capture.info.first_ts_ns, capture.info.last_ts_ns) == (50, 105)
    assert told == [("clock", 0, 1), ("clock", 1, 1)]


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
