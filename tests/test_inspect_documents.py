"""What `replay inspect` prints: the same in text, Markdown and JSON, whatever stands in the capture."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from replay.inspect import inspect
from reports.inspection.json import render_json
from reports.inspection.markdown import render_markdown
from reports.inspection.text import render_text
from schemas import TABLES

ROOT = Path(__file__).resolve().parent.parent
TRACEDAT = Path(__file__).parent / "data" / "tracedat"
EVIL = "\x1b]0;evil\x07</script><b>| `x` \u202e" + "wide" * 40


def replay(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "replay", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


def changed(tables: dict[str, pa.Table], name: str, /, **values: Any) -> dict[str, pa.Table]:
    """The tables with other values in the first row of one of them."""
    first, *others = tables[name].to_pylist()
    rows = pa.Table.from_pylist([{**first, **values}, *others], schema=TABLES[name].arrow)
    return {**tables, name: TABLES[name].check(rows)}


def test_inspect_looks_where_analyze_refuses(tmp_path: Path) -> None:
    refused = replay("analyze", TRACEDAT / "function.dat", "-o", tmp_path / "out", "--evidence", "exact")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "replay inspect" in refused.stderr.splitlines()[2]
    done = replay("inspect", TRACEDAT / "function.dat")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == render_text(inspect(TRACEDAT / "function.dat"))


def test_an_unreadable_capture_is_3(tmp_path: Path) -> None:
    (tmp_path / "bad.dat").write_bytes(b"\x17\x08\x44tracing")
    done = replay("inspect", tmp_path / "bad.dat")
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 3


def test_json_is_the_tables() -> None:
    done = replay("inspect", TRACEDAT / "lost_events.dat", "--format", "json")
    document = json.loads(done.stdout)
    tables = inspect(TRACEDAT / "lost_events.dat")
    tables["capture"] = changed(tables, "capture", path=document["capture"]["path"])["capture"]
    assert list(document) == [
        "schema_version",
        "capture",
        "answers",
        "events",
        "quality",
        "recordings",
        "omitted",
    ]
    assert document["schema_version"] == "1.0"
    assert [document["capture"]] == tables["capture"].to_pylist()
    assert document["events"] == tables["event"].to_pylist()
    assert document["answers"] == tables["answer"].to_pylist()
    assert document["quality"] == tables["quality"].to_pylist()
    assert document["recordings"] == tables["recording"].to_pylist()
    assert document["omitted"] == {"quality": 0}


def test_json_says_what_it_left_out() -> None:
    tables = inspect(TRACEDAT / "lost_events.dat")
    many = pa.concat_tables([tables["quality"]] * 1000)
    document = json.loads(render_json({**tables, "quality": many}))
    assert len(document["quality"]) == 10_000
    assert document["omitted"]["quality"] == many.num_rows - 10_000 > 0


@pytest.mark.parametrize("path", sorted(TRACEDAT.glob("*.dat")), ids=lambda path: path.name)
def test_text_is_narrow_and_says_what_the_tables_say(path: Path) -> None:
    tables = inspect(path)
    text = render_text(tables)
    assert text.isascii()
    assert text.endswith("\n")
    assert max(map(len, text.splitlines())) <= 100
    for row in tables["event"].to_pylist():
        (line,) = re.findall(rf"^  {re.escape(row['name'])} +([\d,]+) .*$", text, re.M)
        assert int(line.replace(",", "")) == row["records"]
    for row in tables["answer"].to_pylist():
        assert re.search(rf"^  {row['answer']} +{row['question']}: ", text, re.M)


def test_times_are_seconds_after_the_first_event() -> None:
    tables = inspect(TRACEDAT / "kernel_6.12.dat")
    start = tables["capture"]["first_ts_ns"][0].as_py()
    text = render_text(tables)
    for row in tables["event"].to_pylist():
        (first, last) = re.findall(
            rf"^  {re.escape(row['name'])} .* (\d+\.\d+) +(\d+\.\d+)  \S+$", text, re.M
        )[0]
        assert float(first) == pytest.approx((row["first_ts_ns"] - start) / 1e9, abs=1e-6)
        assert float(last) == pytest.approx((row["last_ts_ns"] - start) / 1e9, abs=1e-6)


def test_a_shell_reads_the_printed_commands_as_they_are_meant() -> None:
    tables = inspect(TRACEDAT / "function.dat")
    block = render_text(tables).partition("To record what is lacking")[2].partition("\n")[2]
    commands = [line for line in block.replace("\\\n", "").splitlines() if not line.lstrip().startswith("#")]
    printed = {tuple(shlex.split(command)) for command in commands}
    assert printed == {tuple(shlex.split(row["command"])) for row in tables["recording"].to_pylist()}


def test_losses_have_their_ranges() -> None:
    tables = inspect(TRACEDAT / "lost_events.dat")
    lost = [row for row in tables["quality"].to_pylist() if row["kind"] == "lost_events" and row["cpu"] == 0]
    start = tables["capture"]["first_ts_ns"][0].as_py()
    text = render_text(tables)
    total = sum(row["count"] for row in lost)
    assert f"cpu 0: {total:,} events lost, in {len(lost)} places" in text
    assert "and more, how many is not known, in 10 places" in text
    for row in lost:
        begin, end = ((row[name] - start) / 1e9 for name in ("start_ns", "end_ns"))
        assert f"    {begin:.6f} to {end:.6f} s: {row['count']} events\n" in text


def test_many_losses_of_a_cpu_are_counted_and_not_all_listed() -> None:
    tables = inspect(TRACEDAT / "lost_events.dat")
    many = pa.concat_tables([tables["quality"]] * 20)
    text = render_text({**tables, "quality": many})
    assert re.search(r"cpu 0: [\d,]+ events lost, in 180 places\n(    \d.*\n){10}    \(170 more: ", text)
    assert "in 180 places (" in render_markdown({**tables, "quality": many})


@pytest.mark.parametrize(
    ("table", "column"),
    [("capture", "path"), ("capture", "hostname"), ("event", "name"), ("quality", "effect")],
)
def test_texts_of_the_capture_are_harmless(table: str, column: str) -> None:
    tables = changed(inspect(TRACEDAT / "lost_events.dat"), table, **{column: EVIL})
    if table == "quality":
        tables = changed(tables, table, kind="clock")
    text = render_text(tables)
    assert text.isascii()
    assert all(char.isprintable() or char == "\n" for char in text)
    assert max(map(len, text.splitlines())) <= 100
    markdown = render_markdown(tables)
    assert "<b>" not in markdown
    assert "\x1b" not in markdown
    assert "\u202e" not in markdown
    for line in markdown.splitlines():
        if line.startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 5, 7)


def test_markdown_lists_every_event_and_answer() -> None:
    tables = inspect(TRACEDAT / "zstd.dat")
    lines = render_markdown(tables).splitlines()
    for row in tables["event"].to_pylist():
        assert sum(line.startswith(f"| {row['name']} | {row['records']:,} | ") for line in lines) == 1
    for row in tables["answer"].to_pylist():
        assert sum(f"| {row['question']} |" in line and f"| {row['answer']} |" in line for line in lines) == 1


def test_records_without_a_time_have_none() -> None:
    tables = changed(inspect(TRACEDAT / "zstd.dat"), "event", first_ts_ns=None, last_ts_ns=None)
    name = tables["event"]["name"][0].as_py()
    assert re.search(rf"^  {re.escape(name)} .* -  +-  \S+$", render_text(tables), re.M)


def test_empty_capture() -> None:
    tables = inspect(TRACEDAT / "zstd.dat")
    tables = changed(tables, "capture", first_ts_ns=None, last_ts_ns=None, events=0)
    text = render_text({**tables, "event": TABLES["event"].empty()})
    assert "No event occurs." in text
    assert "0 in no duration" in text
