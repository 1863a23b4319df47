"""Walks over ordinary anonymous pages: columns and twin, and both against what the small mm did."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from captures import open_capture
from captures.canonical import canonical_events
from replay import analyze
from replay.inspect import inspect
from replay.oracle import anon as oracle_anon
from replay.state.families import one_by_one
from replay.state.gaps import Gaps
from replay.state.lifetimes import avc_lives, walk_lives
from replay.state.spaces import mm_lives, task_spaces
from replay.walks.anon import anon_walks
from reports import json_summary, render_text
from schemas import TABLES
from tests.anon_machine import AnonMachine, TrueWalk

TOLD = ("walk_id", "relatives", "mapping", "iterations", "iterations_least", "iterations_most")
HISTORIES = st.lists(st.integers(0, 255), min_size=200, max_size=1500)


RECORDED = Path(__file__).parent / "data" / "anon"


def replayed(events: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """By both ways, the same."""
    avc, vma = avc_lives(events["ev_avc"], events["ev_syscall"])
    spaces = task_spaces(mm_lives(avc), events["ev_avc"], events["ev_task"])
    fast = anon_walks(events, avc, one_by_one(avc), vma, spaces, None, {})
    slow = oracle_anon.anon_walks({name: frame.to_dicts() for name, frame in events.items()})
    schema = {name: fast.schema[name] for name in TOLD}
    assert_frame_equal(fast.select(TOLD), pl.DataFrame(slow, schema=schema, orient="row"))
    return fast


def told(numbers: list[int], begin: float, *, anon_pgoff: bool) -> list[tuple[dict[str, Any], TrueWalk]]:
    """What is said of each walk, and what it did."""
    machine = AnonMachine(numbers, anon_pgoff=anon_pgoff).run()
    events = {
        name: pl.DataFrame(rows, schema=pl.DataFrame(TABLES[name].empty()).schema, orient="row").filter(
            pl.col("seq") > machine.seq * begin
        )
        for name, rows in machine.events.items()
    }
    rows = replayed(events).to_dicts()
    entries = walk_lives(events["ev_anon_walk"])[0]["enter"].to_list()
    truth = {each.enter: each for each in machine.truth}
    return [(row, truth[seq]) for row, seq in zip(rows, entries, strict=True) if seq in truth]


@settings(max_examples=60, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(numbers=HISTORIES, anon_pgoff=st.booleans(), begin=st.sampled_from([0.0, 0.3, 0.6]))
def test_what_is_said_is_what_the_kernel_did(numbers: list[int], anon_pgoff: bool, begin: float) -> None:
    """Also of a capture that begins in the middle: what it cannot know is null."""
    for row, true in told(numbers, begin, anon_pgoff=anon_pgoff):
        assert row["mapping"] in (None, true.mapping)
        assert row["observed_iterations"] in (None, true.iterations)
        if row["relatives"] is not None:
            assert row["relatives"] == true.relatives
            assert row["iterations_least"] <= true.iterations <= row["iterations_most"]


def test_the_small_mm_does_everything() -> None:
    """What the test above rests on."""
    seen: Counter[str] = Counter()
    for seed in range(16):
        numbers = [(seed * 7919 + n * n * 31 + n * 104729) >> 3 & 0xFF for n in range(1500)]
        for row, true in told(numbers, 0.3 * (seed % 2), anon_pgoff=seed % 4 > 1):
            seen["known" if row["relatives"] is not None else "not known"] += 1
            seen["known family"] += (row["relatives"] or 0) > 1
            seen["visited exactly"] += row["iterations"] is not None
            seen["bounded"] += row["relatives"] is not None and row["iterations"] is None
            seen["ended early"] += true.iterations < true.relatives
            seen["copied by a fork"] += row["mapping"] is not None and row["mapping"] < true.relatives
            ends = row["relatives"] is not None and row["caller"] == "try_to_migrate_one"
            seen["the last mapping is known"] += (
                ends and row["mapping"] is not None and row["mapping"] < row["relatives"] > 1
            ) and row["iterations"] is not None
            seen["the last mapping is bounded"] += ends and row["iterations_most"] < row["relatives"]
            seen["large"] += row["last_pgoff"] > row["first_pgoff"]
    assert min(seen.values()) >= 10, seen


@pytest.mark.parametrize("kernel", ["6.12", "7.3"])
def test_real_walks_visit_what_is_replayed(kernel: str) -> None:
    """By the kernel's own counts. 64 pages of a family of 8, some of which have copies of their own."""
    tables = analyze(RECORDED / f"{kernel}.dat").tables
    walks = pl.DataFrame(tables["anon_walk"]).filter(comm="family")
    restoring = walks.filter(caller="remove_migration_pte")
    assert len(restoring) == 152
    assert restoring["iterations"].to_list() == restoring["observed_iterations"].to_list()
    assert restoring["relatives"].to_list() == restoring["observed_iterations"].to_list()
    assert (restoring["relatives"].sum(), restoring["mapping"].sum()) == (1132, 711)
    unmapping = walks.filter(caller="try_to_migrate_one")
    seen = pl.col("observed_iterations")
    assert unmapping.filter(~seen.is_between("iterations_least", "iterations_most")).is_empty()
    assert unmapping["relatives"].to_list() == restoring["relatives"].to_list()
    assert unmapping["mapping"].to_list() == restoring["mapping"].to_list()
    assert unmapping["iterations"].count() == 115
    text = " ".join(render_text(tables).split())
    assert "2,264 relatives have the page's offset (replayed) and 1,422 of these map it (observed)." in text
    assert "relatives visited (observed) is the replayed in 267 of 267 walks." in text
    assert "Where only bounds of it are known, its count is within them in 37 of 37 walks." in text
    document = json.loads(json_summary(tables))
    (row, _) = document["anon"]
    assert (row["caller"], row["relatives_total"], row["agreeing"]) == ("remove_migration_pte", 1132, 152)
    assert document["sections"]["anon"]["anon_counts"][0]["agreeing"] == 152
    assert "1,422 of these map it" in " ".join(document["verdict"])
    answers = inspect(RECORDED / f"{kernel}.dat")["answer"].to_pylist()
    assert [each["answer"] for each in answers if each["question"] == "relatives"] == ["exact"]


