"""Names of tasks at an instant: held to rules told in plain Python, on histories with pids used again."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import open_capture
from captures.canonical import canonical_events
from replay.state.names import with_names
from schemas import TABLES

VICTIMS = Path(__file__).parent / "data" / "truth" / "6.12_s11-victims_truth-tiny.dat"
FACT = st.tuples(
    st.sampled_from(["newtask", "exec", "exit"]), st.integers(1, 3), st.sampled_from(["a", "b", None])
)


def tasks(facts: list[tuple[str, int, str | None]]) -> dict[str, pl.DataFrame]:
    """Table ``ev_task``: the facts at even places."""
    rows = [
        {
            "seq": 2 * place,
            "ts_ns": place,
            "cpu": 0,
            "pid": 9 if kind == "newtask" else pid,
            "kind": kind,
            "child_pid": pid if kind == "newtask" else None,
            "comm": comm,
        }
        for place, (kind, pid, comm) in enumerate(facts)
    ]
    return {"ev_task": pl.DataFrame(rows, schema=pl.DataFrame(TABLES["ev_task"].empty()).schema)}


def slowly(facts: list[tuple[str, int, str | None]], pid: int, seq: int, last: str | None) -> str | None:
    own = [(2 * place, kind, comm) for place, (kind, of, comm) in enumerate(facts) if of == pid]
    before = [fact for fact in own if fact[0] < seq and fact[1] != "exit"]
    after = [fact for fact in own if fact[0] > seq]
    if after and after[0][1] == "exit" and after[0][2] is not None:
        return after[0][2]
    if last is not None and all(kind == "exit" for _, kind, _ in after):
        return last
    return before[-1][2] if before else None


@settings(max_examples=150)
@given(
    facts=st.lists(FACT, max_size=12),
    asked=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 12)), max_size=8),
    comms=st.dictionaries(st.integers(1, 3), st.sampled_from(["x", "y"])),
)
def test_names_follow_births_execs_and_exits(
    facts: list[tuple[str, int, str | None]], asked: list[tuple[int, int]], comms: dict[int, str]
) -> None:
    rows = pl.DataFrame(
        {"pid": [pid for pid, _ in asked], "seq": [2 * place + 1 for _, place in asked]},
        schema={"pid": pl.Int32, "seq": pl.Int64},
    )
    named = with_names(rows, tasks(facts), comms)
    assert named.select("pid", "seq").equals(rows)
    assert named["comm"].to_list() == [slowly(facts, pid, seq, comms.get(pid)) for pid, seq in rows.rows()]


def test_a_thread_id_that_is_used_again_has_the_name_of_its_time() -> None:
    events = tasks([("newtask", 1, "first"), ("exit", 1, "first"), ("newtask", 1, "second")])
    rows = pl.DataFrame({"pid": [1, 1], "seq": [1, 5]}, schema={"pid": pl.Int32, "seq": pl.Int64})
    assert with_names(rows, events, {1: "second"})["comm"].to_list() == ["first", "second"]


def test_a_real_capture_names_tasks_at_their_exit_as_the_exit_does() -> None:
    with open_capture(VICTIMS) as capture:
        events = {name: pl.DataFrame(table) for name, table in canonical_events(capture).items()}
        comms = capture.comms()
    exits = events["ev_task"].filter(kind="exit").select("pid", "seq", "comm")
    assert len(exits) > 20
    assert with_names(exits.drop("comm"), events, comms)["comm"].equals(exits["comm"])
