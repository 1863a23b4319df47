"""Names of vm_flags. Kernel: include/linux/mm.h, without ``VM_``; the same bits in 6.12 and in 7.3."""

from __future__ import annotations

from typing import Final

NAMES: Final = {
    0: "READ",
    1: "WRITE",
    2: "EXEC",
    3: "SHARED",
    4: "MAYREAD",
    5: "MAYWRITE",
    6: "MAYEXEC",
    7: "MAYSHARE",
    8: "GROWSDOWN",
    9: "UFFD_MISSING",
    10: "PFNMAP",
    12: "UFFD_WP",
    13: "LOCKED",
    14: "IO",
    15: "SEQ_READ",
    16: "RAND_READ",
    17: "DONTCOPY",
    18: "DONTEXPAND",
    19: "LOCKONFAULT",
    20: "ACCOUNT",
    21: "NORESERVE",
    22: "HUGETLB",
    23: "SYNC",
    25: "WIPEONFORK",
    26: "DONTDUMP",
    27: "SOFTDIRTY",
    28: "MIXEDMAP",
    29: "HUGEPAGE",
    30: "NOHUGEPAGE",
    31: "MERGEABLE",
}
"""By bit; bits that are left out depend on the architecture or the configuration."""


def flag_names(flags: int | None) -> str:
    """Names of the bits that are set, ``|`` between them; those without a name as a number; None: empty."""
    if flags is None:
        return ""
    known = [name for bit, name in NAMES.items() if flags >> bit & 1]
    rest = flags & ~sum(1 << bit for bit in NAMES)
    return "|".join([*known, *([f"{rest:#x}"] if rest else [])])
