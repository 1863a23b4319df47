"""anon_vmas and anon_vma_chains over columns: the functions of mm/rmap.c that change trees.

Each function does what the kernel's function of that name does, in the same order, since the order of
intervals with equal page offsets on a tree is that of their insertion. ``s`` is the state, a VMA or avc is
its slot, -1 is NULL. Compiled by numba, or run as it is (``model.state``).
"""

from __future__ import annotations

from replay.model.state import (
    ANON_PGOFF,
    ANON_VMAS,
    AVC_SLOTS,
    AVCS,
    CLONE_REVERSES,
    FREE_AVCS,
    LIVES,
    LIVES_ENDED,
    OP,
    TOUCHED,
    State,
)
from replay.state.kernel import VM_ACCESS_FLAGS, VM_MAYBE_GUARD


def touch(s: State, vma: int) -> None:
    """The operation is about to change this VMA."""
    area = s.vma[vma]
    if area.touched != s.count[OP]:
        area.touched = s.count[OP]
        before = s.queue[s.count[TOUCHED]]
        before.vma = vma
        before.start = area.start
        before.end = area.end
        before.flags = area.flags
        before.pgoff = area.pgoff
        before.anon_pgoff = area.anon_pgoff
        before.anon_vma = area.anon_vma
        before.told = area.told
        s.count[TOUCHED] += 1


def tree_insert(s: State, avc: int) -> None:
    """anon_vma_interval_tree_insert()."""
    vma = s.avc[avc].vma
    anon_vma = s.avc[avc].anon_vma
    s.anon_vma[anon_vma].linked += 1
    touch(s, vma)
    number = s.count[LIVES]
    s.count[LIVES] = number + 1
    s.avc[avc].life = number
    life, area = s.life[number], s.vma[vma]
    life.avc = s.avc[avc].number
    life.anon_vma = anon_vma
    life.vma = area.number
    life.mm = s.space[area.space].number
    life.start = area.start
    life.end = area.end
    life.pgoff = area.pgoff
    life.anon_pgoff = area.anon_pgoff
    life.born = s.count[OP]
    life.version = -1
    life.told = area.told


def tree_remove(s: State, avc: int) -> None:
    """anon_vma_interval_tree_remove()."""
    s.anon_vma[s.avc[avc].anon_vma].linked -= 1
    touch(s, s.avc[avc].vma)
    ended = s.life_end[s.count[LIVES_ENDED]]
    ended.row = s.avc[avc].life
    ended.op = s.count[OP]
    s.count[LIVES_ENDED] += 1


def anon_vma_chain_assign(s: State, vma: int, anon_vma: int) -> int:
    """A new avc at the head of the VMA's list, not on the tree yet."""
    if s.count[FREE_AVCS]:
        s.count[FREE_AVCS] -= 1
        avc = s.free[s.count[FREE_AVCS]].avc
    else:
        avc = s.count[AVC_SLOTS]
        s.count[AVC_SLOTS] += 1
    s.avc[avc].number = s.count[AVCS]
    s.count[AVCS] += 1
    s.avc[avc].vma = vma
    s.avc[avc].anon_vma = anon_vma
    s.avc[avc].prev = -1
    head = s.vma[vma].head
    s.avc[avc].next = head
    if head < 0:
        s.vma[vma].tail = avc
    else:
        s.avc[head].prev = avc
    s.vma[vma].head = avc
    s.vma[vma].chain += 1
    return int(avc)


def new_anon_vma(s: State) -> int:
    """anon_vma_alloc()."""
    anon_vma = s.count[ANON_VMAS]
    s.count[ANON_VMAS] = anon_vma + 1
    s.anon_vma[anon_vma].parent = anon_vma
    s.anon_vma[anon_vma].children = 0
    s.anon_vma[anon_vma].active = 0
    s.anon_vma[anon_vma].linked = 0
    return int(anon_vma)


def is_singular(s: State, vma: int) -> bool:
    """list_is_singular(&vma->anon_vma_chain)."""
    return bool(s.vma[vma].chain == 1)


def is_fork_child(s: State, vma: int) -> bool:
    """vma_is_fork_child()."""
    return bool(s.vma[vma].anon_vma >= 0 and not is_singular(s, vma))


