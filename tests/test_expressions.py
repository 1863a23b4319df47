"""Strategies of the user: what an expression means, and what a wrong one is told."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.walks.chosen import chosen
from replay.walks.expressions import COLUMNS, parse_strategy
from schemas.errors import UsageError

WORD = 1 << 64
PAGE = dict(zip(COLUMNS, (100, 90, 200, 7, 17), strict=True))


def looked_up(text: str, **page: int | None) -> tuple[int | None, int | None]:
    strategy = parse_strategy(text)
    row = pl.DataFrame(
        {name: [value] for name, value in {**PAGE, **page}.items()}, schema=dict.fromkeys(COLUMNS, pl.UInt64)
    )
    return row.select(first=strategy.first, last=strategy.last).row(0)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("mine=address_page - 1", 99, 99),
        ('mine=pl.col("address_page") - 1', 99, 99),
        ("near=linear_page_index - 8 .. linear_page_index + 8", 9, 25),
        ("wrap=vm_pgoff - 8", WORD - 1, WORD - 1),
        ("shift=1 << 63 .. vm_end_page >> 3", 1 << 63, 25),
        ("least=min(address_page, vm_pgoff, 50)", 7, 7),
        ("either=where(vm_start_page <= address_page, 1, 2)", 1, 1),
        ("zero=vm_pgoff // 0", None, None),
    ],
)
def test_an_expression_is_the_kernels_arithmetic(text: str, first: int | None, last: int | None) -> None:
    assert looked_up(text) == (first, last)


@given(a=st.integers(0, WORD - 1), b=st.integers(0, WORD - 1))
def test_sums_differences_and_products_wrap_at_64_bits(a: int, b: int) -> None:
    page = {"address_page": a, "vm_pgoff": b}
    assert looked_up("s=address_page + vm_pgoff .. address_page - vm_pgoff", **page) == (
        (a + b) % WORD,
        (a - b) % WORD,
    )


def test_what_is_not_known_stays_unknown() -> None:
    assert looked_up("a=min(address_page, vm_pgoff)", vm_pgoff=None) == (None, None)
    assert looked_up("a=where(vm_pgoff == 1, 1, 2)", vm_pgoff=None) == (None, None)


@pytest.mark.parametrize(
    ("text", "word", "column"),
    [
        ("a=address_page +", "no expression", None),
        ("a=foo + 1", "foo", 0),
        ("a=address_page ** 2", "operator", None),
        ("a=__import__('os')", "known are", 0),
        ("a=address_page.__class__", "is needed", 0),
        ("a=1 + (lambda: 1)()", "known are", 4),
        ("a=address_page << vm_pgoff", "shift", 16),
        ("a=18446744073709551616", "64 bits", 0),
    ],
)
def test_a_wrong_expression_is_told_where(text: str, word: str, column: int | None) -> None:
    with pytest.raises(UsageError) as caught:
        parse_strategy(text)
    assert word in caught.value.what
    if column is not None:
        assert caught.value.hint.index("^") == len("--strategy: ") + column


@pytest.mark.parametrize("text", ["=1", "1a=1", "a=", "a" * 5 + "=" + "(" * 2000, "full=1", "observed=1"])
def test_names_and_lengths_are_checked(text: str) -> None:
    with pytest.raises(UsageError):
        chosen([text])
