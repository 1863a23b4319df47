"""Tasks and their address spaces over columns: fork, exec, exit, and what an operation leaves to be seen.

The kernel's names and order; ``s`` is the state, ``mm`` and ``vma`` are slots, a task its number.
"""

from __future__ import annotations

from replay.model.rmap import anon_vma_fork
from replay.model.state import (
    FIRST_LIFE,
    FREE_SPACES,
    FREE_VMAS,
    LIVES,
    OP,
    SPACE_SLOTS,
    STACK_UNKNOWN,
    TOUCHED,
    VERSIONS,
    VERSIONS_ENDED,
    State,
)
from replay.model.vma import drop_vma, new_vma, vma_link, vma_unlink
from replay.state.kernel import OWN_FLAGS, VM_DONTCOPY, VM_LOCKED_MASK, VM_WIPEONFORK


def new_space(s: State) -> int:
    """mm_alloc()."""
    if s.count[FREE_SPACES]:
        s.count[FREE_SPACES] -= 1
        mm = s.free[s.count[FREE_SPACES]].space
    else:
        mm = s.count[SPACE_SLOTS]
        s.count[SPACE_SLOTS] += 1
    s.space[mm].number = 0
    s.space[mm].users = 1
    s.space[mm].depth = 0
    s.space[mm].brk = -1
    s.space[mm].def_flags = 0
    s.space[mm].merge_any = 0
    s.space[mm].first = -1
    s.space[mm].vmas = 0
    s.space[mm].stack_unknown = 0
    return int(mm)


def space_of(s: State, task: int) -> int:
    """The address space that a task runs in; one that was there before is empty: nobody told."""
    if s.task[task].space < 0:
        s.task[task].space = new_space(s)
    return int(s.task[task].space)


def mmput(s: State, mm: int) -> None:
    """One user less; the last one's exit_mmap()."""
    s.space[mm].users -= 1
    if s.space[mm].users > 0:
        return
    vma = s.space[mm].first
    while vma >= 0:
        after = s.vma[vma].next
        vma_unlink(s, vma)
        drop_vma(s, vma)
        vma = after
    s.free[s.count[FREE_SPACES]].space = mm
    s.count[FREE_SPACES] += 1


def dup_mmap(s: State, child: int, parent: int) -> None:
    """The VMAs of a forked process."""
    vma = s.space[parent].first
    while vma >= 0:
        flags = s.vma[vma].flags
        if flags & VM_DONTCOPY == 0:
            new = new_vma(
                s,
                child,
                s.vma[vma].start,
                s.vma[vma].end,
                flags & ~VM_LOCKED_MASK,
                s.vma[vma].file,
                s.vma[vma].pgoff,
                s.vma[vma].anon_pgoff,
                s.vma[vma].policy,
            )
            s.vma[new].told = s.vma[vma].told
            vma_link(s, new)
            if flags & VM_WIPEONFORK == 0:
                anon_vma_fork(s, new, vma)
        vma = s.vma[vma].next


def fork(s: State, task: int, child_task: int) -> None:
    """copy_mm() without CLONE_VM."""
    parent = space_of(s, task)
    child = new_space(s)
    s.space[child].depth = s.space[parent].depth + 1
    s.space[child].brk = s.space[parent].brk
    s.space[child].merge_any = s.space[parent].merge_any
    s.task[child_task].space = child
    dup_mmap(s, child, parent)


def execve(s: State, task: int, old_task: int) -> None:
    """exec_mmap(): a new address space; what is mapped there, records may tell.

    ``old_task``: a thread that takes the place of its leader (de_thread()).
    """
    old = space_of(s, old_task)
    merge_any = s.space[old].merge_any
    mmput(s, old)
    s.task[old_task].space = -1
    if s.task[task].space >= 0:
        mmput(s, s.task[task].space)
    new = new_space(s)
    s.space[new].merge_any = merge_any
    s.space[new].stack_unknown = 1
    s.count[STACK_UNKNOWN] += 1
    s.task[task].space = new


def publish(s: State) -> None:
    """Close and open versions of the VMAs that the operation changed; dead ones' slots are free again."""
    for place in range(s.count[TOUCHED]):
        slot = s.queue[place].vma
        vma = s.vma[slot]
        if vma.space < 0:
            end_version(s, slot)
            s.free[s.count[FREE_VMAS]].vma = slot
            s.count[FREE_VMAS] += 1
            continue
        if vma.version < 0 or differs(s, place):
            end_version(s, slot)
            open_version(s, slot)
        avc = vma.head
        while avc >= 0:
            life = s.avc[avc].life
            if life >= s.count[FIRST_LIFE]:
                s.life[life].version = vma.version
            avc = s.avc[avc].next
    s.count[TOUCHED] = 0
    s.count[FIRST_LIFE] = s.count[LIVES]


def differs(s: State, place: int) -> bool:
    """Whether a VMA is not what it was when the operation touched it."""
    before = s.queue[place]
    vma = s.vma[before.vma]
    return bool(
        before.start != vma.start
        or before.end != vma.end
        or before.pgoff != vma.pgoff
        or before.anon_pgoff != vma.anon_pgoff
        or (before.flags ^ vma.flags) & ~OWN_FLAGS != 0
        or before.anon_vma != vma.anon_vma
        or before.told != vma.told
    )


def end_version(s: State, slot: int) -> None:
    """What a VMA was, if it was there before the operation, is over."""
    if s.vma[slot].version >= 0:
        ended = s.version_end[s.count[VERSIONS_ENDED]]
        ended.row = s.vma[slot].version
        ended.op = s.count[OP]
        s.count[VERSIONS_ENDED] += 1


def open_version(s: State, slot: int) -> None:
    """Write down what a VMA is now."""
    vma = s.vma[slot]
    vma.version = s.count[VERSIONS]
    s.count[VERSIONS] += 1
    version = s.version[vma.version]
    version.vma = vma.number
    version.mm = s.space[vma.space].number
    version.start = vma.start
    version.end = vma.end
    version.pgoff = vma.pgoff
    version.anon_pgoff = vma.anon_pgoff
    version.flags = vma.flags & ~OWN_FLAGS
    version.anon_vma = vma.anon_vma
    version.born = s.count[OP]
    version.told = vma.told
