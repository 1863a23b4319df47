"""Walks are replayed in parts: how many at a time changes nothing; and made-up states count as expected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from captures import open_capture
from captures.canonical import canonical_events
from replay.strategies import BUILTIN
from replay.walks import counting as walks
from replay.walks.exact import replay_exact
from tests.scale_state import ITEMS_PER_NODE, scale_events

if TYPE_CHECKING:
    from collections.abc import Mapping

TRUTH = Path(__file__).parent / "data" / "truth"
CAPTURES = (
    "6.12_s12-mapcount_s2-fork-reclaim.dat",
    "7.3_s4-holes_truth.dat",
    "custom-7.3-vm_pgoff_S1_ksmw.dat",
)


def replayed(events: Mapping[str, pl.DataFrame]) -> list[pl.DataFrame]:
    exact = replay_exact(events, tuple(BUILTIN))
    return [exact.loop, exact.walk, exact.miss, exact.replayed.loop, exact.replayed.walk]


@pytest.mark.parametrize("name", CAPTURES)
def test_walks_alone_give_what_all_together_give(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_capture(TRUTH / name) as capture:
        events = {each: pl.DataFrame(pl.from_arrow(t)) for each, t in canonical_events(capture).items()}
    together = replayed(events)
    monkeypatch.setattr(walks, "LOOPS_AT_ONCE", 1)
    alone = replayed(events)
    assert together[0]["walk_id"].n_unique() > 10
    for one, other in zip(together, alone, strict=True):
        assert one.equals(other)


def test_a_made_up_state_counts_as_it_was_made() -> None:
    vmas, loops = 400, 4 * ITEMS_PER_NODE
    exact = replay_exact(scale_events(2 * vmas, loops), tuple(BUILTIN))
    assert len(exact.avc) == 2 * vmas
    counts = exact.loop.group_by("strategy").agg(pl.len(), pl.col("iterations").sum())
    # One tree; every VMA is on it whenever a walk begins. Each lookup of one page meets one VMA.
    expected = {name: (loops, loops * (vmas if name == "full" else 1)) for name in BUILTIN}
    assert {name: (rows, total) for name, rows, total in counts.iter_rows()} == expected
    assert exact.miss.is_empty()
