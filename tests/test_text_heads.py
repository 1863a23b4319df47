"""Trace text: the fast pattern of heads against the whole one, and single columns against whole tables."""

from __future__ import annotations

import lzma

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from captures import open_capture
from captures.text.heads import FTRACE, PERF, Dialect
from captures.text.index import heads
from tests.test_text_recordings import TEXT

TEXTS = sorted(each.name for each in TEXT.glob("*.txt.xz"))

TASKS = st.text("ab1 -:[]/.<>", max_size=8)
SPACES = st.sampled_from(("", " ", "  "))
FTRACE_PARTS = (
    st.sampled_from(("", " ", "probes: ", "a-1: ")),
    TASKS,
    st.sampled_from(("-12 ", "-12", "-", "-12 (    3) ", "-1-2 ")),
    st.sampled_from(("[000]", "[7]-0x0", "[1] [2]", "")),
    st.sampled_from((" d....", " d..1 ", " .N  ", "", " ", "d")),
    SPACES,
    st.sampled_from(("1.000001:", "12:", "1.5: 2.5:", "1.1")),
    st.sampled_from(("", " (+281)", "(-1)", " (3)")),
    SPACES,
    st.sampled_from(
        ("ev: a=1", "sys_read(fd: 1)", "sys_read -> 0x0", "f <- g", "f+0x1/0x2: x", "<stack trace>", "1:")
    ),
)
PERF_PARTS = (
    SPACES,
    TASKS,
    st.sampled_from((" 12 ", " 12/13 ", " -1 ", "", " 1 2 ")),
    st.sampled_from(("[000]", "[7] 1.5: a:b: [8]", "")),
    st.sampled_from((" 1.000001:", " 1.1: 4", "1.1:")),
    SPACES,
    st.sampled_from(("", "1 ", "2 3 ")),
    st.sampled_from(("ksm:start: x", "a-b:c.d:", "a:", "1:2:")),
)


def lines_of(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.tuples(*parts).map("".join), min_size=1, max_size=6)


def check(lines: list[str], dialect: Dialect) -> None:
    series = pl.Series(lines, dtype=pl.String)
    assert heads(series, dialect).rows() == series.str.extract_groups(dialect.head).struct.unnest().rows()


@given(lines=lines_of(*FTRACE_PARTS))
@example(lines=["  a: b-1 [000] d.... 1.000001: ev: a=1", "   ksmd-30 [001] d..1. 1.000001: (+2) ev: a=1"])
def test_both_patterns_find_the_same_heads_of_ftrace(lines: list[str]) -> None:
    check(lines, FTRACE)


@given(lines=lines_of(*PERF_PARTS))
@example(lines=["  perf   472 [001]   133.393486: ksm:start: x", " my prog 7 472 [001] 133.393486: 1 a:b: x"])
def test_both_patterns_find_the_same_heads_of_perf(lines: list[str]) -> None:
    check(lines, PERF)


@pytest.mark.parametrize("name", TEXTS)
def test_both_patterns_find_the_same_heads_of_recordings(name: str) -> None:
    lines = lzma.decompress((TEXT / name).read_bytes()).decode("latin-1").split("\n")
    for dialect in (FTRACE, PERF):
        check(lines, dialect)


@pytest.mark.parametrize("name", TEXTS)
def test_a_column_is_the_same_whatever_else_is_asked_for(name: str) -> None:
    with open_capture(TEXT / name) as capture:
        whole = capture.decode(capture.formats)
        for place in (0, -1):
            asked = {event: table.column_names[4:][place:][:1] for event, table in whole.items()}
            for event, table in capture.decode(capture.formats, asked).items():
                assert table.equals(whole[event].select([*whole[event].column_names[:4], *asked[event]]))
