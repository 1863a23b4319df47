"""Facts of real captures that sources other than our reader confirm.

The kernel's own statistics (per_cpu/cpuN/stats) lie as text in each file: what was left in the buffer plus
what had been read before is what must be decoded. They are found here by a plain search in the bytes.
"""

from __future__ import annotations

import lzma
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from captures import open_capture
from tests.test_tracedat_report import DATA, trace_cmd, unpacked

if TYPE_CHECKING:
    from pathlib import Path

STATS = re.compile(
    rb"CPU: (\d+)\nentries: (\d+)\noverrun: (\d+)\ncommit overrun: (\d+)\nbytes: \d+\n"
    rb"oldest event ts: *[\d.]+\nnow ts: *[\d.]+\ndropped events: (\d+)\nread events: (\d+)\n"
)
SAMPLES = sorted(path.name for path in DATA.glob("*.dat*"))


def statistics(name: str) -> list[tuple[int, ...]]:
    """(cpu, entries, overrun, commit overrun, dropped, read) of each CPU of each buffer."""
    content = (DATA / name).read_bytes()
    content = lzma.decompress(content) if name.endswith(".xz") else content
    return [tuple(map(int, found)) for found in STATS.findall(content)]


# function.dat: the statistics of CPU 0 count 128 more than its pages hold; trace-cmd finds what we find.
@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "function.dat"])
def test_as_many_events_as_the_kernel_counted(name: str) -> None:
    expected = sum(entries + read for _, entries, _, _, _, read in statistics(name))
    assert expected > 0
    with open_capture(DATA / name) as capture:
        assert capture.info.events == expected
        assert sum(capture.event_counts().values()) == expected


@pytest.mark.parametrize("name", SAMPLES)
def test_as_many_lost_as_the_kernel_counted(name: str) -> None:
    expected = sum(sum(each[2:5]) for each in statistics(name))
    with open_capture(DATA / name) as capture:
        assert capture.info.events_lost == expected
        lost = [row for row in capture.quality().to_pylist() if row["kind"] == "lost_events"]
    assert bool(lost) == bool(expected)


def test_losses_are_where_trace_cmd_reports_them(tmp_path: Path) -> None:
    """Same numbers on the same CPUs in the same order, the one without a number among them."""
    path = unpacked(DATA / "lost_events.dat", tmp_path)
    done = subprocess.run([trace_cmd(), "report", "-i", path], capture_output=True, text=True, check=True)
    printed: dict[int, list[int | None]] = {}
    for cpu, number in re.findall(r"CPU:(\d+) \[(?:(\d+) )?EVENTS DROPPED\]", done.stdout):
        printed.setdefault(int(cpu), []).append(int(number) if number else None)
    found: dict[int, list[int | None]] = {}
    with open_capture(path) as capture:
        for row in capture.quality().to_pylist():
            if row["kind"] == "lost_events" and row["end_ns"] is not None:
                found.setdefault(row["cpu"], []).append(row["count"])
                assert row["start_ns"] is None or row["start_ns"] <= row["end_ns"]
    assert found == printed
    assert None in [number for numbers in found.values() for number in numbers]


def test_where_captures_come_from() -> None:
    with open_capture(DATA / "kernel_6.12.dat") as capture:
        info = capture.info
    assert (info.kernel_release, info.arch, info.hostname) == (
        "6.12.107+deb13-cloud-amd64",
        "x86_64",
        "ksmlab",
    )
    assert (info.format, info.clock, info.cpus, info.tool) == (
        "trace.dat v7 (zstd)",
        "mono",
        2,
        "trace-cmd 3.3.1",
    )
    assert info.size_bytes == (DATA / "kernel_6.12.dat").stat().st_size
    digest = subprocess.run(
        ["sha256sum", DATA / "kernel_6.12.dat"], capture_output=True, text=True, check=True
    )
    assert info.sha256 == digest.stdout.split()[0]


@pytest.mark.parametrize(
    ("name", "form", "clock"),
    [
        ("zlib.dat", "trace.dat v7 (zlib)", "mono"),
        ("version6.dat.xz", "trace.dat v6, xz", "mono"),
        ("x86_tsc.dat", "trace.dat v7 (zstd)", "x86-tsc"),
        ("local_clock.dat", "trace.dat v7 (zstd)", "local"),
    ],
)
def test_formats_and_clocks(name: str, form: str, clock: str) -> None:
    with open_capture(DATA / name) as capture:
        assert capture.info.format == form
        assert capture.info.clock == clock


@pytest.mark.parametrize(
    ("name", "severity", "text"),
    [("x86_tsc.dat", "warning", "CPU cycles"), ("local_clock.dat", "info", "may run apart")],
)
def test_clocks_that_limit_the_results_are_told(name: str, severity: str, text: str) -> None:
    with open_capture(DATA / name) as capture:
        rows = [row for row in capture.quality().to_pylist() if row["kind"] in ("clock", "no_ns")]
    assert [row["severity"] for row in rows] == [severity]
    assert text in rows[0]["effect"]


def test_saved_command_lines() -> None:
    with open_capture(DATA / "zstd.dat") as capture:
        comms = capture.comms()
    assert comms[250] == "ksmload"
    assert "ksmd" in comms.values()


def test_mono_clock_agrees_with_the_program_that_was_traced() -> None:
    """Its markers carry its own CLOCK_MONOTONIC, read just before."""
    with open_capture(DATA / "zlib.dat") as capture:
        markers = capture.decode(["ftrace:print"])["ftrace:print"].to_pylist()
    own = [int(found[1]) for row in markers if (found := re.search(r"mono_ns=(\d+)", row["buf"]))]
    assert len(own) == 15
    assert all(0 < row["ts_ns"] - ns < 1_000_000 for row, ns in zip(markers, own, strict=True))
