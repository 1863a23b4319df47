"""The columns against the oracle, row by row: on histories of the small mm, and on real captures.

Both also as captures often are: begun late, cut short, with lost events, without some probe or some field of
one. On whole histories the oracle is held to what the small mm's walks really did.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from captures import open_capture
from captures.canonical import canonical_events
from replay.oracle import whole as oracle
from replay.walks.exact import replay_exact
from schemas import TABLES
from tests.ksm_machine import Machine
from tests.truth import captures_with_truth

if TYPE_CHECKING:
    from collections.abc import Callable

    Events = dict[str, pl.DataFrame]

STRATEGIES = ("full", "addr", "vm_pgoff", "linear")
RESULTS = ("avc", "vma", "rmap_item", "loop", "walk", "miss")
SCHEMAS = {name: pl.DataFrame(table.arrow.empty_table()).schema for name, table in TABLES.items()}
SETTINGS = settings(derandomize=True)
HISTORIES = st.binary(min_size=150, max_size=900)
CAPTURES = captures_with_truth(Path(__file__).parent / "data" / "truth")
VARIED = ("6.12_s5-random_truth.dat", "7.3_s12-mapcount_s2-fork.dat", "7.3_s4-holes_truth.dat")


def table(name: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMAS[name], orient="row")


def compare(events: Events) -> dict[str, list[dict[str, Any]]]:
    """Replay both ways, hold one to the other in every row and column; the oracle's rows."""
    slow = oracle.replay({name: frame.to_dicts() for name, frame in events.items()}, STRATEGIES)
    fast = replay_exact(events, STRATEGIES)
    assert slow.keys() == set(RESULTS)
    for name in RESULTS:
        frame = getattr(fast, name)
        assert_frame_equal(frame, table(name, slow[name]).select(frame.columns))
    return slow


# what captures are like -------------------------------------------------------


def part(events: Events, begin: float, end: float) -> Events:
    last = max((frame["seq"].max() or 0 for frame in events.values()), default=0)
    assert isinstance(last, int)
    return {
        name: frame.filter(pl.col("seq").is_between(int(last * begin), int(last * end)))
        for name, frame in events.items()
    }


def lossy(events: Events) -> Events:
    """Every event for itself may be lost; which, does not depend on the others."""
    return {
        name: frame.filter((pl.col("seq") * 2654435761 + len(name)) % 1009 > 100)
        for name, frame in events.items()
    }


def without(*names: str) -> Callable[[Events], Events]:
    return lambda events: events | {name: events[name].clear() for name in names}


def unknown(name: str, *columns: str, where: pl.Expr | None = None) -> Callable[[Events], Events]:
    """Fields that the probe of this capture does not tell."""
    chosen = pl.lit(True) if where is None else where
    return lambda events: (
        events
        | {
            name: events[name].with_columns(
                pl.when(~chosen).then(pl.col(each)).alias(each) for each in columns
            )
        }
    )


def without_returns(events: Events) -> Events:
    return events | {"ev_item_remove": events["ev_item_remove"].filter(~pl.col("is_return"))}


RANGE = ("mm", "vm_start", "vm_end", "vm_pgoff", "anon_pgoff", "vm_flags")
SHAPES: dict[str, Callable[[Events], Events]] = {
    "whole": lambda events: events,
    "late": lambda events: part(events, 0.4, 1),
    "short": lambda events: part(events, 0, 0.8),
    "lossy": lossy,
    "no returns": without_returns,
    "no migrate events": without("ev_migration_pte"),
    "no ksm events": without("ev_merge"),
    "no system calls": without("ev_syscall", "ev_task", "ev_fault"),
    "no task_newtask": lambda events: (
        events | {"ev_task": events["ev_task"].filter(pl.col("kind") != "newtask")}
    ),
    "no clone_flags": unknown("ev_task", "clone_flags"),
    "no mapcount": unknown("ev_walk", "mapcount"),
    "no stable_node": unknown("ev_walk", "stable_node"),
    "no linear_page_index": unknown("ev_append", "linear_page_index"),
    "no mm": unknown("ev_avc", "mm"),
    "bare removal from trees": unknown("ev_avc", *RANGE, where=~pl.col("is_insert")),
    "removal without head": unknown("ev_item_remove", "head"),
    "removal without address": unknown("ev_item_remove", "address"),
    "removal without mm": unknown("ev_item_remove", "mm"),
    "removal without anon_vma": unknown("ev_item_remove", "anon_vma"),
}


