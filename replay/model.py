"""Modelled evidence: VMAs and their trees rebuilt from system calls, faults and forks by the kernel's rules.

What goes in are stock events; what comes out has the columns that the tree probes give (``lifetimes.avc_lives``),
with numbers in place of kernel pointers. Order matters within an address space, so one pass over the operations
(``model_run``) does that, compiled where there are enough of them; all around it are columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from replay.model_ops import OP_FORK, OP_THREAD, OPERANDS, PAGE, Operations, operations
from replay.model_rules import RULES
from replay.model_run import room_for, run
from replay.model_state import (
    BLOCK,
    BRK_BEFORE,
    FIELDS,
    LIVES,
    MREMAP_OF_UNKNOWN,
    VERSIONS,
    State,
    new_state,
    with_room,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replay.model_rules import KernelRules, Rules

COMPILE_FROM: Final = 20_000
"""Operations from which on the compiled pass is faster, with its start from the cache."""
BEFORE: Final = -1
AFTER: Final = (1 << 63) - 1


@dataclass(frozen=True)
class Modelled:
    """Rebuilt state.

    Attributes:
        lives: Lives of intervals, as from ``lifetimes.avc_lives``; ``anon_vma``, ``avc``, ``mm`` and
            ``vma`` are numbers from 1, not pointers. In order of insertion: ``born_seq`` alone does not tell
            that order, since all that one operation does happens at its place.
        versions: Versions of VMAs, those without an anon_vma as well; sorted by ``vma_id``.
        doubts: Where the model had to do without knowing: name, count. Names: ``clone_flags`` (a task was
            made, and nothing tells whether it shares the address space), ``brk_before`` (the break moved before
            the capture told where it was), ``mremap_of_unknown`` (a VMA was moved or grown whose creation the
            capture does not have).
    """

    lives: pl.DataFrame
    versions: pl.DataFrame
    doubts: dict[str, int]


def reconstruct(
    events: Mapping[str, pl.DataFrame], rules: KernelRules, *, compile_from: int = COMPILE_FROM
) -> Modelled:
    """Rebuild VMAs, anon_vmas and anon_vma_chains from stock events.

    Args:
        events: Tables ``ev_syscall``, ``ev_task`` and ``ev_fault``; others are not read.
        rules: Which kernel's rules.
        compile_from: Number of operations from which on the compiled pass is used.
    """
    chosen = RULES[rules]
    table, doubts = operations(events, chosen)
    state = _pass(table, chosen, compiled=len(table) >= compile_from)
    doubts |= {
        "brk_before": int(state.count[BRK_BEFORE]),
        "mremap_of_unknown": int(state.count[MREMAP_OF_UNKNOWN]),
    }
    versions = _versions(_frame(state, "version", state.count[VERSIONS]), table, chosen)
    lives = _lives(_frame(state, "life", state.count[LIVES]), table, chosen)
    lives = lives.sort("born").join_asof(
        versions.select("vma", "vma_id", since="born").sort("since"),
        left_on="born",
        right_on="since",
        by="vma",
        check_sortedness=False,
    )
    return Modelled(
        lives.sort("born", "order").drop("order", "since"),
        versions.drop("born"),
        {name: count for name, count in doubts.items() if count},
    )


def _pass(table: pl.DataFrame, rules: Rules, *, compiled: bool) -> State:
    """Run all operations."""
    names_task = table["kind"].is_in((OP_FORK, OP_THREAD))
    pids = np.unique(np.concatenate((table["pid"].to_numpy(), table.filter(names_task)["a"].to_numpy())))
    task = np.searchsorted(pids, table["pid"].to_numpy())
    child = np.searchsorted(pids, table["a"].to_numpy()).clip(0, max(len(pids) - 1, 0))
    operand = {name: table[name].to_numpy() for name in OPERANDS}
    operand["a"] = np.where(names_task.to_numpy(), child, operand["a"])
    columns = [table["kind"].to_numpy(), task, *(operand[name] for name in OPERANDS)]
    ready = (np.ascontiguousarray(column, np.int64) for column in columns)
    ops = Operations(*(column if compiled else column.tolist() for column in ready))
    state = new_state(rules, len(pids), len(table), arrays=compiled)
    take = _compiled() if compiled else run
    done = 0
    while done < len(table):
        done = take(state, done, ops)
        if done < len(table):
            space = state.task[ops.task[done]].space
            vmas = state.space[space].vmas if space >= 0 else 0
            avcs = state.space[space].avcs if space >= 0 else 0
            names = ("vma", "avc", "anon_vma", "space", "block", "life", "version")
            needed = dict(zip(names, map(int, room_for(state, vmas, avcs)), strict=True))
            needed |= {"order": needed["block"], "entry": needed["block"] * BLOCK}
            state = with_room(state, needed)
    return state


def _compiled() -> Any:
    from replay.model_jit import compiled_run

    return compiled_run()


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
    """``born`` and ``died`` as places and times instead of operations; what lived in one operation only goes."""
    rows = rows.filter(pl.col("born") != pl.col("died")).with_columns(
        died=pl.when(pl.col("died") >= 0).then("died")
    )
    born, died = rows["born"], rows["died"]
    return rows.with_columns(
        born_seq=table["seq"].gather(born),
        born_ts_ns=table["ts_ns"].gather(born),
        died_seq=table["seq"].gather(died),
        died_ts_ns=table["ts_ns"].gather(died),
        pid=table["pid"].gather(born),
        cause_event=table["cause"].gather(born),
    ).with_columns(
        born="born_seq",
        died=pl.col("died_seq").fill_null(AFTER),
        evidence=pl.lit("modelled"),
        vm_start=pl.col("start").cast(pl.UInt64) * PAGE,
        vm_end=pl.col("end").cast(pl.UInt64) * PAGE,
    )


def _lives(rows: pl.DataFrame, table: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    first = pl.col("anon_pgoff" if rules.anon_pgoff else "pgoff").cast(pl.UInt64)
    pages = (pl.col("end") - pl.col("start")).cast(pl.UInt64)
    anon_pgoff = first if rules.anon_pgoff else pl.lit(None, pl.UInt64)
    return _placed(rows.with_row_index("order"), table).select(
        "order",
        avc=(pl.col("avc") + 1).cast(pl.UInt64),
        anon_vma=(pl.col("anon_vma") + 1).cast(pl.UInt64),
        vma=pl.col("vma").cast(pl.UInt64),
        mm=pl.col("mm").cast(pl.UInt64),
        first_pgoff=first,
        last_pgoff=first + pages - 1,
        vm_start="vm_start",
        vm_end="vm_end",
        vm_pgoff=pl.col("pgoff").cast(pl.UInt64),
        anon_pgoff=anon_pgoff,
        pid="pid",
        born="born",
        died="died",
        born_seq="born_seq",
        died_seq="died_seq",
        born_ts_ns="born_ts_ns",
        died_ts_ns="died_ts_ns",
        evidence="evidence",
    )


def _versions(rows: pl.DataFrame, table: pl.DataFrame, rules: Rules) -> pl.DataFrame:
    anon_pgoff = pl.col("anon_pgoff") if rules.anon_pgoff else pl.lit(None, pl.Int64)
    return (
        _placed(rows, table)
        .sort("born", "vma")
        .with_row_index("vma_id")
        .select(
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
            cause_event="cause_event",
            evidence="evidence",
            pid="pid",
            born="born",
            born_seq="born_seq",
            died_seq="died_seq",
        )
    )
