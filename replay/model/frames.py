"""What the pass over the operations wrote down, as frames: lives of intervals, versions of VMAs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from replay.model.kinds import PAGE
from replay.model.state import FIELDS, LIVES, LIVES_ENDED, REFUSALS, VERSIONS, VERSIONS_ENDED
from replay.state.kernel import TOLD_ANON_PGOFF, TOLD_FLAGS, TOLD_PGOFF

if TYPE_CHECKING:
    from replay.model.state import State
    from replay.state.kernel import Rules

AFTER: Final = (1 << 63) - 1

Columns = dict[str, np.ndarray[Any, Any]]


def frames(state: State, table: pl.DataFrame, rules: Rules) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Lives of intervals, and versions of VMAs.

    Args:
        state: State after all operations.
        table: The operations.
        rules: Rules of the kernel.

    Returns:
        The columns of ``lifetimes.avc_lives`` in order of insertion, without lives inside of one place;
        and those of table ``vma``, with ``pid``, ``born_seq``, ``died_seq``, in order of ``vma_id``.
    """
    versions = _columns(state, "version", state.count[VERSIONS])
    versions["died"] = _died(state, "version_end", VERSIONS_ENDED, len(versions["born"]))
    # Rows are in order of ``born`` already.
    order = np.lexsort((versions["vma"], versions["born"]))
    order = order[_lasts(versions, table)[order]]
    vma_id = np.full(len(versions["vma"]) + 1, -1)
    vma_id[order] = np.arange(len(order))
    lives = _columns(state, "life", state.count[LIVES])
    lives["died"] = _died(state, "life_end", LIVES_ENDED, len(lives["born"]))
    kept = np.flatnonzero(_lasts(lives, table))
    lives = {name: column[kept] for name, column in lives.items()}
    versions = {name: column[order] for name, column in versions.items()}
    return _lives(lives, vma_id, table, rules), _versions(versions, table, rules)


def _died(state: State, name: str, count: int, rows: int) -> np.ndarray[Any, Any]:
    """Operations that ended rows; -1: none did."""
    ends = _columns(state, name, state.count[count])
    died = np.full(rows, -1)
    died[ends["row"]] = ends["op"]
    return died


def _lasts(rows: Columns, table: pl.DataFrame) -> np.ndarray[Any, Any]:
    """Whether each lasts beyond the place of its birth: all that one place did happens at once."""
    place = table["seq"].to_numpy()
    return np.asarray((rows["died"] < 0) | (place[rows["born"]] != place[rows["died"]]))


