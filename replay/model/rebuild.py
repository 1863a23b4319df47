"""Modelled evidence: VMAs and their trees rebuilt from system calls, faults and forks by the kernel's rules.

What goes in are stock events; what comes out has the columns that the tree probes give
(``lifetimes.avc_lives``), with numbers in place of kernel pointers. Order matters within an address space, so
one pass over the operations (``model.run``) does that, compiled where there are enough of them; all around it
are columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from replay.model.frames import frames, refusals
from replay.model.kinds import OP_EXEC, OP_FORK, OP_THREAD, OPERANDS, Operations
from replay.model.ops import operations
from replay.model.run import run
from replay.model.state import (
    BRK_BEFORE,
    FAILED_AT_UNKNOWN,
    FAULT_OF_UNKNOWN,
    FIXED_MMAP_FAILED,
    HUGE_PAGE_READ_FAULT,
    MAPS_DIFFER,
    MLOCK_FAILED,
    MOVES_CUT,
    MREMAP_OF_UNKNOWN,
    STACK_LIMIT_UNKNOWN,
    STACK_UNKNOWN,
    TARGET_NOT_FREE,
    TOLD_MERGES,
    TOO_MANY_VMAS,
    State,
    new_state,
    with_room,
)
from replay.state.kernel import RULES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from replay.state.kernel import KernelRules, Rules

LOAD_FROM: Final = 30_000
"""Operations from which on machine code is used if it is there: to load it takes half a second."""
COMPILE_FROM: Final = 500_000
"""Operations from which on machine code is made if it is not there: that takes half a minute, once."""


@dataclass(frozen=True)
class Modelled:
    """Rebuilt state.

    Attributes:
        lives: Lives of intervals, as from ``lifetimes.avc_lives``; ``anon_vma``, ``avc``, ``mm`` and
            ``vma`` are numbers from 1, not pointers. In order of insertion: ``born_seq`` alone does not tell
            that order, since all that one operation does happens at its place.
        versions: Versions of VMAs, those without an anon_vma as well; sorted by ``vma_id``.
        refusals: Merges with a VMA beside that the rules of some kernel refuse: ``model.frames.refusals``.
        doubts: Where the model had to do without knowing: name, count. Names: ``clone_flags`` (a task was
            made, and nothing tells whether it shares the address space), ``brk_before`` (the break moved
            before the capture told where it was), ``mremap_of_unknown`` (a VMA was moved or grown whose
            creation the capture does not have), ``target_not_free`` (the kernel put something where the model
            still had a VMA: a call was missed), ``maps_differ`` (a snapshot of the maps shows something else
            than the model had; the snapshot is believed), ``maps_torn`` (snapshots left out: the process made
            a system call meanwhile), ``told_merges`` (whether a VMA that a snapshot told merges rests on what
            it does not tell), ``too_many_vmas`` (a call failed as there were too many VMAs; at which one is
            not sure), ``failed_at_unknown`` (mprotect() or madvise() failed at one of several VMAs; at which,
            nothing tells: the model says at the first), ``fixed_mmap_failed`` (mmap() or mremap() to a fixed
            place failed over what is mapped; whether before or after it split or unmapped that, nothing
            tells), ``mbind_nodes`` (calls of mbind() that name nodes: these are in the memory of the caller;
            the model takes policies for the same that are read from the same address), ``fault_of_unknown``
            (writes where the model has no VMA, such as what exec mapped and nothing told), ``stack_unknown``
            (execs of which nothing tells where their stack is), ``stack_limit_unknown`` (faults below a
            stack, more than the usual RLIMIT_STACK from its end; the model does not let it grow),
            ``huge_page_read_fault`` (reads that give a VMA its anon_vma if huge pages are enabled; the model
            takes them for not enabled), ``process_madvise`` (calls that changed VMAs of the caller; the
            ranges are in its memory), ``shmat_size`` (attached segments that the capture did not see made;
            they are left out), ``userfaultfd`` (descriptors; ranges are registered with them unseen),
            ``named_vmas`` (calls of prctl() that named memory, and so kept it apart), ``mlock_failed``
            (mlock() failed, before anything or behind it), ``moves_cut`` (mremap() of several VMAs failed;
            how many it had moved, nothing tells), ``calls_cut`` (entries of calls without their return, and
            the other way round).
    """

    lives: pl.DataFrame
    versions: pl.DataFrame
    refusals: pl.DataFrame
    doubts: dict[str, int]


def reconstruct(
    events: Mapping[str, pl.DataFrame], rules: KernelRules, *, compiled: bool | None = None
) -> Modelled:
    """Rebuild VMAs, anon_vmas and anon_vma_chains from stock events.

    Args:
        events: Tables ``ev_syscall``, ``ev_task`` and ``ev_fault``; if there are snapshots of maps
            ``proc_map`` and ``ev_marker``; ``ev_mmap_lock`` and ``proc_thread``, if threads from before the
            capture are to be known. Others are not read.
        rules: Which kernel's rules.
        compiled: Whether to run as machine code; None: by the number of operations.
    """
    chosen = RULES[rules]
    table, doubts = operations(events, chosen)
    state = _pass(table, chosen, compiled=_worth(len(table)) if compiled is None else compiled)
    doubts |= {
        "brk_before": int(state.count[BRK_BEFORE]),
        "mremap_of_unknown": int(state.count[MREMAP_OF_UNKNOWN]),
        "target_not_free": int(state.count[TARGET_NOT_FREE]),
        "maps_differ": int(state.count[MAPS_DIFFER]),
        "told_merges": int(state.count[TOLD_MERGES]),
        "too_many_vmas": int(state.count[TOO_MANY_VMAS]),
        "fixed_mmap_failed": int(state.count[FIXED_MMAP_FAILED]),
        "fault_of_unknown": int(state.count[FAULT_OF_UNKNOWN]),
        "huge_page_read_fault": int(state.count[HUGE_PAGE_READ_FAULT]),
        "stack_limit_unknown": int(state.count[STACK_LIMIT_UNKNOWN]),
        "stack_unknown": int(state.count[STACK_UNKNOWN]),
        "failed_at_unknown": int(state.count[FAILED_AT_UNKNOWN]),
        "mlock_failed": int(state.count[MLOCK_FAILED]),
        "moves_cut": int(state.count[MOVES_CUT]),
    }
    return Modelled(
        *frames(state, table, chosen),
        refusals(state, table),
        {name: count for name, count in doubts.items() if count},
    )


def _pass(table: pl.DataFrame, rules: Rules, *, compiled: bool) -> State:
    """Run all operations."""
    names_task = table["kind"].is_in((OP_FORK, OP_THREAD, OP_EXEC))
    pids = np.unique(np.concatenate((table["pid"].to_numpy(), table.filter(names_task)["a"].to_numpy())))
    task = np.searchsorted(pids, table["pid"].to_numpy())
    child = np.searchsorted(pids, table["a"].to_numpy()).clip(0, max(len(pids) - 1, 0))
    operand = {name: table[name].to_numpy() for name in OPERANDS}
    operand["a"] = np.where(names_task.to_numpy(), child, operand["a"])
    columns = [table["kind"].to_numpy(), task, *(operand[name] for name in OPERANDS)]
    # Copies: machine code is made for each kind of array, and a frame gives some that are read-only.
    ready = (np.array(column, np.int64) for column in columns)
    ops = Operations(*(column if compiled else column.tolist() for column in ready))
    state = new_state(rules, len(pids), len(table), arrays=compiled)
    take = _compiled() if compiled else run
    done = 0
    while done < len(table):
        done = take(state, done, ops)
        if done < len(table):
            state = with_room(state)
    return state


def _worth(operations: int) -> bool:
    """Whether to run as machine code."""
    if operations < LOAD_FROM or operations >= COMPILE_FROM:
        return operations >= COMPILE_FROM
    from replay.model.jit import is_compiled

    return is_compiled()


def _compiled() -> Any:
    from replay.model.jit import compiled_run

    return compiled_run
