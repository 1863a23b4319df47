"""The folder of reports: all of it or nothing, nothing foreign removed, tables that keep what they say."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from report_tables import sample_tables, summary_row, table

from reports import render_page, render_text, write_reports
from schemas import TABLES
from schemas.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTS = ["report.html", "report.txt", "summary.json", "tables"]
MAX_HTML_BYTES = 2_000_000


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_writes_every_document_and_table(tmp_path: Path) -> None:
    tables = sample_tables()
    paths = write_reports(tables, tmp_path / "out", force=False)
    assert names(tmp_path) == ["out"]
    assert names(paths.folder) == DOCUMENTS
    assert names(paths.tables) == sorted(f"{name}.parquet" for name in tables)
    assert paths.html.read_text() == render_page(tables)
    assert paths.text.read_text() == render_text(tables, report=paths.html)


def test_tables_keep_their_columns_and_metadata(tmp_path: Path) -> None:
    tables = sample_tables()
    added = {**(tables["walk"].schema.metadata or {}), b"replay.command": b"replay analyze x"}
    tables["walk"] = tables["walk"].replace_schema_metadata(added)
    paths = write_reports(tables, tmp_path / "out", force=False)
    for name, written in tables.items():
        read = pq.read_table(paths.tables / f"{name}.parquet")
        assert TABLES[name].check(read).equals(written)
    file = pq.ParquetFile(paths.tables / "walk.parquet")
    assert file.schema_arrow.metadata[b"replay.command"] == b"replay analyze x"
    assert file.schema_arrow.metadata[b"replay.schema"] == b"walk/" + TABLES["walk"].version.encode()
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_the_command_that_made_the_tables_is_in_the_page(tmp_path: Path) -> None:
    tables = sample_tables(capture={"path": "my traces/a.dat"})
    assert "replay analyze &#39;my traces/a.dat&#39;" in render_page(tables)
    stamped = tables["capture"].replace_schema_metadata(
        {b"replay.command": b"replay analyze --strategy addr x"}
    )
    assert "replay analyze --strategy addr x" in render_page(tables | {"capture": stamped})


def test_repeated_runs_write_the_same_bytes(tmp_path: Path) -> None:
    for out in ("a", "b"):
        (tmp_path / out).mkdir()
        write_reports(sample_tables(), tmp_path / out / "report", force=False)
    first, second = tmp_path / "a" / "report", tmp_path / "b" / "report"
    for name in ("report.html", "summary.json", "tables/walk.parquet"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_page_stays_below_its_size(tmp_path: Path) -> None:
    assert len(render_page(sample_tables()).encode()) < MAX_HTML_BYTES


def test_page_stays_below_its_size_for_long_tables() -> None:
    quality = [
        {"kind": f"kind{n}", "count": n, "severity": "warning", "effect": "Word " * 50} for n in range(5000)
    ]
    tables = sample_tables(custom=tuple(f"s{n}" for n in range(40))) | {"quality": table("quality", quality)}
    page = render_page(tables)
    assert len(page.encode()) < MAX_HTML_BYTES
    assert "First 200 of 5,000 rows." in page


def test_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.txt").write_text("mine")
    with pytest.raises(OutputError, match="will not overwrite without --force"):
        write_reports(sample_tables(), out, force=False)
    assert (out / "report.txt").read_text() == "mine"
    assert names(tmp_path) == ["out"]


def test_force_replaces_an_earlier_report_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = sample_tables() | {"fleet": TABLES["fleet"].empty()}
    assert (write_reports(more, out, force=False).tables / "fleet.parquet").exists()
    paths = write_reports(sample_tables(), out, force=True)
    assert not (paths.tables / "fleet.parquet").exists()
    assert names(out) == DOCUMENTS
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("foreign", ["notes.md", "tables/notes.md", "tables/deep.parquet/x"])
def test_force_never_removes_what_replay_did_not_write(tmp_path: Path, foreign: str) -> None:
    out = tmp_path / "out"
    write_reports(sample_tables(), out, force=False)
    (out / foreign).parent.mkdir(exist_ok=True)
    (out / foreign).write_text("mine")
    with pytest.raises(OutputError, match="will not remove what replay did not write"):
        write_reports(sample_tables(), out, force=True)
    assert (out / foreign).read_text() == "mine"
    assert names(out / "tables")
    assert names(tmp_path) == ["out"]


def test_force_does_not_replace_a_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(OutputError, match="will not replace a file by a folder"):
        write_reports(sample_tables(), out, force=True)
    assert out.read_text() == "mine"


@pytest.mark.parametrize("parent", ["missing", "file"])
def test_no_folder_to_write_into_is_an_output_error(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError) as caught:
        write_reports(sample_tables(), tmp_path / parent / "out", force=False)
    assert caught.value.exit_code == 5
    assert names(tmp_path) == ["file"]


def test_a_full_disk_leaves_the_earlier_report_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_reports(sample_tables(), out, force=False)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match="File too large"):
            write_reports(sample_tables(), out, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert names(tmp_path) == ["out"]


def test_an_error_half_way_leaves_nothing(tmp_path: Path) -> None:
    broken = table("summary", [summary_row("full", float("nan"), 1, 0, 0, 1, 1, 0)])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_reports(sample_tables() | {"summary": broken}, tmp_path / "out", force=False)
    assert names(tmp_path) == []


def test_a_link_keeps_pointing_to_the_new_report(tmp_path: Path) -> None:
    write_reports(sample_tables(), tmp_path / "real", force=False)
    (tmp_path / "link").symlink_to("real")
    write_reports(sample_tables(capture={"path": "second.dat"}), tmp_path / "link", force=True)
    assert (tmp_path / "link").is_symlink()
    assert "second.dat" in (tmp_path / "real" / "report.txt").read_text()
    assert names(tmp_path) == ["link", "real"]
