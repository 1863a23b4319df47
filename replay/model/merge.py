"""Merging VMAs over columns: the functions of mm/vma.c that decide it and do it.

As in ``model.vma``: the kernel's names and order. Whether two VMAs may become one, ``merge_rules`` knows.
"""

from __future__ import annotations

from replay.model.map import map_floor
from replay.model.rmap import (
    anon_vma_clone,
    is_fork_child,
    is_singular,
    post_update,
    pre_update,
    touch,
)
from replay.model.state import ANON_PGOFF, MERGES_FAULTED, OP, REFUSALS, TOLD_MERGES, State
from replay.model.vma import drop_vma, set_start, split_vma, vma_unlink
from replay.state.kernel import OWN_FLAGS, SHM_FILE, VM_MAYBE_GUARD, VM_SHARED, VM_SPECIAL
from replay.state.merge_rules import BY_ANON_VMA, BY_FLAGS, refused_anon_vma, refused_pgoff, refused_vma


def reasons_against(
    s: State, newer: bool, other: int, flags: int, file: int, policy: int, anon_vma: int, child: bool
) -> int:
    """is_mergeable_vma() and is_mergeable_anon_vma() of a proposed VMA with an existing one; VM_SPECIAL."""
    special = BY_FLAGS if flags & VM_SPECIAL else 0
    same = refused_vma(flags, s.vma[other].flags, s.vma[other].policy == policy, s.vma[other].file == file)
    return (special | same) | refused_anon_vma(
        newer, anon_vma, s.vma[other].anon_vma, child, is_fork_child(s, other), is_singular(s, other)
    )


def can_merge(
    s: State,
    other: int,
    flags: int,
    mergeable: int,
    file: int,
    policy: int,
    anon_vma: int,
    child: bool,
    pgoff: int,
    expected: int,
    anon_pgoff: int,
    anon_expected: int,
) -> bool:
    """Whether a proposed VMA may become one with an existing one that it touches.

    Asks the rules of both kernels, and notes the reasons where one of them refuses. ``mergeable``: bits of
    vm_flags that 7.3 sets before it asks, and 6.12 after it. ``child``: what is proposed is part or a copy of
    a VMA that has anon_vmas of its parents.
    """
    s.count[TOLD_MERGES] += int(s.vma[other].told != 0)
    private_file = file != 0 and flags & VM_SHARED == 0
    older = reasons_against(
        s, False, other, flags & ~mergeable, file, policy, anon_vma, child
    ) | refused_pgoff(False, private_file, pgoff, expected, anon_pgoff, anon_expected)
    newer = reasons_against(s, True, other, flags | mergeable, file, policy, anon_vma, child) | refused_pgoff(
        True, private_file, pgoff, expected, anon_pgoff, anon_expected
    )
    if older | newer:
        own = anon_vma if anon_vma >= 0 else s.vma[other].anon_vma
        differ = (flags ^ s.vma[other].flags | mergeable) & ~OWN_FLAGS
        note_refusal(s, older, newer, differ, own)
    return bool((newer if s.count[MERGES_FAULTED] else older) == 0)


def note_refusal(s: State, older: int, newer: int, flags: int, anon_vma: int) -> None:
    """Write down why two VMAs did not merge."""
    refusal = s.refusal[s.count[REFUSALS]]
    s.count[REFUSALS] += 1
    refusal.op = s.count[OP]
    refusal.older = older
    refusal.newer = newer
    refusal.flags = flags
    refusal.anon_vma = anon_vma


def neighbours_merge(s: State, before: int, after: int) -> bool:
    """Whether the anon_vmas on both sides of a gap agree."""
    left, right = s.vma[before].anon_vma, s.vma[after].anon_vma
    if left < 0 or right < 0 or left == right:
        return True
    note_refusal(s, BY_ANON_VMA, BY_ANON_VMA, (s.vma[before].flags ^ s.vma[after].flags) & ~OWN_FLAGS, left)
    return False


def can_merge_remove_vma(s: State, vma: int) -> bool:
    """Whether a merge may take a VMA away: not if it has to be told (vm_ops->close), as attached segments."""
    return bool(s.vma[vma].file > SHM_FILE)


