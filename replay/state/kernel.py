"""What the kernels do differently where system calls become VMAs, and the constants of their interface."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

KernelRules = Literal["6.12", "7.3"]


@dataclass(frozen=True)
class Rules:
    """Differences between kernels in mm/vma.c, mm/mremap.c and mm/rmap.c.

    Attributes:
        name: The first kernel of Debian that was checked to do so.
        anon_pgoff: VMAs have an anonymous page offset besides vm_pgoff, and the trees go by it.
        merges_faulted_into_unfaulted: is_mergeable_anon_vma() lets a VMA without anon_vma take one over.
        clone_reverses: anon_vma_clone() turns the order of the avc list round.
        mergeable_first: VM_MERGEABLE by PR_SET_MEMORY_MERGE is set before a merge is tried, not after.
        dontunmap_resets: The source of MREMAP_DONTUNMAP gets the page offset of its address again; if it was
            locked, it is split off first.
        moves_many: mremap() moves several VMAs at once, and checks before it unmaps the target.
        guards: madvise() knows MADV_GUARD_INSTALL.
        advises_itself: process_madvise() takes any advice for its own process, not only what changes no VMA.
    """

    name: KernelRules
    anon_pgoff: bool
    merges_faulted_into_unfaulted: bool
    clone_reverses: bool
    mergeable_first: bool
    dontunmap_resets: bool
    moves_many: bool
    guards: bool
    advises_itself: bool


RULES: Final[dict[str, Rules]] = {
    "6.12": Rules("6.12", *[False] * 8),
    "7.3": Rules("7.3", *[True] * 8),
}


def rules_for(release: str | None) -> KernelRules:
    """The rules of a kernel, where the capture shows nothing better than its release.

    The field of the anonymous page offset (7.3) in a probe of the trees shows it; stock events do not.

    Args:
        release: ``uname -r``, such as ``7.3.4+deb13-cloud-amd64``. None, or no version: older rules.
    """
    numbers = re.match(r"(\d+)\.(\d+)", release or "")
    return "7.3" if numbers and (int(numbers[1]), int(numbers[2])) >= (7, 3) else "6.12"


MAX_FD: Final = (1 << 30) - 1
"""File descriptors have fewer bits: a process may have at most 2^30 files (fs/file.c)."""
PAGE_SHIFT: Final = 12
PAGE_BYTES: Final = 1 << PAGE_SHIFT
STACK_GUARD_GAP: Final = 256
"""Pages between a stack and what is mapped below it (stack_guard_gap, unless the command line sets it)."""
STACK_LIMIT: Final = 2048
"""Pages that a stack has at most unless RLIMIT_STACK was changed (_STK_LIM, 8 MiB)."""

# include/linux/mm.h
VM_READ: Final = 0x1
VM_WRITE: Final = 0x2
VM_EXEC: Final = 0x4
VM_ACCESS_FLAGS: Final = VM_READ | VM_WRITE | VM_EXEC
VM_SHARED: Final = 0x8
VM_MAY: Final = 0x70
VM_MAYSHARE: Final = 0x80
VM_GROWSDOWN: Final = 0x100
VM_LOCKED: Final = 0x2000
VM_IO: Final = 0x4000
VM_SEQ_READ: Final = 0x8000
VM_RAND_READ: Final = 0x10000
VM_DONTCOPY: Final = 0x20000
VM_DONTEXPAND: Final = 0x40000
VM_LOCKONFAULT: Final = 0x80000
VM_LOCKED_MASK: Final = VM_LOCKED | VM_LOCKONFAULT
VM_ACCOUNT: Final = 0x100000
VM_NORESERVE: Final = 0x200000
VM_HUGETLB: Final = 0x400000
VM_WIPEONFORK: Final = 0x2000000
VM_DONTDUMP: Final = 0x4000000
VM_HUGEPAGE: Final = 0x20000000
VM_NOHUGEPAGE: Final = 0x40000000
VM_MERGEABLE: Final = 0x80000000
VM_SPECIAL: Final = 0x10004400 | VM_DONTEXPAND
"""VM_IO, VM_DONTEXPAND, VM_PFNMAP, VM_MIXEDMAP: never merged."""
VM_PKEY_SHIFT: Final = 32
VM_PKEY: Final = 0xF << VM_PKEY_SHIFT
VM_SHADOW_STACK: Final = 1 << 37
VM_DROPPABLE: Final = 1 << 40
VM_MAYBE_GUARD: Final = 1 << 61
"""Not the kernel's bit, which differs between builds; a sticky flag: merging ignores and keeps it."""
VM_PLACED: Final = 1 << 60
"""Not the kernel's: of an operation MMAP only, which replaces nothing, as its place was free."""
VM_SEALED: Final = 1 << 62
"""Not the kernel's bit 63, which a signed integer has no place for."""
TOLD_PGOFF: Final = 1
TOLD_ANON_PGOFF: Final = 2
TOLD_FLAGS: Final = 4
"""What is not known of a VMA that a snapshot of the maps told: its page offsets; flags besides protection."""
TOLD_SHIFT: Final = 48
"""Place of these bits in the vm_flags of an operation; after them whether it has an anon_vma for certain."""
TOLD_FAULTED: Final = 8
OWN_FLAGS: Final = VM_MAYBE_GUARD | VM_SEALED
KSM_INCOMPATIBLE: Final = VM_SHARED | VM_MAYSHARE | VM_SPECIAL | VM_HUGETLB | VM_DROPPABLE

