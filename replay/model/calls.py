"""Faults and system calls over columns, but for mremap(): what each does to the VMAs.

The kernel's names and order; ``s`` is the state, ``mm`` and ``vma`` are slots.
"""

from __future__ import annotations

from replay.model.failed import ended_at, first_closed, first_refused
from replay.model.merge import merge_new_range, vma_modify
from replay.model.rmap import anon_vma_prepare, post_update, pre_update, touch
from replay.model.state import (
    BRK_BEFORE,
    FAULT_OF_UNKNOWN,
    HUGE_PAGE_READ_FAULT,
    MAPS_DIFFER,
    MERGEABLE_FIRST,
    STACK_LIMIT_UNKNOWN,
    STACK_UNKNOWN,
    TOO_MANY_VMAS,
    State,
)
from replay.model.vma import (
    clear_target,
    find_vma,
    first_sealed,
    is_mapped,
    munmap,
    new_vma,
    set_start,
    vma_link,
    vma_lookup,
)
from replay.state.kernel import (
    EACCES,
    ENOMEM,
    EPERM,
    HUGE_PAGE,
    KSM_INCOMPATIBLE,
    MADV_MERGEABLE,
    REFUSED,
    SHM_FILE,
    STACK_GUARD_GAP,
    STACK_LIMIT,
    TOLD_FAULTED,
    TOLD_SHIFT,
    TOO_MANY,
    VM_ACCESS_FLAGS,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_HUGETLB,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_MAY,
    VM_MAYBE_GUARD,
    VM_MAYSHARE,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_NORESERVE,
    VM_PLACED,
    VM_READ,
    VM_SHARED,
    VM_WRITE,
)


def fault(s: State, mm: int, page: int, is_write: int) -> None:
    """A fault: the first write in a private VMA gives it an anon_vma; a read may, with huge pages.

    Either makes a stack grow that lies above.
    """
    vma = find_vma(s, mm, page)
    if vma >= 0 and page < s.vma[vma].start and s.vma[vma].flags & VM_GROWSDOWN:
        if not in_guard_gap(s, vma, page):
            expand_downwards(s, vma, page)
    elif vma < 0 or page < s.vma[vma].start:
        s.count[FAULT_OF_UNKNOWN] += is_write
    elif not is_write:
        s.count[HUGE_PAGE_READ_FAULT] += int(may_try_huge_page(s, vma, page))
    elif s.vma[vma].flags & (VM_WRITE | VM_SHARED) == VM_WRITE:
        anon_vma_prepare(s, vma)


def in_guard_gap(s: State, vma: int, page: int) -> bool:
    """Whether a stack may not grow down to a page: too near to what is mapped below (stack_guard_gap)."""
    below = s.vma[vma].prev
    return bool(
        below >= 0
        and s.vma[below].flags & VM_GROWSDOWN == 0
        and s.vma[below].flags & VM_ACCESS_FLAGS
        and page - s.vma[below].end < STACK_GUARD_GAP
    )


def expand_downwards(s: State, vma: int, page: int) -> None:
    """The stack has an anon_vma before it is known whether it may grow."""
    anon_vma_prepare(s, vma)
    if s.vma[vma].end - page > STACK_LIMIT:
        s.count[STACK_LIMIT_UNKNOWN] += 1
    elif s.vma[vma].start - page <= s.vma[vma].pgoff:
        set_stack_start(s, vma, page)


def set_stack_start(s: State, vma: int, page: int) -> None:
    """A stack grows."""
    pre_update(s, vma)
    set_start(s, vma, page)
    post_update(s, vma)


def may_try_huge_page(s: State, vma: int, page: int) -> bool:
    """Whether a read gives an anonymous VMA its anon_vma if huge pages are enabled: create_huge_pmd()."""
    first = page & ~(HUGE_PAGE - 1)
    return bool(
        s.vma[vma].anon_vma < 0
        and s.vma[vma].told == 0
        and s.vma[vma].file == 0
        and s.vma[vma].flags & (VM_SHARED | VM_NOHUGEPAGE) == 0
        and s.vma[vma].start <= first
        and first + HUGE_PAGE <= s.vma[vma].end
    )


def populate(s: State, mm: int, start: int, end: int) -> None:
    """populate_vma_page_range(): writes into what is private and writable."""
    vma = find_vma(s, mm, start)
    while vma >= 0 and s.vma[vma].start < end:
        if s.vma[vma].flags & (VM_WRITE | VM_SHARED | VM_LOCKONFAULT) == VM_WRITE:
            anon_vma_prepare(s, vma)
        vma = s.vma[vma].next


