"""Calls that change flags or policies in ``oracle.model``: the slow twin of part of ``model.calls``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replay.oracle.model_mremap import pages_of
from replay.state import kernel as k

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from replay.oracle.model_vma import Areas, Mm, Vma

_PAGE = 1 << k.PAGE_SHIFT


class FlagCalls:
    """What ``OracleModel`` does at mprotect(), madvise(), mlock(), mbind() and their kind."""

    rules: k.Rules
    areas: Areas
    doubts: Counter[str]
    _full = False

    def _populate(self, mm: Mm, start: int, end: int) -> None:
        """populate_vma_page_range(): writes into what is private and writable."""
        vma = mm.find(start)
        while vma is not None and vma.start < end:
            if vma.flags & (k.VM_WRITE | k.VM_SHARED) == k.VM_WRITE and not vma.flags & k.VM_LOCKONFAULT:
                self.areas.anon_vma_prepare(vma)
            vma = mm.find(vma.end)

    def _sys_pkey_mprotect(self, mm: Mm, arguments: list[int], ret: int) -> None:
        """A protection key of -1 is none: as mprotect()."""
        if arguments[3] > 15:
            self._sys_mprotect(mm, arguments, ret)
        else:
            self._sys_mprotect(mm, arguments, ret, arguments[3] << k.VM_PKEY_SHIFT, k.VM_PKEY)

    def _sys_mprotect(self, mm: Mm, arguments: list[int], ret: int, key: int = 0, key_mask: int = 0) -> None:
        start, end = arguments[0] >> k.PAGE_SHIFT, (arguments[0] >> k.PAGE_SHIFT) + pages_of(arguments[1])
        if ret not in (0, -k.ENOMEM, -k.EACCES, -k.EPERM) or arguments[0] % _PAGE or start >= end:
            return
        vma = mm.find(start)
        if vma is None or vma.start >= end:
            return
        if arguments[2] & k.PROT_GROWSDOWN:
            start = vma.start
        prot = arguments[2] & k.VM_ACCESS_FLAGS | key
        mask = k.VM_ACCESS_FLAGS | key_mask
        if ret in (-k.EACCES, -k.EPERM):
            end = self._ended_at(
                mm,
                start,
                end,
                lambda each: bool(
                    each.flags & k.VM_SEALED
                    if ret == -k.EPERM
                    else prot & k.VM_WRITE and each.flags & (k.VM_SHARED | k.VM_WRITE) == k.VM_SHARED
                ),
            )
            ret = 0
        self._full = ret == -k.ENOMEM and not self._has_hole(mm, start, end)
        self.doubts["too_many_vmas"] += self._full
        self._walk(mm, start, end, ret, lambda flags: flags & ~mask | prot, self._mprotect_fixup)

    def _ended_at(self, mm: Mm, start: int, end: int, refuses: Callable[[Vma], bool]) -> int:
        """Where a call ended that failed at a VMA; if which is not known, at the first."""
        inside = [each for each in mm.vmas if each.end > start and each.start < end]
        for each in inside:
            if refuses(each):
                return max(start, each.start)
        self.doubts["failed_at_unknown"] += len(inside) > 1
        return start

    def _has_hole(self, mm: Mm, start: int, end: int) -> bool:
        pages = {page for vma in mm.vmas for page in range(max(vma.start, start), min(vma.end, end))}
        return len(pages) < end - start

    def _sys_mseal(self, mm: Mm, arguments: list[int], ret: int) -> None:
        start = arguments[0] >> k.PAGE_SHIFT
        end = start + pages_of(arguments[1])
        self._full = False
        vma = mm.find(start) if ret == 0 else None
        while vma is not None and vma.start < end:
            if not vma.flags & k.VM_SEALED:
                flags = vma.flags | k.VM_SEALED
                vma = self._modify(vma, max(start, vma.start), min(end, vma.end), flags) or vma
            vma = mm.find(vma.end)

    def _walk(self, mm: Mm, start: int, end: int, ret: int, change: Any, fixup: Any) -> None:
        """The loop of mprotect(), mlock(): every VMA of the range; a hole ends it."""
        vma = mm.find(start) if start < end else None
        while vma is not None and vma.start < end:
            if vma.start > start:
                if ret:
                    return
                start = vma.start
            vma = fixup(vma, start, min(vma.end, end), change(vma.flags))
            if vma is None:
                return
            start = vma.end
            vma = mm.find(start)

    def _mprotect_fixup(self, vma: Vma, start: int, end: int, flags: int) -> Vma | None:
        old = vma.flags
        if flags == old:
            return vma
        if flags & k.VM_WRITE:
            if not old & (k.VM_ACCOUNT | k.VM_WRITE | k.VM_HUGETLB | k.VM_SHARED | k.VM_NORESERVE):
                flags |= k.VM_ACCOUNT
        elif old & k.VM_ACCOUNT and not vma.file and vma.anon_vma is None:
            flags &= ~k.VM_ACCOUNT
        mm, modified = vma.mm, self._modify(vma, start, end, flags)
        if modified is None:
            return None
        if old & (k.VM_WRITE | k.VM_SHARED | k.VM_LOCKED) == k.VM_LOCKED and flags & k.VM_WRITE:
            self._populate(mm, start, end)
        return modified

    def _modify(self, vma: Vma, start: int, end: int, flags: int) -> Vma | None:
        """vma_modify_flags(); None: too many VMAs to split one."""
        guard = vma.flags & k.VM_MAYBE_GUARD
        modified = self.areas.vma_modify(
            vma, start, end, flags=flags, policy=vma.policy, may_split=not self._full
        )
        if modified is not None:
            self.areas.set_flags(modified, flags | guard | modified.flags & k.VM_MAYBE_GUARD)
        return modified

    def _sys_madvise(self, mm: Mm, arguments: list[int], ret: int) -> None:
        address, length, advice = arguments[:3]
        start, end = address >> k.PAGE_SHIFT, (address >> k.PAGE_SHIFT) + pages_of(length)
        if address % _PAGE or start >= end or ret not in (0, -k.ENOMEM, -k.EINVAL, -k.EAGAIN):
            return
        self._full = ret == -k.EAGAIN
        if advice == k.MADV_POPULATE_WRITE:
            self._madvise_populate(mm, start, end)
        elif advice == k.MADV_GUARD_INSTALL and self.rules.guards and not ret:
            for vma in [each for each in mm.vmas if each.end > start and each.start < end]:
                self.areas.anon_vma_prepare(vma)
                self.areas.set_flags(vma, vma.flags | k.VM_MAYBE_GUARD)
        elif advice in k.ADVICE and ret == -k.EINVAL:
            if advice in k.MADV_REFUSED:
                end = self._ended_at(mm, start, end, lambda each: self._refuses(each, advice))
                self._madvise_walk_vmas(mm, start, end, advice)
        elif advice in k.ADVICE:
            self._madvise_walk_vmas(mm, start, end, advice)

    def _refuses(self, vma: Vma, advice: int) -> bool:
        """madvise_vma_behavior(): EINVAL."""
        bits = {k.MADV_DOFORK: k.VM_IO, k.MADV_KEEPONFORK: k.VM_DROPPABLE}.get(advice, 0)
        if advice == k.MADV_WIPEONFORK:
            return bool(vma.file or vma.flags & k.VM_SHARED)
        if advice == k.MADV_DODUMP:
            bits = k.VM_DROPPABLE | (0 if vma.flags & k.VM_HUGETLB else k.VM_SPECIAL)
        return bool(vma.flags & bits)

    def _madvise_populate(self, mm: Mm, start: int, end: int) -> None:
        """madvise_populate(): ends at a hole and at what cannot be written."""
        vma = mm.find(start)
        while vma is not None and vma.start <= start < end:
            if not vma.flags & k.VM_WRITE:
                return
            if not vma.flags & k.VM_SHARED:
                self.areas.anon_vma_prepare(vma)
            start = vma.end
            vma = mm.find(start)

    def _madvise_walk_vmas(self, mm: Mm, start: int, end: int, advice: int) -> None:
        clear, add = k.ADVICE[advice]
        self.doubts["too_many_vmas"] += self._full
        vma = mm.find(start) if start < end else None
        while vma is not None and vma.start < end:
            flags = vma.flags & ~clear | add
            if advice == k.MADV_MERGEABLE and vma.flags & k.KSM_INCOMPATIBLE:
                flags = vma.flags
            if flags != vma.flags:
                modified = self._modify(vma, max(start, vma.start), min(end, vma.end), flags)
                if modified is None:
                    return
                vma = modified
            start = vma.end
            vma = mm.find(start)

    def _sys_prctl(self, mm: Mm, arguments: list[int], ret: int) -> None:
        """ksm_enable_merge_any(), ksm_disable_merge_any(): flags change in place, nothing merges."""
        if arguments[0] != k.PR_SET_MEMORY_MERGE or ret or mm.merge_any == bool(arguments[1]):
            return
        mm.merge_any = bool(arguments[1])
        for vma in mm.vmas:
            if mm.merge_any and not vma.flags & k.KSM_INCOMPATIBLE:
                self.areas.set_flags(vma, vma.flags | k.VM_MERGEABLE)
            elif not mm.merge_any:
                self.areas.set_flags(vma, vma.flags & ~k.VM_MERGEABLE)

    # mlock

    def _lock(self, mm: Mm, arguments: list[int], ret: int, flags: int) -> None:
        start, end = arguments[0] >> k.PAGE_SHIFT, pages_of(arguments[0] + arguments[1])
        if ret not in (0, -k.ENOMEM, -k.EAGAIN):
            return
        self._full = False
        if ret == -k.ENOMEM and not self._has_hole(mm, start, end):
            self.doubts["mlock_failed"] += 1
            return
        self._walk(mm, start, end, ret, lambda old: old & ~k.VM_LOCKED_MASK | flags, self._mlock_fixup)
        if flags and not ret:
            self._populate(mm, start, end)

    def _mlock_fixup(self, vma: Vma, start: int, end: int, flags: int) -> Vma | None:
        if flags == vma.flags or vma.flags & (k.VM_SPECIAL | k.VM_HUGETLB | k.VM_DROPPABLE):
            return vma
        return self._modify(vma, start, end, flags)

    def _sys_mlock(self, mm: Mm, arguments: list[int], ret: int) -> None:
        self._lock(mm, arguments, ret, k.VM_LOCKED)

    def _sys_mlock2(self, mm: Mm, arguments: list[int], ret: int) -> None:
        on_fault = k.VM_LOCKONFAULT if arguments[2] & k.MLOCK_ONFAULT else 0
        self._lock(mm, arguments, ret, k.VM_LOCKED | on_fault)

    def _sys_munlock(self, mm: Mm, arguments: list[int], ret: int) -> None:
        self._lock(mm, arguments, ret, 0)

    def _sys_mlockall(self, mm: Mm, arguments: list[int], ret: int) -> None:
        if ret:
            return
        bits = k.VM_LOCKED | (k.VM_LOCKONFAULT if arguments[0] & k.MCL_ONFAULT else 0)
        mm.def_flags = bits if arguments[0] & k.MCL_FUTURE else 0
        if arguments[0] & k.MCL_CURRENT:
            self._lock_all(mm, bits)
            self._populate(mm, 0, 1 << 52)

    def _sys_munlockall(self, mm: Mm, arguments: list[int], ret: int) -> None:
        if not ret:
            mm.def_flags = 0
            self._lock_all(mm, 0)

    def _lock_all(self, mm: Mm, bits: int) -> None:
        self._full = False
        vma = mm.find(0)
        while vma is not None:
            flags = vma.flags & ~k.VM_LOCKED_MASK | bits
            vma = self._mlock_fixup(vma, vma.start, vma.end, flags) or vma
            vma = mm.find(vma.end)

    def _sys_set_mempolicy_home_node(self, mm: Mm, arguments: list[int], ret: int) -> None:
        start = arguments[0] >> k.PAGE_SHIFT
        end = start + pages_of(arguments[1])
        vma = mm.find(start) if ret == 0 else None
        while vma is not None and vma.start < end:
            policy = vma.policy and (*vma.policy[:3], arguments[2])
            if vma.policy != policy:
                first, last = max(start, vma.start), min(end, vma.end)
                vma = self.areas.vma_modify(vma, first, last, flags=vma.flags, policy=policy) or vma
                vma.policy = policy
            vma = mm.find(vma.end)

    def _sys_mbind(self, mm: Mm, arguments: list[int], ret: int) -> None:
        """mbind_range(); a policy is known by the arguments alone."""
        start = arguments[0] >> k.PAGE_SHIFT
        end = start + pages_of(arguments[1])
        policy = tuple(arguments[2:5]) if arguments[2] else None
        vma = mm.find(start) if ret in (0, -k.EIO) else None
        while vma is not None and vma.start < end:
            if vma.policy != policy:
                first, last = max(start, vma.start), min(end, vma.end)
                vma = self.areas.vma_modify(vma, first, last, flags=vma.flags, policy=policy) or vma
                vma.policy = policy
            vma = mm.find(vma.end)
