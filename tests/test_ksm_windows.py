"""Bounds of counts inside windows, against trying every instant at which each change may have been made."""

from __future__ import annotations

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.ksm.windows import Doubt, in_windows, windows
from replay.model.rebuild import reconstruct
from replay.state.lifetimes import AFTER
from tests.model_machine import BASE, PAGE, History

P, CHILD = 100, 101


def test_the_window_of_each_operation() -> None:
    """Places: 0 and 1 mmap, 2 fault, 3 and 5 madvise around 4 another task's fault, 6 fork, 7 exit."""
    history = History()
    history.call(P, "mmap", (BASE, PAGE, 3, 0x32, 0, 0), BASE)
    history.fault(P, BASE)
    history.enter(P, "madvise", (BASE, PAGE, 12))
    history.fault(CHILD, BASE)
    history.leave(P, "madvise", 0)
    history.fork(P, 102)
    history.task(P, "exit")
    told = windows(history.events()).sort("place")
    assert told.select("place", "since", "until").rows() == [
        (1, 0, 1),
        (2, 2, 3),  # the anon_vma is made after the fault began, before the task's next event
        (4, 4, AFTER - 1),
        (5, 3, 5),
        (6, 3, 6),
        (7, 6, 7),
    ]


LIFE = st.tuples(
    st.integers(0, 2),  # tree
    st.integers(0, 6),  # first page offset
    st.integers(1, 3),  # pages
    st.lists(st.integers(0, 30), min_size=4, max_size=4, unique=True).map(sorted),
    st.booleans(),
)
QUESTION = st.tuples(
    st.integers(0, 3), st.integers(0, 30), st.integers(0, 8), st.integers(0, 7), st.integers(0, 3)
)


@settings(derandomize=True)
@given(st.lists(LIFE, max_size=12), st.lists(QUESTION, min_size=1, max_size=8))
def test_bounds_hold_whatever_the_instants(
    lives: list[tuple[int, int, int, list[int], bool]], questions: list[tuple[int, ...]]
) -> None:
    """Each life is born, and dies, in its ``(since, until]``; at one instant the bounds are met."""
    rows = []
    for tree, first, pages, (a, b, c, d), survives in lives:
        rows.append(
            {
                "anon_vma": tree,
                "first_pgoff": first,
                "last_pgoff": first + pages - 1,
                "mm": 1,
                "vm_start": first * PAGE,
                "vm_end": (first + pages) * PAGE,
                "born_since": a,
                "born": b,
                "died_since": AFTER - 1 if survives else c,
                "died": AFTER if survives else d,
                "born_seq": b,
                "died_seq": None if survives else d,
            }
        )
    unsigned = ("anon_vma", "first_pgoff", "last_pgoff", "mm", "vm_start", "vm_end")
    names = (*unsigned, "born_since", "born", "died_since", "died", "born_seq", "died_seq")
    schema = {name: pl.UInt64 if name in unsigned else pl.Int64 for name in names}
    doubt = Doubt(pl.DataFrame(rows, schema=schema))
    asked = pl.DataFrame(
        [(tree, at, at + span, first, first + more) for tree, at, span, first, more in questions],
        schema={
            "anon_vma": pl.UInt64,
            "after": pl.Int64,
            "until": pl.Int64,
            "first_pgoff": pl.UInt64,
            "last_pgoff": pl.UInt64,
        },
        orient="row",
    )
    least, most = doubt.bounds(asked)
    touched = doubt.touched(asked)
    for number, (tree, at, span, first, more) in enumerate(questions):
        own = [
            row
            for row in rows
            if row["anon_vma"] == tree and row["first_pgoff"] <= first + more and row["last_pgoff"] >= first
        ]
        assert touched[number] or least[number] == most[number]
        for instant in range(at, at + span + 1):
            surely = sum(row["born"] <= instant <= row["died_since"] for row in own)
            possibly = sum(row["born_since"] < instant < row["died"] for row in own)
            assert least[number] <= surely <= possibly <= most[number]
            if not span:
                assert (least[number], most[number]) == (surely, possibly)


def test_lives_are_moved_to_the_end_of_their_windows() -> None:
    history = History()
    history.call(P, "mmap", (BASE, PAGE, 3, 0x32, 0, 0), BASE)
    history.fault(P, BASE)
    history.call(P, "munmap", (BASE, PAGE))
    events = history.events()
    lives = in_windows(reconstruct(events, "6.12").lives, windows(events))
    assert lives.select("born_since", "born", "born_ts_ns", "died_since", "died").rows() == [
        (2, 3, 3000, 3, 4)
    ]
