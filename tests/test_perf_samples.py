"""Facts of real perf.data files that perf itself, or another program, confirms."""

from __future__ import annotations

import hashlib
import io
import lzma
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from captures import open_capture
from captures.canonical import canonical_events
from captures.maps import known_threads
from tests.perf_tool import DATA, SAMPLES, decoded, for_perf, perf, run

if TYPE_CHECKING:
    from pathlib import Path

FILES = [name for name in SAMPLES if not name.startswith("pipe")]


def header(path: Path) -> str:
    """What perf tells of a file's header, and the command line with it."""
    done = subprocess.run(
        [perf(), "report", "--header-only", "-i", str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("name", FILES)
def test_where_captures_come_from(name: str, tmp_path: Path) -> None:
    text = header(for_perf(DATA / name, tmp_path))
    told = dict(re.findall(r"^# ([\w ]+?)\s*: (.+?)\s*$", text, re.MULTILINE))
    with open_capture(DATA / name) as capture:
        info = capture.info
        command = capture.command_line
    assert info.hostname == told["hostname"]
    assert info.kernel_release == told["os release"]
    assert info.arch == told["arch"]
    assert info.tool == f"perf {told['perf version']}"
    assert info.cpus == int(told["nrcpus online"])
    assert " ".join(command) == told["cmdline"]
    clock = {"monotonic": "mono", "monotonic_raw": "mono_raw"}
    assert info.clock == clock[re.search(r"# clockid: (\w+)", text)[1]]  # type: ignore[index]
    assert not info.truncated


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("raw_clock", "perf.data, xz"),
        ("call_graphs_zstd", "perf.data (zstd), xz"),
        ("pipe_zstd", "perf.data (pipe, zstd), xz"),
    ],
)
def test_formats(name: str, form: str) -> None:
    with open_capture(DATA / f"{name}.perf.data.xz") as capture:
        assert capture.info.format == form
        assert capture.info.size_bytes == (DATA / f"{name}.perf.data.xz").stat().st_size


