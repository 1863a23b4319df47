"""Rows in order of integers, held to numpy's own sort and to Python's."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.state.order import disjoint, in_order, last_to_die, numbered, ordering

LONG = np.iinfo(np.int64)
POINTER = (1 << 64) - 1


@st.composite
def keys(draw: st.DrawFn) -> list[np.ndarray]:
    """Up to three columns of the types that tables have, with few different values or with any."""
    length = draw(st.integers(0, 40))
    columns = []
    for _ in range(draw(st.integers(1, 3))):
        dtype, low, high = draw(
            st.sampled_from(
                [
                    (np.int64, LONG.min, LONG.max),
                    (np.int64, -2, 2),
                    (np.uint64, 0, POINTER),
                    (np.uint64, POINTER - 3, POINTER),
                    (np.int32, -(1 << 31), (1 << 31) - 1),
                    (np.uint32, 0, (1 << 32) - 1),
                ]
            )
        )
        values = draw(st.lists(st.integers(low, high), min_size=length, max_size=length))
        columns.append(np.array(sorted(values) if draw(st.booleans()) else values, dtype=dtype))
    return columns


@given(keys())
def test_ordering_equals_lexsort(columns: list[np.ndarray]) -> None:
    assert ordering(*columns).tolist() == np.lexsort(columns[::-1]).tolist()


@pytest.mark.parametrize("shift", [0, 20, 43, 44, 45, 63])
def test_ordering_of_many_keys_with_and_without_room_for_their_places(shift: int) -> None:
    key = np.random.default_rng(1).integers(0, 1 << 20, 1 << 19, dtype=np.uint64) % np.uint64(2000)
    key = key << np.uint64(max(shift - 11, 0)) if shift else key * np.uint64(0)
    assert (ordering(key) == np.argsort(key, kind="stable")).all()


def test_a_frame_in_order_keeps_its_rows() -> None:
    frame = pl.DataFrame({"a": [2, 1, 2, 1], "b": [0, 5, -1, 5], "text": ["w", "x", "y", "z"]})
    assert in_order(frame, "a", "b").rows() == [(1, 5, "x"), (1, 5, "z"), (2, -1, "y"), (2, 0, "w")]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 9), st.integers(0, 10)), max_size=20))
def test_disjoint_begins_where_nothing_before_is_alive(lives: list[tuple[int, int, int]]) -> None:
    lives = sorted((group, born, max(born, died)) for group, born, died in lives)
    expected = [
        all(born > died for other, _, died in lives[:place] if other == group)
        for place, (group, born, _) in enumerate(lives)
    ]
    columns = (np.array([life[n] for life in lives], dtype=np.int64) for n in range(3))
    assert disjoint(*columns).tolist() == expected


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 2, 3, LONG.max])), max_size=20))
def test_last_to_die_is_the_latest_of_its_group_so_far(lives: list[tuple[int, int]]) -> None:
    lives = sorted(lives, key=lambda life: life[0])
    expected = [
        max(range(place + 1), key=lambda n: (lives[n][0], lives[n][1], n)) for place in range(len(lives))
    ]
    columns = (np.array([life[n] for life in lives], dtype=np.int64) for n in range(2))
    assert last_to_die(*columns).tolist() == expected


@given(keys())
def test_numbers_equal_those_of_unique_rows(columns: list[np.ndarray]) -> None:
    first, number = numbered(*columns)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    distinct = sorted(set(rows))
    assert [rows[place] for place in first] == distinct
    assert [distinct[each] for each in number] == rows