def dup_anon_vma(s: State, dst: int, src: int) -> None:
    """The one that grows takes the anon_vma of the one that shrinks, if it has none."""
    if s.vma[src].anon_vma >= 0 and s.vma[dst].anon_vma < 0:
        touch(s, dst)
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
        left = can_merge(
            s,
            before,
            flags,
            0,
            file,
            policy,
            anon_vma,
            child,
            pgoff,
            s.vma[before].pgoff + pages,
            anon_pgoff,
            s.vma[before].anon_pgoff + pages,
        )
    right = False
    if after >= 0 and s.vma[after].start == end:
        pages = end - start
        right = can_merge(
            s,
            after,
            flags,
            0,
            file,
            policy,
            anon_vma,
            child,
            s.vma[after].pgoff,
            pgoff + pages,
            s.vma[after].anon_pgoff,
            anon_pgoff + pages,
        )
        if left and right:
            right = neighbours_merge(s, before, after)
    guard = s.vma[vma].flags & VM_MAYBE_GUARD
    whole = left_side and right_side
    if whole and not can_merge_remove_vma(s, vma):
        return -1
    if left or right:
        merged = before if left else after
        touch(s, merged)
        s.vma[merged].told |= s.vma[vma].told | (s.vma[after].told if left and right else 0)
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
    s.vma[merged].flags |= guard
    return int(merged)


def merge_new_range(
    s: State,
    mm: int,
    start: int,
    end: int,
    flags: int,
    mergeable: int,
    file: int,
    pgoff: int,
    anon_pgoff: int,
    policy: int,
    anon_vma: int,
    copied_from: int,
    without: int,
    just_expand: bool,
) -> int:
    """vma_merge_new_range() and vma_expand(): the VMA that took the new range in; -1: none did.

    ``mergeable``: see ``can_merge``.
    """
    before = map_floor(s, mm, start)
    after = s.space[mm].first if before < 0 else s.vma[before].next
    child = copied_from >= 0 and is_fork_child(s, copied_from)
    left = False
    if before >= 0 and before != without and s.vma[before].end == start:
        pages = s.vma[before].end - s.vma[before].start
        left = can_merge(
            s,
            before,
            flags,
            mergeable,
            file,
            policy,
            anon_vma,
            child,
            pgoff,
            s.vma[before].pgoff + pages,
            anon_pgoff,
            s.vma[before].anon_pgoff + pages,
        )
    right = False
    if after >= 0 and after != without and not just_expand and s.vma[after].start == end:
        pages = end - start
        right = can_merge(
            s,
            after,
            flags,
            mergeable,
            file,
            policy,
            anon_vma,
            child,
            s.vma[after].pgoff,
            pgoff + pages,
            s.vma[after].anon_pgoff,
            anon_pgoff + pages,
        )
        if left and right:
            right = neighbours_merge(s, before, after)
    if not left and not right:
        return -1
    target = before if left else after
    right = right and not (left and not can_merge_remove_vma(s, after))
    remove = after if left and right else -1
    touch(s, target)
    s.vma[target].told |= s.vma[remove].told if remove >= 0 else 0
    s.vma[target].told |= s.vma[copied_from].told if copied_from >= 0 else 0
    if remove >= 0:
        dup_anon_vma(s, target, remove)
        s.vma[target].flags |= s.vma[remove].flags & VM_MAYBE_GUARD
    if s.count[ANON_PGOFF] and copied_from >= 0:
        dup_anon_vma(s, target, copied_from)
    last = s.vma[after].end if right else end
    commit_merge(s, target, s.vma[target].start if left else start, last, -1, 0, remove, -1)
    return int(target)


def vma_modify(s: State, vma: int, start: int, end: int, flags: int, policy: int, may_split: bool) -> int:
    """The VMA of ``[start, end)``, merged or split off, with its new flags and policy.

    -1: it would have to be split, and may not.
    """
    guard = s.vma[vma].flags & VM_MAYBE_GUARD
    merged = merge_existing_range(s, vma, start, end, flags, policy)
    if merged < 0:
        if not may_split and (s.vma[vma].start < start or s.vma[vma].end > end):
            return -1
        if s.vma[vma].start < start:
            split_vma(s, vma, start, True)
        if s.vma[vma].end > end:
            split_vma(s, vma, end, False)
        merged = vma
    touch(s, merged)
    s.vma[merged].flags = flags | guard | (s.vma[merged].flags & VM_MAYBE_GUARD)
    s.vma[merged].policy = policy
    return merged
