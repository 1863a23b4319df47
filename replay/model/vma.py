"""VMAs over columns: the functions of mm/vma.c that split, merge, grow and remove them.

As in ``model.rmap``: the kernel's names and order; ``s`` is the state, a VMA is its slot, -1 is NULL.
"""

from __future__ import annotations

from replay.model.map import map_delete, map_floor, map_insert, map_rekey
from replay.model.rmap import (
    anon_vma_clone,
    post_update,
    pre_update,
    touch,
    unlink_anon_vmas,
)
from replay.model.state import (
    FREE_VMAS,
    SPACES,
    TARGET_NOT_FREE,
    VMA_SLOTS,
    VMAS,
    State,
)
from replay.state.kernel import VM_SEALED


def find_vma(s: State, mm: int, page: int) -> int:
    """The first VMA of ``mm`` that ends after ``page``; -1: none."""
    vma = map_floor(s, mm, page)
    if vma < 0:
        return int(s.space[mm].first)
    return int(vma if s.vma[vma].end > page else s.vma[vma].next)


def vma_lookup(s: State, mm: int, page: int) -> int:
    """The VMA of ``mm`` that holds ``page``; -1: none."""
    vma = map_floor(s, mm, page)
    return vma if vma >= 0 and s.vma[vma].end > page else -1


def new_vma(
    s: State, mm: int, start: int, end: int, flags: int, file: int, pgoff: int, anon_pgoff: int, policy: int
) -> int:
    """A VMA that is not in the address space yet, without anon_vma."""
    if s.count[FREE_VMAS]:
        s.count[FREE_VMAS] -= 1
        vma = s.free[s.count[FREE_VMAS]].vma
    else:
        vma = s.count[VMA_SLOTS]
        s.count[VMA_SLOTS] += 1
    s.count[VMAS] += 1
    if s.space[mm].number == 0:
        s.count[SPACES] += 1
        s.space[mm].number = s.count[SPACES]
    s.vma[vma].number = s.count[VMAS]
    s.vma[vma].space = mm
    s.vma[vma].start = start
    s.vma[vma].end = end
    s.vma[vma].flags = flags
    s.vma[vma].file = file
    s.vma[vma].pgoff = pgoff
    s.vma[vma].anon_pgoff = anon_pgoff
    s.vma[vma].policy = policy
    s.vma[vma].anon_vma = -1
    s.vma[vma].head = -1
    s.vma[vma].tail = -1
    s.vma[vma].chain = 0
    s.vma[vma].touched = -1
    s.vma[vma].version = -1
    s.vma[vma].told = 0
    touch(s, vma)
    return int(vma)


def vma_link(s: State, vma: int) -> None:
    """Into the address space."""
    mm = s.vma[vma].space
    before = map_insert(s, mm, s.vma[vma].start, vma)
    after = s.space[mm].first if before < 0 else s.vma[before].next
    s.vma[vma].prev = before
    s.vma[vma].next = after
    if before < 0:
        s.space[mm].first = vma
    else:
        s.vma[before].next = vma
    if after >= 0:
        s.vma[after].prev = vma
    s.space[mm].vmas += 1


def vma_unlink(s: State, vma: int) -> None:
    """Out of the address space."""
    mm = s.vma[vma].space
    before, after = s.vma[vma].prev, s.vma[vma].next
    if before < 0:
        s.space[mm].first = after
    else:
        s.vma[before].next = after
    if after >= 0:
        s.vma[after].prev = before
    s.space[mm].vmas -= 1
    map_delete(s, mm, s.vma[vma].start)


def drop_vma(s: State, vma: int) -> None:
    """unlink_anon_vmas() and remove_vma() of a VMA that is out of the address space."""
    touch(s, vma)
    unlink_anon_vmas(s, vma)
    s.vma[vma].space = -1


def set_start(s: State, vma: int, start: int) -> None:
    """Move the start of a VMA in the address space; both page offsets go with it."""
    map_rekey(s, s.vma[vma].space, s.vma[vma].start, start)
    s.vma[vma].pgoff += start - s.vma[vma].start
    s.vma[vma].anon_pgoff += start - s.vma[vma].start
    s.vma[vma].start = start


def split_vma(s: State, vma: int, at: int, new_below: bool) -> int:
    """__split_vma(): the new VMA, lower or upper, is on the trees before the old one shrinks."""
    ahead = 0 if new_below else at - s.vma[vma].start
    new = new_vma(
        s,
        s.vma[vma].space,
        s.vma[vma].start + ahead,
        at if new_below else s.vma[vma].end,
        s.vma[vma].flags,
        s.vma[vma].file,
        s.vma[vma].pgoff + ahead,
        s.vma[vma].anon_pgoff + ahead,
        s.vma[vma].policy,
    )
    s.vma[new].told = s.vma[vma].told
    s.vma[new].anon_vma = s.vma[vma].anon_vma
    anon_vma_clone(s, new, vma, False)
    pre_update(s, vma)
    if new_below:
        set_start(s, vma, at)
    else:
        s.vma[vma].end = at
    vma_link(s, new)
    post_update(s, vma)
    return new


def is_mapped(s: State, mm: int, start: int, end: int) -> bool:
    """Whether a page of the range is mapped."""
    vma = find_vma(s, mm, start)
    return bool(vma >= 0 and s.vma[vma].start < end)


def clear_target(s: State, mm: int, start: int, end: int) -> None:
    """The kernel mapped something where it found nothing: what the model has there is long gone."""
    if is_mapped(s, mm, start, end):
        s.count[TARGET_NOT_FREE] += 1
        munmap(s, mm, start, end)


def munmap(s: State, mm: int, start: int, end: int) -> None:
    """vms_gather_munmap_vmas(), vms_complete_munmap_vmas(): split at both ends, then ascending."""
    vma = find_vma(s, mm, start)
    if vma < 0 or s.vma[vma].start >= end or start >= end:
        return
    if s.vma[vma].start < start:
        split_vma(s, vma, start, True)
    last = vma_lookup(s, mm, end - 1)
    if last >= 0 and s.vma[last].end > end:
        split_vma(s, last, end, False)
    while vma >= 0 and s.vma[vma].start < end:
        after = s.vma[vma].next
        vma_unlink(s, vma)
        drop_vma(s, vma)
        vma = after


def first_sealed(s: State, mm: int, start: int, end: int) -> int:
    """The first page of a range in a sealed VMA, which no call gets beyond; ``end``: there is none."""
    vma = find_vma(s, mm, start)
    while vma >= 0 and s.vma[vma].start < end:
        if s.vma[vma].flags & VM_SEALED:
            return int(max(start, s.vma[vma].start))
        vma = s.vma[vma].next
    return end


def failed_munmap(s: State, mm: int, start: int) -> None:
    """munmap() of a range with a sealed VMA in it: the first one is split before that is found."""
    vma = vma_lookup(s, mm, start)
    if vma >= 0 and s.vma[vma].start < start and s.vma[vma].flags & VM_SEALED == 0:
        split_vma(s, vma, start, True)
