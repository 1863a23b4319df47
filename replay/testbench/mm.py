"""System calls on memory that Python has no function for, by ctypes: no compiler is needed.

Addresses are in bytes, lengths in pages. Every function raises OSError with the errno of the call.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Final

PAGE: Final = os.sysconf("SC_PAGE_SIZE")

PROT_READ, PROT_WRITE = 1, 2
MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE = 2, 0x10, 0x20, 0x4000
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2
MADV_NORMAL, MADV_RANDOM, MADV_DONTNEED, MADV_DONTFORK, MADV_DOFORK = 0, 1, 4, 10, 11
MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_NOHUGEPAGE = 12, 13, 15
_PR_SET_MEMORY_MERGE: Final = 67
_MPOL_MF_MOVE_ALL: Final = 4
_SYS_MOVE_PAGES: Final = {"x86_64": 279}.get(platform.machine(), 239)  # 239: asm-generic/unistd.h
_PRESENT: Final = 1 << 63
_FRAME: Final = (1 << 55) - 1
_NODES: Final = Path("/sys/devices/system/node/has_memory")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = _libc.mremap.restype = ctypes.c_void_p
_libc.syscall.restype = ctypes.c_long


def _failed(name: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{name}: {os.strerror(number)}")


def _call(name: str, *arguments: int) -> int:
    """A function of libc that returns -1 when it fails."""
    result: int = getattr(_libc, name)(*(ctypes.c_ulong(each) for each in arguments))
    if result == -1:
        raise _failed(name)
    return result


def _map(name: str, *arguments: int) -> int:
    """A function of libc that returns an address, or MAP_FAILED."""
    result: int | None = getattr(_libc, name)(*(ctypes.c_ulong(each) for each in arguments))
    if result is None or result == ctypes.c_void_p(-1).value:
        raise _failed(name)
    return result


def map_anonymous(pages: int) -> int:
    """New private anonymous memory, readable and writable, of its own VMA; its address."""
    # A page that nobody may touch on either side: else the kernel merges it with its neighbours.
    place = _map("mmap", 0, (pages + 2) * PAGE, 0, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, 2**64 - 1, 0)
    return _map(
        "mmap",
        place + PAGE,
        pages * PAGE,
        PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
        2**64 - 1,
        0,
    )


def map_file(file: int, first_page: int, pages: int) -> int:
    """Part of a file, privately: what is written stays in memory; its address."""
    return _map("mmap", 0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, first_page * PAGE)


def unmap(address: int, pages: int) -> None:
    """Munmap."""
    _call("munmap", address, pages * PAGE)


def protect(address: int, pages: int, *, writable: bool) -> None:
    """Mprotect to read only, or back."""
    _call("mprotect", address, pages * PAGE, PROT_READ | (PROT_WRITE if writable else 0))


def advise(address: int, pages: int, advice: int) -> None:
    """Madvise."""
    _call("madvise", address, pages * PAGE, advice)


def move(address: int, pages: int) -> int:
    """Mremap to a place where no one has been; the new address."""
    place = map_anonymous(pages)
    return _map("mremap", address, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place)


def merge_all_of_this_process() -> None:
    """prctl(PR_SET_MEMORY_MERGE, 1): Linux 6.4 or newer."""
    _call("prctl", _PR_SET_MEMORY_MERGE, 1, 0, 0, 0)


def fill(address: int, pages: int, value: int) -> None:
    """Write the byte ``value`` all over the pages."""
    ctypes.memset(address, value, pages * PAGE)


def write(address: int, value: int) -> None:
    """Write one 64-bit word; a page that is merged becomes a copy."""
    ctypes.c_uint64.from_address(address).value = value


def nodes() -> list[int]:
    """NUMA nodes with memory; empty on a kernel without NUMA."""
    if not _NODES.exists():
        return []
    found: list[int] = []
    for part in _NODES.read_text(encoding="ascii").strip().split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def migrate(address: int, targets: list[int]) -> bool:
    """Migrate the folio of one page to another node, whoever else maps it: one unmapping, one restoring walk.

    Args:
        address: Where this process maps it.
        targets: Nodes to choose from, two or more.

    Returns:
        Whether it went there.
    """
    page, status = ctypes.c_void_p(address), ctypes.c_int(-1)

    def move_pages(node: ctypes.c_int | None) -> int:
        to = None if node is None else ctypes.byref(node)
        arguments = (ctypes.c_long(0), ctypes.c_ulong(1), ctypes.byref(page), to, ctypes.byref(status))
        if _libc.syscall(ctypes.c_long(_SYS_MOVE_PAGES), *arguments, ctypes.c_int(_MPOL_MF_MOVE_ALL)) < 0:
            raise _failed("move_pages")
        return status.value

    here = move_pages(None)
    there = targets[(targets.index(here) + 1) % len(targets)] if here in targets else targets[0]
    return move_pages(ctypes.c_int(there)) == there


def frames(addresses: list[int]) -> list[int]:
    """Page frame numbers of pages of this process (man 5 proc_pid_pagemap); 0: none is there, or not root."""
    found = []
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
        for address in addresses:
            entry = int.from_bytes(os.pread(pagemap.fileno(), 8, address // PAGE * 8), sys.byteorder)
            found.append(entry & _FRAME if entry & _PRESENT else 0)
    return found


def compact() -> None:
    """Compact all memory: the kernel migrates what is in its way."""
    Path("/proc/sys/vm/compact_memory").write_text("1", encoding="ascii")
