"""VMAs over columns: the functions of mm/vma.c that split, merge, grow and remove them.

As in ``model_rmap``: the kernel's names and order; ``s`` is the state, a VMA is its slot, -1 is NULL.
"""

from __future__ import annotations

from replay.merge_rules import refused_anon_vma, refused_pgoff, refused_vma
from replay.model_map import map_delete, map_floor, map_insert, map_rekey
from replay.model_rmap import (
    anon_vma_clone,
    is_fork_child,
    is_singular,
    post_update,
    pre_update,
    touch,
    unlink_anon_vmas,
)
from replay.model_rules import VM_MAYBE_GUARD, VM_SHARED
from replay.model_state import (
    ANON_PGOFF,
    FREE_VMAS,
    MERGES_FAULTED,
    SPACES,
    TARGET_NOT_FREE,
    VMA_SLOTS,
    VMAS,
    State,
)


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
    s.vma[vma].touched = -1
    touch(s, vma)
    return int(vma)


def vma_link(s: State, vma: int) -> None:
    """Into the address space."""
    mm = s.vma[vma].space
    before = map_floor(s, mm, s.vma[vma].start)
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
    map_insert(s, mm, s.vma[vma].start, vma)


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


def can_merge(
    s: State,
    other: int,
    flags: int,
    file: int,
    policy: int,
    anon_vma: int,
    source_is_fork_child: bool,
) -> bool:
    """is_mergeable_vma() and is_mergeable_anon_vma() of a proposed VMA with an existing one."""
    reasons = refused_vma(
        flags, s.vma[other].flags, s.vma[other].policy == policy, s.vma[other].file == file
    ) | refused_anon_vma(
        s.count[MERGES_FAULTED] != 0,
        anon_vma,
        s.vma[other].anon_vma,
        source_is_fork_child,
        is_fork_child(s, other),
        is_singular(s, other),
    )
    return bool(reasons == 0)


def offsets_follow(
    s: State, pgoff: int, expected: int, anon_pgoff: int, anon_expected: int, file: int, flags: int
) -> bool:
    """Whether page offsets go on: vm_pgoff, and of private file mappings from 7.3 on the anonymous one."""
    private_file = file != 0 and flags & VM_SHARED == 0
    newer = s.count[ANON_PGOFF] != 0
    return bool(refused_pgoff(newer, private_file, pgoff, expected, anon_pgoff, anon_expected) == 0)


def neighbours_merge(s: State, before: int, after: int) -> bool:
    """Whether the anon_vmas on both sides of a gap agree."""
    left, right = s.vma[before].anon_vma, s.vma[after].anon_vma
    return bool(left < 0 or right < 0 or left == right)


def dup_anon_vma(s: State, dst: int, src: int) -> None:
    """The one that grows takes the anon_vma of the one that shrinks, if it has none."""
    if s.vma[src].anon_vma >= 0 and s.vma[dst].anon_vma < 0:
        s.vma[dst].anon_vma = s.vma[src].anon_vma
        anon_vma_clone(s, dst, src, False)


def commit_merge(
    s: State, target: int, start: int, end: int, adjust: int, adjust_start: int, remove: int, remove2: int
) -> None:
    """``target`` becomes ``[start, end)``, ``adjust`` starts elsewhere, up to two others go."""
    pre_update(s, target)
    if adjust >= 0:
        pre_update(s, adjust)
    if remove >= 0:
        vma_unlink(s, remove)
    if remove2 >= 0:
        vma_unlink(s, remove2)
    if adjust >= 0 and adjust_start > s.vma[adjust].start:
        set_start(s, adjust, adjust_start)
    if start != s.vma[target].start:
        set_start(s, target, start)
    s.vma[target].end = end
    if adjust >= 0 and adjust_start < s.vma[adjust].start:
        set_start(s, adjust, adjust_start)
    post_update(s, target)
    if adjust >= 0:
        post_update(s, adjust)
    if remove >= 0:
        drop_vma(s, remove)
    if remove2 >= 0:
        drop_vma(s, remove2)


