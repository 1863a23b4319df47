"""The one entry into the compiled part: operations are taken in order, each by its function.

Operands of each kind are in ``model.ops``. ``model.jit`` compiles this module and those that it uses.
"""

from __future__ import annotations

from replay.model.ahead import MANY, look_ahead
from replay.model.calls import (
    brk,
    fault,
    guard_install,
    madvise,
    madvise_populate,
    merge_any,
    mmap,
    mprotect,
    populate,
    remap_file_pages,
    shmdt,
    tell,
    tell_gap,
)
from replay.model.failed import failed_mmap
from replay.model.kinds import (
    OP_ADVISE,
    OP_BRK,
    OP_EXEC,
    OP_EXIT,
    OP_FAILED_MMAP,
    OP_FAILED_MOVE_MANY,
    OP_FAILED_MREMAP_TO,
    OP_FAILED_MUNMAP,
    OP_FAULT,
    OP_FORK,
    OP_GROW,
    OP_GUARD,
    OP_HOME_NODE,
    OP_LOCK,
    OP_LOCK_ALL,
    OP_MBIND,
    OP_MERGE_ANY,
    OP_MMAP,
    OP_MMAP_POPULATE,
    OP_MOVE,
    OP_MOVE_MANY,
    OP_MPROTECT,
    OP_MPROTECT_KEY,
    OP_MUNMAP,
    OP_POPULATE,
    OP_REMAP_FILE,
    OP_SHMDT,
    OP_TELL,
    OP_TELL_GAP,
    OP_THREAD,
    Operations,
)
from replay.model.locks import home_node, lock_all, mbind, mlock
from replay.model.mremap import failed_mremap_to, failed_remap_move, grow_in_place, mremap_to, remap_move
from replay.model.spaces import execve, fork, mmput, publish, space_of
from replay.model.state import (
    ANON_VMAS,
    AVC_SLOTS,
    BLOCK,
    BLOCK_SLOTS,
    FREE_AVCS,
    FREE_BLOCKS,
    FREE_SPACES,
    FREE_VMAS,
    LIVES,
    LOOKS_AHEAD,
    NEEDED,
    OP,
    REFUSALS,
    SPACE_SLOTS,
    VERSIONS,
    VMA_SLOTS,
    State,
)
from replay.model.vma import failed_munmap, munmap
from replay.state.kernel import VM_ACCESS_FLAGS, VM_PKEY


def run(s: State, first: int, ops: Operations) -> int:
    """Take operations from ``first`` on.

    Returns:
        Number of the operation that the tables of the state have no room for, how long they have to be is in
        ``count`` from ``NEEDED`` on; the number of operations: all are done.
    """
    op = first
    while op < len(ops.kind):
        space = s.task[ops.a[op] if ops.kind[op] == OP_EXEC else ops.task[op]].space
        depth = s.space[space].depth if space >= 0 else 0
        if not has_room(s, reach(s, ops, op, space), depth + 2):
            break
        s.count[OP] = op
        if s.count[LOOKS_AHEAD] and s.count[VMA_SLOTS] >= MANY:
            look_ahead(s, ops, op)
        step(s, ops, op)
        publish(s)
        op += 1
    return op


def reach(s: State, ops: Operations, op: int, space: int) -> int:
    """How many VMAs an operation can change at most: each has a page in its range, or beside it."""
    vmas = s.space[space].vmas if space >= 0 else 0
    kind, a, b = ops.kind[op], ops.a[op], ops.b[op]
    if kind == OP_FAULT:
        pages = 1
    elif kind in (OP_FORK, OP_EXEC, OP_EXIT, OP_LOCK_ALL, OP_MERGE_ANY, OP_SHMDT):
        pages = vmas
    elif kind == OP_BRK:
        pages = abs(a - s.space[space].brk) if space >= 0 else 0
    elif kind in (OP_MOVE, OP_MOVE_MANY, OP_FAILED_MREMAP_TO):
        pages = b + ops.c[op]
    elif kind == OP_FAILED_MOVE_MANY:
        pages = 2 * b
    else:
        pages = max(b - a, 0)
    return int(min(vmas, pages) + 4)