# histories of the small mm ----------------------------------------------------


def history(numbers: bytes, **kernel: bool) -> tuple[Machine, Events]:
    machine = Machine(list(numbers), **kernel).run()
    return machine, {name: table(name, rows) for name, rows in machine.events.items()}


@settings(SETTINGS, max_examples=200)
@given(numbers=HISTORIES, anon_pgoff=st.booleans(), linear=st.booleans())
def test_whole_histories(numbers: bytes, anon_pgoff: bool, linear: bool) -> None:
    machine, events = history(numbers, anon_pgoff=anon_pgoff, linear=linear)
    slow = compare(events)
    of_walk: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in slow["loop"]:
        if row["strategy"] == ("linear" if linear else "full"):
            of_walk[row["walk_id"]].append(row)
    for walk_id, walk in enumerate(machine.truth):
        if not walk.disturbed:
            told = [
                {name: row[name] for name in vars(loop)}
                for row, loop in zip(of_walk[walk_id], walk.loops, strict=True)
            ]
            assert told == [vars(loop) for loop in walk.loops]


@settings(SETTINGS, max_examples=250)
@given(
    numbers=HISTORIES,
    anon_pgoff=st.booleans(),
    first=st.sampled_from(sorted(SHAPES)),
    second=st.sampled_from(sorted(SHAPES)),
)
def test_histories_as_captures_are(numbers: bytes, anon_pgoff: bool, first: str, second: str) -> None:
    _, events = history(numbers, anon_pgoff=anon_pgoff, linear=False, unseen=True)
    compare(SHAPES[second](SHAPES[first](events)))


def test_the_small_mm_does_everything() -> None:
    """What the two tests above rest on: the histories hold every kind of event, walk and end."""
    seen: dict[str, int] = defaultdict(int)
    for seed in range(40):
        numbers = bytes(
            (seed * 7919 + place * place * 31 + place * 104729) >> 3 & 0xFF for place in range(900)
        )
        machine, events = history(numbers, anon_pgoff=seed % 2 == 0, linear=False)
        for name, frame in events.items():
            seen[name] += len(frame)
        loops = [loop for walk in machine.truth for loop in walk.loops]
        for name in ("skip_addr_out_of_range", "skip_mm_mismatch", "rmap_one_calls", "ended_early"):
            seen[name] += sum(getattr(loop, name) for loop in loops)
        seen["second pass"] += sum(loop.search_new_forks * loop.rmap_one_calls for loop in loops)
        seen["disturbed"] += sum(walk.disturbed for walk in machine.truth)
    expected = set(seen) - {name for name in seen if name.startswith("ev_obs_")}
    # the replay of probes does not read these
    expected -= {
        "ev_anon_walk",
        "ev_marker",
        "ev_folio_migrate",
        "ev_scan",
        "ev_lock",
        "ev_stack",
        "ev_switch",
        "ev_ksm_enter",
        "ev_ksm_removed",
        "ev_mmap_lock",
    }
    assert min(seen[name] for name in expected) >= 20, dict(seen)


# real captures ----------------------------------------------------------------


@functools.cache
def recorded(path: Path) -> Events:
    with open_capture(path) as capture:
        tables = canonical_events(capture)
    return {name: pl.DataFrame(each) for name, each in tables.items() if not name.startswith("ev_obs_")}


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_real_captures(path: Path) -> None:
    slow = compare(recorded(path))
    assert slow["loop"]
    recorded.cache_clear()


@pytest.mark.parametrize("shape", sorted(set(SHAPES) - {"whole"}))
@pytest.mark.parametrize("name", VARIED)
def test_real_captures_with_less_in_them(name: str, shape: str) -> None:
    path = next(path for path in CAPTURES if path.name == name)
    compare(SHAPES[shape](part(recorded(path), 0.1, 1)))
