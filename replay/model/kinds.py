"""Kinds of operations of the model, and their operands.

``a`` to ``e`` by kind (pages, ends exclusive):

=========== ===============================================================================================
FORK        the child's task
THREAD      the child's task: it shares the address space
EXEC        the task that it was before: a thread that takes its leader's place
FAULT       page; a write
MMAP        start, end, vm_flags and VM_PLACED, file (0: none), vm_pgoff; MMAP_POPULATE: its pages are written
FAILED_MMAP start, end, error number, 1 if private and anonymous; MAP_FIXED
MUNMAP      start, end; FAILED_MUNMAP: start
BRK         page above the break, 1 if the call moved it
MPROTECT    start, end, vm_flags of the protection, 1 if PROT_GROWSDOWN, error number; MPROTECT_KEY: and of
            the protection key
ADVISE      start, end, vm_flags to clear, vm_flags to set, advice
POPULATE    start, end; MADV_POPULATE_WRITE
GUARD       start, end; MADV_GUARD_INSTALL
MERGE_ANY   0 or 1
LOCK        start, end, vm_flags to set, error number
LOCK_ALL    vm_flags to set, vm_flags of later mappings, 1 if it acts on what there is
MBIND       start, end, policy (a number; 0: default); HOME_NODE: start, end, node
SHMDT       start
REMAP_FILE  start, end, vm_pgoff
GROW        start, end
TELL        start, end, vm_flags and what is not known (``TOLD_SHIFT``), file, vm_pgoff: of a snapshot
TELL_GAP    start, end: nothing is mapped there
MOVE        start, pages, new pages, new start, flags; MOVE_MANY likewise; FAILED_MREMAP_TO: error number
            in the place of flags; FAILED_MOVE_MANY: in that of new pages
=========== ===============================================================================================
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from replay.state import kernel as k

(
    OP_FORK,
    OP_THREAD,
    OP_EXEC,
    OP_EXIT,
    OP_FAULT,
    OP_MMAP,
    OP_MMAP_POPULATE,
    OP_MUNMAP,
    OP_BRK,
    OP_MPROTECT,
    OP_ADVISE,
    OP_POPULATE,
    OP_GUARD,
    OP_MERGE_ANY,
    OP_LOCK,
    OP_LOCK_ALL,
    OP_MBIND,
    OP_GROW,
    OP_MOVE,
    OP_MOVE_MANY,
    OP_FAILED_MREMAP_TO,
    OP_TELL,
    OP_TELL_GAP,
    OP_FAILED_MUNMAP,
    OP_FAILED_MMAP,
    OP_SHMDT,
    OP_REMAP_FILE,
    OP_HOME_NODE,
    OP_FAILED_MOVE_MANY,
    OP_MPROTECT_KEY,
) = range(30)

OPERANDS: Final = ("a", "b", "c", "d", "e")
PAGE: Final = 1 << k.PAGE_SHIFT
MAX_PAGE: Final = 1 << 44


class Operations(NamedTuple):
    """Columns of operations; lists of int, or int64 arrays."""

    kind: Any
    task: Any
    a: Any
    b: Any
    c: Any
    d: Any
    e: Any
