"""``replay export``: the results for other tools."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from replay.results.plot import check_file, write_file
from schemas.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pyarrow as pa


class Target(StrEnum):
    """What results are written for."""

    PERFETTO = "perfetto"
    CSV = "csv"


def check_target(target: Target, output: Path, *, force: bool) -> None:
    """See that the output can be written, before the work.

    Raises:
        OutputError: It exists and is not to be replaced, or cannot be made.
    """
    check_file(output, force=force)
    if output.exists() and output.is_dir() != (target is Target.CSV):
        raise OutputError(
            "a folder is needed for CSV, a file for Perfetto", path=output, hint="give another name with -o"
        )


def export(tables: Mapping[str, pa.Table], target: Target, output: Path) -> None:
    """Write the results for another tool.

    Args:
        tables: Result tables by name.
        target: ``perfetto``: one trace file; ``csv``: a folder with one file a table, null as an empty
            field, pointers and times as decimal numbers.
        output: The file or the folder.

    Raises:
        OutputError: It cannot be written.
    """
    if target is Target.PERFETTO:
        from replay.results.perfetto import perfetto_trace

        write_file(output, perfetto_trace(tables))
        return
    import polars as pl

    try:
        output.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder: {error.strerror}", path=output, hint="see where -o points"
        ) from error
    for name, table in tables.items():
        write_file(output / f"{name}.csv", pl.DataFrame(table).write_csv(quote_style="necessary").encode())
