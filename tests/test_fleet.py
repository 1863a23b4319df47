"""A fleet: its datasets add up to what the single captures say, its documents say what its datasets hold."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.batch import command as batch_command
from replay.batch.fleet import collect, open_fleet, query
from replay.batch.fleet_rows import NAMES, bin_ranges, fleet_rows, release
from replay.batch.progress import Progress
from replay.batch.store import RemoteStore, open_store
from replay.batch.urls import shown
from replay.batch.whole import BatchOptions
from reports.fleet import documents
from reports.fleet.facts import FleetFacts, gather
from schemas import TABLES
from schemas.errors import UsageError
from tests.report_tables import capture_row

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replay.batch.whole import BatchResult

ROOT = Path(__file__).resolve().parent.parent
TRUTH = ROOT / "tests" / "data" / "truth"
NAMES_OF_CAPTURES = (
    "7.3_s6-fleet_f01-s1",
    "7.3_s6-fleet_f06-s2",
    "6.12_s6-fleet_f03-s1",
    "6.12_s3-mremap_truth",
    "7.3_s12-mapcount_s3-mremap",
)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BatchResult, FleetFacts]:
    """A batch of five captures of two kernels, one copy, one text."""
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "in").mkdir()
    for name in NAMES_OF_CAPTURES:
        shutil.copy(TRUTH / f"{name}.dat", folder / "in")
    shutil.copy(TRUTH / f"{NAMES_OF_CAPTURES[0]}.dat", folder / "in" / "zz.dat")
    (folder / "in" / "<script><b>.dat").write_text("no capture\n")
    result, facts = batch_command.batch([str(folder / "in")], None, str(folder / "out"), BatchOptions())
    assert facts is not None
    return folder / "out", result, facts


def tables_of(out: Path, name: str) -> pl.DataFrame:
    """One table of all result folders, each capture once."""
    return pl.concat(pl.read_parquet(path) for path in sorted(out.glob(f"*/tables/{name}.parquet")))


@given(st.lists(st.integers(0, (1 << 53) - 1), min_size=1))
def test_bins(values: list[int]) -> None:
    low, high = bin_ranges(np.array(values, np.int64))
    for value, first, last in zip(values, low.tolist(), high.tolist(), strict=True):
        assert first <= value <= last
        assert last - first <= value / 8
        assert value > 15 or first == last
        # All values of a bin have the same bin.
        ends = bin_ranges(np.array([first, last], np.int64))
        assert ends[0].tolist() == [first, first]
        assert ends[1].tolist() == [last, last]


def test_a_row_for_every_capture_and_strategy(batch: tuple[Path, BatchResult, FleetFacts]) -> None:
    out, result, _ = batch
    dataset = pl.read_parquet(out / "tables" / "fleet" / "**/*.parquet", hive_partitioning=False)
    analysed = {one.sha256: one.path for one in result.outcomes if one.status == "ok"}
    assert len(analysed) == len(NAMES_OF_CAPTURES)
    assert len(dataset) == 5 * len(analysed)
    for row in dataset.iter_rows(named=True):
        assert row["path"] == analysed[row["sha256"]]
        folder = out / row["sha256"][:12]
        summary = json.loads((folder / "summary.json").read_text())
        (own,) = (one for one in summary["summary"] if one["strategy"] == row["strategy"])
        assert {key: row[key] for key in own} == own
        assert row["kernel_release"] == summary["capture"]["kernel_release"]
    folders = {path.relative_to(out / "tables" / "fleet").as_posix() for path in out.glob("tables/fleet/*/*")}
    kernels = {row["kernel_release"] for row in dataset.iter_rows(named=True)}
    assert len(kernels) == 2
    assert folders == {
        f"kernel_release={quote(kernel, safe='+')}/strategy={strategy}"
        for kernel in kernels
        for strategy in ("observed", "full", "addr", "vm_pgoff", "linear")
    }


def test_facts_are_sums_of_the_single_captures(batch: tuple[Path, BatchResult, FleetFacts]) -> None:
    out, _, facts = batch
    assert facts.statuses == [("ok", 5), ("failed", 1), ("skipped", 1)]
    summaries = [json.loads(path.read_text()) for path in sorted(out.glob("*/summary.json"))]
    assert len(summaries) == 5
    for row in facts.strategies:
        own = [one for each in summaries for one in each["summary"] if one["strategy"] == row["strategy"]]
        assert row["captures"] == 5
        for key in ("walks", "loops"):
            assert row[key] == sum(one[key] for one in own)
        assert row["iterations_max"] == max(one["iterations_max"] for one in own)
        missed = [one["missed"] for one in own if one["missed"] is not None]
        assert row["answered"] == len(missed)
        assert row["missing"] == (sum(number > 0 for number in missed) if missed else None)
        assert row["missed"] == (sum(missed) if missed else None)
    assert [row["strategy"] for row in facts.strategies] == ["observed", "full", "addr", "vm_pgoff", "linear"]
    assert {row["strategy"]: row["missing"] for row in facts.strategies}["full"] == 0
    miss = tables_of(out, "miss")
    assert len(miss) > 0
    assert sum(row["mappings"] for row in facts.causes) == len(miss)
    for row in facts.causes:
        same = miss.filter(
            pl.col("strategy") == row["strategy"],
            pl.col("cause_event").eq_missing(pl.lit(row["cause_event"])),
        )
        assert row["mappings"] == len(same)


def test_quantiles_are_those_of_all_loops(batch: tuple[Path, BatchResult, FleetFacts]) -> None:
    out, _, facts = batch
    loops = []
    for path in out.glob("*/tables/loop.parquet"):
        (capture,) = pq.read_table(path.with_name("capture.parquet")).to_pylist()
        kernel = pl.lit(capture["kernel_release"]).alias("kernel")
        loops.append(pl.read_parquet(path).select("strategy", "iterations", kernel).drop_nulls("iterations"))
    frame = pl.concat(loops)
    rows = [row for row in facts.releases if row["measure"] == "iterations"]
    assert {row["kernel_release"] for row in rows} == set(frame["kernel"])
    for row in rows:
        own = frame.filter(strategy=row["strategy"], kernel=row["kernel_release"])["iterations"].to_numpy()
        assert row["values"] == len(own)
        for percent in (50, 90, 99):
            exact = int(np.quantile(own, percent / 100, method="inverted_cdf"))
            assert exact <= row[f"p{percent}"] <= exact + exact / 8
        curve = facts.curves[row["kernel_release"], row["strategy"]]
        for most, share in curve:
            assert share == pytest.approx((own <= most).mean())
        assert curve[-1][1] == 1


def test_measured_times_are_of_walks(batch: tuple[Path, BatchResult, FleetFacts]) -> None:
    out, _, facts = batch
    walk = tables_of(out, "walk").filter(strategy="observed").drop_nulls("observed_ns")
    rows = [row for row in facts.releases if row["measure"] == "observed_ns"]
    assert {row["strategy"] for row in rows} == {"observed"}
    assert sum(row["values"] for row in rows) == len(walk)


def test_the_worst_are_the_worst(batch: tuple[Path, BatchResult, FleetFacts]) -> None:
    out, result, facts = batch
    full = {}
    for outcome in result.outcomes:
        if outcome.status == "ok":
            summary = json.loads((out / str(outcome.result) / "summary.json").read_text())["summary"]
            full[outcome.path] = next(one["iterations_max"] for one in summary if one["strategy"] == "full")
    assert [row["iterations_max"] for row in facts.longest] == sorted(full.values(), reverse=True)
    assert {row["path"]: row["iterations_max"] for row in facts.longest} == full
    assert all((out / row["result"] / "report.html").is_file() for row in [*facts.longest, *facts.missing])


def test_text_is_fit_for_mail(batch: tuple[Path, BatchResult, FleetFacts]) -> None:
    out, _, facts = batch
    text = (out / "report.txt").read_text()
    assert text == documents.render_text(facts, shown=str(out))
    assert text.isascii()
    assert "\t" not in text
    long = [line for line in text.splitlines() if len(line) > 72]
    assert all(" " not in line.strip() for line in long)
    assert "captures 7: 5 ok, 1 failed, 1 skipped" in text
    assert "1 of 7 captures could not be analysed" in text


def test_page_is_static_and_links_to_the_single_reports(batch: tuple[Path, BatchResult, FleetFacts]) -> None:
    out, result, _ = batch
    page = (out / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;&lt;b&gt;.dat" in page
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    links = set(re.findall(r'href="([^"]+)"', page))
    assert {f"{one.result}/report.html" for one in result.outcomes if one.status == "ok"} == links
    assert all((out / link).is_file() for link in links)


def test_query(batch: tuple[Path, BatchResult, FleetFacts]) -> None:
    out, result, _ = batch
    answer = batch_command.ask_fleet(
        str(out), "SELECT status, COUNT(*) AS n FROM captures GROUP BY status ORDER BY n DESC, status", "json"
    )
    assert json.loads(answer) == [
        {"status": "ok", "n": 5},
        {"status": "failed", "n": 1},
        {"status": "skipped", "n": 1},
    ]
    table = batch_command.ask_fleet(str(out), "SELECT strategy FROM fleet_bins LIMIT 1", "md")
    assert table.startswith("| strategy")
    joined = "SELECT f.path FROM fleet f JOIN captures c ON f.sha256 = c.sha256 WHERE c.status = 'ok'"
    assert batch_command.ask_fleet(str(out), joined, "text").isascii()
    for wrong in ("SELECT nothing FROM fleet", "SELECT * FROM nothing", "DELETE", ""):
        with pytest.raises(UsageError):
            batch_command.ask_fleet(str(out), wrong, "text")
    with pytest.raises(UsageError, match="not the folder of a batch"):
        batch_command.ask_fleet(str(TRUTH), joined, "text")
    assert len(result.outcomes) == 7


def test_the_command_fleet(batch: tuple[Path, BatchResult, FleetFacts]) -> None:
    out, _, _ = batch
    done = subprocess.run(
        [sys.executable, "-m", "replay", "fleet", str(out)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert (done.stdout, done.stderr) == ((out / "report.txt").read_text(), "")
    done = subprocess.run(
        [sys.executable, "-m", "replay", "fleet", str(out), "--format", "json"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert json.loads(done.stdout)["schema_version"] == documents.SCHEMA_VERSION


def test_a_fleet_without_a_capture(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_text("no capture\n")
    _, facts = batch_command.batch([str(tmp_path / "a.dat")], None, str(tmp_path / "out"), BatchOptions())
    assert facts is not None
    assert (facts.strategies, facts.releases, facts.failed) == ([], [], 1)
    assert "1 of 1 captures could not be analysed" in (tmp_path / "out" / "report.txt").read_text()
    answer = batch_command.ask_fleet(str(tmp_path / "out"), "SELECT COUNT(*) AS n FROM fleet_miss", "json")
    assert json.loads(answer) == [{"n": 0}]


HOSTILE = [
    "../../etc",
    "a/b",
    "",
    None,
    "x" * 500,
    "new\nline\x1b[2J",
    "%2e%2e",
    "é" * 100,
    "=",
    "6.12",
    "nul\0",
]


def test_kernel_releases_that_name_folders(
    tmp_path: Path, batch: tuple[Path, BatchResult, FleetFacts]
) -> None:
    """A release is text of a capture: whatever it says, the dataset stays in its folder and gives it back."""
    out, result, _ = batch
    one = next(outcome for outcome in result.outcomes if outcome.status == "ok")
    tables = {path.stem: pq.read_table(path) for path in (out / str(one.result) / "tables").glob("*.parquet")}
    outcomes = []
    for number, name in enumerate(HOSTILE):
        row = capture_row(kernel_release=name, sha256=f"{number:064x}")
        tables["capture"] = pa.Table.from_pylist([row], schema=TABLES["capture"].arrow)
        folder = tmp_path / f"{number:012x}" / "tables"
        folder.mkdir(parents=True)
        for table, rows in fleet_rows(tables).items():
            pq.write_table(rows, folder / f"{table}.parquet")
        fields = {"path": f"{number}", "status": "ok", "sha256": row["sha256"], "result": f"{number:012x}"}
        outcomes.append(type(one)(**fields))
    work = tmp_path / "work"
    work.mkdir()
    collect(outcomes, open_store(str(tmp_path)), work)
    assert sorted(path.name for path in tmp_path.iterdir() if len(path.name) != 12) == ["tables", "work"]
    frames = {
        "fleet": pl.scan_parquet(
            sorted(tmp_path.glob("tables/fleet/**/*.parquet")),
            glob=False,
            hive_partitioning=True,
            hive_schema={"kernel_release": pl.String, "strategy": pl.String},
        )
    }
    got = query(frames, "SELECT DISTINCT path, kernel_release FROM fleet")
    assert dict(got.iter_rows()) == {str(n): release(name) for n, name in enumerate(HOSTILE)}


def test_results_in_a_place_of_fsspec(tmp_path: Path, batch: tuple[Path, BatchResult, FleetFacts]) -> None:
    """Captures and results by URL (file:// here) give what paths give; documents differ in names only."""
    out, _, facts = batch
    url = f"file://{tmp_path}/there"
    inputs = f"file://{out.parent}/in"
    result, remote = batch_command.batch([inputs], None, url, BatchOptions())
    assert remote is not None
    assert remote.strategies == facts.strategies
    assert remote.curves == facts.curves
    assert [one.path for one in result.outcomes if one.status == "ok"] == [
        f"file://{out.parent}/in/{name}.dat" for name in sorted(NAMES_OF_CAPTURES)
    ]
    there = tmp_path / "there"
    assert {path.name for path in there.iterdir()} == {path.name for path in out.iterdir()} - {".batch"}
    for name in NAMES:
        got, wanted = (
            pl.read_parquet(folder / "tables" / name / "**/*.parquet").drop("path") for folder in (there, out)
        )
        assert got.equals(wanted)
    again, _ = batch_command.batch([inputs], None, url, BatchOptions())
    assert not any(one.fresh for one in again.outcomes if one.status == "ok")
    assert batch_command.read_fleet(url) == remote


def test_a_remote_result_counts_when_its_last_file_is_there(tmp_path: Path) -> None:
    store = RemoteStore(f"file://{tmp_path}/there")
    fresh = tmp_path / "fresh"
    (fresh / "tables").mkdir(parents=True)
    (fresh / "result.json").write_text("{}")
    (fresh / "tables" / "a.parquet").write_text("a")
    store.publish(fresh, "abc")
    assert store.read("abc/result.json") == b"{}"
    assert store.below("abc") == ["abc/result.json", "abc/tables/a.parquet"]
    assert not fresh.exists()
    fresh.mkdir()
    (fresh / "result.json").write_text("new")
    store.publish(fresh, "abc")
    assert store.below("abc") == ["abc/result.json"]
    assert store.read("nothing") is None


def test_urls_are_shown_without_secrets() -> None:
    assert shown("s3://key:secret@bucket/a.dat?X-Amz-Signature=abc#f") == "s3://bucket/a.dat"
    assert shown("https://h/a?token=1") == "https://h/a"
    assert shown("dir/a?b#c@d.dat") == "dir/a?b#c@d.dat"
    assert shown("bad\udcff.dat") == "bad\\udcff.dat"


def test_a_scheme_without_its_package_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="cannot reach nosuch://"):
        batch_command.batch(["nosuch://key:secret@x/y"], None, "out", BatchOptions())


