"""Captures that are odd: what trace-cmd split and convert and perf inject leave; 32-bit processes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import polars as pl
import pytest

from captures import open_capture
from captures.canonical import canonical_events
from replay.evidence import Rebuilt
from replay.quality import limits
from replay.walks.exact import replay_exact
from schemas import TABLES
from schemas.errors import UnknownFormatError
from tests.perf_tool import DATA as PERF
from tests.perf_tool import decoded, for_perf, perf
from tests.perf_tool import printed as perf_events
from tests.test_tracedat_report import DATA as TRACEDAT
from tests.test_tracedat_report import trace_cmd, unpacked

TRUTH = Path(__file__).parent / "data" / "truth"


def counted(path: Path) -> dict[str, int]:
    with open_capture(path) as capture:
        return capture.event_counts()


def summed(paths: list[Path]) -> dict[str, int]:
    total: dict[str, int] = {}
    for path in paths:
        for name, count in counted(path).items():
            total[name] = total.get(name, 0) + count
    return total


@pytest.mark.parametrize("name", ["zstd.dat", "version6.dat.xz", "local_clock.dat"])
def test_the_parts_of_trace_cmd_split_hold_what_the_whole_does(name: str, tmp_path: Path) -> None:
    whole = unpacked(TRACEDAT / name, tmp_path)
    expected = counted(whole)
    events = sum(expected.values())
    command = [trace_cmd(), "split", "-i", str(whole), "-o", "part", "-e", str(events // 3 + 1), "-r"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    parts = sorted(tmp_path.glob("part.*"))
    assert len(parts) == 3
    assert summed(parts) == expected


@pytest.mark.parametrize("version", ["6", "7"])
@pytest.mark.parametrize("name", ["zstd.dat", "two_buffers.dat"])
def test_what_trace_cmd_convert_writes(name: str, version: str, tmp_path: Path) -> None:
    command = [trace_cmd(), "convert", "--file-version", version, "-i", str(TRACEDAT / name), "-o", "out.dat"]
    command += ["--compression", "none"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with open_capture(TRACEDAT / name) as before, open_capture(tmp_path / "out.dat") as after:
        assert after.info.format == f"trace.dat v{version}"
        assert after.event_counts() == before.event_counts()
        assert (after.info.first_ts_ns, after.info.last_ts_ns) == (
            before.info.first_ts_ns,
            before.info.last_ts_ns,
        )
        assert after.info.clock == before.info.clock


@pytest.mark.parametrize("options", [[], ["-b"], ["-s"]])
@pytest.mark.parametrize("name", ["lost_events.perf.data.xz", "call_graphs_zstd.perf.data.xz"])
def test_what_perf_inject_writes(name: str, options: list[str], tmp_path: Path) -> None:
    source, out = for_perf(PERF / name, tmp_path), tmp_path / "out.data"
    subprocess.run(
        [perf(), "inject", *options, "-i", str(source), "-o", str(out)], check=True, capture_output=True
    )
    expected = perf_events(out)
    assert len(expected) > 1000
    assert [each.key for each in decoded(out)] == expected


def test_a_directory_of_perf_is_refused(tmp_path: Path) -> None:
    """perf record --kcore makes one too: its capture is the file data, whole."""
    (tmp_path / "data").write_bytes(b"PERFILE2")
    with pytest.raises(UnknownFormatError, match="--kcore") as refused:
        open_capture(tmp_path)
    assert str(tmp_path / "data") in refused.value.hint
    (tmp_path / "data.0").write_bytes(b"")
    with pytest.raises(UnknownFormatError, match="without --threads"):
        open_capture(tmp_path)


def test_32_bit_processes_are_told() -> None:
    """Their VMAs lie below 4 GiB, and no system call of theirs is recorded."""
    name = "7.3_s1-small_triple.dat"
    with open_capture(TRUTH / name) as capture:
        events = {
            each: pl.DataFrame(pl.from_arrow(table)) for each, table in canonical_events(capture).items()
        }
    lacks = pl.DataFrame(pl.from_arrow(TABLES["quality"].empty()))

    def compat(events: dict[str, pl.DataFrame]) -> list[int]:
        exact = replay_exact(events, ("full",))
        rows = limits(Rebuilt(events, exact), events, "", lacks)
        return rows.filter(pl.col("kind") == "compat")["count"].to_list()

    merged = events["ev_append"]["mm"].unique()
    pids = events["ev_avc"].filter(pl.col("mm").is_in(merged.implode()))["pid"].unique()
    low = [pl.col(each) & 0xFFFF_FFFF for each in ("vm_start", "vm_end")]
    small = events | {"ev_avc": events["ev_avc"].with_columns(low)}
    others = pl.when(pl.col("pid").is_in(pids.implode())).then(pl.col("pid") + 1).otherwise("pid")
    silent = events["ev_syscall"].with_columns(pid=others)
    assert compat(events) == compat(small) == compat(events | {"ev_syscall": silent}) == []
    assert compat(small | {"ev_syscall": silent}) == [merged.len()] == [1]
