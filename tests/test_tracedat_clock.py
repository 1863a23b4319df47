"""Times under the options that move or scale them, as trace-cmd prints them."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from captures import open_capture
from schemas.errors import CorruptError
from tests.test_ringbuf import FORMAT, event, quality, read, write
from tests.test_ringbuf import LITTLE as K
from tests.test_tracedat_report import trace_cmd
from tests.tracedat_writer import Buffer, TraceDat, event_format

if TYPE_CHECKING:
    from pathlib import Path

DATE, OFFSET, TSC2NSEC = 1, 7, 14
# 2.9 GHz: as the kernel's perf_event_mmap_page gives them.
TSC = K.u(4, 370285714, 30) + K.u(8, 0)
PAGES = [K.page(5_000_000_000_000, [K.data(0, event(K, 1)), K.data(123456, event(K, 2))])]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([(OFFSET, b"1000000007\0")], [5_001_000_000_007, 5_001_000_123_463]),
        ([(OFFSET, b"-1000\0")], [4_999_999_999_000, 5_000_000_122_456]),
        ([(DATE, b"0x10\0")], [5_000_000_016_000, 5_000_000_139_456]),
        ([(OFFSET, b"5\0"), (DATE, b"2\0")], [5_000_000_002_005, 5_000_000_125_461]),
        ([(TSC2NSEC, TSC)], [5 * 10**12 * 370285714 >> 30, (5 * 10**12 + 123456) * 370285714 >> 30]),
        ([(TSC2NSEC, TSC), (OFFSET, b"7\0")], [(5 * 10**12 * 370285714 >> 30) + 7, None]),
    ],
)
def test_options_that_change_times(
    tmp_path: Path, options: list[tuple[int, bytes]], expected: list[int | None]
) -> None:
    path = write(tmp_path / "t.dat", {0: PAGES}, options=options)
    times = [ts for ts, _, _ in read(path)]
    for found, wanted in zip(times, expected, strict=True):
        assert wanted is None or found == wanted
    done = subprocess.run(
        [trace_cmd(), "report", "-t", "-i", path], capture_output=True, text=True, check=True
    )
    printed = [int(text.replace(".", "")) for text in re.findall(r"\] *([\d.]+): e:", done.stdout)]
    assert times == printed


def test_a_clock_of_cycles_with_its_conversion_is_no_problem(tmp_path: Path) -> None:
    buffers = [Buffer({0: PAGES[0]}, clock="x86-tsc")]
    formats = [("t", event_format("e", 300, [("u32 n", 8, 4, 0)]))]
    path = tmp_path / "t.dat"
    path.write_bytes(TraceDat(formats, buffers).build())
    assert [(row["kind"], row["severity"]) for row in quality(path)] == [("no_ns", "warning")]
    path.write_bytes(TraceDat(formats, buffers, options=[(TSC2NSEC, TSC)]).build())
    assert quality(path) == []


@pytest.mark.parametrize("hz", [1000, 25_000_000, 999_999_999, 10**9, 2_899_886_000, 10**10])
def test_ticks_a_second_that_the_user_knows(tmp_path: Path, hz: int) -> None:
    """As `trace-cmd report -t --ts2secs`, whose factor is a double; ours has 28 to 32 bits."""
    path = tmp_path / "t.dat"
    path.write_bytes(TraceDat([("t", FORMAT)], [Buffer({0: PAGES[0]}, clock="x86-tsc")]).build())
    with open_capture(path, hz) as capture:
        times = capture.decode(["t:e"])["t:e"]["ts_ns"].to_pylist()
        assert [row["kind"] for row in capture.quality().to_pylist()] == ["clock"]
    command = [trace_cmd(), "report", "-t", "--ts2secs", str(hz), "-i", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    printed = [int(text.replace(".", "")) for text in re.findall(r"\] *([\d.]+): e:", done.stdout)]
    assert len(times) == len(printed) == 2
    assert max(abs(a - b) / b for a, b in zip(times, printed, strict=True)) < 2**-28
    assert times[1] - times[0] == pytest.approx(123456 * 10**9 / hz, rel=1e-6, abs=1)


@pytest.mark.parametrize(("now", "kinds"), [("34098.846952", []), ("88524921025814", ["no_ns"])])
def test_statistics_tell_a_clock_that_the_file_does_not(tmp_path: Path, now: str, kinds: list[str]) -> None:
    """trace-cmd 3.1 extract -B NAME writes the clock of the top buffer for that of the instance."""
    stats = f"CPU: 0\nentries: 0\noverrun: 0\noldest event ts: 1\nnow ts: {now}\nread events: 1\n\n"
    options = [(2, b"\n\nBuffer: other\n\n\0"), (2, stats.encode() + b"\0")]
    buffers = [Buffer({}, clock="mono"), Buffer({0: PAGES[0]}, name="other", clock="mono")]
    path = tmp_path / "t.dat"
    path.write_bytes(TraceDat([], buffers, options=options).build())
    assert [row["kind"] for row in quality(path) if row["kind"] != "unknown_event"] == kinds


def test_buffers_with_two_clocks(tmp_path: Path) -> None:
    buffers = [Buffer({0: PAGES[0]}), Buffer({0: PAGES[0]}, name="other", clock="boot")]
    path = tmp_path / "t.dat"
    path.write_bytes(TraceDat([], buffers).build())
    rows = quality(path)
    assert [row["severity"] for row in rows if row["kind"] == "clocks_differ"] == ["error"]
    assert any("boot, mono" in row["effect"] for row in rows)


def test_times_that_run_backwards_are_told(tmp_path: Path) -> None:
    pages = [K.page(ts, [K.data(0, event(K, n))]) for n, ts in enumerate((100, 50, 60))]
    path = write(tmp_path / "t.dat", {0: pages})
    assert read(path) == [(100, 0, 0), (50, 0, 1), (60, 0, 2)]
    assert [(row["kind"], row["cpu"], row["count"]) for row in quality(path)] == [("clock", 0, 1)]


@pytest.mark.parametrize(
    "option", [(OFFSET, b"soon\0"), (DATE, b"99999999999999999999\0"), (TSC2NSEC, K.u(4, 1, 40) + K.u(8, 0))]
)
def test_wrong_options(tmp_path: Path, option: tuple[int, bytes]) -> None:
    path = write(tmp_path / "t.dat", {0: PAGES}, options=[option])
    with pytest.raises(CorruptError):
        open_capture(path)
