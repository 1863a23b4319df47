"""Result tables by name, from a capture (analysed now) or from the folder of an earlier analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replay.results.output import RESULT_MARK
from schemas import TABLES
from schemas.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

# What every result has; other tables are read where they are.
RESULTS = ("capture", "summary", "walk", "loop", "miss", "rmap_item", "avc", "vma", "quality")


def results(source: Path) -> dict[str, pa.Table]:
    """The result tables of a capture or of a result folder.

    Args:
        source: A capture, or a folder that ``replay analyze`` wrote.

    Raises:
        UsageError: It is a folder that holds no result.
        CaptureError: The capture cannot be read.
        SchemaError: A table of the folder is of another major version, or of a newer replay.
    """
    if not source.is_dir():
        from replay.pipeline import analyze

        return analyze(source).tables
    missing = [name for name in RESULTS if not _file(source, name).is_file()]
    if missing or not (source / RESULT_MARK).is_file():
        raise UsageError(
            f"the folder holds no result of replay analyze: {source}",
            where=f"{source}: no tables/{missing[0]}.parquet" if missing else f"{source}: no {RESULT_MARK}",
            hint="give a capture, or the folder that `replay analyze CAPTURE -o DIR` wrote",
        )
    there = [name for name in TABLES if name in RESULTS or _file(source, name).is_file()]
    return {name: TABLES[name].check(TABLES[name].upgraded(_read(_file(source, name)))) for name in there}


def _read(path: Path) -> pa.Table:
    """A table of Parquet; pyarrow itself opens no name that is not UTF-8."""
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        return pq.read_table(file)


def _file(folder: Path, name: str) -> Path:
    return folder / "tables" / f"{name}.parquet"
