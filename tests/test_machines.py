"""One real run as machines of other byte order and word size write it: the same results, row for row."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import polars as pl
import pytest

from replay.options import AnalyzeOptions
from replay.pipeline import analyze
from tests.test_tracedat_report import report
from tests.tracedat_convert import convert
from tests.tracedat_writer import Kernel

TRUTH = Path(__file__).parent / "data" / "truth"
NAMES = ["7.3_s6-fleet_f01-s1.dat", "6.12_s6-fleet_f01-s1.dat"]
BOTH = AnalyzeOptions(evidence="both")
OF_THE_FILE = ("path", "format", "size_bytes", "sha256", "clock")


@cache
def results(path: Path) -> dict[str, pl.DataFrame]:
    return {name: pl.DataFrame(pl.from_arrow(table)) for name, table in analyze(path, BOTH).tables.items()}


def seen_by(kernel: Kernel, name: str, column: pl.Series) -> pl.Series:
    """A column as it is on a machine whose longs have fewer bytes."""
    if kernel.long_bytes == 4 and column.dtype == pl.UInt64:
        everything = column == (1 << 64) - 1
        bits = 20 if "pgoff" in name or name == "linear_page_index" else 32
        return (column & (1 << bits) - 1).zip_with(~everything.fill_null(value=False), column)
    if kernel.long_bytes == 4 and name == "cause_arguments":
        return column.str.replace(r"^0x[0-9a-f]{4}([0-9a-f]{8},)", "0x$1")
    return column


@pytest.mark.parametrize("version", [6, 7])
@pytest.mark.parametrize(
    "kernel",
    [Kernel(order, size) for order in "<>" for size in (4, 8)],
    ids=lambda k: f"{'big' if k.order == '>' else 'little'}{8 * k.long_bytes}",
)
@pytest.mark.parametrize("name", NAMES)
def test_every_table_is_that_of_the_original(name: str, kernel: Kernel, version: int, tmp_path: Path) -> None:
    path = tmp_path / "trace.dat"
    path.write_bytes(convert(TRUTH / name, kernel, version))
    expected, found = results(TRUTH / name), results(path)
    assert found.keys() == expected.keys()
    assert min(len(expected[table]) for table in ("loop", "walk", "avc", "rmap_item", "miss")) > 10
    assert found["capture"].drop(OF_THE_FILE).equals(expected["capture"].drop(OF_THE_FILE))
    for table in expected.keys() - {"capture"}:
        # The stack that execve() has not moved yet ends above the last page offset: it is cut on both sides.
        wanted, shown = (
            rows[table].select(seen_by(kernel, each.name, each) for each in rows[table])
            for rows in (expected, found)
        )
        assert shown.equals(wanted), table


@pytest.mark.parametrize(("order", "size"), [("<", 4), (">", 4), (">", 8)])
def test_trace_cmd_reads_what_is_written(order: str, size: int, tmp_path: Path) -> None:
    """The files are checked, too: trace-cmd finds the records of the original in them."""
    path = tmp_path / "trace.dat"
    path.write_bytes(convert(TRUTH / NAMES[0], Kernel(order, size), 7))
    columns = ("ts", "cpu", "pid", "comm", *(("name", "fields") if size == 8 else ()))
    expected, found = (
        [tuple(line[each] for each in columns) for line in report(each)] for each in (TRUTH / NAMES[0], path)
    )
    assert found == expected
    assert len(found) > 1000
