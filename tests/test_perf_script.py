"""Every sample of real perf.data files, event for event and field for field, against perf itself.

``perf script --ns`` prints times in ns; a script of perf gets every field as a number or text. The files are
described in ``tests/data/perf/README.md``.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from captures import open_capture
from tests.perf_tool import DATA, SAMPLES, decoded, for_perf, handled, perf, printed, run, same_value

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", SAMPLES)
def test_same_events_in_the_same_order(name: str, tmp_path: Path) -> None:
    expected = printed(for_perf(DATA / name, tmp_path))
    found = [each.key for each in decoded(DATA / name)]
    assert len(found) == len(expected) > 1000
    assert found == expected


@pytest.mark.parametrize("name", SAMPLES)
def test_same_fields(name: str, tmp_path: Path) -> None:
    expected = handled(for_perf(DATA / name, tmp_path), tmp_path)
    found = decoded(DATA / name)
    assert [each.key for each in found] == [each.key for each in expected]
    compared = 0
    for ours, theirs in zip(found, expected, strict=True):
        for field, value in theirs.fields.items():
            column = f"{field}_" if field in ("seq", "ts_ns", "cpu", "pid") else field
            assert same_value(ours.fields[column], value), (ours, theirs, field)
            compared += 1
    assert compared > 3 * len(found)


@pytest.mark.parametrize("name", SAMPLES)
def test_names_of_tasks(name: str, tmp_path: Path) -> None:
    """The name at a task's last event is its last name, unless perf saw it change later."""
    last = {each.pid: each.comm for each in handled(for_perf(DATA / name, tmp_path), tmp_path)}
    with open_capture(DATA / name) as capture:
        names = capture.comms()
        renamed = capture.decode(["perf:exec", "perf:comm"])
    late = {row["pid"] for table in renamed.values() for row in table.to_pylist() if row["ts_ns"]}
    steady = {pid: comm for pid, comm in last.items() if pid and pid not in late}
    assert {pid: names.get(pid) for pid in steady} == steady
    assert steady or late


def test_same_losses(tmp_path: Path) -> None:
    path = for_perf(DATA / "lost_events.perf.data.xz", tmp_path)
    text = run(path, "--show-lost-events", "--ns", "-F", "comm,tid,cpu,time,event")
    expected = []
    for line in text.splitlines():
        if "PERF_RECORD_LOST lost" in line:
            head, _, number = line.partition("PERF_RECORD_LOST lost")
            cpu, time = head.split()[-2:]
            expected.append((int(cpu.strip("[]")), int(time.rstrip(":").replace(".", "")), int(number)))
    with open_capture(DATA / "lost_events.perf.data.xz") as capture:
        rows = [row for row in capture.quality().to_pylist() if row["kind"] == "lost_events"]
        lost = capture.info.events_lost
    found = [(row["cpu"], row["end_ns"], row["count"]) for row in rows if row["end_ns"] is not None]
    assert len(expected) > 100
    assert sorted(found) == sorted(expected)
    # The kernel's own count at the end is larger; perf's summary is made of it.
    done = subprocess.run([perf(), "script", "-i", str(path)], capture_output=True, text=True, check=True)
    assert "lost 85.83%" in done.stderr
    assert f"{lost / (lost + 6581):.2%}" == "85.83%"
    assert sum(row["count"] for row in rows) == lost


def test_losses_lie_where_no_event_of_that_cpu_is(tmp_path: Path) -> None:
    with open_capture(DATA / "lost_events.perf.data.xz") as capture:
        rows = [row for row in capture.quality().to_pylist() if row["end_ns"] is not None]
    times = {
        cpu: [
            each[0]
            for each in printed(for_perf(DATA / "lost_events.perf.data.xz", tmp_path))
            if each[1] == cpu
        ]
        for cpu in (0, 1)
    }
    assert len(rows) == 151
    for row in rows:
        inside = [ts for ts in times[row["cpu"]] if row["start_ns"] < ts < row["end_ns"]]
        assert inside == []