@pytest.mark.parametrize(
    ("text", "size"),
    [("512M", 512 << 20), ("2g", 2 << 30), ("1 GiB", 1 << 30), ("4096", 4096), ("1kB", 1024)],
)
def test_memory_sizes(text: str, size: int) -> None:
    assert batch_command.memory_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1G", "1.5G", "much", "1P"])
def test_wrong_memory_sizes(text: str) -> None:
    with pytest.raises(UsageError):
        batch_command.memory_bytes(text)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_is_a_line_every_thirty_seconds_when_piped() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(10, 40_000_000, stream, clock)
    for number in range(1, 9):
        clock.now = number * 10.0
        progress.add(4_000_000, failed=number == 5, fresh=True)
    progress.end()
    assert stream.getvalue().splitlines() == [
        "3/10 captures, 12.0/40.0 MB, 0 failed, 1:10 left",
        "6/10 captures, 24.0/40.0 MB, 1 failed, 0:40 left",
    ]


def test_progress_does_not_count_what_was_done_before_as_speed() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress(100, 100_000_000, stream, clock)
    for number in range(50):
        progress.add(1_000_000, failed=False, fresh=number < 5)
    assert "left" in progress.line(10.0)
    assert progress.line(10.0).endswith("1:40 left")  # 5 MB in 10 s, 50 MB to go


def test_facts_of_datasets_in_any_order(batch: tuple[Path, BatchResult, FleetFacts], tmp_path: Path) -> None:
    out, _, facts = batch
    frames: Mapping[str, pl.LazyFrame] = open_fleet(open_store(str(out)), tmp_path, str(out))
    shuffled = {
        name: frame.collect().sample(fraction=1, shuffle=True, seed=3).lazy()
        for name, frame in frames.items()
    }
    assert gather(shuffled) == facts
