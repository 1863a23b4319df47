"""Counting and finding what is alive against looking at every life; trees against walking over a list."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.state.alive import AliveIndex, WaveletMatrix
from replay.state.order import ALWAYS, NEVER
from replay.state.trees import Trees

SETTINGS = settings(max_examples=150, derandomize=True)
GROUPS, LAST = 3, 12
NOW = st.integers(-1, LAST + 3)
U64 = (1 << 64) - 1


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[int, int, int, int]]:
    """(group, value, born, died): values and births repeat; some begin always, some never end."""
    found = []
    for _ in range(draw(st.integers(0, 25))):
        born = draw(st.just(int(ALWAYS)) | st.integers(0, LAST - 1))
        died = draw(st.just(int(NEVER)) | st.integers(max(born, 0) + 1, LAST))
        value = draw(st.integers(0, 9) | st.sampled_from((U64, U64 - 1, 1 << 63)))
        found.append((draw(st.integers(0, GROUPS - 1)), value, born, died))
    return found


def column(rows: list[tuple[int, ...]], place: int, dtype: type = np.int64) -> np.ndarray:
    return np.array([row[place] for row in rows], dtype)


@SETTINGS
@given(
    values=st.lists(st.integers(0, 63), max_size=40),
    questions=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 64)), max_size=20),
)
def test_wavelet_matrix_counts(values: list[int], questions: list[tuple[int, int, int]]) -> None:
    asked = [(min(a, b, len(values)), min(max(a, b), len(values)), bound) for a, b, bound in questions]
    matrix = WaveletMatrix(np.array(values, np.int64), 7)
    counts = matrix.count_below(*(column(asked, place) for place in range(3)))
    assert counts.tolist() == [sum(value < bound for value in values[a:b]) for a, b, bound in asked]


@SETTINGS
@given(rows=lives(), now=NOW, then=NOW, value=st.integers(0, 10) | st.just(U64))
def test_alive_index(rows: list[tuple[int, int, int, int]], now: int, then: int, value: int) -> None:
    index = AliveIndex(column(rows, 0), column(rows, 1, np.uint64), column(rows, 2), column(rows, 3), GROUPS)
    group = np.arange(GROUPS)
    at, point = np.full(GROUPS, now), np.full(GROUPS, value, np.uint64)
    through, below = index.ranks_through(group, point), index.ranks_below(group, point)
    alive = index.alive(group, at)
    up_to, less = index.alive_below(group, at, through), index.alive_below(group, at, below)
    early, late = np.full(GROUPS, min(now, then)), np.full(GROUPS, max(now, then))
    passed = index.version(group, late) - index.version(group, early)
    changed = index.changed_below(group, early, late, through)
    for each in range(GROUPS):
        # in order of value, then of birth, then of death: the order of a tree
        order = sorted((row[1:], place) for place, row in enumerate(rows) if row[0] == each)
        there = [(life, place) for life, place in order if life[1] <= now < life[2]]
        assert alive[each] == len(there)
        assert up_to[each] == sum(life[0] <= value for life, _ in there)
        assert less[each] == sum(life[0] < value for life, _ in there)
        assert passed[each] == sum(
            int(early[0]) < seq <= int(late[0]) for life, _ in order for seq in life[1:]
        )
        assert changed[each] == sum(
            int(early[0]) < seq <= int(late[0]) for life, _ in order if life[0] <= value for seq in life[1:]
        )
        nth = np.arange(len(there))
        found = index.nth_alive(np.full(len(there), each), np.full(len(there), now), nth)
        assert [rows[place][1:] for place in found] == [life for life, _ in there]
        assert len(set(found.tolist())) == len(there)


@st.composite
def forests(draw: st.DrawFn) -> list[dict[str, int]]:
    """Intervals of two mms on two trees, each with a range of addresses and one of page offsets."""
    rows = []
    for number in range(draw(st.integers(1, 25))):
        start, pages = draw(st.integers(0, 12)), draw(st.integers(1, 6))
        first = draw(st.integers(0, 12))
        born = draw(st.just(-1) | st.integers(0, LAST - 1))
        died = draw(st.just(int(NEVER)) | st.integers(max(born, 0) + 1, LAST))
        rows.append(
            {
                "anon_vma": draw(st.integers(1, 2)),
                "mm": draw(st.integers(1, 2)),
                "first_pgoff": first,
                "last_pgoff": first + pages - 1,
                "vm_start": start * 4096,
                "vm_end": (start + pages) * 4096,
                "born": born,
                "died": died,
                "number": number,
            }
        )
    # the tree's order; which of two equal ones comes first is nobody's to know
    return sorted(rows, key=lambda row: (row["born"], row["died"], row["number"]))


def planted(rows: list[dict[str, int]]) -> Trees:
    seen = {"born": -1, "died": int(NEVER)}
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    frame = pl.DataFrame(columns, schema_overrides=dict.fromkeys(PAGES, pl.UInt64))
    return Trees(
        frame.with_columns(
            column.alias(f"{end}_{suffix}")
            for end, never in seen.items()
            for suffix in ("seq", "ts_ns")
            for column in [pl.when(pl.col(end) != never).then(end)]
        )
    )


PAGES = ("first_pgoff", "last_pgoff", "vm_start", "vm_end")


@SETTINGS
@given(rows=forests(), now=NOW, first=st.integers(0, 18), pages=st.integers(0, 4), page=st.integers(0, 18))
def test_trees(rows: list[dict[str, int]], now: int, first: int, pages: int, page: int) -> None:
    trees = planted(rows)
    lives = trees.lives.rows(named=True)
    for tree, anon_vma in enumerate(trees.codes["anon_vma"]):
        # insertion order among equals: a stable sort of the lives in order of birth
        there = sorted(
            (life for life, row in enumerate(lives) if row["anon_vma"] == anon_vma and alive(row, now)),
            key=lambda life: lives[life]["first_pgoff"],
        )
        inside = [
            life
            for life in there
            if lives[life]["first_pgoff"] <= first + pages and lives[life]["last_pgoff"] >= first
        ]
        one = {"tree": np.array([tree]), "instant": np.array([now])}
        bounds = {"first": np.array([first], np.uint64), "last": np.array([first + pages], np.uint64)}
        assert trees.everything(**one).tolist() == [len(there)]
        assert trees.overlapping(**one, **bounds).tolist() == [len(inside)]
        many = {name: np.repeat(value, len(inside)) for name, value in (one | bounds).items()}
        places = trees.place_in_range(life=np.array(inside, np.int64), **many)
        assert places.tolist() == list(range(1, len(inside) + 1))
        many = {name: np.repeat(value, len(there)) for name, value in one.items()}
        everywhere = {"first": np.zeros(len(there), np.uint64), "last": np.full(len(there), U64, np.uint64)}
        places = trees.place_in_range(life=np.array(there, np.int64), **many, **everywhere)
        assert places.tolist() == list(range(1, len(there) + 1))
    for space, mm in enumerate(trees.spaces["mm"]):
        anon_vma = trees.codes["anon_vma"][trees.spaces["tree"][space]]
        address = page * 4096 + 8
        question, life = trees.covering(np.array([space]), np.array([now]), np.array([address], np.uint64))
        assert question.tolist() == [0] * len(life)
        assert sorted(life.tolist()) == [
            number
            for number, row in enumerate(lives)
            if (row["anon_vma"], row["mm"]) == (anon_vma, mm)
            and alive(row, now)
            and row["vm_start"] <= address < row["vm_end"]
        ]


def alive(row: dict[str, int], now: int) -> bool:
    return row["born"] <= now < row["died"]