def madvise_populate(s: State, mm: int, start: int, end: int) -> None:
    """MADV_POPULATE_WRITE: ends at a hole and at what cannot be written."""
    vma = find_vma(s, mm, start)
    while vma >= 0 and s.vma[vma].start <= start < end and s.vma[vma].flags & VM_WRITE:
        if s.vma[vma].flags & VM_SHARED == 0:
            anon_vma_prepare(s, vma)
        start = s.vma[vma].end
        vma = s.vma[vma].next


def map_range(
    s: State, mm: int, start: int, end: int, flags: int, file: int, pgoff: int, just_expand: bool
) -> None:
    """mmap_region() after the unmapping, do_brk_flags()."""
    mergeable = VM_MERGEABLE if s.space[mm].merge_any and flags & KSM_INCOMPATIBLE == 0 else 0
    if s.count[MERGEABLE_FIRST]:
        flags |= mergeable
    if (
        merge_new_range(s, mm, start, end, flags, mergeable, file, pgoff, start, 0, -1, -1, -1, just_expand)
        < 0
    ):
        vma_link(s, new_vma(s, mm, start, end, flags | mergeable, file, pgoff, start, 0))


def brk(s: State, mm: int, new: int, moved: int) -> None:
    """Move the break; ``new`` is the page above it."""
    old = s.space[mm].brk
    s.space[mm].brk = new
    if old < 0:
        s.count[BRK_BEFORE] += moved
    elif new < old:
        munmap(s, mm, new, old)
    elif new > old:
        clear_target(s, mm, old, new)
        flags = VM_READ | VM_WRITE | VM_MAY | VM_ACCOUNT | s.space[mm].def_flags
        map_range(s, mm, old, new, flags, 0, old, True)
        if flags & VM_LOCKED:
            populate(s, mm, old, new)


def has_hole(s: State, mm: int, start: int, end: int) -> bool:
    """Whether a page of the range is not mapped."""
    vma = find_vma(s, mm, start)
    while vma >= 0 and s.vma[vma].start <= start < end:
        start = s.vma[vma].end
        vma = s.vma[vma].next
    return bool(start < end)


def mprotect(
    s: State, mm: int, start: int, end: int, prot: int, grows: int, error: int, cleared: int
) -> None:
    """do_mprotect_pkey(); it ends where it fails. ``prot`` replaces the bits ``cleared`` of vm_flags.

    ENOMEM: at the first hole, or without one at the VMA that had to be split, as there were too many. EACCES:
    at a shared mapping of a file that may not be written to; or a security module, or where the file lies,
    forbids it, and nothing tells for which VMA. EPERM: at a sealed VMA.
    """
    vma = find_vma(s, mm, start)
    if vma < 0 or s.vma[vma].start >= end:
        return
    if grows:
        start = s.vma[vma].start
    if error == EPERM:
        end = ended_at(s, mm, start, end, first_sealed(s, mm, start, end))
    elif error == EACCES:
        end = ended_at(s, mm, start, end, first_closed(s, mm, start, end, prot))
    if start >= end:
        return
    stops = error == ENOMEM
    full = stops and not has_hole(s, mm, start, end)
    s.count[TOO_MANY_VMAS] += int(full)
    while vma >= 0 and s.vma[vma].start < end:
        if s.vma[vma].start > start:
            if stops:
                return
            start = s.vma[vma].start
        old = s.vma[vma].flags
        last = min(s.vma[vma].end, end)
        flags = (old & ~cleared) | prot
        if flags != old:
            if flags & VM_WRITE:
                if old & (VM_ACCOUNT | VM_WRITE | VM_HUGETLB | VM_SHARED | VM_NORESERVE) == 0:
                    flags |= VM_ACCOUNT
            elif old & VM_ACCOUNT and s.vma[vma].file == 0 and s.vma[vma].anon_vma < 0:
                flags &= ~VM_ACCOUNT
            vma = vma_modify(s, vma, start, last, flags, s.vma[vma].policy, not full)
            if vma < 0:
                return
            if old & (VM_WRITE | VM_SHARED | VM_LOCKED) == VM_LOCKED and flags & VM_WRITE:
                populate(s, mm, start, last)
        start = s.vma[vma].end
        vma = s.vma[vma].next


def madvise(s: State, mm: int, start: int, end: int, clear: int, add: int, advice: int) -> None:
    """madvise_walk_vmas() with advice that changes vm_flags; goes on over holes.

    ``advice`` with ``TOO_MANY``: it failed where a VMA had to be split; with ``REFUSED``: at one that does
    not take it.
    """
    full, refused = advice & TOO_MANY != 0, advice & REFUSED != 0
    advice &= TOO_MANY - 1
    s.count[TOO_MANY_VMAS] += int(full)
    if refused:
        end = ended_at(s, mm, start, end, first_refused(s, mm, start, end, advice))
        if start >= end:
            return
    vma = find_vma(s, mm, start)
    while vma >= 0 and s.vma[vma].start < end:
        old = s.vma[vma].flags
        flags = (old & ~clear) | add
        if flags != old and not (advice == MADV_MERGEABLE and old & KSM_INCOMPATIBLE):
            first, last = max(start, s.vma[vma].start), min(end, s.vma[vma].end)
            vma = vma_modify(s, vma, first, last, flags, s.vma[vma].policy, not full)
            if vma < 0:
                return
        vma = s.vma[vma].next