def reusable_anon_vma(s: State, old: int, a: int, b: int) -> int:
    """The anon_vma of ``old``, if neighbours ``a`` and ``b`` may share it; else -1."""
    pages = s.vma[b].start - s.vma[a].start
    ignored = VM_ACCESS_FLAGS | VM_MAYBE_GUARD
    if (
        s.vma[a].end == s.vma[b].start
        and s.vma[a].policy == s.vma[b].policy
        and s.vma[a].file == s.vma[b].file
        and (s.vma[a].flags ^ s.vma[b].flags) & ~ignored == 0
        and s.vma[b].pgoff == s.vma[a].pgoff + pages
        and (not s.count[ANON_PGOFF] or s.vma[b].anon_pgoff == s.vma[a].anon_pgoff + pages)
        and is_singular(s, old)
    ):
        return int(s.vma[old].anon_vma)
    return -1


def anon_vma_prepare(s: State, vma: int) -> None:
    """Its next's anon_vma, its previous one's, or a new one."""
    if s.vma[vma].anon_vma >= 0:
        return
    anon_vma = -1
    after, before = s.vma[vma].next, s.vma[vma].prev
    if after >= 0:
        anon_vma = reusable_anon_vma(s, after, vma, after)
    if anon_vma < 0 and before >= 0:
        anon_vma = reusable_anon_vma(s, before, before, vma)
    if anon_vma < 0:
        anon_vma = new_anon_vma(s)
        s.anon_vma[anon_vma].children = 1
    touch(s, vma)
    s.vma[vma].anon_vma = anon_vma
    s.anon_vma[anon_vma].active += 1
    tree_insert(s, anon_vma_chain_assign(s, vma, anon_vma))


def anon_vma_clone(s: State, dst: int, src: int, fork: bool) -> None:
    """``dst`` gets on all trees that ``src`` is on; at fork it may find an anon_vma to use again."""
    if s.count[CLONE_REVERSES]:
        avc = s.vma[src].head
        while avc >= 0:
            anon_vma_chain_assign(s, dst, s.avc[avc].anon_vma)
            avc = s.avc[avc].next
        avc = s.vma[dst].tail
        while avc >= 0:
            clone_insert(s, dst, avc, fork)
            avc = s.avc[avc].prev
    else:
        avc = s.vma[src].tail
        while avc >= 0:
            clone_insert(s, dst, anon_vma_chain_assign(s, dst, s.avc[avc].anon_vma), fork)
            avc = s.avc[avc].prev
    if s.vma[dst].anon_vma >= 0:
        s.anon_vma[s.vma[dst].anon_vma].active += 1


def clone_insert(s: State, dst: int, avc: int, fork: bool) -> None:
    """One step of anon_vma_clone()."""
    tree_insert(s, avc)
    anon_vma = s.avc[avc].anon_vma
    if (
        fork
        and s.vma[dst].anon_vma < 0
        and s.anon_vma[anon_vma].children < 2
        and s.anon_vma[anon_vma].active == 0
    ):
        s.vma[dst].anon_vma = anon_vma


def anon_vma_fork(s: State, vma: int, parent: int) -> None:
    """The child's VMA gets on its parent's trees and on one of its own."""
    if s.vma[parent].anon_vma < 0:
        return
    anon_vma_clone(s, vma, parent, True)
    if s.vma[vma].anon_vma >= 0:
        return
    own = new_anon_vma(s)
    s.anon_vma[own].active = 1
    s.anon_vma[own].parent = s.vma[parent].anon_vma
    s.vma[vma].anon_vma = own
    tree_insert(s, anon_vma_chain_assign(s, vma, own))
    s.anon_vma[s.anon_vma[own].parent].children += 1


def unlink_anon_vmas(s: State, vma: int) -> None:
    """The VMA leaves all trees and has no anon_vma any more."""
    avc = s.vma[vma].head
    while avc >= 0:
        tree_remove(s, avc)
        anon_vma = s.avc[avc].anon_vma
        if s.anon_vma[anon_vma].linked == 0:
            s.anon_vma[s.anon_vma[anon_vma].parent].children -= 1
        s.free[s.count[FREE_AVCS]].avc = avc
        s.count[FREE_AVCS] += 1
        avc = s.avc[avc].next
    s.vma[vma].head = -1
    s.vma[vma].tail = -1
    s.vma[vma].chain = 0
    if s.vma[vma].anon_vma >= 0:
        s.anon_vma[s.vma[vma].anon_vma].active -= 1
    s.vma[vma].anon_vma = -1


def pre_update(s: State, vma: int) -> None:
    """anon_vma_interval_tree_pre_update_vma()."""
    touch(s, vma)
    avc = s.vma[vma].head
    while avc >= 0:
        tree_remove(s, avc)
        avc = s.avc[avc].next


def post_update(s: State, vma: int) -> None:
    """anon_vma_interval_tree_post_update_vma()."""
    avc = s.vma[vma].head
    while avc >= 0:
        tree_insert(s, avc)
        avc = s.avc[avc].next
