"""Trace text of real runs against trace.dat of the same run, and against the kernel's own counts in the text.

The files are described in ``tests/data/text/README.md``.
"""

from __future__ import annotations

import lzma
import re
import subprocess
from pathlib import Path

import polars as pl
import pytest

from captures import open_capture
from captures.canonical import canonical_events
from replay.walks.exact import Exact, replay_exact
from replay.walks.observed import observed
from schemas.errors import CorruptError, UnknownFormatError
from tests.perf_tool import DATA as PERF
from tests.perf_tool import for_perf, run
from tests.test_tracedat_report import DATA as TRACEDAT
from tests.test_tracedat_report import unpacked

TEXT = Path(__file__).parent / "data" / "text"
TRUTH = Path(__file__).parent / "data" / "truth"
STRATEGIES = ("full", "addr", "vm_pgoff", "linear")
SLACK_NS = 50_000
NOT_PRINTED = {("ev_merge", "ksm_page")}
"""Columns that text does not have: ksm_page is printed as a word."""

Tables = dict[str, pl.DataFrame]


def tables_of(path: Path) -> Tables:
    with open_capture(path) as capture:
        events = canonical_events(capture)
    return {name: pl.DataFrame(pl.from_arrow(table)) for name, table in events.items()}


def differences(binary: Tables, text: Tables) -> list[str]:
    """Names of columns that differ; times are compared elsewhere."""
    assert binary.keys() == text.keys()
    found = []
    for name, expected in binary.items():
        if len(expected) != len(text[name]):
            found.append(f"{name}: {len(expected)} rows, {len(text[name])} in the text")
            continue
        columns = [c for c in expected.columns if c != "ts_ns" and (name, c) not in NOT_PRINTED]
        found += [f"{name}.{c}" for c in columns if not expected[c].equals(text[name][c])]
    return found


def largest_time_difference(binary: Tables, text: Tables) -> int:
    return max(
        int((expected["ts_ns"] - text[name]["ts_ns"]).abs().max() or 0)  # type: ignore[arg-type]
        for name, expected in binary.items()
        if len(expected)
    )


def replayed(tables: Tables) -> Exact:
    return replay_exact(tables, STRATEGIES)


def whole_text(name: str) -> str:
    return lzma.decompress((TEXT / name).read_bytes()).decode()


@pytest.mark.parametrize(
    ("text", "binary", "ns"),
    [
        ("triple.report.txt.xz", "7.3_s1-small_triple.dat", 500),
        ("triple.report-t.txt.xz", "7.3_s1-small_triple.dat", 0),
        ("truth-tiny.report-raw.txt.xz", "7.3_s1-small_truth-tiny.dat", 0),
    ],
)
def test_report_is_what_the_trace_dat_holds(text: str, binary: str, ns: int) -> None:
    expected, found = tables_of(TRUTH / binary), tables_of(TEXT / text)
    assert sum(map(len, expected.values())) > 6000
    assert differences(expected, found) == []
    assert largest_time_difference(expected, found) <= ns