@pytest.mark.parametrize("kernel", ["6.12", "7.3"])
def test_of_a_capture_that_begins_late_nothing_is_said_of_relatives(kernel: str) -> None:
    """The trees that the walks ask are older than it; some of their intervals show nevertheless."""
    with open_capture(RECORDED / f"{kernel}.dat") as capture:
        events = {name: pl.DataFrame(pl.from_arrow(t)) for name, t in canonical_events(capture).items()}
    whole = replayed(events)
    assert whole["relatives"].null_count() == 0
    walks = events["ev_anon_walk"]["seq"]
    late = replayed(
        {name: frame.filter(pl.col("seq") >= walks[len(walks) // 2]) for name, frame in events.items()}
    )
    assert len(late) > 100
    assert late["relatives"].null_count() == len(late)
    assert late["mapping"].null_count() == 0


def test_lost_events_leave_the_relatives_unknown() -> None:
    with open_capture(RECORDED / "7.3.dat") as capture:
        events = {name: pl.DataFrame(pl.from_arrow(t)) for name, t in canonical_events(capture).items()}
    times = events["ev_anon_walk"]["ts_ns"]
    loss = {"kind": "lost_events", "start_ns": times[300], "end_ns": times[301]}
    gaps = Gaps.of(pl.DataFrame([loss]), events)
    avc, vma = avc_lives(events["ev_avc"], events["ev_syscall"], gaps, events["ev_exit_mmap"])
    spaces = task_spaces(mm_lives(avc), events["ev_avc"], events["ev_task"])
    walks = anon_walks(events, avc, one_by_one(avc), vma, spaces, gaps, {})
    assert walks.filter(pl.col("relatives").is_null())["ts_ns"].min() >= times[299]
    assert walks.filter(pl.col("relatives").is_not_null())["end_ns"].max() <= times[300]
    assert walks["relatives"].count() >= 149
