"""Whose the address spaces are that KSM's events name: against the twin, and where probes tell it too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import open_capture
from captures.canonical import canonical_events
from replay.ksm.modelled import modelled_spaces, tree_events
from replay.ksm.spaces import address_spaces
from replay.model.rebuild import reconstruct
from replay.oracle.ksm_spaces import CHANGES, EXECS, FORKS, OWN, Spaces
from tests.model_machine import empty_events

DATA = Path(__file__).parent / "data"
PIDS, POINTERS = st.integers(1, 3), st.sampled_from((0xA000, 0xB000))
CALLS = ("madvise", "mmap", "process_madvise", "clone", "execve")
EVENTS = st.one_of(
    st.tuples(st.just("ev_syscall"), PIDS, st.sampled_from(CALLS), st.booleans()),
    st.tuples(st.just("ev_task"), PIDS, st.sampled_from(("newtask", "fork", "exec", "exit")), PIDS),
    st.tuples(st.just("ev_ksm_enter"), PIDS, POINTERS),
    st.tuples(st.just("ev_exit_mmap"), PIDS, POINTERS),
    st.tuples(st.just("ev_mmap_lock"), PIDS, POINTERS, st.booleans()),
    st.tuples(st.just("space"), PIDS, st.sampled_from((1, 2, 3, None))),
)
FIELDS = {
    "ev_syscall": ("name", "is_exit"),
    "ev_task": ("kind", "child_pid"),
    "ev_ksm_enter": ("mm",),
    "ev_exit_mmap": ("mm",),
    "ev_mmap_lock": ("mm", "is_write"),
}


@given(
    history=st.lists(EVENTS, max_size=30),
    lives=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 100), st.integers(1, 60)), max_size=5),
    merges=st.lists(st.tuples(POINTERS, st.integers(0, 120)), min_size=1, max_size=5),
)
@settings(max_examples=100)
def test_the_twin_says_the_same(
    history: list[tuple[Any, ...]], lives: list[tuple[int, int, int]], merges: list[tuple[int, int]]
) -> None:
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in FIELDS}
    spaces = []
    for number, (table, pid, *own) in enumerate(history):
        place = {"seq": 4 * number, "ts_ns": number, "cpu": 0, "pid": pid}
        if table == "space":
            spaces.append((pid, place["seq"], own[0], own[0] is None))
        else:
            rows[table].append(place | dict(zip(FIELDS[table], own, strict=True)))
    empty = empty_events()
    events = empty | {name: pl.DataFrame(own, schema=empty[name].schema) for name, own in rows.items()}
    told = pl.DataFrame(
        spaces,
        schema={"pid": pl.Int32, "seq": pl.Int64, "mm": pl.UInt64, "birth": pl.Boolean},
        orient="row",
    )
    living = pl.DataFrame(
        [(mm, born, born + length) for mm, born, length in lives],
        schema={"mm": pl.UInt64, "born": pl.Int64, "died": pl.Int64},
        orient="row",
    )
    items = pl.DataFrame(merges, schema={"mm": pl.UInt64, "born": pl.Int64}, orient="row")
    mine = address_spaces(items, events, told, living).to_list()
    twin = Spaces(events, told, living)
    assert mine == [twin.of(mm, at) for mm, at in merges]


def test_which_calls_may_tell() -> None:
    """The task's own calls; process_madvise() and process_vm_writev() are about others."""
    assert not {"process_madvise", "process_vm_writev", "move_pages", *FORKS, *EXECS} & {*CHANGES, *OWN}


@pytest.mark.parametrize("name", ["6.12_s5-random_truth.dat", "7.3_s2-fork_truth.dat"])
def test_locks_tell_what_ksm_enter_does(name: str) -> None:
    """A VMA goes onto trees under its mm's lock, taken for writing; fork takes the child's too.

    So of a capture with probes it is known which locks were taken when, and by whom.
    """
    with open_capture(DATA / "truth" / name) as capture:
        events = {name: pl.DataFrame(table) for name, table in canonical_events(capture).items()}
    model = reconstruct(events, "7.3" if name.startswith("7.3") else "6.12")
    spaces = modelled_spaces(events, tree_events(model.lives, model.versions), model.lives)
    items = events["ev_merge"].filter(err=0).select("mm", born="seq")
    told = address_spaces(items, events, spaces, model.lives)
    assert told.null_count() == 0
    locks = locks_of(events)
    nothing = {"ev_ksm_enter": events["ev_ksm_enter"].clear(), "ev_exit_mmap": events["ev_exit_mmap"].clear()}
    locked = address_spaces(items, {**events, **nothing, "ev_mmap_lock": locks}, spaces, model.lives)
    assert address_spaces(items, {**events, **nothing}, spaces, model.lives).null_count() == len(items)
    assert locked.count() > 200
    assert locked.drop_nulls().equals(told.filter(locked.is_not_null()))


@pytest.mark.parametrize("release", ["6.12", "7.3"])
def test_ends_tell_what_locks_do(release: str) -> None:
    """The exit of a task comes after the end of its address space on 6.12, before it on 7.3."""
    with open_capture(DATA / "anon" / f"{release}.dat") as capture:
        events = {name: pl.DataFrame(table) for name, table in canonical_events(capture).items()}
    model = reconstruct(events, "7.3" if release == "7.3" else "6.12")
    spaces = modelled_spaces(events, tree_events(model.lives, model.versions), model.lives)
    locks = locks_of(events)
    asked = locks.select("mm", born="seq")
    ended = address_spaces(asked, events, spaces, model.lives)
    events |= {"ev_exit_mmap": events["ev_exit_mmap"].clear(), "ev_mmap_lock": locks}
    locked = address_spaces(asked, events, spaces, model.lives)
    both = ended.is_not_null() & locked.is_not_null()
    assert ended.count() > len(ended) // 2
    assert both.sum() > 10
    assert ended.filter(both).equals(locked.filter(both))


def locks_of(events: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """The locks of the mms whose VMAs went onto trees, by whom."""
    inserts = events["ev_avc"].filter("is_insert", pl.col("mm").is_not_null())
    return inserts.select("seq", "ts_ns", "cpu", "pid", "mm", is_write=pl.lit(True))
