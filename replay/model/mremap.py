"""mremap() over columns: mm/mremap.c.

``s`` is the state, ``mm`` and ``vma`` are slots; addresses and lengths are pages.
"""

from __future__ import annotations

from replay.model.merge import merge_new_range
from replay.model.rmap import anon_vma_clone, touch, unlink_anon_vmas
from replay.model.state import DONTUNMAP_RESETS, FIXED_MMAP_FAILED, MOVES_CUT, MREMAP_OF_UNKNOWN, State
from replay.model.vma import (
    clear_target,
    failed_munmap,
    find_vma,
    first_sealed,
    is_mapped,
    munmap,
    new_vma,
    split_vma,
    vma_link,
    vma_lookup,
)
from replay.state.kernel import (
    EFAULT,
    ENOMEM,
    EPERM,
    MREMAP_DONTUNMAP,
    MREMAP_FIXED,
    SHM_FILE,
    VM_HUGETLB,
    VM_LOCKED,
    VM_LOCKED_MASK,
    VM_SEALED,
)


def grow_in_place(s: State, mm: int, addr: int, end: int) -> None:
    """vma_merge_extend(): the VMA takes the new range in, and maybe the next VMA."""
    vma = vma_lookup(s, mm, addr)
    if vma < 0:
        s.count[MREMAP_OF_UNKNOWN] += 1
        return
    if s.vma[vma].end >= end:
        return
    clear_target(s, mm, s.vma[vma].end, end)
    pages = s.vma[vma].end - s.vma[vma].start
    merge_new_range(
        s,
        mm,
        s.vma[vma].end,
        end,
        s.vma[vma].flags,
        0,
        s.vma[vma].file,
        s.vma[vma].pgoff + pages,
        s.vma[vma].anon_pgoff + pages,
        s.vma[vma].policy,
        s.vma[vma].anon_vma,
        -1,
        -1,
        False,
    )


def copy_vma(s: State, vma: int, addr: int, new_addr: int, pages: int, keep: bool) -> None:
    """Into a neighbour of the target, or a VMA of its own on the same trees."""
    mm = s.vma[vma].space
    ahead = addr - s.vma[vma].start
    pgoff, anon_pgoff = s.vma[vma].pgoff + ahead, s.vma[vma].anon_pgoff + ahead
    flags, file, policy, anon_vma = s.vma[vma].flags, s.vma[vma].file, s.vma[vma].policy, s.vma[vma].anon_vma
    without = -1
    if anon_vma < 0:
        anon_pgoff = new_addr
        if file == 0:
            pgoff = new_addr
        if keep and s.count[DONTUNMAP_RESETS]:
            without = vma
    end = new_addr + pages
    merged = merge_new_range(
        s, mm, new_addr, end, flags, 0, file, pgoff, anon_pgoff, policy, anon_vma, vma, without, False
    )
    if merged < 0:
        new = new_vma(s, mm, new_addr, end, flags, file, pgoff, anon_pgoff, policy)
        s.vma[new].told = s.vma[vma].told
        s.vma[new].anon_vma = anon_vma
        anon_vma_clone(s, new, vma, False)
        vma_link(s, new)


def move_vma(s: State, mm: int, addr: int, old: int, new: int, new_addr: int, keep: bool) -> None:
    """Copy, then unmap the source or, with MREMAP_DONTUNMAP, keep it without pages."""
    vma = vma_lookup(s, mm, addr)
    if vma < 0:
        s.count[MREMAP_OF_UNKNOWN] += 1
        munmap(s, mm, addr, addr + old)
        return
    if keep and s.count[DONTUNMAP_RESETS] and s.vma[vma].flags & VM_LOCKED:
        if s.vma[vma].start < addr:
            split_vma(s, vma, addr, True)
        if s.vma[vma].end > addr + old:
            split_vma(s, vma, addr + old, False)
    copy_vma(s, vma, addr, new_addr, new, keep)
    if not keep:
        munmap(s, mm, addr, addr + old)
        return
    vma = vma_lookup(s, mm, addr)  # the copy may have become one with the source
    touch(s, vma)
    s.vma[vma].flags &= ~VM_LOCKED_MASK
    if s.vma[vma].start == addr and s.vma[vma].end == addr + old:
        unlink_anon_vmas(s, vma)
        if s.count[DONTUNMAP_RESETS]:
            s.vma[vma].anon_pgoff = addr
            if s.vma[vma].file == 0:
                s.vma[vma].pgoff = addr