@pytest.mark.parametrize("name", FILES)
def test_number_of_records(name: str, tmp_path: Path) -> None:
    """perf counts the records by type; what perf made up at its begin counts as well."""
    path = for_perf(DATA / name, tmp_path)
    arguments = [perf(), "report", "--stats", "-i", str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    whole = done.stdout.split(" stats:")[1]
    told = {kind: int(number) for kind, number in re.findall(r"(\w+) events:\s+(\d+)", whole)}
    with open_capture(DATA / name) as capture:
        counts = capture.event_counts()
        info = capture.info
    assert info.events == sum(n for event, n in counts.items() if not event.startswith("perf:"))
    assert info.events == told["SAMPLE"]
    assert counts["perf:comm"] + counts.get("perf:exec", 0) == told["COMM"]
    assert counts["perf:exit"] == told["EXIT"]
    assert counts.get("perf:mmap", 0) == told.get("MMAP", 0)
    assert counts["perf:mmap2"] == told["MMAP2"]


def test_mappings_that_perf_wrote_down(tmp_path: Path) -> None:
    path = for_perf(DATA / "per_process.perf.data.xz", tmp_path)
    text = run(path, "--show-mmap-events", "--ns", "-F", "tid,cpu,time,event")
    place = r"\[(0x[0-9a-f]+)\((0x[0-9a-f]+)\) @ (0x[0-9a-f]+|0) .*\]"
    pattern = rf"PERF_RECORD_MMAP2 (-?\d+)/(-?\d+): {place}: \S+ (.*)"
    expected = [
        (int(pid), int(tid), int(addr, 16), int(size, 16), int(pgoff, 16), name)
        for pid, tid, addr, size, pgoff, name in re.findall(pattern, text)
    ]
    with open_capture(path) as capture:
        rows = capture.decode(["perf:mmap2"])["perf:mmap2"].to_pylist()
    columns = ("tgid", "pid", "addr", "len", "pgoff", "filename")
    assert expected
    assert [tuple(row[column] for column in columns) for row in rows] == expected


def test_threads_that_perf_found(tmp_path: Path) -> None:
    """perf's own print of the COMM records that it made up at its begin: ``NAME:PID/TID``."""
    path = for_perf(DATA / "triple.perf.data.xz", tmp_path)
    text = run(path, "--show-task-events", "--ns", "-F", "tid,cpu,time,event")
    told = re.findall(r" 0\.0+: +PERF_RECORD_COMM: .*:(\d+)/(\d+)$", text, re.MULTILINE)
    with open_capture(path) as capture:
        rows = known_threads(capture).to_pylist()
    expected = dict.fromkeys((int(tgid), int(tid)) for tgid, tid in told)
    assert [(row["tgid"], row["pid"]) for row in rows] == list(expected)
    assert any(row["tgid"] != row["pid"] for row in rows)


def test_births_of_threads(tmp_path: Path) -> None:
    """perf's own print of FORK: process and thread of the child, of its parent. Time 0: it was there."""
    path = for_perf(DATA / "sample_identifier.perf.data.xz", tmp_path)
    text = run(path, "--show-task-events", "--ns", "-F", "tid,cpu,time,event")
    told = re.findall(r" [1-9]\d*\.\d+: PERF_RECORD_FORK\((\d+):(\d+)\):\((\d+):\d+\)", text)
    with open_capture(path) as capture:
        tasks = canonical_events(capture, ["ev_task"])["ev_task"].to_pylist()
    births = [(row["child_pid"], row["clone_flags"]) for row in tasks if row["kind"] == "fork"]
    assert births == [(int(tid), 0x10100 if tgid == above else None) for tgid, tid, above in told]
    assert births


@pytest.mark.parametrize("kernel", ["6.12", "7.3"])
def test_births_of_processes(kernel: str) -> None:
    """perf tells another process where task_newtask tells no CLONE_THREAD."""
    with open_capture(DATA.parent / "calls" / f"{kernel}.perf.data.xz") as capture:
        tables = capture.decode(["perf:fork", "task:task_newtask"])
    told = {
        row["pid_"] for row in tables["task:task_newtask"].to_pylist() if not row["clone_flags"] & 0x10000
    }
    apart = {
        row["child_pid"] for row in tables["perf:fork"].to_pylist() if row["child_tgid"] != row["parent_tgid"]
    }
    assert told <= apart
    assert told


def test_what_perf_inject_writes(tmp_path: Path) -> None:
    """The same samples in a file written anew. (Into a pipe perf 6.1 writes what it cannot read itself.)"""
    path = for_perf(DATA / "sample_identifier.perf.data.xz", tmp_path)
    target = tmp_path / "injected.perf.data"
    subprocess.run([perf(), "inject", "-b", "-i", str(path), "-o", str(target)], check=True)
    assert target.read_bytes() != path.read_bytes()
    assert decoded(target) == decoded(path)


def test_births_are_those_of_the_scheduler() -> None:
    """perf's own FORK, EXIT and exec records against the tracepoints of the same run."""
    with open_capture(DATA / "triple.perf.data.xz") as capture:
        pairs = {"fork": "fork", "exit": "exit", "exec": "exec"}
        tables = capture.decode(
            [f"perf:{ours}" for ours in pairs] + [f"sched:sched_process_{stock}" for stock in pairs.values()]
        )
        tasks = canonical_events(capture, ["ev_task"])["ev_task"].to_pylist()

    def told(name: str, columns: tuple[str, ...]) -> list[tuple[int, ...]]:
        return [tuple(row[column] for column in columns) for row in tables[name].to_pylist()]

    births = told("sched:sched_process_fork", ("pid", "child_pid"))
    assert len(births) == 16
    assert told("perf:fork", ("pid", "child_pid"))[-16:] == births
    assert told("perf:exec", ("pid",)) == told("sched:sched_process_exec", ("pid",))
    assert told("perf:exit", ("pid",)) == told("sched:sched_process_exit", ("pid",))
    # Where both tell, the tracepoint counts, once.
    assert [(row["pid"], row["child_pid"]) for row in tasks if row["kind"] == "fork"] == births


@pytest.mark.parametrize("packed", [False, True])
def test_standard_input(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (DATA / "pipe_zstd.perf.data.xz").read_bytes()
    content = content if packed else lzma.decompress(content)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    with open_capture("-") as capture:
        assert capture.path == "-"
        assert capture.info.sha256 == hashlib.sha256(content).hexdigest()
        assert capture.info.size_bytes == len(content)
        assert capture.info.events == 10322
