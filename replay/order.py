"""Rows in order of integers, faster than the general sort, and what begins after all before it is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from replay.alive import NEVER

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    Int: TypeAlias = NDArray[np.int64]


def ordering(*keys: NDArray[Any]) -> Int:
    """Places of rows in the order of some integers, the first ones first; equal rows stay as they are.

    As numpy.lexsort. What is in order already costs nothing; else a number and its place are sorted as
    one, which the processor's wide registers do, where they have room in 64 bits.
    """
    order = np.arange(len(keys[0]))
    for number, key in enumerate(reversed(keys)):
        values = key[order] if number else key
        if (values[1:] >= values[:-1]).all():
            continue
        bits = len(key).bit_length()
        span = int(values.max()) - int(values.min())
        if span >> (64 - bits):
            place = np.argsort(values, kind="stable")
        else:
            # In 32 bits the difference of two pids might not fit.
            wide = values if values.itemsize == 8 else values.astype(np.int64)
            packed = (wide - wide.min()).astype(np.uint64) << np.uint64(bits)
            packed |= np.arange(len(key), dtype=np.uint64)
            packed.sort()
            place = (packed & np.uint64((1 << bits) - 1)).astype(np.int64)
        order = order[place]
    return order


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
