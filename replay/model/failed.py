"""Calls over columns that failed: how far they got, as far as their error and the VMAs tell.

As in ``model.calls``: the kernel's names and order; ``s`` is the state, ``mm`` and ``vma`` are slots.
"""

from __future__ import annotations

from replay.model.state import FAILED_AT_UNKNOWN, FIXED_MMAP_FAILED, State
from replay.model.vma import failed_munmap, find_vma, first_sealed, is_mapped
from replay.state.kernel import (
    ENOMEM,
    EPERM,
    MADV_DODUMP,
    MADV_DOFORK,
    MADV_KEEPONFORK,
    MADV_WIPEONFORK,
    VM_DROPPABLE,
    VM_HUGETLB,
    VM_IO,
    VM_SHARED,
    VM_SPECIAL,
    VM_WRITE,
)


def first_closed(s: State, mm: int, start: int, end: int, prot: int) -> int:
    """The first page of a range in a shared VMA that is to become writable; ``end``: there is none."""
    vma = find_vma(s, mm, start)
    while vma >= 0 and s.vma[vma].start < end and prot & VM_WRITE:
        if s.vma[vma].flags & (VM_SHARED | VM_WRITE) == VM_SHARED:
            return int(max(start, s.vma[vma].start))
        vma = s.vma[vma].next
    return end


def first_refused(s: State, mm: int, start: int, end: int, advice: int) -> int:
    """The first page of a range in a VMA that does not take the advice (EINVAL); ``end``: there is none."""
    vma = find_vma(s, mm, start)
    while vma >= 0 and s.vma[vma].start < end:
        flags = s.vma[vma].flags
        special = VM_SPECIAL if flags & VM_HUGETLB == 0 else 0
        if (
            (advice == MADV_WIPEONFORK and (s.vma[vma].file != 0 or flags & VM_SHARED))
            or (advice == MADV_KEEPONFORK and flags & VM_DROPPABLE)
            or (advice == MADV_DODUMP and flags & (VM_DROPPABLE | special))
            or (advice == MADV_DOFORK and flags & VM_IO)
        ):
            return int(max(start, s.vma[vma].start))
        vma = s.vma[vma].next
    return end


def ended_at(s: State, mm: int, start: int, end: int, stop: int) -> int:
    """Where a call ended that failed at a VMA: ``stop``; if that is ``end``, at the first."""
    if stop < end:
        return stop
    vma = find_vma(s, mm, start)
    s.count[FAILED_AT_UNKNOWN] += int(vma >= 0 and is_mapped(s, mm, s.vma[vma].end, end))
    return start


def failed_mmap(s: State, mm: int, start: int, end: int, error: int, is_private_anon: int) -> None:
    """MAP_FIXED that failed: __mmap_region() gathers what is there before it knows whether it will succeed.

    A sealed VMA stops it as it stops munmap(). Else nothing tells where it failed: before it split anything,
    behind the splits at both ends (no memory), or behind the unmapping (a hook of the file).
    """
    if error == EPERM and first_sealed(s, mm, start, end) < end:
        failed_munmap(s, mm, start)
    elif is_mapped(s, mm, start, end) and (error == ENOMEM or not is_private_anon):
        s.count[FIXED_MMAP_FAILED] += 1
