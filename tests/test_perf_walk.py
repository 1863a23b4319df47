"""The places of perf.data records: found from many places of a block at once, and one after the other."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures.perfdata import records as perfdata_records
from captures.perfdata.records import RecordStream

HEAD = {"little": "<IHH", "big": ">IHH"}


@st.composite
def blocks(draw: st.DrawFn, order: str) -> bytes:
    """Records whose content looks like records, too; some have odd sizes, and the last may be cut off."""
    words = st.integers(0, 40)
    kinds = st.sampled_from([1, 3, 9, 9, 9, 68, 127, 128, 0, 1 << 20])
    block = b""
    for kind, size, odd in draw(st.lists(st.tuples(kinds, words, st.booleans()), max_size=60)):
        content = b"".join(
            struct.pack(
                HEAD[order], draw(kinds), draw(st.integers(0, 3)), draw(st.sampled_from([0, 8, 16, 24, 9]))
            )
            for _ in range(size)
        )
        content += bytes(draw(st.sampled_from([0, 0, 0, 0, 2, 3]))) if odd else b""
        block += struct.pack(HEAD[order], kind, 0, len(content) + 8) + content
    return block[: len(block) - draw(st.integers(0, 12))] if draw(st.booleans()) else block


@pytest.mark.parametrize("order", ["little", "big"])
@settings(max_examples=150)
@given(data=st.data(), strip=st.sampled_from([1, 2, 5, 16, 1 << 11]), search=st.sampled_from([1, 3, 1 << 7]))
def test_the_records_are_those_that_follow_each_other(order: str, data: Any, strip: int, search: int) -> None:
    block = memoryview(data.draw(blocks(order)))
    stream = RecordStream(SimpleNamespace(order=order))  # type: ignore[arg-type]
    with (
        patch.object(perfdata_records, "_STRIP_WORDS", strip),
        patch.object(perfdata_records, "_SEARCH_WORDS", search),
    ):
        start, pos, unusual = stream._walk_fast(block)
    wanted, end = stream._walk_slowly(block, 0, None)
    more, end_after = stream._walk_slowly(block, pos, None) if unusual else ([], pos)
    assert [*start.tolist(), *more] == wanted
    assert end_after == end
    if not unusual:
        assert stream.damage is None
