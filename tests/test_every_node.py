"""Walks over every stable node that nobody captured."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from captures import open_capture
from captures.canonical import canonical_events
from replay.findings.every_node import END, ENDING, WHOLE, WORST, ask, every_node
from replay.oracle import nodes as oracle_nodes
from replay.walks.chosen import chosen
from replay.walks.ends import ENDING as CALLERS_THAT_END
from replay.walks.exact import replay_exact
from replay.walks.steps import expand
from tests.test_oracle import HISTORIES, SETTINGS, SHAPES, history
from tests.truth import SUFFIX, captures_with_truth, native_strategy

if TYPE_CHECKING:
    from replay.walks.exact import Exact
    from tests.test_oracle import Events

TRUTH = Path(__file__).parent / "data" / "truth"
STRATEGIES = ("full", "addr", "vm_pgoff", "linear")
KEY = ["node", "moment"]


def recorded(name: str) -> Events:
    with open_capture(TRUTH / name) as capture:
        return {name: pl.DataFrame(table) for name, table in canonical_events(capture).items()}


def moving(exact: Exact) -> set[int]:
    """Walks during which one of their trees changed."""
    loops = expand(exact.walks, exact.items, exact.trees).drop_nulls("tree")
    changes, tree = exact.trees.changes, loops["tree"].to_numpy()
    moved = changes.until(tree, loops["exit"].to_numpy()) > changes.until(tree, loops["enter"].to_numpy())
    return set(loops["walk_id"].filter(pl.Series(moved)))


def compare(events: Events) -> int:
    """Hold the columns to the oracle; the number of rows compared."""
    slow = oracle_nodes.every_node({name: frame.to_dicts() for name, frame in events.items()}, STRATEGIES)
    fast = every_node(replay_exact(events, STRATEGIES), events, chosen(STRATEGIES))
    for name in ("asked", "walk", "miss"):
        frame = getattr(fast, name)
        if name == "miss":
            frame = frame.rename({"vma_mm": "mm"})
        rows = slow[name]
        assert len(frame) == len(rows), name
        if not rows:
            continue
        wanted = pl.DataFrame(rows, schema={key: frame.schema[key] for key in rows[0]}, orient="row")
        order = [key for key in (*KEY, "rmap_one", "strategy", "mm", "address") if key in rows[0]]
        assert_frame_equal(frame.select(wanted.columns).sort(order), wanted.sort(order))
    return len(slow["walk"])


@settings(SETTINGS, max_examples=60)
@given(numbers=HISTORIES, anon_pgoff=st.booleans(), shape=st.sampled_from(sorted(SHAPES)))
def test_histories(numbers: bytes, anon_pgoff: bool, shape: str) -> None:
    _, events = history(numbers, anon_pgoff=anon_pgoff, linear=False, unseen=True)
    compare(SHAPES[shape](events))


def test_the_histories_have_nodes_on_several_trees() -> None:
    """What the test above rests on."""
    walks = trees = missed = 0
    for seed in range(12):
        numbers = bytes(
            (seed * 7919 + place * place * 31 + place * 104729) >> 3 & 0xFF for place in range(900)
        )
        _, events = history(numbers, anon_pgoff=False, linear=False)
        walks += compare(events)
        every = every_node(replay_exact(events, STRATEGIES), events, chosen(STRATEGIES))
        trees = max([trees, *every.asked["anon_vmas"]])
        missed += len(every.miss)
    assert (walks > 300, trees > 1, missed > 20) == (True, True, True), (walks, trees, missed)


def test_a_capture_without_a_walk_answers() -> None:
    """300 pages, VMAs of one page each; nodes of 8 pages."""
    events = recorded("6.12_s6-fleet_f03-s1.dat")
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


# One migration left a mapping over that no rmap_item and no event tells of: the kernel walked on for it.
UNTOLD = {("6.12_s6-fleet_f01-s1.dat", 2)}


@pytest.mark.parametrize("path", captures_with_truth(TRUTH), ids=lambda path: path.name)
def test_a_captured_walk_costs_what_is_predicted_at_its_instant(path: Path) -> None:
    """Loops and iterations that the kernel counted, of every walk whose trees stood still meanwhile."""
    with gzip.open(path.with_name(path.name.removesuffix(".dat") + SUFFIX)) as file:
        truth = json.load(file)
    walks = [walk for walk in truth["walks"] if walk["complete"]]
    events = recorded(path.name)
    exact = replay_exact(events, STRATEGIES)
    instants = exact.walks.select("stable_node", "ts_ns", row="walk_id", instant="enter")
    _, predicted, _ = ask(instants, exact, chosen(STRATEGIES), events["ev_migration_pte"].clear())
    rows = {(row["row"], row["rmap_one"], row["strategy"]): row for row in predicted.to_dicts()}
    native = native_strategy(path, truth, walks[0])
    moved = moving(exact)
    checked = 0
    for walk_id, walk in enumerate(walks):
        kind = ENDING if walk["rmap_one"] in CALLERS_THAT_END else WHOLE
        row = rows[walk_id, kind, walk.get("strategy", native)]
        counted = len(walk["loops"]), sum(loop["iterations"] for loop in walk["loops"])
        if walk_id not in moved and (path.name, walk_id) not in UNTOLD:
            assert (row["loops"], row["iterations_total"]) == counted, (walk_id, walk["rmap_one"])
            checked += 1
    assert checked or path.name == "6.12_s11-victims_truth-tiny.dat"