def _versions(rows: Columns, table: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    known = rows["anon_vma"] >= 0
    return pl.DataFrame(
        {
            "vma_id": np.arange(len(known)),
            "vma": rows["vma"].astype(np.uint64),
            "mm": rows["mm"].astype(np.uint64),
            "vm_start": rows["start"].astype(np.uint64) * PAGE,
            "vm_end": rows["end"].astype(np.uint64) * PAGE,
            "vm_pgoff": _where(rows["told"] & TOLD_PGOFF == 0, rows["pgoff"].astype(np.uint64)),
            "anon_pgoff": _pgoff(rows, rules),
            "vm_flags": _where(rows["told"] & TOLD_FLAGS == 0, rows["flags"].astype(np.uint64)),
            "anon_vma": _where(known, (rows["anon_vma"] + 1).astype(np.uint64)),
            "cause_event": table["cause"].gather(rows["born"]).cast(pl.String),
            **_placed(rows, table),
        }
    )


def _lives(rows: Columns, vma_id: np.ndarray[Any, Any], table: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    first = rows["anon_pgoff" if rules.anon_pgoff else "pgoff"].astype(np.uint64)
    pages = (rows["end"] - rows["start"]).astype(np.uint64)
    placed = _placed(rows, table)
    known = rows["told"] & (TOLD_ANON_PGOFF if rules.anon_pgoff else TOLD_PGOFF) == 0
    return pl.DataFrame(
        {
            "avc": (rows["avc"] + 1).astype(np.uint64),
            "anon_vma": (rows["anon_vma"] + 1).astype(np.uint64),
            "vma": rows["vma"].astype(np.uint64),
            "mm": rows["mm"].astype(np.uint64),
            "first_pgoff": _where(known, first),
            "last_pgoff": _where(known, first + pages - np.uint64(1)),
            "vm_start": rows["start"].astype(np.uint64) * PAGE,
            "vm_end": rows["end"].astype(np.uint64) * PAGE,
            "vm_pgoff": _where(rows["told"] & TOLD_PGOFF == 0, rows["pgoff"].astype(np.uint64)),
            "anon_pgoff": _pgoff(rows, rules),
            "born": placed["born_seq"].fill_null(-1),
            "died": placed["died_seq"].fill_null(AFTER),
            "vma_id": _where(vma_id[rows["version"]] >= 0, vma_id[rows["version"]]),
            "removed_by": _where(rows["died"] >= 0, table["pid"].to_numpy()[rows["died"]]),
            **placed,
            "uncertain": pl.repeat(None, len(first), dtype=pl.String, eager=True),
        }
    )


def _pgoff(rows: Columns, rules: Rules) -> pl.Series:
    pgoff = rows["anon_pgoff"].astype(np.uint64)
    known = rows["told"] & TOLD_ANON_PGOFF == 0
    return (
        _where(known, pgoff) if rules.anon_pgoff else pl.repeat(None, len(pgoff), dtype=pl.UInt64, eager=True)
    )


def refusals(state: State, table: pl.DataFrame) -> pl.DataFrame:
    """Merges of VMAs side by side that an operation tried and the rules of some kernel refuse, in order.

    Args:
        state: State after all operations.
        table: The operations.

    Returns:
        ``seq``, ``ts_ns``, ``pid`` of the operation; ``older``, ``newer``: reasons by the rules of 6.12 and
        of 7.3 in the same state, bits of ``merge_rules``, 0: merges; ``vm_flags``: bits that differ;
        ``anon_vma`` (null: neither of the two was faulted).
    """
    rows = _columns(state, "refusal", state.count[REFUSALS])
    return pl.DataFrame(
        {
            **{name: table[name].gather(rows["op"]) for name in ("seq", "ts_ns", "pid")},
            "older": rows["older"].astype(np.int64),
            "newer": rows["newer"].astype(np.int64),
            "vm_flags": rows["flags"].astype(np.uint64),
            "anon_vma": _where(rows["anon_vma"] >= 0, (rows["anon_vma"] + 1).astype(np.uint64)),
        }
    )


def _columns(state: State, name: str, rows: int) -> Columns:
    """The first rows of a table of the state as columns."""
    table = getattr(state, name)[: int(rows)]
    if isinstance(table, list):
        return {
            field: np.fromiter((getattr(row, field) for row in table), np.int64, len(table))
            for field in FIELDS[name]
        }
    return {field: np.ascontiguousarray(table[field]) for field in FIELDS[name]}


def _placed(rows: Columns, table: pl.DataFrame) -> dict[str, pl.Series]:
    """Places and times of the operations ``born`` and ``died`` (-1: none)."""
    born, died = rows["born"], rows["died"]
    ended = died >= 0
    seen = table["seq"].to_numpy()[born] >= 0
    return {
        "pid": table["pid"].gather(born),
        "born_seq": _where(seen, table["seq"].to_numpy()[born]),
        "died_seq": _where(ended, table["seq"].to_numpy()[died]),
        "born_ts_ns": _where(seen, table["ts_ns"].to_numpy()[born]),
        "died_ts_ns": _where(ended, table["ts_ns"].to_numpy()[died]),
        "evidence": pl.repeat("modelled", len(born), eager=True),
    }


def _where(known: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> pl.Series:
    """Values, null where they are not known."""
    return pl.Series(pl.Series(values).to_frame("x").select(pl.when(pl.Series(known)).then("x")).to_series())
