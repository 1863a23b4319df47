"""One run, recorded by trace-cmd and by perf at once: both captures give the same tables and results.

perf ran longer, so its events are cut to the time of the others (both clocks are CLOCK_MONOTONIC). What
differs: the times, by some us and up to 9 ms, because each recorder takes its own, one after the other; with
them the order of events of different CPUs, ``seq``; and the markers, which perf cannot record.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import polars as pl
import pytest

from captures import open_capture
from captures.canonical import EVENT_TABLES, canonical_events
from replay.strategies import BUILTIN
from replay.walks.exact import Exact, replay_exact
from tests.perf_tool import DATA

TRACE_CMD = Path(__file__).parent / "data" / "truth" / "7.3_s1-small_triple.dat"
PERF = DATA / "triple.perf.data.xz"
SLACK_NS = 50_000


def events(path: Path) -> dict[str, pl.DataFrame]:
    with open_capture(path) as capture:
        return {name: pl.DataFrame(pl.from_arrow(table)) for name, table in canonical_events(capture).items()}


@cache
def both() -> tuple[dict[str, pl.DataFrame], dict[str, pl.DataFrame]]:
    by_trace_cmd, by_perf = events(TRACE_CMD), events(PERF)
    times = pl.concat(table["ts_ns"] for table in by_trace_cmd.values())
    first, last = times.min(), times.max()
    assert isinstance(first, int)
    assert isinstance(last, int)
    inside = pl.col("ts_ns").is_between(first - SLACK_NS, last + SLACK_NS)
    return by_trace_cmd, {name: table.filter(inside) for name, table in by_perf.items()}


@cache
def results() -> tuple[Exact, Exact]:
    by_trace_cmd, by_perf = both()
    return replay_exact(by_trace_cmd, list(BUILTIN)), replay_exact(by_perf, list(BUILTIN))


@pytest.mark.parametrize("name", [name for name in EVENT_TABLES if name != "ev_marker"])
def test_same_events(name: str) -> None:
    ours, theirs = (tables[name].drop("seq", "ts_ns") for tables in both())
    assert ours.equals(theirs)


def test_the_tables_are_not_empty() -> None:
    by_trace_cmd, by_perf = both()
    assert by_trace_cmd["ev_avc"].height == 1280
    assert by_trace_cmd["ev_marker"].height == 9
    assert by_perf["ev_marker"].is_empty()
    assert sum(table.height for table in by_perf.values()) == 6501


@pytest.mark.parametrize("name", ["avc", "vma", "rmap_item", "loop", "walk", "miss"])
def test_same_results(name: str) -> None:
    ours, theirs = (getattr(result, name) for result in results())
    kept = [column for column in ours.columns if not column.endswith(("_ns", "_seq"))]
    assert ours.height > 0
    assert ours.select(kept).equals(theirs.select(kept))


def test_same_walks_with_all_that_perf_saw() -> None:
    """The longer history adds intervals and VMAs; what the walks do stays the same."""
    whole = replay_exact(events(PERF), list(BUILTIN))
    part = results()[0]
    for name in ("loop", "walk", "miss"):
        ours, theirs = getattr(part, name), getattr(whole, name)
        kept = [column for column in ours.columns if not column.endswith(("_ns", "_seq"))]
        assert ours.select(kept).equals(theirs.select(kept))
    assert whole.vma.height > part.vma.height