def mremap_to(s: State, mm: int, addr: int, old: int, new: int, new_addr: int, flags: int) -> None:
    """The target is unmapped, the source shrunk, then moved."""
    if flags & MREMAP_FIXED:
        munmap(s, mm, new_addr, new_addr + new)
    else:
        clear_target(s, mm, new_addr, new_addr + new)
    if old > new:
        munmap(s, mm, addr + new, addr + old)
        old = new
    move_vma(s, mm, addr, old, new, new_addr, flags & MREMAP_DONTUNMAP != 0)


def failed_mremap_to(s: State, mm: int, addr: int, old: int, new: int, new_addr: int, error: int) -> None:
    """6.12 unmaps the target and shrinks before vma_to_resize() finds that the source has an end.

    EPERM: sealed is the source, which stops it at once, or the target. ENOMEM: before all that, or behind it.
    """
    vma = vma_lookup(s, mm, addr)
    if vma < 0:
        return
    if error == EPERM:
        if (
            s.vma[vma].flags & VM_SEALED == 0
            and first_sealed(s, mm, new_addr, new_addr + new) < new_addr + new
        ):
            failed_munmap(s, mm, new_addr)
        return
    if error == ENOMEM:
        s.count[FIXED_MMAP_FAILED] += int(old > new or is_mapped(s, mm, new_addr, new_addr + new))
        return
    munmap(s, mm, new_addr, new_addr + new)
    if old > new:
        munmap(s, mm, addr + new, addr + old)


def failed_remap_move(
    s: State, mm: int, addr: int, pages: int, error: int, new_addr: int, flags: int
) -> None:
    """A move of several VMAs that failed at one of them: those before it have moved.

    EPERM: that one is sealed, or its target is, which is found when it is unmapped.
    """
    vma, end = vma_lookup(s, mm, addr), addr + pages
    if vma < 0:
        return
    stop = move_stops_at(s, vma, addr, end, error, new_addr)
    if stop < end:
        remap_move(s, mm, addr, stop - addr, new_addr, flags)
        vma = vma_lookup(s, mm, stop)
        if error == EPERM and vma >= 0 and s.vma[vma].flags & VM_SEALED == 0:
            failed_munmap(s, mm, new_addr + stop - addr)
        return
    after = s.vma[vma].next
    if after >= 0 and s.vma[after].start < end:
        s.count[MOVES_CUT] += 1
    elif error == ENOMEM:
        s.count[FIXED_MMAP_FAILED] += int(is_mapped(s, mm, new_addr, new_addr + pages))


def move_stops_at(s: State, vma: int, addr: int, end: int, error: int, new_addr: int) -> int:
    """remap_move(): the first page of the VMA at which it failed, from ``vma`` on; ``end``: not known.

    EFAULT: not the first VMA, and of a file that chooses its own place (vma_multi_allowed()); which files do,
    nothing tells, but if there is only one, that does.
    """
    found, file = end, 0
    mm = s.vma[vma].space
    while vma >= 0 and s.vma[vma].start < end:
        start, last = max(addr, s.vma[vma].start), min(end, s.vma[vma].end)
        target, beyond = new_addr + start - addr, new_addr + last - addr
        if error == EPERM:
            if s.vma[vma].flags & VM_SEALED or first_sealed(s, mm, target, beyond) < beyond:
                return int(start)
        elif error == EFAULT and may_choose_place(s, vma):
            own = int(s.vma[vma].file)
            if found == end:
                found, file = int(start), own
            elif own != file:
                return end
        vma = s.vma[vma].next
    return int(found)


def may_choose_place(s: State, vma: int) -> bool:
    """Whether a VMA is of a file that may have get_unmapped_area() of its own: no huge pages, no shmem."""
    file = s.vma[vma].file
    return bool((file > 0 and s.vma[vma].flags & VM_HUGETLB == 0) or file <= SHM_FILE)


def remap_move(s: State, mm: int, addr: int, pages: int, new_addr: int, flags: int) -> None:
    """Each VMA of the range by itself, gaps kept."""
    at, end = addr, addr + pages
    vma = find_vma(s, mm, at)
    while vma >= 0 and s.vma[vma].start < end and at < end:
        start, last = max(at, s.vma[vma].start), min(end, s.vma[vma].end)
        mremap_to(s, mm, start, last - start, last - start, new_addr + start - addr, flags)
        at = last
        vma = find_vma(s, mm, at)
