"""Where a VMA's page offsets come from that are not its addresses: the call that mapped or moved it.

A VMA comes to its tree with its first write, which says nothing of that. Looked for is the last mmap() or
mremap() before whose result, or whose source that stays (MREMAP_DONTUNMAP), holds the page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.state.covers import NONE, Covers
from replay.state.event_pairs import finished_calls
from replay.state.lifetimes import PAGE_SHIFT
from replay.state.names import with_names
from replay.state.spaces import mm_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAP_ANONYMOUS: Final = 0x20
_MREMAP_DONTUNMAP: Final = 4


def origins(
    turns: pl.DataFrame, events: Mapping[str, pl.DataFrame], spaces: pl.DataFrame, comms: Mapping[int, str]
) -> pl.DataFrame:
    """``turns`` with the call that mapped or moved the VMA where the first write was named (kind ``file``).

    Args:
        turns: ``row``, ``mm``, ``address``, ``seq``, ``kind``, ``cause_event``, ``call``, ``ts_ns``, ``pid``,
            ``comm``.
        events: The ``ev_*`` tables.
        spaces: ``spaces.task_spaces``.
        comms: Names of tasks by thread id.

    Returns:
        The rows; of kind ``file`` only those whose file was mapped by a call in the capture; ``moved``
        where mremap() left an old page offset behind; null: the capture does not tell which.
    """
    asked = turns.filter(kind="file")
    if asked.is_empty():
        return turns
    made = _made(events["ev_syscall"], spaces)
    mms = made.select(pl.col("mm").unique()).with_row_index("code").cast({"code": pl.Int64})
    made = made.join(mms, on="mm")
    covers = Covers(*(made[name].to_numpy() for name in ("code", "seq", "start", "end")))
    known = asked.join(mms, on="mm").select("row", "code", "seq", page=pl.col("address") // (1 << PAGE_SHIFT))
    page = known["page"].to_numpy().astype(np.int64)
    place = covers.last(known["code"].to_numpy(), known["seq"].to_numpy(), page, page)
    met = pl.concat(
        [known.select("row").filter(pl.Series(place != NONE)), made[place[place != NONE]]], how="horizontal"
    )
    found = with_names(met, events, comms)
    changed = ("kind", "cause_event", "call", "ts_ns", "pid", "comm")
    is_file = pl.col("kind") == "file"
    fresh = found.filter(pl.col("kind").is_not_null()).select("row", *changed)
    rows = turns.join(fresh, on="row", how="left", maintain_order="left", suffix="_of_call")
    there = is_file & pl.col("kind_of_call").is_not_null()
    return rows.with_columns(
        pl.when(there)
        .then(f"{name}_of_call")
        .when(is_file if name == "kind" else pl.lit(False))
        .then(None)
        .otherwise(name)
        .alias(name)
        for name in changed
    ).select(turns.columns)


def _made(ev_syscall: pl.DataFrame, spaces: pl.DataFrame) -> pl.DataFrame:
    """What mmap() and mremap() put or left where: ``start``, ``end`` (pages), ``seq``, ``mm``, the call."""
    done = finished_calls(ev_syscall.filter(pl.col("name").is_in(["mmap", "mremap"])))
    done = done.filter(pl.col("ret") >= 0)
    done = mm_of(done, spaces).drop_nulls("mm").with_columns(to=pl.col("ret").cast(pl.UInt64))
    moves = pl.col("name") == "mremap"
    anonymous = ~moves & (pl.col("arg3") & _MAP_ANONYMOUS != 0)
    kind = pl.when(moves).then(pl.lit("moved")).when(~anonymous).then(pl.lit("file"))
    same = {
        "kind": kind,
        "cause_event": pl.col("name"),
        "call": pl.col("entered"),
        "ts_ns": pl.col("ts_ns"),
        "pid": pl.col("pid"),
    }

    def at(start: pl.Expr, length: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
        page = 1 << PAGE_SHIFT
        return (start // page).cast(pl.Int64), ((start + length + page - 1) // page).cast(pl.Int64)

    parts = []
    for rows, start, length in (
        (done.filter(~moves), "to", "arg1"),
        (done.filter(moves), "to", "arg2"),
        (done.filter(moves & (pl.col("arg3") & _MREMAP_DONTUNMAP != 0)), "arg0", "arg1"),
    ):
        first, last = at(pl.col(start), pl.col(length))
        parts.append(rows.select("mm", "seq", start=first, end=last, **same))
    return pl.concat(parts).drop_nulls(["start", "end"])
