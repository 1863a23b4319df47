"""Rows in order of integers, faster than the general sort, and what begins after all before it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from replay.alive import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl
    from numpy.typing import NDArray

    Int: TypeAlias = NDArray[np.int64]


def ordering(*keys: NDArray[Any]) -> Int:
    """Places of rows in the order of some integers, the first ones first; equal rows stay as they are.

    As numpy.lexsort, in less time: what is in order already costs nothing, the rest is sorted digit by digit.
    numpy does that itself for integers of up to 16 bits, fastest for those of 8.
    """
    order = np.arange(len(keys[0]))
    for key in reversed(keys):
        values = key[order]
        if not (values[1:] >= values[:-1]).all():
            for digit in _digits(key):
                order = order[np.argsort(digit[order], kind="stable")]
    return order


def _digits(key: NDArray[Any]) -> Iterator[NDArray[np.uint8]]:
    """The digits of base 256 in which the integers differ, the lowest first."""
    # In 32 bits the difference of two numbers might not fit; in 64 it may wrap, which unsigned it does not.
    wide = key if key.itemsize == 8 else key.astype(np.int64)
    above = (wide - wide.min()).view(np.uint64)
    used = int(np.bitwise_or.reduce(above))
    low = (used & -used).bit_length() - 1  # pointers end in zeros
    for shift in range(low, used.bit_length(), 8):
        yield (above >> np.uint64(shift)).astype(np.uint8)


def in_order(frame: pl.DataFrame, *columns: str) -> pl.DataFrame:
    """``frame.sort(columns)`` for integers without null: a small part of the time of the general sort."""
    return frame[ordering(*(frame[name].to_numpy() for name in columns))]


def disjoint(group: NDArray[Any], born: Int, died: Int) -> NDArray[np.bool_]:
    """Where a life begins after all earlier ones of its group are over.

    Args:
        group: Sorted.
        born: Instants, sorted within a group.
        died: Instants.
    """
    begun = _firsts(group)
    begun[1:] |= born[1:] > died[last_to_die(group, died)[:-1]]
    return begun


def last_to_die(group: NDArray[Any], died: Int) -> Int:
    """For each life the place of the one that dies last of its group up to it; of equal ones the last.

    Args:
        group: Sorted.
        died: Instants.
    """
    span = np.int64(died[died < NEVER].max(initial=0) + 2)
    keys = np.cumsum(_firsts(group)) * span + np.minimum(died, span - 1)
    latest = keys == np.maximum.accumulate(keys)
    place: Int = np.maximum.accumulate(np.where(latest, np.arange(len(keys)), 0))
    return place


def _firsts(group: NDArray[Any]) -> NDArray[np.bool_]:
    """Where another group begins."""
    first = np.ones(len(group), np.bool_)
    first[1:] = group[1:] != group[:-1]
    return first
