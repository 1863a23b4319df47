"""mremap() of ``oracle.model``: mm/mremap.c, the slow, obvious twin of ``model.mremap``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replay.state import kernel as k

if TYPE_CHECKING:
    from collections import Counter

    from replay.oracle.model_vma import Areas, Mm, Vma


def pages_of(byte: int) -> int:
    """PAGE_ALIGN(), in pages."""
    return (byte + k.PAGE_BYTES - 1) >> k.PAGE_SHIFT


class MremapCalls:
    """What ``OracleModel`` does at an mremap()."""

    rules: k.Rules
    areas: Areas
    doubts: Counter[str]

    def _sys_mremap(self, mm: Mm, arguments: list[int], ret: int) -> None:
        address, old_len, new_len, flags, new_address, _ = arguments
        addr, new, old = address >> k.PAGE_SHIFT, pages_of(new_len), pages_of(old_len)
        if not new:
            return
        if flags & k.MREMAP_FIXED and self.rules.moves_many and old == new:
            self._remap_move(mm, addr, old, new_address >> k.PAGE_SHIFT, flags, -ret)
            return
        if -4096 < ret < 0:
            if flags & k.MREMAP_FIXED and mm.lookup(addr) is not None:
                self._failed_mremap_to(mm, addr, old, new, new_address >> k.PAGE_SHIFT, -ret)
            return
        if flags & (k.MREMAP_FIXED | k.MREMAP_DONTUNMAP):
            self._mremap_to(mm, addr, old, new, ret >> k.PAGE_SHIFT, flags)
        elif old >= new:
            self.areas.munmap(mm, addr + new, addr + old)
        elif ret == address:
            vma = mm.lookup(addr)
            if vma is None:
                self.doubts["mremap_of_unknown"] += 1
            elif vma.end < addr + new:
                self._clear_target(mm, vma.end, addr + new)
                self.areas.merge_new_range(mm, self.areas.proposal(vma, vma.end, addr + new))
        else:
            self._mremap_to(mm, addr, old, new, ret >> k.PAGE_SHIFT, flags)

    def _clear_target(self, mm: Mm, start: int, end: int) -> None:
        """The kernel found nothing there, so what the model has is long gone."""
        if (vma := mm.find(start)) is not None and vma.start < end:
            self.doubts["target_not_free"] += 1
            self.areas.munmap(mm, start, end)

    def _failed_mremap_to(self, mm: Mm, addr: int, old: int, new: int, new_addr: int, error: int) -> None:
        """6.12 unmaps the target and shrinks before vma_to_resize() finds that the range has an end."""
        there = self._inside(mm, new_addr, new_addr + new)
        if error == k.EPERM:
            self._sealed_target(mm, addr, new_addr, new)
        elif error == k.ENOMEM:
            self.doubts["fixed_mmap_failed"] += bool(there) or old > new
        elif error in (k.EFAULT, k.EAGAIN) and not self.rules.moves_many:
            self.areas.munmap(mm, new_addr, new_addr + new)
            if old > new:
                self.areas.munmap(mm, addr + new, addr + old)

    def _inside(self, mm: Mm, start: int, end: int) -> list[Vma]:
        return [vma for vma in mm.vmas if vma.end > start and vma.start < end]

    def _split_at(self, mm: Mm, start: int) -> None:
        """vms_gather_munmap_vmas() of a range with a sealed VMA in it."""
        vma = mm.lookup(start)
        if vma is not None and vma.start < start and not vma.flags & k.VM_SEALED:
            self.areas.split_vma(vma, start, new_below=True)

    def _sealed_target(self, mm: Mm, addr: int, new_addr: int, new: int) -> None:
        """Something may not be unmapped: the source is found sealed first, then the target."""
        source = mm.lookup(addr)
        there = self._inside(mm, new_addr, new_addr + new)
        if (
            source is not None
            and not source.flags & k.VM_SEALED
            and any(v.flags & k.VM_SEALED for v in there)
        ):
            self._split_at(mm, new_addr)

    def _mremap_to(self, mm: Mm, addr: int, old: int, new: int, new_addr: int, flags: int) -> None:
        if flags & k.MREMAP_FIXED:
            self.areas.munmap(mm, new_addr, new_addr + new)
        else:
            self._clear_target(mm, new_addr, new_addr + new)
        if old > new:
            self.areas.munmap(mm, addr + new, addr + old)
            old = new
        self._move_vma(mm, addr, old, new, new_addr, flags)

    def _remap_move(self, mm: Mm, addr: int, pages: int, new_addr: int, flags: int, error: int) -> None:
        """remap_move(): each VMA of the range by itself, gaps kept, to the one at which it failed."""
        at, end = addr, addr + pages
        if 0 < error < 4096:
            stop = self._failed_at(mm, addr, end, new_addr, error)
            if stop is None:
                return
            end = stop
        while at < end and (vma := mm.find(at)) is not None and vma.start < end:
            start, last = max(at, vma.start), min(end, vma.end)
            self._mremap_to(mm, start, last - start, last - start, new_addr + start - addr, flags)
            at = last
        if error == k.EPERM:
            self._sealed_target(mm, end, new_addr + end - addr, addr + pages - end)

    def _failed_at(self, mm: Mm, addr: int, end: int, new_addr: int, error: int) -> int | None:
        """Start of the VMA at which a move of several failed; None: not known, so none is moved."""
        if mm.lookup(addr) is None or error not in (k.EPERM, k.ENOMEM, k.EFAULT):
            return None
        vmas = self._inside(mm, addr, end)
        could = [vma for vma in vmas if self._stops(vma, addr, end, new_addr, error)]
        if could and (error == k.EPERM or len({vma.file for vma in could}) == 1):
            return max(addr, could[0].start)
        if len(vmas) > 1:
            self.doubts["moves_cut"] += 1
        elif error == k.ENOMEM and self._inside(mm, new_addr, new_addr + end - addr):
            self.doubts["fixed_mmap_failed"] += 1
        return None

    def _stops(self, vma: Vma, addr: int, end: int, new_addr: int, error: int) -> bool:
        """Whether a move of several VMAs can have failed at this one."""
        start, last = max(addr, vma.start), min(end, vma.end)
        if error == k.EPERM:
            target = self._inside(vma.mm, new_addr + start - addr, new_addr + last - addr)
            return any(each.flags & k.VM_SEALED for each in (vma, *target))
        is_plain = vma.file > 0 and not vma.flags & k.VM_HUGETLB
        return error == k.EFAULT and (is_plain or vma.file <= k.SHM_FILE)

    def _move_vma(self, mm: Mm, addr: int, old: int, new: int, new_addr: int, flags: int) -> None:
        vma = mm.lookup(addr)
        if vma is None:
            self.doubts["mremap_of_unknown"] += 1
            self.areas.munmap(mm, addr, addr + old)
            return
        keep = bool(flags & k.MREMAP_DONTUNMAP)
        if keep and vma.flags & k.VM_LOCKED and self.rules.dontunmap_resets:
            if vma.start < addr:
                self.areas.split_vma(vma, addr, new_below=True)
            if vma.end > addr + old:
                self.areas.split_vma(vma, addr + old, new_below=False)
        self._copy_vma(vma, addr, new_addr, new, keep=keep)
        if not keep:
            self.areas.munmap(mm, addr, addr + old)
            return
        vma = mm.lookup(addr) or vma  # the copy may have become one with it
        self.areas.set_flags(vma, vma.flags & ~k.VM_LOCKED_MASK)
        if vma.start == addr and vma.end == addr + old:
            self.areas.unlink_anon_vmas(vma)
            if self.rules.dontunmap_resets:
                vma.anon_pgoff = vma.start
                vma.pgoff = vma.pgoff if vma.file else vma.start

    def _copy_vma(self, vma: Vma, addr: int, new_addr: int, pages: int, *, keep: bool) -> None:
        """copy_vma(): into a neighbour of the target, or a VMA of its own on the same trees."""
        new = self.areas.proposal(vma, addr, addr + pages)
        new.start, new.end = new_addr, new_addr + pages
        if vma.anon_vma is None:
            new.anon_pgoff = new_addr
            if not vma.file:
                new.pgoff = new_addr
        new.copied_from = vma
        without = vma if keep and vma.anon_vma is None and self.rules.dontunmap_resets else None
        if self.areas.merge_new_range(vma.mm, new, without=without) is None:
            copy = self.areas.new_vma(vma.mm, new)
            copy.told = vma.told
            self.areas.anon_vma_clone(copy, vma)
            vma.mm.add(copy)
