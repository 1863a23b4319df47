"""VMAs, anon_vmas and anon_vma_chains as objects: the kernel's functions of mm/vma.c and mm/rmap.c by name.

The slow, obvious twin of ``model.rmap`` and ``model.vma``; shares no code with them. Addresses are page
numbers, ends exclusive.

Over 400 lines because the kernel's functions that it follows call one another; they are read side by side.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field

from replay.state.kernel import OWN_FLAGS, RULES, SHM_FILE, VM_MAYBE_GUARD, VM_SHARED, VM_SPECIAL, Rules

Policy = tuple[int, ...] | None


@dataclass(eq=False)
class AnonVma:
    """struct anon_vma; ``linked`` is the number of intervals on its tree."""

    number: int
    parent: AnonVma | None = None
    num_children: int = 0
    num_active_vmas: int = 0
    linked: int = 0


@dataclass(eq=False)
class Avc:
    """struct anon_vma_chain."""

    number: int
    vma: Vma
    anon_vma: AnonVma


@dataclass(eq=False)
class Vma:
    """struct vm_area_struct; ``avcs`` is its anon_vma_chain, head first."""

    number: int
    mm: Mm
    start: int
    end: int
    flags: int
    file: int
    pgoff: int
    anon_pgoff: int
    policy: Policy
    anon_vma: AnonVma | None = None
    avcs: list[Avc] = field(default_factory=list)
    dead: bool = False
    told: int = 0

    @property
    def has_close(self) -> bool:
        """Whether it has to be told that it goes (vm_ops->close): an attached segment."""
        return self.file <= SHM_FILE

    @property
    def is_fork_child(self) -> bool:
        """vma_is_fork_child(): it has anon_vmas of its parents."""
        return self.anon_vma is not None and len(self.avcs) != 1

    def shift_start(self, start: int) -> None:
        """Move the start; both page offsets go with it."""
        self.pgoff += start - self.start
        self.anon_pgoff += start - self.start
        self.start = start


@dataclass(eq=False)
class Mm:
    """struct mm_struct; ``vmas`` by address."""

    number: int = 0
    users: int = 1
    brk: int | None = None
    def_flags: int = 0
    merge_any: bool = False
    stack_unknown: bool = False
    vmas: list[Vma] = field(default_factory=list)

    def index(self, page: int) -> int:
        """Place of the first VMA that ends after ``page`` (find_vma())."""
        return bisect.bisect_right(self.vmas, page, key=lambda vma: vma.end)

    def find(self, page: int) -> Vma | None:
        """find_vma()."""
        at = self.index(page)
        return self.vmas[at] if at < len(self.vmas) else None

    def lookup(self, page: int) -> Vma | None:
        """vma_lookup()."""
        vma = self.find(page)
        return vma if vma is not None and vma.start <= page else None

    def before(self, page: int) -> Vma | None:
        """The last VMA that starts below ``page``."""
        at = bisect.bisect_left(self.vmas, page, key=lambda vma: vma.start)
        return self.vmas[at - 1] if at else None

    def add(self, vma: Vma) -> None:
        """vma_link()."""
        self.vmas.insert(bisect.bisect_left(self.vmas, vma.start, key=lambda each: each.start), vma)


@dataclass
class Proposed:
    """struct vma_merge_struct: what would be there after the change."""

    start: int
    end: int
    flags: int
    file: int
    pgoff: int
    anon_pgoff: int
    policy: Policy
    anon_vma: AnonVma | None
    middle: Vma | None = None
    copied_from: Vma | None = None
    mergeable: int = 0
    """Flag that 7.3 sets before it looks for a merge, and 6.12 after it."""


Range = Vma | Proposed


class Areas:
    """All VMAs and anon_vmas of a capture.

    Attributes:
        log: Insertions (True) into and removals (False) from trees of the current operation, in order, with
            the range of the VMA at that instant.
        touched: VMAs that the current operation may have changed.
        told_merges: Merges that were asked of VMAs that a snapshot told.
        refused: Merges that the current operation tried and the rules of some kernel refuse: the reasons by
            those of 6.12 and of 7.3, the flags that differ, the number of the anon_vma.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.log: list[tuple[bool, Avc, int, int, int, int, int]] = []
        self.told_merges = 0
        self.touched: dict[int, Vma] = {}
        self.refused: list[tuple[set[str], set[str], int, int | None]] = []
        self._vmas = self._avcs = self._anon_vmas = self._mms = 0

    # mm/rmap.c

    def _insert(self, avc: Avc) -> None:
        avc.anon_vma.linked += 1
        self._changed(True, avc)

    def _remove(self, avc: Avc) -> None:
        avc.anon_vma.linked -= 1
        self._changed(False, avc)

    def _changed(self, is_insert: bool, avc: Avc) -> None:
        vma = avc.vma
        self.touched[vma.number] = vma
        self.log.append((is_insert, avc, vma.start, vma.end, vma.pgoff, vma.anon_pgoff, vma.told))

    def _assign(self, vma: Vma, anon_vma: AnonVma) -> Avc:
        """anon_vma_chain_assign()."""
        avc = Avc(self._avcs, vma, anon_vma)
        self._avcs += 1
        vma.avcs.insert(0, avc)
        return avc

    def _new_anon_vma(self) -> AnonVma:
        self._anon_vmas += 1
        return AnonVma(self._anon_vmas)

    def anon_vma_prepare(self, vma: Vma) -> None:
        """The VMA gets an anon_vma, a neighbour's if it can."""
        if vma.anon_vma is not None:
            return
        anon_vma = self._find_mergeable_anon_vma(vma)
        if anon_vma is None:
            anon_vma = self._new_anon_vma()
            anon_vma.parent = anon_vma
            anon_vma.num_children = 1
        vma.anon_vma = anon_vma
        anon_vma.num_active_vmas += 1
        self._insert(self._assign(vma, anon_vma))

    def _find_mergeable_anon_vma(self, vma: Vma) -> AnonVma | None:
        at = vma.mm.index(vma.start)
        after = vma.mm.vmas[at + 1] if at + 1 < len(vma.mm.vmas) else None
        before = vma.mm.vmas[at - 1] if at else None
        if after is not None and (found := self._reusable_anon_vma(after, vma, after)):
            return found
        return self._reusable_anon_vma(before, before, vma) if before is not None else None

    def _reusable_anon_vma(self, old: Vma, a: Vma, b: Vma) -> AnonVma | None:
        compatible = (
            a.end == b.start
            and a.policy == b.policy
            and a.file == b.file
            and not (a.flags ^ b.flags) & ~(7 | VM_MAYBE_GUARD)
            and b.pgoff == a.pgoff + b.start - a.start
            and (not self.rules.anon_pgoff or b.anon_pgoff == a.anon_pgoff + b.start - a.start)
        )
        return old.anon_vma if compatible and len(old.avcs) == 1 else None

    def anon_vma_clone(self, dst: Vma, src: Vma, *, fork: bool = False) -> None:
        """``dst`` gets on all trees that ``src`` is on."""
        if self.rules.clone_reverses:
            avcs = [self._assign(dst, each.anon_vma) for each in src.avcs]
        else:
            avcs = [self._assign(dst, each.anon_vma) for each in reversed(src.avcs)]
        for avc in avcs:
            self._insert(avc)
            anon_vma = avc.anon_vma
            free = anon_vma.num_children < 2 and anon_vma.num_active_vmas == 0
            if fork and dst.anon_vma is None and free:
                dst.anon_vma = anon_vma
        if dst.anon_vma is not None:
            dst.anon_vma.num_active_vmas += 1

    def anon_vma_fork(self, vma: Vma, parent: Vma) -> None:
        """The child's VMA gets on its parent's trees and one of its own."""
        vma.anon_vma = None
        if parent.anon_vma is None:
            return
        self.anon_vma_clone(vma, parent, fork=True)
        if vma.anon_vma is not None:
            return
        own = self._new_anon_vma()
        own.num_active_vmas = 1
        own.parent = parent.anon_vma
        vma.anon_vma = own
        self._insert(self._assign(vma, own))
        own.parent.num_children += 1

    def unlink_anon_vmas(self, vma: Vma) -> None:
        """The VMA leaves all trees."""
        for avc in vma.avcs:
            self._remove(avc)
            if not avc.anon_vma.linked and avc.anon_vma.parent is not None:
                avc.anon_vma.parent.num_children -= 1
        vma.avcs = []
        if vma.anon_vma is not None:
            vma.anon_vma.num_active_vmas -= 1
        vma.anon_vma = None

    # mm/vma.c

    def new_vma(self, mm: Mm, at: Proposed) -> Vma:
        """vm_area_alloc() and what is set in it."""
        self._vmas += 1
        if not mm.number:
            self._mms += 1
            mm.number = self._mms
        vma = Vma(
            self._vmas,
            mm,
            at.start,
            at.end,
            at.flags,
            at.file,
            at.pgoff,
            at.anon_pgoff,
            at.policy,
            at.anon_vma,
        )
        self.touched[vma.number] = vma
        return vma

    def proposal(self, vma: Vma, start: int, end: int) -> Proposed:
        """VMG_VMA_STATE()."""
        ahead = start - vma.start
        return Proposed(
            start,
            end,
            vma.flags,
            vma.file,
            vma.pgoff + ahead,
            vma.anon_pgoff + ahead,
            vma.policy,
            vma.anon_vma,
        )

    def set_flags(self, vma: Vma, flags: int) -> None:
        """vm_flags_reset()."""
        self.touched[vma.number] = vma
        vma.flags = flags

    def _pre_update(self, vma: Vma) -> None:
        self.touched[vma.number] = vma
        for avc in vma.avcs:
            self._remove(avc)

    def _post_update(self, vma: Vma) -> None:
        for avc in vma.avcs:
            self._insert(avc)

    def split_vma(self, vma: Vma, at: int, *, new_below: bool) -> Vma:
        """__split_vma(): the new VMA."""
        new = self.new_vma(vma.mm, self.proposal(vma, vma.start, vma.end))
        if new_below:
            new.end = at
        else:
            new.shift_start(at)
        new.told = vma.told
        self.anon_vma_clone(new, vma)
        self._pre_update(vma)
        if new_below:
            vma.shift_start(at)
        else:
            vma.end = at
        vma.mm.add(new)
        self._post_update(vma)
        return new

    def _commit_merge(
        self, target: Vma, start: int, end: int, adjust: tuple[Vma, int] | None, remove: list[Vma]
    ) -> None:
        """commit_merge(): ``target`` becomes ``[start, end)``, ``adjust`` starts elsewhere."""
        self._pre_update(target)
        if adjust:
            self._pre_update(adjust[0])
        target.shift_start(start)
        target.end = end
        if adjust:
            adjust[0].shift_start(adjust[1])
        for vma in remove:
            vma.mm.vmas.remove(vma)
        self._post_update(target)
        if adjust:
            self._post_update(adjust[0])
        for vma in remove:
            self.drop(vma)

    def _reasons(self, rules: Rules, new: Proposed, other: Vma, low: Range, high: Range) -> set[str]:
        """What is against a merge: is_mergeable_vma(), is_mergeable_anon_vma(), page offsets."""
        flags = new.flags | new.mergeable if rules.mergeable_first else new.flags & ~new.mergeable
        against = {
            "flags": (flags ^ other.flags) & ~VM_MAYBE_GUARD != 0 or flags & VM_SPECIAL != 0,
            "policy": new.policy != other.policy,
            "file": new.file != other.file,
            "anon_vma": not self._is_mergeable_anon_vma(rules, new, other),
            "pgoff": not self._contiguous(rules, new, low, high),
        }
        return {reason for reason, holds in against.items() if holds}

    def _is_mergeable_anon_vma(self, rules: Rules, new: Proposed, other: Vma) -> bool:
        if not rules.merges_faulted_into_unfaulted:
            unset = new.anon_vma is None or other.anon_vma is None
            return (unset and len(other.avcs) == 1) or new.anon_vma is other.anon_vma
        if other.anon_vma is None and new.anon_vma is not None:
            sources = (new.middle, new.copied_from)
            return not any(each is not None and each.is_fork_child for each in sources)
        if other.anon_vma is not None and new.anon_vma is None:
            return not other.is_fork_child
        return new.anon_vma is other.anon_vma

    def _contiguous(self, rules: Rules, new: Proposed, low: Range, high: Range) -> bool:
        pages = low.end - low.start
        private_file = new.file and not new.flags & VM_SHARED
        by_address = not (rules.anon_pgoff and private_file) or high.anon_pgoff == low.anon_pgoff + pages
        return high.pgoff == low.pgoff + pages and by_address

    def _merges(self, new: Proposed, other: Vma, low: Range, high: Range) -> bool:
        """Whether the kernel's own rules let them merge; what is against it is noted."""
        self.told_merges += other.told != 0
        older, newer = (self._reasons(RULES[name], new, other, low, high) for name in ("6.12", "7.3"))
        if older or newer:
            own = new.anon_vma or other.anon_vma
            by_rules = {(new.flags ^ other.flags) & ~new.mergeable, (new.flags ^ other.flags) | new.mergeable}
            self._refuse(older, newer, max(by_rules), own)
        return not (newer if self.rules.name == "7.3" else older)

    def _refuse(self, older: set[str], newer: set[str], flags: int, anon_vma: AnonVma | None) -> None:
        self.refused.append((older, newer, flags & ~OWN_FLAGS, anon_vma.number if anon_vma else None))

    def _can_merge(self, new: Proposed, prev: Vma | None, next_: Vma | None) -> tuple[bool, bool]:
        """can_vma_merge_left(), can_vma_merge_right()."""
        left = prev is not None and prev.end == new.start and self._merges(new, prev, prev, new)
        right = next_ is not None and next_.start == new.end and self._merges(new, next_, new, next_)
        if left and right and prev is not None and next_ is not None:
            both = prev.anon_vma is None or next_.anon_vma is None or prev.anon_vma is next_.anon_vma
            if not both:
                self._refuse({"anon_vma"}, {"anon_vma"}, prev.flags ^ next_.flags, prev.anon_vma)
            right = both
        return left, right

    def _dup_anon_vma(self, dst: Vma, src: Vma) -> None:
        if src.anon_vma is not None and dst.anon_vma is None:
            dst.anon_vma = src.anon_vma
            self.anon_vma_clone(dst, src)

    def _merge_existing_range(self, vma: Vma, new: Proposed) -> Vma | None:
        """vma_merge_existing_range()."""
        left_side, right_side = new.start == vma.start, new.end == vma.end
        at = vma.mm.index(vma.start)
        prev = vma.mm.vmas[at - 1] if left_side and at else None
        next_ = vma.mm.vmas[at + 1] if right_side and at + 1 < len(vma.mm.vmas) else None
        left, right = self._can_merge(new, prev, next_)
        if left_side and right_side and vma.has_close:
            return None
        sticky = vma.flags & VM_MAYBE_GUARD
        kept = prev if left else next_ if right else None
        if kept is not None:
            kept.told |= vma.told | (next_.told if left and right and next_ is not None else 0)
        whole = left_side and right_side
        if left and prev is not None:
            if right and next_ is not None:
                self._dup_anon_vma(prev, next_ if next_.anon_vma is not None else vma)
                sticky |= next_.flags & VM_MAYBE_GUARD
                self._commit_merge(prev, prev.start, next_.end, None, [vma, next_])
            else:
                self._dup_anon_vma(prev, vma)
                adjust = None if whole else (vma, new.end)
                self._commit_merge(prev, prev.start, new.end, adjust, [vma] if whole else [])
            prev.flags |= sticky
            return prev
        if right and next_ is not None:
            self._dup_anon_vma(next_, vma)
            if whole:
                self._commit_merge(next_, vma.start, next_.end, None, [vma])
            else:
                self._commit_merge(vma, vma.start, new.start, (next_, new.start), [])
            next_.flags |= sticky
            return next_
        return None

    def merge_new_range(
        self, mm: Mm, new: Proposed, *, without: Vma | None = None, just_expand: bool = False
    ) -> Vma | None:
        """vma_merge_new_range() and vma_expand(): the VMA that took the new range in; None: none did."""
        prev, next_ = mm.before(new.start), mm.find(new.start)
        prev, next_ = (None if each is without else each for each in (prev, next_))
        left, right = self._can_merge(new, prev, None if just_expand else next_)
        if left and next_ is not None and next_.has_close:
            right = False
        target = prev if left else next_ if right else None
        if target is None:
            return None
        remove = [next_] if left and right and next_ is not None else []
        for other in (*remove, new.copied_from):
            target.told |= other.told if other is not None else 0
        for each in remove:
            self._dup_anon_vma(target, each)
        if self.rules.anon_pgoff and new.copied_from is not None:
            self._dup_anon_vma(target, new.copied_from)
        start = target.start if left else new.start
        end = next_.end if right and next_ is not None else new.end
        for each in remove:
            target.flags |= each.flags & VM_MAYBE_GUARD
        self._commit_merge(target, start, end, None, remove)
        return target

    def vma_modify(
        self, vma: Vma, start: int, end: int, *, flags: int, policy: Policy, may_split: bool = True
    ) -> Vma | None:
        """The VMA of the range, merged or split off; its new flags or policy are not set yet.

        None: it would have to be split, and may not.
        """
        new = self.proposal(vma, start, end)
        new.flags, new.policy, new.middle = flags, policy, vma
        merged = self._merge_existing_range(vma, new)
        if merged is not None:
            return merged
        if not may_split and (vma.start < start or vma.end > end):
            return None
        if vma.start < start:
            self.split_vma(vma, start, new_below=True)
        if vma.end > end:
            self.split_vma(vma, end, new_below=False)
        return vma

    def munmap(self, mm: Mm, start: int, end: int) -> None:
        """vms_gather_munmap_vmas() and vms_complete_munmap_vmas()."""
        first = mm.find(start)
        if first is None or first.start >= end or start >= end:
            return
        if first.start < start:
            self.split_vma(first, start, new_below=True)
        gone = []
        vma = mm.find(start)
        while vma is not None and vma.start < end:
            if vma.end > end:
                self.split_vma(vma, end, new_below=False)
            gone.append(vma)
            vma = mm.find(vma.end)
        for vma in gone:
            mm.vmas.remove(vma)
            self.drop(vma)

    def expand(self, vma: Vma, start: int) -> None:
        """expand_downwards()."""
        self.anon_vma_prepare(vma)
        self._pre_update(vma)
        vma.shift_start(start)
        self._post_update(vma)

    def drop(self, vma: Vma) -> None:
        """unlink_anon_vmas() in free_pgtables(), then remove_vma()."""
        self.touched[vma.number] = vma
        vma.dead = True
        self.unlink_anon_vmas(vma)
