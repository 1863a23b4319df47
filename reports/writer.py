"""Write all documents and tables of one analysis into a new folder: all of them, or nothing."""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from reports import page, summary_json, text
from reports.facts import all as report_facts
from reports.sections import sections
from schemas.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DOCUMENTS: Final = ("report.html", "report.txt", "summary.json")
TABLES: Final = "tables"


@dataclass(frozen=True)
class ReportPaths:
    """Where the documents are.

    Attributes:
        folder: The folder, as it was named by the caller.
        html: The report as one self-contained page.
        text: The report as plain text.
        summary: The report as JSON.
        tables: The folder of the tables, ``NAME.parquet`` each.
    """

    folder: Path
    html: Path
    text: Path
    summary: Path
    tables: Path


def write_reports(
    tables: Mapping[str, pa.Table], out: Path, *, force: bool = False, max_bytes: int = page.MAX_BYTES
) -> ReportPaths:
    """Write the reports and the tables.

    Everything is written into a folder beside ``out`` with a name of its own, which then takes ``out``'s
    place. When anything fails before that, ``out`` is as it was and the folder beside it is gone.

    Args:
        tables: Result tables by name; their schema metadata go into the Parquet files as they are.
        out: The folder to make; the folder that it is in exists.
        force: Replace ``out`` if it is a folder that this function wrote; files that it did not write are
            never removed.
        max_bytes: Largest page.

    Raises:
        OutputError: ``out`` exists and is not to be replaced, or cannot be written; or no page is that small.
    """
    target = out.resolve()
    _check(target, out, force=force)
    fresh = _beside(target, "new")
    try:
        fresh.mkdir()
        write_into(fresh, tables, shown=str(out), max_bytes=max_bytes)
        _put(fresh, target)
    except OSError as error:
        raise OutputError(
            f"cannot write the report: {error.strerror or error}",
            path=out,
            hint="free some space or give another folder with -o",
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    html, text_file, summary = (out / name for name in DOCUMENTS)
    return ReportPaths(out, html, text_file, summary, out / TABLES)


def write_into(
    folder: Path, tables: Mapping[str, pa.Table], *, shown: str, max_bytes: int = page.MAX_BYTES
) -> None:
    """Write the documents and the tables into an empty folder, one after the other.

    Args:
        folder: The folder.
        tables: Result tables by name; those that no document is made of are only written.
        shown: Name of the folder for the text report's last line.
        max_bytes: Largest page.

    Raises:
        OutputError: No page is that small.
        OSError: Something cannot be written; the folder holds what could be.
    """
    facts = report_facts.gather(tables)
    parts = sections(tables, facts)
    report_html, report_txt, summary = DOCUMENTS
    whole = text.text_of(facts, parts, report=f"{shown}/{report_html}")
    whole_page = page.page_of(facts, parts, tables, max_bytes)
    (folder / report_html).write_text(whole_page, encoding="utf-8")
    (folder / report_txt).write_text(whole, encoding="ascii")
    (folder / summary).write_text(summary_json.json_of(facts, parts), encoding="ascii")
    (folder / TABLES).mkdir()
    for name, table in tables.items():
        _write_table(table, folder / TABLES / f"{name}.parquet")


def _write_table(table: pa.Table, path: Path) -> None:
    """Write one table. Numbers as differences: half the time of a dictionary, and a smaller file."""
    texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
    numbers = [field.name for field in table.schema if pa.types.is_integer(field.type)]
    with path.open("wb") as file:  # pyarrow itself opens no name that is not UTF-8
        pq.write_table(
            table,
            file,
            compression="zstd",
            use_dictionary=texts,
            column_encoding=dict.fromkeys(numbers, "DELTA_BINARY_PACKED"),
        )


def _check(target: Path, shown: Path, *, force: bool) -> None:
    """See that nothing but an earlier report is in the way."""
    if not target.exists():
        return
    if not force:
        raise OutputError(
            f"will not overwrite without --force: {shown}",
            path=target,
            hint="give another folder with -o, or --force to replace this one",
        )
    if not target.is_dir():
        raise OutputError(
            f"will not replace a file by a folder: {shown}", path=target, hint="give another folder with -o"
        )
    foreign = _foreign(target)
    if foreign is not None:
        raise OutputError(
            f"will not remove what replay did not write: {foreign.name}",
            path=foreign,
            hint="move it away, or give another folder with -o",
        )


def _foreign(folder: Path) -> Path | None:
    """A file in the folder that `write_reports` does not write; None: there is none."""
    for entry in sorted(folder.iterdir()):
        if entry.name == TABLES and entry.is_dir() and not entry.is_symlink():
            others = (
                table for table in sorted(entry.iterdir()) if table.suffix != ".parquet" or table.is_dir()
            )
            foreign = next(others, None)
            if foreign is not None:
                return foreign
        elif entry.name not in DOCUMENTS or entry.is_dir():
            return entry
    return None


def _put(fresh: Path, target: Path) -> None:
    """Let the new folder take the place of the old one; the old one is removed only after that."""
    if not target.exists():
        fresh.rename(target)
        return
    old = _beside(target, "old")
    target.rename(old)
    try:
        fresh.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old)


def _beside(target: Path, role: str) -> Path:
    """A hidden name in the same folder (so that a rename is atomic) that nothing has yet."""
    return target.with_name(f".{target.name}.{role}-{secrets.token_hex(6)}")
