"""The event that made a mapping be missed: what it was, and that it is the one that the oracle finds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import open_capture
from captures.canonical import canonical_events
from replay.findings.causes import missed_because, turning_points
from replay.oracle import causes as oracle_causes
from replay.walks.exact import Exact, replay_exact
from tests.test_oracle import HISTORIES, SETTINGS, SHAPES, history

if TYPE_CHECKING:
    from tests.test_oracle import Events

TRUTH = Path(__file__).parent / "data" / "truth"
STRATEGIES = ("full", "addr", "vm_pgoff", "linear")


def replayed(name: str) -> tuple[Exact, Events]:
    with open_capture(TRUTH / name) as capture:
        events = {table: pl.DataFrame(rows) for table, rows in canonical_events(capture).items()}
    return replay_exact(events, STRATEGIES), events


@pytest.mark.parametrize(
    ("name", "strategy", "kind", "call"),
    [
        ("6.12_s3-mremap_truth.dat", "addr", "moved", "mremap"),  # before the merge: page offset stays behind
        ("6.12_s3-mremap_truth.dat", "vm_pgoff", "split", "mprotect"),  # after the merge
        ("7.3_s4-holes_truth.dat", "vm_pgoff", "split", "madvise"),  # MADV_DONTFORK on a part splits as well
        (
            "7.3_s7-fileprivate_truth.dat",
            "vm_pgoff",
            "file",
            "mmap",
        ),  # 7.3: the file's page is no page offset
    ],
)
def test_the_call_that_is_known_to_break_the_strategy_is_named(
    name: str, strategy: str, kind: str, call: str
) -> None:
    exact, events = replayed(name)
    miss = missed_because(exact.replayed.miss, exact, events, {}).filter(strategy=strategy)
    counts = miss.group_by("cause_kind", "cause_event").len("n").sort("n")
    assert counts.row(-1)[:2] == (kind, call)


def compare(exact: Exact, events: Events) -> int:
    """Hold the changes found to the oracle's; their number."""
    slow = oracle_causes.turning_points({name: frame.to_dicts() for name, frame in events.items()})
    misses = exact.replayed.miss.rename({"vma_mm": "mm"}).with_row_index("row")
    fast = turning_points(misses, exact).select("seq", "is_end")
    assert fast.rows() == slow
    return len(slow)


@settings(SETTINGS, max_examples=120)
@given(numbers=HISTORIES, anon_pgoff=st.booleans(), shape=st.sampled_from(sorted(SHAPES)))
def test_histories(numbers: bytes, anon_pgoff: bool, shape: str) -> None:
    _, events = history(numbers, anon_pgoff=anon_pgoff, linear=False, unseen=True)
    events = SHAPES[shape](events)
    compare(replay_exact(events, STRATEGIES), events)


@pytest.mark.parametrize("name", ["6.12_s3-mremap_truth.dat", "7.3_s12-mapcount_s2-fork.dat"])
def test_captures(name: str) -> None:
    exact, events = replayed(name)
    assert compare(exact, events) > 300


def test_each_strategy_that_misses_nothing_has_no_cause() -> None:
    exact, events = replayed("6.12_s3-mremap_truth.dat")
    assert set(missed_because(exact.replayed.miss, exact, events, {})["strategy"]) == {"addr", "vm_pgoff"}
