"""Time in which walks were held up: the columns against the slow twin, and against events paired by hand."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import open_capture
from captures.canonical import canonical_events
from replay.findings.held_up import held_up
from replay.oracle import held_up as oracle_held_up
from replay.state.lifetimes import walk_lives
from schemas import TABLES

VICTIMS = Path(__file__).parent / "data" / "truth" / "6.12_s11-victims_truth-tiny.dat"
STEP = st.tuples(
    st.sampled_from(["enter", "exit", "switch", "begin", "end"]), st.integers(1, 3), st.integers(0, 3)
)


def events(steps: list[tuple[str, int, int]]) -> dict[str, pl.DataFrame]:
    """Event tables; 10 ns from one event to the next. A task enters only one walk at a time."""
    rows: dict[str, list[dict[str, object]]] = {"ev_walk": [], "ev_switch": [], "ev_lock": []}
    walking: set[int] = set()
    for place, (what, pid, other) in enumerate(steps):
        row = {"seq": place, "ts_ns": 10 * place, "cpu": 0, "pid": pid}
        if what == "switch" and pid != other:
            rows["ev_switch"].append(row | {"prev_pid": pid, "next_pid": other})
        elif what in ("begin", "end"):
            rows["ev_lock"].append(row | {"is_end": what == "end", "lock": 1, "lock_flags": 2})
        elif (what == "enter") != (pid in walking) and what in ("enter", "exit"):
            walking ^= {pid}
            rows["ev_walk"].append(row | {"is_return": what == "exit"})
    schema = {name: pl.DataFrame(TABLES[name].empty()).schema for name in rows}
    return {name: pl.DataFrame(each, schema=schema[name]) for name, each in rows.items()}


@settings(max_examples=150)
@given(st.lists(STEP, max_size=40))
def test_any_events_give_what_the_twin_gives(steps: list[tuple[str, int, int]]) -> None:
    tables = events(steps)
    walks, _ = walk_lives(tables["ev_walk"])
    found = dict(held_up(tables, walks).iter_rows())
    assert found == oracle_held_up.held_up(
        tables["ev_switch"].to_dicts(), tables["ev_lock"].to_dicts(), walks.to_dicts()
    )


def test_of_a_real_capture_too() -> None:
    with open_capture(VICTIMS) as capture:
        tables = {name: pl.DataFrame(table) for name, table in canonical_events(capture).items()}
    walks, _ = walk_lives(tables["ev_walk"])
    found = dict(held_up(tables, walks).iter_rows())
    switches, locks = (tables[name].to_dicts() for name in ("ev_switch", "ev_lock"))
    assert found == oracle_held_up.held_up(switches, locks, walks.to_dicts())
    # the machine has two CPUs and more tasks than that
    assert len(found) == 20
    assert sum(1 for held in found.values() if held) > 10
