"""What a clock or a machine makes impossible: refused, or null, whatever else the capture holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import polars as pl
import pytest
from typer.testing import CliRunner

from replay.cli.commands import app
from replay.inspect import inspect
from replay.options import AnalyzeOptions
from replay.pipeline import analyze
from schemas.errors import CaptureError, UsageError
from tests.test_tracedat_report import DATA
from tests.tracedat_convert import convert
from tests.tracedat_writer import Kernel

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa


def kinds(tables: dict[str, pa.Table]) -> set[str]:
    return set(tables["quality"]["kind"].to_pylist())


def changed(name: str, old: bytes, new: bytes, path: Path) -> Path:
    """A capture with some bytes of it replaced, all of them where they are."""
    content = convert(DATA / name, Kernel(), 7)
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    return path


def test_cycles_are_no_durations() -> None:
    tables = analyze(DATA / "x86_tsc.dat").tables
    walk, loop = pl.DataFrame(tables["walk"]), pl.DataFrame(tables["loop"])
    assert walk["observed_ns"].null_count() == walk["predicted_ns"].null_count() == len(walk) > 0
    assert walk["end_ns"].null_count() == loop["iterations"].null_count() == 0
    assert "no_ns" in kinds(tables)


def test_cycles_a_second_give_durations() -> None:
    tables = analyze(DATA / "x86_tsc.dat", AnalyzeOptions(ts2secs=2_600_000_000)).tables
    walk = pl.DataFrame(tables["walk"])
    assert walk["observed_ns"].null_count() == 0
    assert walk["observed_ns"].equals(walk["end_ns"] - walk["ts_ns"], check_names=False)
    assert "no_ns" not in kinds(tables)
    assert any("--ts2secs" in effect for effect in tables["quality"]["effect"].to_pylist())
    with pytest.raises(UsageError, match="ticks of a"):
        analyze(DATA.parent / "text" / "triple.report.txt.xz", AnalyzeOptions(ts2secs=10**9))


def test_inspect_takes_cycles_a_second_too() -> None:
    path, hz = DATA / "x86_tsc.dat", 2_600_000_000
    done = CliRunner().invoke(app, ["inspect", str(path), "--ts2secs", str(hz), "--format", "json"])
    seen = json.loads(done.stdout)
    replayed = analyze(path, AnalyzeOptions(ts2secs=hz)).tables["capture"].to_pylist()[0]
    assert [seen["capture"][name] for name in ("first_ts_ns", "last_ts_ns")] == [
        replayed["first_ts_ns"],
        replayed["last_ts_ns"],
    ]
    for event in seen["events"]:
        expected = event["records"] * 1e9 / (replayed["last_ts_ns"] - replayed["first_ts_ns"])
        assert event["per_second"] == pytest.approx(expected)
    assert {row["question"]: row["answer"] for row in seen["answers"]}["time"] != "not"


def test_inspect_answers_nothing_about_time_with_cycles() -> None:
    tables = inspect(DATA / "x86_tsc.dat")
    grades = dict(
        zip(tables["answer"]["question"].to_pylist(), tables["answer"]["answer"].to_pylist(), strict=True)
    )
    assert (grades["time"], grades["victims"], grades["walks"]) == ("not", "not", "assumed")
    assert grades["iterations"] == "exact"
    assert tables["event"]["per_second"].null_count == len(tables["event"])


def test_text_without_a_decimal_point_has_no_durations(tmp_path: Path) -> None:
    path = tmp_path / "trace.txt"
    lines = [
        "a-1 [000] 124603714913: sched_process_exit: comm=a pid=1 prio=120",
        "a-1 [000] 124603714999: print: tracing_mark_write: b",
    ]
    path.write_text("".join(f"{line}\n" for line in lines))
    assert "no_ns" in kinds(inspect(path))


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (b"\0probes\0mono\0", b"\0probes\0boot\0", "boot, mono"),
        (b"tracing7\0\0\x08\0\x10\0\0", b"tracing7\0\0\x08\0\0\1\0", "65536 bytes"),
    ],
    ids=["two clocks", "large pages"],
)
def test_what_no_result_would_be_right_of_is_refused(
    old: bytes, new: bytes, found: str, tmp_path: Path
) -> None:
    path = changed("two_buffers.dat", old, new, tmp_path / "t.dat")
    with pytest.raises(CaptureError, match=found):
        analyze(path)
    assert any(found in effect for effect in inspect(path)["quality"]["effect"].to_pylist())


def test_page_table_entries_of_another_architecture_are_not_read(tmp_path: Path) -> None:
    """The same stock events: on x86 they determine migrations."""
    content = convert(DATA / "zstd.dat", Kernel(), 7, left_out=("ksmprobe", "ksmtruth"))
    path = tmp_path / "t.dat"
    path.write_bytes(content)
    known = analyze(path).tables
    assert content.count(b" x86_64\0") == 1
    path.write_bytes(content.replace(b" x86_64\0", b" riscv6\0"))
    foreign = analyze(path).tables
    assert len(known["walk"]) > 0 == len(foreign["walk"])
    assert kinds(foreign) - kinds(known) == {"foreign_entries"}
    assert foreign["avc"].equals(known["avc"])
