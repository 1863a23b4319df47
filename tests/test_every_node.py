"""Walks over every stable node that nobody captured."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from captures import open_capture
from captures.canonical import canonical_events
from replay.chosen import chosen
from replay.every_node import END, ENDING, WHOLE, WORST, every_node
from replay.exact import replay_exact

TRUTH = Path(__file__).parent / "data" / "truth"
STRATEGIES = ("full", "addr", "vm_pgoff", "linear")


def test_a_capture_without_a_walk_answers() -> None:
    """2,000 pages of f03-s1's scenario: 300 VMAs split one page each, nodes of 8 pages."""
    with open_capture(TRUTH / "6.12_s6-fleet_f03-s1.dat") as capture:
        events = {name: pl.DataFrame(table) for name, table in canonical_events(capture).items()}
    events["ev_walk"] = events["ev_walk"].clear()
    exact = replay_exact(events, STRATEGIES)
    assert exact.walk.is_empty()
    every = every_node(exact, events, chosen(STRATEGIES))
    asked = {moment: every.asked.filter(pl.col("moment") == moment) for moment in (WORST, END)}
    assert asked[WORST]["rmap_items"].sum() == asked[WORST]["mappings"].sum() == 300
    assert asked[END]["mappings"].sum() == 0
    node = asked[WORST].sort("rmap_items")["node"][-1]
    own = every.walk.filter((pl.col("node") == node) & (pl.col("moment") == WORST))
    costs = {(row["strategy"], row["rmap_one"]): row["iterations_total"] for row in own.to_dicts()}
    assert costs["full", WHOLE] == 2 * 8 * 300
    assert 7 * 300 < costs["full", ENDING] <= 8 * 300
    missed = dict(every.miss.filter(pl.col("moment") == WORST)["strategy"].value_counts().iter_rows())
    assert missed == {"vm_pgoff": 299}
