"""What a system call does, from those of its arguments that say so, by their names in the kernel's interface.

Addresses, lengths and descriptors are left out: calls that do the same have the same words. Bits and values
without a name are shown as hexadecimal numbers.

Names: include/uapi/asm-generic/mman-common.h, mman.h; linux/mempolicy.h, prctl.h, sched.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ARGUMENTS: Final = tuple(f"arg{number}" for number in range(6))

_PROT: Final = {
    0x1: "PROT_READ",
    0x2: "PROT_WRITE",
    0x4: "PROT_EXEC",
    0x8: "PROT_SEM",
    0x1000000: "PROT_GROWSDOWN",
    0x2000000: "PROT_GROWSUP",
}
_MAP_TYPE: Final = {1: "MAP_SHARED", 2: "MAP_PRIVATE", 3: "MAP_SHARED_VALIDATE", 8: "MAP_DROPPABLE"}
_MAP: Final = {
    0x10: "MAP_FIXED",
    0x20: "MAP_ANONYMOUS",
    0x40: "MAP_32BIT",
    0x100: "MAP_GROWSDOWN",
    0x2000: "MAP_LOCKED",
    0x4000: "MAP_NORESERVE",
    0x8000: "MAP_POPULATE",
    0x10000: "MAP_NONBLOCK",
    0x20000: "MAP_STACK",
    0x40000: "MAP_HUGETLB",
    0x80000: "MAP_SYNC",
    0x100000: "MAP_FIXED_NOREPLACE",
}
_MREMAP: Final = {1: "MREMAP_MAYMOVE", 2: "MREMAP_FIXED", 4: "MREMAP_DONTUNMAP"}
_MLOCK: Final = {1: "MLOCK_ONFAULT"}
_MCL: Final = {1: "MCL_CURRENT", 2: "MCL_FUTURE", 4: "MCL_ONFAULT"}
_CLONE: Final = {0x100: "CLONE_VM", 0x4000: "CLONE_VFORK", 0x10000: "CLONE_THREAD"}
_ADVICE: Final = {
    number: f"MADV_{name}"
    for number, name in {
        0: "NORMAL",
        1: "RANDOM",
        2: "SEQUENTIAL",
        3: "WILLNEED",
        4: "DONTNEED",
        8: "FREE",
        9: "REMOVE",
        10: "DONTFORK",
        11: "DOFORK",
        12: "MERGEABLE",
        13: "UNMERGEABLE",
        14: "HUGEPAGE",
        15: "NOHUGEPAGE",
        16: "DONTDUMP",
        17: "DODUMP",
        18: "WIPEONFORK",
        19: "KEEPONFORK",
        20: "COLD",
        21: "PAGEOUT",
        22: "POPULATE_READ",
        23: "POPULATE_WRITE",
        24: "DONTNEED_LOCKED",
        25: "COLLAPSE",
        100: "HWPOISON",
        101: "SOFT_OFFLINE",
        102: "GUARD_INSTALL",
        103: "GUARD_REMOVE",
    }.items()
}
_POLICY: Final = dict(
    enumerate(
        f"MPOL_{name}"
        for name in (
            *("DEFAULT", "PREFERRED", "BIND", "INTERLEAVE", "LOCAL", "PREFERRED_MANY"),
            "WEIGHTED_INTERLEAVE",
        )
    )
)
_PRCTL: Final = {67: "PR_SET_MEMORY_MERGE", 0x53564D41: "PR_SET_VMA"}


def _bits(value: int, names: Mapping[int, str]) -> str:
    """Names of the bits that are set, then what is left."""
    found = [name for bit, name in names.items() if value & bit]
    left = value & ~sum(names)
    return "|".join([*found, *([f"{left:#x}"] if left else [])])


def _protection(value: int) -> str:
    return _bits(value, _PROT) or "PROT_NONE"


def _value(value: int, names: Mapping[int, str]) -> str:
    return names.get(value, f"{value:#x}")


def _mmap(prot: int, flags: int) -> str:
    kind = _value(flags & 0xF, _MAP_TYPE)
    others = _bits(flags & ~0xF & ~(0x3F << 26), _MAP)
    return f"{_protection(prot)}, {kind}{'|' if others else ''}{others}"


def _prctl(option: int, value: int) -> str:
    return _value(option, _PRCTL) + (f", {value}" if option == 67 else "")


_SAID_BY: Final[dict[str, tuple[tuple[int, ...], Callable[..., str]]]] = {
    "mprotect": ((2,), _protection),
    "pkey_mprotect": ((2,), _protection),
    "madvise": ((2,), lambda advice: _value(advice, _ADVICE)),
    "process_madvise": ((3,), lambda advice: _value(advice, _ADVICE)),
    "mmap": ((2, 3), _mmap),
    "mremap": ((3,), lambda flags: _bits(flags, _MREMAP)),
    "mlock2": ((2,), lambda flags: _bits(flags, _MLOCK)),
    "mlockall": ((0,), lambda flags: _bits(flags, _MCL)),
    "mbind": ((2,), lambda mode: _value(mode & 0xFF, _POLICY)),
    "set_mempolicy": ((0,), lambda mode: _value(mode & 0xFF, _POLICY)),
    "prctl": ((0, 1), _prctl),
    "clone": ((0,), lambda flags: _bits(flags & sum(_CLONE), _CLONE)),
}
"""For each call the numbers of the arguments that say what it does, and what makes words of them."""


def said(calls: pl.DataFrame) -> pl.Series:
    """Words for the arguments of each call.

    Args:
        calls: ``name`` and ``arg0`` to ``arg5`` (null: not in the capture), one row a call.

    Returns:
        One text a row; null: the call has no such arguments, or the capture does not have them.
    """
    matter = [
        pl.when(pl.col("name").is_in([name for name, (used, _) in _SAID_BY.items() if number in used]))
        .then(pl.col(f"arg{number}"))
        .alias(f"arg{number}")
        for number in range(len(ARGUMENTS))
    ]
    asked = calls.select("name", *matter)
    distinct = asked.unique()
    words = [_said(*row) for row in distinct.select("name", *ARGUMENTS).iter_rows()]
    told = distinct.with_columns(arguments=pl.Series(words, dtype=pl.String))
    keys = ["name", *ARGUMENTS]
    return asked.join(told, on=keys, how="left", maintain_order="left", nulls_equal=True)["arguments"]


def _said(name: str | None, *arguments: int | None) -> str | None:
    if name not in _SAID_BY:
        return None
    used, words = _SAID_BY[name]
    values = [arguments[number] for number in used]
    return (words(*values) or None) if None not in values else None