def guard_install(s: State, mm: int, start: int, end: int) -> None:
    """MADV_GUARD_INSTALL: an anon_vma for every VMA, and a flag that neither splits nor merges."""
    vma = find_vma(s, mm, start)
    while vma >= 0 and s.vma[vma].start < end:
        anon_vma_prepare(s, vma)
        touch(s, vma)
        s.vma[vma].flags |= VM_MAYBE_GUARD
        vma = s.vma[vma].next


def merge_any(s: State, mm: int, enable: int) -> None:
    """PR_SET_MEMORY_MERGE: flags change in place, nothing merges or splits."""
    if s.space[mm].merge_any == enable:
        return
    s.space[mm].merge_any = enable
    vma = s.space[mm].first
    while vma >= 0:
        touch(s, vma)
        if not enable:
            s.vma[vma].flags &= ~VM_MERGEABLE
        elif s.vma[vma].flags & KSM_INCOMPATIBLE == 0:
            s.vma[vma].flags |= VM_MERGEABLE
        vma = s.vma[vma].next


def mmap(s: State, mm: int, start: int, end: int, flags: int, file: int, pgoff: int) -> None:
    """mmap_region(): what was there goes, then merge or make a VMA."""
    if flags & VM_PLACED:
        clear_target(s, mm, start, end)
    else:
        munmap(s, mm, start, end)
    flags = (flags & ~VM_PLACED) | s.space[mm].def_flags
    map_range(s, mm, start, end, flags, file, pgoff, False)
    if flags & VM_LOCKED:
        populate(s, mm, start, end)


def shmdt(s: State, mm: int, addr: int) -> None:
    """ksys_shmdt(): what is left of the segment at an address, piece by piece."""
    vma = find_vma(s, mm, addr)
    file = 0
    while vma >= 0:
        after = s.vma[vma].next
        attached = s.vma[vma].file if s.vma[vma].start - addr == s.vma[vma].pgoff else 0
        if attached <= SHM_FILE and file in (0, attached):
            file = attached
            munmap(s, mm, s.vma[vma].start, s.vma[vma].end)
        vma = after


def remap_file_pages(s: State, mm: int, start: int, end: int, pgoff: int) -> None:
    """Other pages of the same file in the place of a shared mapping."""
    vma = vma_lookup(s, mm, start)
    if vma >= 0 and s.vma[vma].flags & VM_SHARED:
        kept = VM_ACCESS_FLAGS | VM_MAY | VM_SHARED | VM_MAYSHARE | VM_LOCKED
        mmap(s, mm, start, end, s.vma[vma].flags & kept, s.vma[vma].file, pgoff)


def tell(s: State, mm: int, start: int, end: int, flags: int, file: int, pgoff: int) -> None:
    """A snapshot of the maps, or a record: this VMA is there. What the model has instead goes."""
    told = flags >> TOLD_SHIFT
    flags &= (1 << TOLD_SHIFT) - 1
    if flags & VM_GROWSDOWN and s.space[mm].stack_unknown:
        s.space[mm].stack_unknown = 0
        s.count[STACK_UNKNOWN] -= 1
    vma = find_vma(s, mm, start)
    if vma >= 0 and s.vma[vma].start < end:
        grown = s.vma[vma].start - start
        if (
            s.vma[vma].flags & flags & VM_GROWSDOWN
            and s.vma[vma].end == end
            and 0 < grown <= s.vma[vma].pgoff
        ):
            anon_vma_prepare(s, vma)
            set_stack_start(s, vma, start)
            return
        if (
            s.vma[vma].start == start
            and s.vma[vma].end == end
            and (s.vma[vma].flags ^ flags) & VM_ACCESS_FLAGS == 0
        ):
            return
        s.count[MAPS_DIFFER] += 1
        munmap(s, mm, start, end)
    new = new_vma(s, mm, start, end, flags, file, pgoff, pgoff if file == 0 else start, 0)
    s.vma[new].told = told & ~TOLD_FAULTED
    vma_link(s, new)
    if told & TOLD_FAULTED:
        anon_vma_prepare(s, new)


def tell_gap(s: State, mm: int, start: int, end: int) -> None:
    """A snapshot of the maps: nothing is mapped there."""
    if is_mapped(s, mm, start, end):
        s.count[MAPS_DIFFER] += 1
        munmap(s, mm, start, end)