def merge_existing_range(s: State, vma: int, start: int, end: int, flags: int, policy: int) -> int:
    """vma_merge_existing_range(): the VMA that took over ``[start, end)`` of ``vma``; -1: none."""
    left_side, right_side = start == s.vma[vma].start, end == s.vma[vma].end
    file, anon_vma = s.vma[vma].file, s.vma[vma].anon_vma
    child = is_fork_child(s, vma)
    pgoff = s.vma[vma].pgoff + start - s.vma[vma].start
    anon_pgoff = s.vma[vma].anon_pgoff + start - s.vma[vma].start
    before = s.vma[vma].prev if left_side else -1
    after = s.vma[vma].next if right_side else -1
    left = False
    if before >= 0 and s.vma[before].end == start:
        pages = s.vma[before].end - s.vma[before].start
        left = can_merge(s, before, flags, file, policy, anon_vma, child) and offsets_follow(
            s, pgoff, s.vma[before].pgoff + pages, anon_pgoff, s.vma[before].anon_pgoff + pages, file, flags
        )
    right = False
    if after >= 0 and s.vma[after].start == end:
        pages = end - start
        right = can_merge(s, after, flags, file, policy, anon_vma, child) and offsets_follow(
            s, s.vma[after].pgoff, pgoff + pages, s.vma[after].anon_pgoff, anon_pgoff + pages, file, flags
        )
        if left and right:
            right = neighbours_merge(s, before, after)
    guard = s.vma[vma].flags & VM_MAYBE_GUARD
    whole = left_side and right_side
    if left and right:
        dup_anon_vma(s, before, after if s.vma[after].anon_vma >= 0 else vma)
        guard |= s.vma[after].flags & VM_MAYBE_GUARD
        commit_merge(s, before, s.vma[before].start, s.vma[after].end, -1, 0, vma, after)
    elif left:
        dup_anon_vma(s, before, vma)
        if whole:
            commit_merge(s, before, s.vma[before].start, end, -1, 0, vma, -1)
        else:
            commit_merge(s, before, s.vma[before].start, end, vma, end, -1, -1)
    elif right:
        dup_anon_vma(s, after, vma)
        if whole:
            commit_merge(s, after, start, s.vma[after].end, -1, 0, vma, -1)
        else:
            commit_merge(s, vma, s.vma[vma].start, start, after, start, -1, -1)
    else:
        return -1
    merged = before if left else after
    s.vma[merged].flags |= guard
    return int(merged)


def merge_new_range(
    s: State,
    mm: int,
    start: int,
    end: int,
    flags: int,
    file: int,
    pgoff: int,
    anon_pgoff: int,
    policy: int,
    anon_vma: int,
    copied_from: int,
    without: int,
    just_expand: bool,
) -> int:
    """vma_merge_new_range() and vma_expand(): the VMA that took the new range in; -1: none did."""
    before = map_floor(s, mm, start)
    after = s.space[mm].first if before < 0 else s.vma[before].next
    child = copied_from >= 0 and is_fork_child(s, copied_from)
    left = False
    if before >= 0 and before != without and s.vma[before].end == start:
        pages = s.vma[before].end - s.vma[before].start
        left = can_merge(s, before, flags, file, policy, anon_vma, child) and offsets_follow(
            s, pgoff, s.vma[before].pgoff + pages, anon_pgoff, s.vma[before].anon_pgoff + pages, file, flags
        )
    right = False
    if after >= 0 and after != without and not just_expand and s.vma[after].start == end:
        pages = end - start
        right = can_merge(s, after, flags, file, policy, anon_vma, child) and offsets_follow(
            s, s.vma[after].pgoff, pgoff + pages, s.vma[after].anon_pgoff, anon_pgoff + pages, file, flags
        )
        if left and right:
            right = neighbours_merge(s, before, after)
    if not left and not right:
        return -1
    target = before if left else after
    remove = after if left and right else -1
    if remove >= 0:
        dup_anon_vma(s, target, remove)
        s.vma[target].flags |= s.vma[remove].flags & VM_MAYBE_GUARD
    if s.count[ANON_PGOFF] and copied_from >= 0:
        dup_anon_vma(s, target, copied_from)
    last = s.vma[after].end if right else end
    commit_merge(s, target, s.vma[target].start if left else start, last, -1, 0, remove, -1)
    return int(target)


def vma_modify(s: State, vma: int, start: int, end: int, flags: int, policy: int) -> int:
    """The VMA of ``[start, end)``, merged or split off, with its new flags and policy."""
    guard = s.vma[vma].flags & VM_MAYBE_GUARD
    merged = merge_existing_range(s, vma, start, end, flags, policy)
    if merged < 0:
        if s.vma[vma].start < start:
            split_vma(s, vma, start, True)
        if s.vma[vma].end > end:
            split_vma(s, vma, end, False)
        merged = vma
    touch(s, merged)
    s.vma[merged].flags = flags | guard | (s.vma[merged].flags & VM_MAYBE_GUARD)
    s.vma[merged].policy = policy
    return merged


def clear_target(s: State, mm: int, start: int, end: int) -> None:
    """The kernel mapped something where it found nothing: what the model has there is long gone."""
    vma = find_vma(s, mm, start)
    if vma >= 0 and s.vma[vma].start < end:
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
