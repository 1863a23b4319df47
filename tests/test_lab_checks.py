"""What the lab says of a capture: nothing of a right one, and what differs where a count is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from replay import analyze
from tests.fake_machine import ROOT
from tests.lab.checks import differences, faults

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

PAGES = 512


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    return dict(analyze(ROOT / "captures" / "samples" / "mremap-7.3.dat").tables)


def said(tables: dict[str, pa.Table]) -> list[str]:
    return [each.splitlines()[0] for each in differences(tables, "mremap", "script", PAGES)]


@pytest.mark.parametrize("strategy", ["observed", "linear"])
def test_one_count_of_one_loop_is_enough(strategy: str, tables: dict[str, pa.Table]) -> None:
    loop = pl.DataFrame(pl.from_arrow(tables["loop"])).with_row_index()
    (row,) = loop.filter(pl.col("strategy") == strategy).tail(1)["index"]
    changed = loop.with_columns(iterations=pl.col("iterations") + (pl.col("index") == row))
    assert said({**tables, "loop": changed.drop("index").to_arrow()}) == [
        "mremap: 1 loops differ from the kernel's counts (_right: linear)"
    ]


def test_a_strategy_that_should_miss(tables: dict[str, pa.Table]) -> None:
    summary = pl.DataFrame(pl.from_arrow(tables["summary"])).with_columns(missed=pl.lit(0))
    assert said({**tables, "summary": summary.to_arrow()}) == [
        "mremap: addr misses nothing",
        "mremap: vm_pgoff misses nothing",
    ]


def test_what_is_left_behind(tmp_path: Path) -> None:
    for name, text in {"before": "0\n", "TERM.after": "0\n", "INT.after": "19\n"}.items():
        (tmp_path / name).write_text(text)
    for signal in ("TERM", "INT"):
        (tmp_path / f"{signal}.status").write_text("130\n")
    assert list(faults(tmp_path, {}, ["TERM", "INT"], PAGES)) == ["INT: left behind\n19\ninstead of\n0\n"]
    assert list(faults(tmp_path, {}, ["KILL"], PAGES)) == ["KILL: the guest did not come to its end"]
