"""The last and the first member that covers a range, against looking at all of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from replay.state.covers import NONE, Covers

SMALL = st.integers(0, 9)
MEMBERS = st.lists(st.tuples(st.integers(0, 2), SMALL, SMALL), max_size=40)
QUESTIONS = st.lists(st.tuples(st.integers(0, 3), st.integers(-3, 45), SMALL, SMALL), min_size=1, max_size=20)


@given(members=MEMBERS, questions=QUESTIONS)
def test_first_and_last(
    members: list[tuple[int, int, int]], questions: list[tuple[int, int, int, int]]
) -> None:
    """Each member's time is its place in the list."""
    group, start, length = np.array(members, np.int64).reshape(-1, 3).T
    covers = Covers(group, np.arange(len(group)) - 1, start, start + length + 1)
    asked, time, a, b = np.array(questions, np.int64).T
    low, high = np.minimum(a, b), np.maximum(a, b)
    last, first = covers.last(asked, time, low, high), covers.first(asked, time, low, high)
    for number, (own, at) in enumerate(zip(asked, time, strict=True)):
        held = [
            place
            for place, (of, begin, size) in enumerate(members)
            if of == own and begin <= low[number] and begin + size >= high[number]
        ]
        assert last[number] == max((place for place in held if place - 1 <= at), default=NONE)
        assert first[number] == min((place for place in held if place - 1 > at), default=NONE)
