"""Locks and policies of memory over columns: mlock() and mbind() and their kind.

As in ``model.calls``: the kernel's names and order; ``s`` is the state, ``mm`` and ``vma`` are slots.
"""

from __future__ import annotations

from replay.model.calls import has_hole, populate
from replay.model.merge import vma_modify
from replay.model.state import MLOCK_FAILED, State
from replay.model.vma import find_vma
from replay.state.kernel import ENOMEM, HOME_NODE, VM_DROPPABLE, VM_HUGETLB, VM_LOCKED_MASK, VM_SPECIAL


def mlock_fixup(s: State, vma: int, start: int, end: int, bits: int) -> int:
    """Change the lock flags of a range; returns its VMA afterwards."""
    flags = (s.vma[vma].flags & ~VM_LOCKED_MASK) | bits
    if flags == s.vma[vma].flags or s.vma[vma].flags & (VM_SPECIAL | VM_HUGETLB | VM_DROPPABLE):
        return vma
    return vma_modify(s, vma, start, end, flags, s.vma[vma].policy, True)


def mlock(s: State, mm: int, start: int, end: int, bits: int, stops: int) -> None:
    """apply_vma_lock_flags(), then populate.

    ``stops``: it failed. Without a hole that may be before anything (RLIMIT_MEMLOCK) or behind it.
    """
    if stops == ENOMEM and not has_hole(s, mm, start, end):
        s.count[MLOCK_FAILED] += 1
        return
    first = start
    vma = find_vma(s, mm, start)
    while vma >= 0 and s.vma[vma].start < end:
        if s.vma[vma].start > start:
            if stops:
                return
            start = s.vma[vma].start
        vma = mlock_fixup(s, vma, start, min(s.vma[vma].end, end), bits)
        start = s.vma[vma].end
        vma = s.vma[vma].next
    if bits and not stops:
        populate(s, mm, first, end)


def lock_all(s: State, mm: int, bits: int, def_flags: int, current: int) -> None:
    """mlockall(), munlockall()."""
    s.space[mm].def_flags = def_flags
    if not current:
        return
    vma = s.space[mm].first
    while vma >= 0:
        vma = s.vma[mlock_fixup(s, vma, s.vma[vma].start, s.vma[vma].end, bits)].next
    if bits:
        populate(s, mm, 0, 1 << 52)


def home_node(s: State, mm: int, start: int, end: int, node: int) -> None:
    """set_mempolicy_home_node(): of VMAs that have a policy."""
    vma = find_vma(s, mm, start)
    while vma >= 0 and s.vma[vma].start < end:
        policy = (s.vma[vma].policy & (HOME_NODE - 1)) | (node + 1) * HOME_NODE
        if s.vma[vma].policy not in (0, policy):
            first, last = max(start, s.vma[vma].start), min(end, s.vma[vma].end)
            vma = vma_modify(s, vma, first, last, s.vma[vma].flags, policy, True)
        vma = s.vma[vma].next


def mbind(s: State, mm: int, start: int, end: int, policy: int) -> None:
    """mbind_range() for every VMA."""
    vma = find_vma(s, mm, start)
    while vma >= 0 and s.vma[vma].start < end:
        if s.vma[vma].policy != policy:
            first, last = max(start, s.vma[vma].start), min(end, s.vma[vma].end)
            vma = vma_modify(s, vma, first, last, s.vma[vma].flags, policy, True)
        vma = s.vma[vma].next
