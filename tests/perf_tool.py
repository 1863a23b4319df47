"""Runs perf, the independent reader of perf.data files."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from captures import open_capture
from tests.perf_writer import narrowed

DATA = Path(__file__).parent / "data" / "perf"
SAMPLES = sorted(path.name for path in DATA.glob("*.perf.data.xz"))

HANDLER = """
import json, os
out = open(os.environ["FIELDS"], "w")
def plain(value):
    return list(value) if isinstance(value, (bytes, bytearray)) else value
def trace_unhandled(name, context, fields, sample):
    own = {key: plain(value) for key, value in fields.items() if not key.startswith("common_")}
    at = sample["sample"]
    row = [at["time"], at["cpu"], fields["common_pid"], sample["ev_name"], sample["comm"], own]
    out.write(json.dumps(row) + "\\n")
def trace_end():
    out.close()
"""


@dataclass(frozen=True)
class Event:
    """One event, as perf or as we read it."""

    ts_ns: int
    cpu: int
    pid: int
    name: str
    fields: dict[str, Any]
    comm: str | None = None

    @property
    def key(self) -> tuple[int, int, int, str]:
        return self.ts_ns, self.cpu, self.pid, self.name


def perf() -> str:
    """The program; without it the test is skipped, which CI does not allow (conftest.py)."""
    program = shutil.which("perf")
    if program is None:
        pytest.skip("perf is not installed")
    return program


def for_perf(path: Path, tmp_path: Path) -> Path:
    """The file unpacked, with attributes that a perf of Linux 6.1 takes."""
    content = path.read_bytes()
    target = tmp_path / path.name.removesuffix(".xz")
    target.write_bytes(narrowed(lzma.decompress(content) if path.suffix == ".xz" else content))
    return target


def run(path: Path, *arguments: str, fields: Path | None = None) -> str:
    """What ``perf script`` prints; a file from a pipe is read through a pipe."""
    is_pipe = b"\x10" in path.read_bytes()[8:16]  # size of the header: 16, not 104
    environment = os.environ | ({"FIELDS": str(fields)} if fields else {})
    with path.open("rb") as file:
        done = subprocess.run(
            [perf(), "script", *arguments, "-i", "-" if is_pipe else str(path)],
            stdin=file if is_pipe else subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env=environment,
        )
    assert done.returncode == 0, done.stderr.decode("utf-8", "backslashreplace")
    return done.stdout.decode("utf-8", "backslashreplace")


def printed(path: Path) -> list[tuple[int, int, int, str]]:
    """(ts_ns, cpu, tid, name) of every event that ``perf script`` prints, in its order."""
    found = []
    for line in run(path, "--ns", "-F", "tid,cpu,time,event").splitlines():
        if line.strip():
            tid, cpu, time, name = line.split()
            found.append(
                (int(time.rstrip(":").replace(".", "")), int(cpu.strip("[]")), int(tid), name.rstrip(":"))
            )
    return found


def handled(path: Path, tmp_path: Path) -> list[Event]:
    """Every event with all its fields, as perf hands them to a script, in order of time, then CPU."""
    handler, out = tmp_path / "handler.py", tmp_path / "fields.json"
    handler.write_text(HANDLER)
    run(path, "-s", str(handler), fields=out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    events = [Event(ts, cpu, pid, name, fields, comm) for ts, cpu, pid, name, comm, fields in rows]
    return sorted(events, key=lambda each: (each.ts_ns, each.cpu))


def decoded(path: Path) -> list[Event]:
    """Every event as we decode it, in order of ``seq``."""
    with open_capture(path) as capture:
        names = [name for name in capture.event_counts() if not name.startswith("perf:")]
        tables = capture.decode(names)
    found = []
    for name, table in tables.items():
        for row in table.to_pylist():
            head = [row.pop(column) for column in ("ts_ns", "cpu", "pid", "seq")]
            found.append((head[3], Event(head[0], head[1], head[2], name, row)))
    return [event for _, event in sorted(found, key=lambda pair: pair[0])]


def same_value(ours: Any, theirs: Any) -> bool:
    """Whether two readers mean the same: perf hands on the bits of a number, ours has its sign."""
    if isinstance(ours, bool) or not isinstance(ours, int):
        return bool(ours == theirs)
    return (
        theirs in (ours, ours + (1 << 32), ours + (1 << 64))
        if ours < 0
        else theirs in (ours, ours - (1 << 64))
    )
