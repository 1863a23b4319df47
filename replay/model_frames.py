"""What the pass over the operations wrote down, as frames: lives of intervals, versions of VMAs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.model_ops import PAGE
from replay.model_state import DEATHS, FIELDS, LIVES, REFUSALS, VERSIONS

if TYPE_CHECKING:
    from replay.model_rules import Rules
    from replay.model_state import State

AFTER: Final = (1 << 63) - 1
_STATE: Final = ("mm", "start", "end", "pgoff", "anon_pgoff", "flags", "anon_vma", "alive")


def versions(state: State, table: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    """Versions of VMAs: what the operations left, where it differs from what was before.

    Args:
        state: State after all operations.
        table: The operations.
        rules: Rules of the kernel.

    Returns:
        The columns of table ``vma``, and ``pid``, ``born``, ``born_seq``, ``died_seq``; in order of
        ``vma_id``.
    """
    same = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in (*_STATE, "vma"))
    rows = (
        _frame(state, "version", state.count[VERSIONS])
        .sort("vma", maintain_order=True)
        .filter(~same.fill_null(False))
        .with_columns(born="op", died=pl.col("op").shift(-1).over("vma"))
        .filter(pl.col("alive") == 1)
        .sort("born", "vma")
        .with_row_index("vma_id")
    )
    anon_pgoff = pl.col("anon_pgoff") if rules.anon_pgoff else pl.lit(None, pl.Int64)
    return _placed(rows, table).select(
        pl.col("vma_id").cast(pl.Int64),
        pl.col("vma", "mm").cast(pl.UInt64),
        "vm_start",
        "vm_end",
        vm_pgoff=pl.col("pgoff").cast(pl.UInt64),
        anon_pgoff=anon_pgoff.cast(pl.UInt64),
        vm_flags=pl.col("flags").cast(pl.UInt64),
        anon_vma=pl.when(pl.col("anon_vma") >= 0).then(pl.col("anon_vma") + 1).cast(pl.UInt64),
        born_ts_ns="born_ts_ns",
        died_ts_ns="died_ts_ns",
        cause_event=table["cause"].gather(rows["born"]),
        evidence="evidence",
        pid="pid",
        born="born",
        born_seq="born_seq",
        died_seq="died_seq",
    )


def lives(state: State, table: pl.DataFrame, rules: Rules, vmas: pl.DataFrame) -> pl.DataFrame:
    """Lives of intervals in order of insertion; those inside of one operation are left out.

    Args:
        state: State after all operations.
        table: The operations.
        rules: Rules of the kernel.
        vmas: What ``versions`` returns.

    Returns:
        The columns of ``lifetimes.avc_lives``.
    """
    rows = _frame(state, "life", state.count[LIVES])
    deaths = _frame(state, "death", state.count[DEATHS])
    died = np.full(len(rows), AFTER)
    died[deaths["life"].to_numpy()] = deaths["op"].to_numpy()
    rows = (
        rows.with_columns(died=pl.Series(died))
        .filter(pl.col("born") != pl.col("died"))
        .with_columns(died=pl.when(pl.col("died") != AFTER).then("died"))
    )
    first = pl.col("anon_pgoff" if rules.anon_pgoff else "pgoff").cast(pl.UInt64)
    pages = (pl.col("end") - pl.col("start")).cast(pl.UInt64)
    whole = _placed(rows, table).select(
        avc=(pl.col("avc") + 1).cast(pl.UInt64),
        anon_vma=(pl.col("anon_vma") + 1).cast(pl.UInt64),
        vma=pl.col("vma").cast(pl.UInt64),
        mm=pl.col("mm").cast(pl.UInt64),
        first_pgoff=first,
        last_pgoff=first + pages - 1,
        vm_start="vm_start",
        vm_end="vm_end",
        vm_pgoff=pl.col("pgoff").cast(pl.UInt64),
        anon_pgoff=first if rules.anon_pgoff else pl.lit(None, pl.UInt64),
        pid="pid",
        born="born",
        died="died",
        born_seq="born_seq",
        died_seq="died_seq",
        born_ts_ns="born_ts_ns",
        died_ts_ns="died_ts_ns",
        evidence="evidence",
        uncertain=pl.lit(None, pl.String),
    )
    # Rows are in order of birth, so the join keeps them in order.
    known = vmas.select("vma", "vma_id", since="born").sort("since")
    return whole.join_asof(
        known, left_on="born", right_on="since", by="vma", check_sortedness=False, coalesce=True
    ).drop("since", strict=False)


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
    rows = _frame(state, "refusal", state.count[REFUSALS])
    return rows.select(
        *(table[name].gather(rows["op"]) for name in ("seq", "ts_ns", "pid")),
        "older",
        "newer",
        vm_flags=pl.col("flags").cast(pl.UInt64),
        anon_vma=pl.when(pl.col("anon_vma") >= 0).then(pl.col("anon_vma") + 1).cast(pl.UInt64),
    )


def _frame(state: State, name: str, rows: int) -> pl.DataFrame:
    """The first rows of a table of the state as columns."""
    table = getattr(state, name)[: int(rows)]
    if isinstance(table, list):
        return pl.DataFrame(
            {field: [getattr(row, field) for row in table] for field in FIELDS[name]},
            schema=dict.fromkeys(FIELDS[name], pl.Int64),
        )
    return pl.DataFrame({field: np.ascontiguousarray(table[field]) for field in FIELDS[name]})


def _placed(rows: pl.DataFrame, table: pl.DataFrame) -> pl.DataFrame:
    """``born`` and ``died``, operations, become places and times."""
    born, died = rows["born"], rows["died"]
    return rows.with_columns(
        born_seq=table["seq"].gather(born),
        born_ts_ns=table["ts_ns"].gather(born),
        died_seq=table["seq"].gather(died),
        died_ts_ns=table["ts_ns"].gather(died),
        pid=table["pid"].gather(born),
    ).with_columns(
        born="born_seq",
        died=pl.col("died_seq").fill_null(AFTER),
        evidence=pl.lit("modelled"),
        vm_start=pl.col("start").cast(pl.UInt64) * PAGE,
        vm_end=pl.col("end").cast(pl.UInt64) * PAGE,
    )