@pytest.mark.parametrize("option", ["", "-t", "-R", "--ts-diff"])
@pytest.mark.parametrize(
    "name",
    [
        "fprobe.dat",
        "kernel_6.12.dat",
        "kprobe_registers.dat",
        "local_clock.dat",
        "lost_events.dat",
        "stacks.dat",
        "two_buffers.dat",
        "version6.dat.xz",
        "zstd.dat",
    ],
)
def test_what_trace_cmd_prints_here(name: str, option: str, tmp_path: Path) -> None:
    path = unpacked(TRACEDAT / name, tmp_path)
    printed = tmp_path / "report.txt"
    command = ["trace-cmd", "report", *([option] if option else []), str(path)]
    printed.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    expected, found = tables_of(path), tables_of(printed)
    assert differences(expected, found) == []
    assert largest_time_difference(expected, found) <= (0 if option == "-t" else 500)
    with open_capture(path) as binary, open_capture(printed) as text:
        names = {name.partition(":")[2]: count for name, count in text.event_counts().items()}
        assert names == {name.partition(":")[2]: count for name, count in binary.event_counts().items()}
        assert text.info.events == binary.info.events
        losses = re.findall(r"^CPU:\d+ \[(?:(\d+) )?EVENTS DROPPED\]$", printed.read_text(), re.MULTILINE)
        assert bool(losses) == (name == "lost_events.dat")
        assert text.info.events_lost == (None if "" in losses else 0)
        rows = [row for row in text.quality().to_pylist() if row["kind"] == "lost_events"]
        assert sorted(str(row["count"] or "") for row in rows) == sorted(losses)
        assert text.info.cpus == binary.info.cpus
        assert set(text.quality()["kind"].to_pylist()) <= {"clock", "lost_events"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("call_graphs_zstd.perf.data.xz", ""),
        (
            "call_graphs_zstd.perf.data.xz",
            "-I -F +pid --show-task-events --show-mmap-events --show-lost-events",
        ),
        ("sample_identifier.perf.data.xz", "--ns -F +period"),
        ("sample_identifier.perf.data.xz", "--header -F -comm --reltime"),
        ("sample_identifier.perf.data.xz", "-F comm,pid,tid,cpu,time,event,trace --ns"),
    ],
)
def test_what_perf_script_prints_here(name: str, options: str, tmp_path: Path) -> None:
    """Call chains are left out, and the records beside the samples; the samples are all there."""
    path, printed = for_perf(PERF / name, tmp_path), tmp_path / "script.txt"
    printed.write_text(run(path, *options.split()))
    expected, found = tables_of(path), tables_of(printed)
    for tables in (expected, found):
        del tables["ev_task"], tables["ev_stack"]  # of a perf.data, these are of the records beside, too
    assert [each for each in differences(expected, found) if not each.endswith(".seq")] == []
    with open_capture(path) as binary, open_capture(printed) as text:
        samples = {each: n for each, n in binary.event_counts().items() if not each.startswith("perf:")}
        assert text.event_counts() == samples


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ("--deltatime", "without --deltatime"),
        ("-F -cpu", "-F comm,tid,cpu,time,event,trace"),
        ("-F +tod", "-F comm,tid,cpu,time,event,trace"),
        ("-F +misc", "-F comm,tid,cpu,time,event,trace"),
    ],
)
def test_what_perf_script_prints_and_is_refused(options: str, hint: str, tmp_path: Path) -> None:
    printed = tmp_path / "script.txt"
    printed.write_text(run(for_perf(PERF / "triple.perf.data.xz", tmp_path), *options.split()))
    with pytest.raises((CorruptError, UnknownFormatError)) as refused:
        tables_of(printed)
    assert hint in refused.value.hint


def test_counting_kernel_prints_codes_as_words(tmp_path: Path) -> None:
    path = TRACEDAT / "counting_kernel.dat"
    printed = tmp_path / "report.txt"
    command = ["trace-cmd", "report", "-t", str(path)]
    printed.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    assert "strategy=full" in printed.read_text()
    expected, found = tables_of(path), tables_of(printed)
    assert len(found["ev_obs_loop"]) > 100
    # It prints the name of rmap_one where its address is recorded.
    assert differences(expected, found) == [
        f"ev_obs_walk: {len(expected['ev_obs_walk'])} rows, 0 in the text"
    ]
    with open_capture(printed) as capture:
        reasons = [row["effect"] for row in capture.quality().to_pylist() if row["kind"] == "unread_event"]
    assert len(reasons) == 1
    assert "ksm:ksm_rmap_walk" in reasons[0]


@pytest.mark.parametrize(
    "name",
    ["triple.report.txt.xz", "triple.report-t.txt.xz", "triple.trace.txt.xz", "triple.perf-script.txt.xz"],
)
def test_texts_of_one_run_give_the_same_tables_as_its_trace_dat(name: str) -> None:
    """All but times and places; perf and the tracefs instance ran longer, so their events are cut."""
    binary = tables_of(TRUTH / "7.3_s1-small_triple.dat")
    times = pl.concat(table["ts_ns"] for table in binary.values())
    first, last = times.min(), times.max()
    assert isinstance(first, int)
    assert isinstance(last, int)
    inside = pl.col("ts_ns").is_between(first - SLACK_NS, last + SLACK_NS)
    expected = replayed(binary)
    assert len(expected.walks) == 28
    found = replayed({each: frame.filter(inside) for each, frame in tables_of(TEXT / name).items()})
    for table in ("loop", "walk", "avc", "vma", "rmap_item", "miss"):
        ours, theirs = getattr(found, table), getattr(expected, table)
        kept = [column for column in theirs.columns if not column.endswith(("_ns", "_seq"))]
        assert ours.height > 0
        assert ours.select(kept).equals(theirs.select(kept)), table