def has_room(s: State, vmas: int, chain: int) -> bool:
    """Whether the tables hold what an operation can add that changes so many VMAs.

    Args:
        s: The state.
        vmas: VMAs that may be split, merged, moved or copied.
        chain: Length of the longest anon_vma_chain, one for each fork above, and what a fork adds.
    """
    slots = s.count[VMA_SLOTS] - s.count[FREE_VMAS] + 3 * vmas
    chains = s.count[AVC_SLOTS] - s.count[FREE_AVCS] + 3 * vmas * chain
    anon_vmas = s.count[ANON_VMAS] + vmas
    spaces = s.count[SPACE_SLOTS] - s.count[FREE_SPACES] + 2
    blocks = s.count[BLOCK_SLOTS] - s.count[FREE_BLOCKS] + 3 * vmas // (BLOCK // 2) + 4
    lives = s.count[LIVES] + 8 * vmas * chain
    versions = s.count[VERSIONS] + 4 * vmas
    refusals = s.count[REFUSALS] + 4 * vmas
    if (
        slots <= len(s.vma)
        and chains <= len(s.avc)
        and anon_vmas <= len(s.anon_vma)
        and spaces <= len(s.space)
        and blocks <= len(s.block)
        and lives <= len(s.life)
        and versions <= len(s.version)
        and refusals <= len(s.refusal)
    ):
        return True
    s.count[NEEDED] = slots
    s.count[NEEDED + 1] = chains
    s.count[NEEDED + 2] = anon_vmas
    s.count[NEEDED + 3] = spaces
    s.count[NEEDED + 4] = blocks
    s.count[NEEDED + 5] = lives
    s.count[NEEDED + 6] = versions
    s.count[NEEDED + 7] = refusals
    return False


def step(s: State, ops: Operations, op: int) -> None:
    """One operation."""
    kind, task = ops.kind[op], ops.task[op]
    a, b, c, d, e = ops.a[op], ops.b[op], ops.c[op], ops.d[op], ops.e[op]
    if kind == OP_FORK:
        fork(s, task, a)
        return
    if kind == OP_EXEC:
        execve(s, task, a)
        return
    mm = space_of(s, task)
    if kind == OP_FAULT:
        fault(s, mm, a, b)
    elif kind == OP_MPROTECT:
        mprotect(s, mm, a, b, c, d, e, VM_ACCESS_FLAGS)
    elif kind == OP_MPROTECT_KEY:
        mprotect(s, mm, a, b, c, d, e, VM_ACCESS_FLAGS | VM_PKEY)
    elif kind == OP_ADVISE:
        madvise(s, mm, a, b, c, d, e)
    elif kind == OP_POPULATE:
        madvise_populate(s, mm, a, b)
    elif kind == OP_MMAP:
        mmap(s, mm, a, b, c, d, e)
    elif kind == OP_MMAP_POPULATE:
        mmap(s, mm, a, b, c, d, e)
        populate(s, mm, a, b)
    elif kind == OP_MUNMAP:
        munmap(s, mm, a, b)
    elif kind == OP_BRK:
        brk(s, mm, a, b)
    elif kind == OP_MOVE:
        mremap_to(s, mm, a, b, c, d, e)
    elif kind == OP_MOVE_MANY:
        remap_move(s, mm, a, b, d, e)
    elif kind == OP_FAILED_MREMAP_TO:
        failed_mremap_to(s, mm, a, b, c, d, e)
    elif kind == OP_FAILED_MOVE_MANY:
        failed_remap_move(s, mm, a, b, c, d, e)
    elif kind == OP_GROW:
        grow_in_place(s, mm, a, b)
    elif kind == OP_GUARD:
        guard_install(s, mm, a, b)
    elif kind == OP_FAILED_MMAP:
        failed_mmap(s, mm, a, b, c, d)
    elif kind == OP_FAILED_MUNMAP:
        failed_munmap(s, mm, a)
    elif kind == OP_TELL:
        tell(s, mm, a, b, c, d, e)
    elif kind == OP_TELL_GAP:
        tell_gap(s, mm, a, b)
    elif kind == OP_MERGE_ANY:
        merge_any(s, mm, a)
    elif kind == OP_LOCK:
        mlock(s, mm, a, b, c, d)
    elif kind == OP_LOCK_ALL:
        lock_all(s, mm, a, b, c)
    elif kind == OP_MBIND:
        mbind(s, mm, a, b, c)
    elif kind == OP_HOME_NODE:
        home_node(s, mm, a, b, c)
    elif kind == OP_SHMDT:
        shmdt(s, mm, a)
    elif kind == OP_REMAP_FILE:
        remap_file_pages(s, mm, a, b, c)
    elif kind == OP_THREAD:
        s.space[mm].users += 1
        s.task[a].space = mm
    elif kind == OP_EXIT:
        mmput(s, mm)
        s.task[task].space = -1
