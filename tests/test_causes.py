"""The event that made a mapping be missed: right before it the lookup met the VMA, right after it did not."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from captures import open_capture
from captures.canonical import canonical_events
from replay.causes import missed_because
from replay.exact import Exact, replay_exact
from replay.strategies import BUILTIN

TRUTH = Path(__file__).parent / "data" / "truth"


def replayed(name: str) -> tuple[Exact, dict[str, pl.DataFrame]]:
    with open_capture(TRUTH / name) as capture:
        events = {table: pl.DataFrame(rows) for table, rows in canonical_events(capture).items()}
    return replay_exact(events, tuple(BUILTIN)), events


@pytest.mark.parametrize(
    ("name", "strategy", "call"),
    [
        ("6.12_s3-mremap_truth.dat", "addr", "mremap"),  # moved before the merge: page offset stays behind
        ("6.12_s3-mremap_truth.dat", "vm_pgoff", "mprotect"),  # split after the merge
        ("7.3_s4-holes_truth.dat", "vm_pgoff", "madvise"),  # MADV_DONTFORK on a part splits as well
    ],
)
def test_the_call_that_is_known_to_break_the_strategy_is_named(name: str, strategy: str, call: str) -> None:
    exact, events = replayed(name)
    miss = missed_because(exact.replayed.miss, exact, events).filter(pl.col("strategy") == strategy)
    counts = dict(miss["cause_event"].value_counts().iter_rows())
    assert max(counts, key=lambda event: counts[event]) == call


@pytest.mark.parametrize("name", ["6.12_s5-random_truth-long.dat", "7.3_s2-fork_truth.dat"])
def test_the_cause_is_the_change_from_met_to_missed(name: str) -> None:
    exact, events = replayed(name)
    causes = missed_because(exact.replayed.miss, exact, events)
    changes = events["ev_avc"]
    lives = exact.trees.lives
    pairs = zip(causes.rows(named=True), exact.replayed.miss.rows(named=True), strict=True)
    checked = 0
    for cause, miss in list(pairs)[::7]:
        (space,) = lives[[miss["life"]]]["space"]
        own = lives.filter((pl.col("space") == space) & (pl.col("vm_start") <= miss["address"]))
        own = own.filter(pl.col("vm_end") > miss["address"])
        at = changes.filter(
            (pl.col("ts_ns") == cause["cause_ts_ns"]) & (pl.col("pid") == cause["cause_pid"])
        )["seq"]
        assert any(not missed(own, miss, seq - 1) and missed(own, miss, seq) for seq in at)
        assert missed(own, miss, miss["instant"])
        checked += 1
    assert checked > 20


def missed(lives: pl.DataFrame, miss: dict[str, int], instant: int) -> bool:
    """Whether a VMA held the address at that instant, and none that overlaps what was looked up."""
    holding = lives.filter((pl.col("born") <= instant) & (pl.col("died") > instant))
    met = (holding["first_pgoff"] <= miss["last_pgoff"]) & (holding["last_pgoff"] >= miss["first_pgoff"])
    return len(holding) > 0 and not met.any()


def test_each_strategy_that_misses_nothing_has_no_cause() -> None:
    exact, events = replayed("6.12_s3-mremap_truth.dat")
    assert set(missed_because(exact.replayed.miss, exact, events)["strategy"]) == {"addr", "vm_pgoff"}