# include/uapi: mman.h, prctl.h, sched.h
MAP_TYPE: Final = 0xF
MAP_SHARED: Final = 1
MAP_PRIVATE: Final = 2
MAP_DROPPABLE: Final = 8
MAP_FIXED: Final = 0x10
MAP_ANONYMOUS: Final = 0x20
MAP_GROWSDOWN: Final = 0x100
MAP_LOCKED: Final = 0x2000
MAP_NORESERVE: Final = 0x4000
MAP_POPULATE: Final = 0x8000
MAP_NONBLOCK: Final = 0x10000
MAP_FIXED_NOREPLACE: Final = 0x100000
MAP_STACK: Final = 0x20000
MAP_HUGETLB: Final = 0x40000
MAP_HUGE_SHIFT: Final = 26
MAP_HUGE_MASK: Final = 63
MREMAP_FIXED: Final = 2
MREMAP_DONTUNMAP: Final = 4
PROT_GROWSDOWN: Final = 0x1000000
MCL_CURRENT: Final = 1
MCL_FUTURE: Final = 2
MCL_ONFAULT: Final = 4
MLOCK_ONFAULT: Final = 1
HOME_NODE: Final = 1 << 16
"""Numbers of policies are below that; a home node is above, from 1."""
PR_SET_MEMORY_MERGE: Final = 67
PR_SET_VMA: Final = 0x53564D41
SHADOW_STACK_SET_TOKEN: Final = 1
IPC_PRIVATE: Final = 0
IPC_NEW: Final = 0o3000
"""IPC_CREAT and IPC_EXCL: what there is already is not taken."""
SHM_HUGETLB: Final = 0o4000
SHM_RDONLY: Final = 0o10000
SHM_REMAP: Final = 0o40000
SHM_EXEC: Final = 0o100000
SHM_FILE: Final = -(1 << 30)
"""Files from here down are attached segments of shared memory, each attachment one of its own."""
CLONE_VM: Final = 0x100
PF_WRITE: Final = 2
HUGE_PAGE: Final = 512
"""Pages of a huge page of the size of a PMD (x86-64)."""

EAGAIN: Final = 11
EACCES: Final = 13
EFAULT: Final = 14
EIO: Final = 5
EPERM: Final = 1
EINVAL: Final = 22
EBADF: Final = 9
EINTR: Final = 4
ETXTBSY: Final = 26
EOVERFLOW: Final = 75
ENOMEM: Final = 12

MMAP_FAILS_EARLY: Final = (EBADF, EINTR, ETXTBSY, EOVERFLOW)
"""Errors that mmap() gives before it looks at what is mapped, and no file's hook gives later."""

MADV_POPULATE_WRITE: Final = 23
MADV_GUARD_INSTALL: Final = 102
MADV_WIPEONFORK: Final = 18
MADV_KEEPONFORK: Final = 19
MADV_DODUMP: Final = 17
MADV_DOFORK: Final = 11
TOO_MANY: Final = 256
"""Added to the advice of an operation: the call failed for want of VMAs (EAGAIN)."""
REFUSED: Final = 512
"""Likewise: it failed at a VMA that does not take the advice (EINVAL)."""
MADV_REFUSED: Final = (MADV_DOFORK, MADV_DODUMP, MADV_WIPEONFORK, MADV_KEEPONFORK)
"""Advice that some VMAs do not take; any other is EINVAL at once if the kernel does not know it."""
MADV_MERGEABLE: Final = 12
MADV_UNMERGEABLE: Final = 13

ADVICE: Final[dict[int, tuple[int, int]]] = {
    0: (VM_SEQ_READ | VM_RAND_READ, 0),
    1: (VM_SEQ_READ, VM_RAND_READ),
    2: (VM_RAND_READ, VM_SEQ_READ),
    10: (0, VM_DONTCOPY),
    11: (VM_DONTCOPY, 0),
    12: (0, VM_MERGEABLE),
    13: (VM_MERGEABLE, 0),
    14: (VM_NOHUGEPAGE, VM_HUGEPAGE),
    15: (VM_HUGEPAGE, VM_NOHUGEPAGE),
    16: (0, VM_DONTDUMP),
    17: (VM_DONTDUMP, 0),
    18: (0, VM_WIPEONFORK),
    19: (VM_WIPEONFORK, 0),
}
"""For each advice that changes vm_flags: bits that it clears, bits that it sets (mm/madvise.c)."""