def test_report_gives_the_same_results_as_the_trace_dat() -> None:
    expected = replayed(tables_of(TRUTH / "7.3_s1-small_truth-tiny.dat"))
    found = replayed(tables_of(TEXT / "truth-tiny.report-raw.txt.xz"))
    for name in ("loop", "walk", "miss", "avc", "vma", "rmap_item"):
        assert getattr(found, name).equals(getattr(expected, name)), name


@pytest.mark.parametrize(
    ("name", "walks"),
    [
        ("triple.trace.txt.xz", 28),
        ("triple.perf-script.txt.xz", 28),
        ("truth-tiny.trace.txt.xz", 228),
    ],
)
def test_replay_of_text_agrees_with_the_iterations_that_the_kernel_made(name: str, walks: int) -> None:
    tables = tables_of(TEXT / name)
    exact = replayed(tables)
    seen = observed(tables, exact.walks)[1]
    assert len(seen) == walks
    ours = exact.walk.filter(pl.col("strategy") == "linear")
    assert ours["iterations_total"].to_list() == seen["iterations_total"].to_list()
    assert ours["loops"].to_list() == seen["loops"].to_list()


def test_hashed_pointers_are_left_out_and_said() -> None:
    printed = whole_text("triple.trace.txt.xz")
    count = printed.count(": ksm_merge_with_ksm_page: ")
    assert count == 301
    assert re.search(r"rmap_item 00000000[0-9a-f]{8} mm 00000000", printed)
    with open_capture(TEXT / "triple.trace.txt.xz") as capture:
        events = canonical_events(capture)
        rows = [row for row in capture.quality().to_pylist() if row["kind"] == "unread_event"]
    assert events["ev_merge"].num_rows == 0
    entered = printed.count(": ksm_enter: ")
    assert [(row["count"], row["severity"]) for row in rows] == [(entered, "warning"), (count, "warning")]
    for row, event in zip(rows, ("ksm:ksm_enter", "ksm:ksm_merge_with_ksm_page"), strict=True):
        assert event in row["effect"]
        assert "hashed" in row["effect"]


def test_raw_pointers_of_perf_and_trace_cmd_are_read() -> None:
    expected = tables_of(TRUTH / "7.3_s1-small_triple.dat")["ev_merge"]
    for name in ("triple.perf-script.txt.xz", "triple.report.txt.xz"):
        found = tables_of(TEXT / name)["ev_merge"]
        assert found.select("rmap_item", "mm", "pfn", "err").equals(
            expected.select("rmap_item", "mm", "pfn", "err")
        )


def test_what_the_text_says_about_itself() -> None:
    head = re.search(r"entries-written: (\d+)/(\d+)\s+#P:(\d+)", whole_text("triple.trace.txt.xz"))
    assert head is not None
    with open_capture(TEXT / "triple.trace.txt.xz") as capture:
        info = capture.info
        assert (info.events, info.cpus) == (int(head[1]), int(head[3]))
        assert info.format == "tracefs text, xz"
        assert (info.first_ts_ns, info.last_ts_ns) == (131_469_012_000, 142_434_652_000)
        assert (info.events_lost, info.truncated, info.clock) == (0, False, None)
        assert capture.comms()[485] == "ksmload"
        effects = [row["effect"] for row in capture.quality().to_pylist() if row["kind"] == "clock"]
        assert len(effects) == 1
        assert "microseconds" in effects[0]
    with open_capture(TEXT / "triple.perf-script.txt.xz") as capture:
        assert capture.info.format == "perf script text, xz"
        assert capture.info.events == whole_text("triple.perf-script.txt.xz").count("\n")
        assert capture.quality()["kind"].to_pylist() == ["no_side_band"]
    with open_capture(TEXT / "triple.report.txt.xz") as capture:
        assert capture.info.format == "trace-cmd report text, xz"


def test_names_of_tracefs_are_those_of_the_binary_events() -> None:
    with (
        open_capture(TEXT / "triple.trace.txt.xz") as text,
        open_capture(TRUTH / "7.3_s1-small_triple.dat") as binary,
    ):
        known = {name for name in text.event_counts() if not name.startswith(("probe:", "unknown:"))}
        assert len(known) > 20
        assert known <= set(binary.formats)
