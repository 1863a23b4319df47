"""A small mm: tasks, address spaces and anon_vma trees, which tells its history as ``ev_*`` rows.

It does what mm/vma.c, mm/rmap.c and kernel/fork.c do to trees and page tables, in their order, and says it
with the events that the probes on a kernel give. It knows nothing of the replay. ``tests.ksm_machine`` adds
KSM and the walks. Longer than other modules: one machine, whose operations all use each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE = 4096
FIRST_PAGE, PAGES = 0x100, 24
CLONE_VM, CLONE_THREAD = 0x100, 0x10000
MAP_FIXED = 0x10


@dataclass(eq=False)
class AnonVma:
    pointer: int
    tree: list[Avc] = field(default_factory=list)
    freed: bool = False


@dataclass(eq=False)
class Vma:
    pointer: int
    mm: Mm
    start: int
    end: int
    vm_pgoff: int
    anon_pgoff: int
    anon_vma: AnonVma | None = None
    chain: list[Avc] = field(default_factory=list)
    grows_down: bool = False


@dataclass(eq=False)
class Avc:
    pointer: int
    vma: Vma
    anon_vma: AnonVma


@dataclass(eq=False)
class Mm:
    pointer: int
    vmas: list[Vma] = field(default_factory=list)
    tasks: list[int] = field(default_factory=list)
    private: set[int] = field(default_factory=set)
    """Addresses of pages of its own, which ksmd may merge."""


@dataclass(eq=False)
class Node:
    pointer: int
    folio: int
    hlist: list[Item] = field(default_factory=list)
    ptes: dict[tuple[Mm, int], bool] = field(default_factory=dict)
    """(mm, address): whether it is mapped now; False: a migration or a swap entry is there."""
    freed: bool = False
    """The folio was swapped out: ksmd has yet to find out."""


@dataclass(eq=False)
class Item:
    pointer: int
    mm: Mm
    address: int
    anon_vma: AnonVma
    node: Node
    linear_page_index: int | None


class Slab:
    """Pointers of one kind; the one freed last is given out first."""

    def __init__(self, base: int) -> None:
        self.next, self.free = base, list[int]()

    def alloc(self) -> int:
        return self.free.pop() if self.free else self.fresh()

    def fresh(self) -> int:
        self.next += 64
        return self.next


class AddressSpaces:
    """One boot.

    Args:
        numbers: The history: each choice takes the next, so that any list is a history.
        anon_pgoff: Whether the kernel has a page offset of its own for anonymous pages (7.3).
    """

    def __init__(self, numbers: Iterable[int], *, anon_pgoff: bool) -> None:
        self.numbers = iter(numbers)
        self.anon_pgoff = anon_pgoff
        self.events: dict[str, list[dict[str, Any]]] = {n: [] for n in TABLES if n.startswith("ev_")}
        self.seq, self.ts = 0, 1000
        kinds = ("avc", "vma", "anon_vma", "mm", "item", "node", "folio")
        self.slabs = {kind: Slab(0xFFFF_8880_0000_0000 + (i << 24)) for i, kind in enumerate(kinds)}
        self.pids = Slab(100 * 64)
        self.mms: list[Mm] = []
        self.nodes: list[Node] = []
        self.merging: Item | None = None
        self.locked: Mm | None = None
        self.vforked: set[int] = set()
        self.exec_mmap(None)

    def number(self, below: int) -> int:
        return next(self.numbers) % below

    def pick(self, choices: list[Any]) -> Any:
        return choices[self.number(len(choices))] if choices else None

    def emit(self, table: str, pid: int, **fields: Any) -> int:
        """One event: every column is there, those that are not given are null."""
        row = dict.fromkeys(TABLES[table].arrow.names)
        assert row.keys() >= fields.keys()
        self.seq += 1
        self.ts += (self.seq * 7) % 5  # several events may bear one time
        self.events[table].append(
            {**row, "seq": self.seq, "ts_ns": self.ts, "cpu": pid % 2, "pid": pid, **fields}
        )
        return self.seq

    # trees ---------------------------------------------------------------------------------------------

    def meanwhile(self) -> None:
        """Where another CPU may walk between two steps of one operation."""

    def key(self, vma: Vma) -> int:
        return vma.anon_pgoff if self.anon_pgoff else vma.vm_pgoff

    def avc_event(self, avc: Avc, pid: int, *, is_insert: bool) -> None:
        vma = avc.vma
        self.emit(
            "ev_avc",
            pid,
            is_insert=is_insert,
            avc=avc.pointer,
            anon_vma=avc.anon_vma.pointer,
            vma=vma.pointer,
            mm=vma.mm.pointer,
            vm_start=vma.start,
            vm_end=vma.end,
            vm_pgoff=vma.vm_pgoff,
            anon_pgoff=vma.anon_pgoff if self.anon_pgoff else None,
            vm_flags=0x100073 | 0x100 * vma.grows_down,
        )

    def insert(self, avc: Avc, pid: int) -> None:
        tree = avc.anon_vma.tree
        place = sum(self.key(other.vma) <= self.key(avc.vma) for other in tree)
        tree.insert(place, avc)
        self.avc_event(avc, pid, is_insert=True)

    def remove(self, avc: Avc, pid: int) -> None:
        avc.anon_vma.tree.remove(avc)
        self.avc_event(avc, pid, is_insert=False)

    def link(self, vma: Vma, anon_vma: AnonVma, pid: int) -> None:
        avc = Avc(self.slabs["avc"].alloc(), vma, anon_vma)
        vma.chain.append(avc)
        self.insert(avc, pid)

    def unlink_anon_vmas(self, vma: Vma, pid: int) -> None:
        for avc in vma.chain:
            self.remove(avc, pid)
            self.slabs["avc"].free.append(avc.pointer)
            self.put_anon_vma(avc.anon_vma)
        vma.chain, vma.anon_vma = [], None

    def items(self) -> list[Item]:
        """All that are, or are just being put, on a hlist."""
        return [item for node in self.nodes for item in node.hlist] + [
            item for item in [self.merging] if item is not None
        ]

    def put_anon_vma(self, anon_vma: AnonVma) -> None:
        if not anon_vma.tree and not anon_vma.freed and all(i.anon_vma is not anon_vma for i in self.items()):
            anon_vma.freed = True
            self.slabs["anon_vma"].free.append(anon_vma.pointer)

    def new_vma(self, mm: Mm, start: int, end: int, vm_pgoff: int, anon_pgoff: int) -> Vma:
        vma = Vma(self.slabs["vma"].alloc(), mm, start, end, vm_pgoff, anon_pgoff)
        mm.vmas.append(vma)
        mm.vmas.sort(key=lambda each: each.start)
        return vma

    def free_vma(self, vma: Vma, pid: int) -> None:
        self.unlink_anon_vmas(vma, pid)
        vma.mm.vmas.remove(vma)
        self.slabs["vma"].free.append(vma.pointer)

    def clone(self, new: Vma, old: Vma, pid: int) -> None:
        """anon_vma_clone()."""
        new.anon_vma = old.anon_vma
        for avc in old.chain[::-1] if self.anon_pgoff else old.chain:
            self.link(new, avc.anon_vma, pid)

    def adjust(self, vma: Vma, start: int, end: int, pid: int) -> None:
        """vma_prepare(), the new range, vma_complete()."""
        for avc in vma.chain:
            self.remove(avc, pid)
        pages = (start - vma.start) // PAGE
        vma.vm_pgoff, vma.anon_pgoff, vma.start, vma.end = (
            vma.vm_pgoff + pages,
            vma.anon_pgoff + pages,
            start,
            end,
        )
        for avc in vma.chain:
            self.insert(avc, pid)

    def split(self, vma: Vma, address: int, pid: int, *, new_below: bool) -> Vma:
        """__split_vma(): the new VMA goes onto the trees before the old one gives its part away."""
        pages = (address - vma.start) // PAGE
        if new_below:
            new = self.new_vma(vma.mm, vma.start, address, vma.vm_pgoff, vma.anon_pgoff)
        else:
            new = self.new_vma(vma.mm, address, vma.end, vma.vm_pgoff + pages, vma.anon_pgoff + pages)
        self.clone(new, vma, pid)
        self.adjust(vma, *((address, vma.end) if new_below else (vma.start, address)), pid)
        vma.mm.vmas.sort(key=lambda each: each.start)
        return new

    # page tables ---------------------------------------------------------------------------------------

    def zap(self, mm: Mm, start: int, end: int) -> None:
        """Nothing is mapped there any more."""
        mm.private -= {address for address in mm.private if start <= address < end}
        for node in self.nodes:
            node.ptes = {
                (other, at): mapped
                for (other, at), mapped in node.ptes.items()
                if other is not mm or not start <= at < end
            }

    def copied(self, mm: Mm, start: int, end: int) -> None:
        """KSM pages there become pages of its own."""
        for node in self.nodes:
            for at in {at for other, at in node.ptes if other is mm and start <= at < end}:
                del node.ptes[mm, at]
                mm.private.add(at)

    def migrating(self, mm: Mm, start: int, end: int) -> bool:
        """Whether a migration entry is there, on which whoever wants the page would wait."""
        return any(
            other is mm and start <= at < end and not mapped
            for node in self.nodes
            for (other, at), mapped in node.ptes.items()
        )

    # system calls --------------------------------------------------------------------------------------

    def enter(self, pid: int, name: str, *arguments: int) -> None:
        self.emit(
            "ev_syscall", pid, is_exit=False, name=name, **{f"arg{i}": a for i, a in enumerate(arguments)}
        )

    def leave(self, pid: int, name: str, ret: int) -> None:
        self.emit("ev_syscall", pid, is_exit=True, name=name, ret=ret)

    def some_mm(self) -> tuple[Mm, int] | None:
        mm = self.pick([mm for mm in self.mms if mm.tasks and mm is not self.locked])
        return None if mm is None else (mm, self.pick(mm.tasks))

    def some_vma(self) -> tuple[Vma, int] | None:
        found = self.some_mm()
        if found is None or not found[0].vmas:
            return None
        return self.pick(found[0].vmas), found[1]

    def some_page(self, vma: Vma) -> int:
        return vma.start + PAGE * self.number((vma.end - vma.start) // PAGE)

    def unmap(self, mm: Mm, start: int, end: int, pid: int) -> None:
        """do_vmi_munmap()."""
        for vma in list(mm.vmas):
            if vma.start < start < vma.end:
                self.split(vma, start, pid, new_below=True)
        for vma in list(mm.vmas):
            if vma.start < end < vma.end:
                self.split(vma, end, pid, new_below=False)
        self.zap(mm, start, end)
        for vma in list(mm.vmas):
            if start <= vma.start and vma.end <= end:
                self.free_vma(vma, pid)

    def do_mmap(self) -> None:
        if (found := self.some_mm()) is None:
            return
        mm, pid = found
        start = (FIRST_PAGE + self.number(PAGES)) * PAGE
        end = start + PAGE * (1 + self.number(4))
        fixed = self.number(4) == 0
        if not fixed and any(vma.start < end and start < vma.end for vma in mm.vmas):
            self.enter(pid, "mmap", start, end - start, 3, 0x22)
            self.leave(pid, "mmap", -12)
            return
        of_file = self.number(4) == 0
        self.enter(pid, "mmap", start, end - start, 3, 0x22 | (MAP_FIXED if fixed else 0))
        self.unmap(mm, start, end, pid)
        self.new_vma(mm, start, end, 7 if of_file else start // PAGE, start // PAGE)
        self.leave(pid, "mmap", start)

    def do_fault(self) -> None:
        if (found := self.some_vma()) is None:
            return
        vma, pid = found
        address = self.some_page(vma)
        if not self.migrating(vma.mm, address, address + PAGE):
            self.fault(vma, address, pid)

    def fault(self, vma: Vma, address: int, pid: int) -> None:
        """A write: a page of its own, in the place of a KSM page if one is there."""
        self.emit("ev_fault", pid, is_user=True, address=address + 8, error_code=6)
        if vma.anon_vma is None:
            self.anon_vma_prepare(vma, pid)
        self.copied(vma.mm, address, address + PAGE)
        vma.mm.private.add(address)

    def anon_vma_prepare(self, vma: Vma, pid: int) -> None:
        near = [
            other
            for other in vma.mm.vmas
            if other.anon_vma is not None
            and len(other.chain) == 1
            and vma.start in (other.end, other.start - (vma.end - vma.start))
            and self.key(other) - other.start // PAGE == self.key(vma) - vma.start // PAGE
        ]
        vma.anon_vma = near[-1].anon_vma if near else AnonVma(self.slabs["anon_vma"].alloc())
        assert vma.anon_vma is not None
        self.link(vma, vma.anon_vma, pid)

    def do_split(self) -> None:
        if (found := self.some_vma()) is None or found[0].end - found[0].start < 2 * PAGE:
            return
        vma, pid = found
        address = vma.start + PAGE * (1 + self.number((vma.end - vma.start) // PAGE - 1))
        self.enter(pid, "mprotect", vma.start, address - vma.start, 1)
        self.split(vma, address, pid, new_below=self.number(2) == 0)
        self.leave(pid, "mprotect", 0)

    def do_merge(self) -> None:
        """commit_merge(): the VMA grows over its next ones, which are unlinked after that."""
        if (found := self.some_vma()) is None:
            return
        vma, pid = found
        merged, end = list[Vma](), vma.end
        for other in vma.mm.vmas:
            offset = other.start // PAGE
            if (
                other.start == end
                and len(merged) < 2
                and other.anon_vma is vma.anon_vma is not None
                and self.key(other) - offset == self.key(vma) - vma.start // PAGE
                and other.vm_pgoff - offset == vma.vm_pgoff - vma.start // PAGE
            ):
                merged.append(other)
                end = other.end
        if not merged:
            return
        self.enter(pid, "mprotect", vma.start, end - vma.start, 3)
        self.adjust(vma, vma.start, end, pid)
        for other in merged:
            self.locked = vma.mm  # mmap_lock
            self.meanwhile()
            self.locked = None
            self.free_vma(other, pid)
        self.leave(pid, "mprotect", 0)

    def do_move(self) -> None:
        """mremap(): KSM pages are copied first; the copy goes onto the trees before the old VMA leaves."""
        if (found := self.some_vma()) is None:
            return
        vma, pid = found
        mm, length = vma.mm, vma.end - vma.start
        target = (FIRST_PAGE + PAGES + self.number(PAGES)) * PAGE
        if any(other.start < target + length and target < other.end for other in mm.vmas):
            return
        if self.migrating(mm, vma.start, vma.end):
            return
        self.enter(pid, "mremap", vma.start, length, length, 3, target)
        self.copied(mm, vma.start, vma.end)
        faulted = vma.anon_vma is not None
        offset = vma.anon_pgoff if faulted else target // PAGE
        new = self.new_vma(mm, target, target + length, vma.vm_pgoff if faulted else offset, offset)
        self.clone(new, vma, pid)
        old, shift = vma.start, target - vma.start
        moved = {at for at in mm.private if old <= at < old + length}
        mm.private = (mm.private - moved) | {at + shift for at in moved}
        self.free_vma(vma, pid)
        self.leave(pid, "mremap", target)

    def do_grow(self) -> None:
        """brk() or a stack: the VMA leaves its trees and comes back larger."""
        if (found := self.some_vma()) is None:
            return
        vma, pid = found
        down = self.number(2) == 0
        start, end = (vma.start - PAGE, vma.end) if down else (vma.start, vma.end + PAGE)
        if any(other is not vma and other.start < end and start < other.end for other in vma.mm.vmas):
            return
        self.enter(pid, "brk", end)
        self.adjust(vma, start, end, pid)
        self.leave(pid, "brk", end)

    def do_munmap(self) -> None:
        if (found := self.some_vma()) is None:
            return
        vma, pid = found
        start = self.some_page(vma)
        end = start + PAGE * (1 + self.number(6))
        self.enter(pid, "munmap", start, end - start)
        self.unmap(vma.mm, start, end, pid)
        self.leave(pid, "munmap", 0)

    def do_advise(self) -> None:
        """madvise(): DONTNEED, UNMERGEABLE, and one that does nothing to pages; some fail."""
        if (found := self.some_vma()) is None:
            return
        vma, pid = found
        advice = (4, 13, 12)[self.number(3)]
        start = self.some_page(vma)
        end = min(vma.end, start + PAGE * (1 + self.number(3)))
        ret = (0, 0, 0, -12, -22)[self.number(5)]
        self.enter(pid, "madvise", start, end - start, advice)
        if ret != -22 and advice == 4:
            self.zap(vma.mm, start, end)
        if ret != -22 and advice == 13:
            self.copied(vma.mm, start, end)
        self.leave(pid, "madvise", ret)

    # tasks ---------------------------------------------------------------------------------------------

    def do_fork(self) -> None:
        """dup_mmap(): the parent links the child's VMAs to all its anon_vmas, then to one of its own."""
        found = self.some_mm()
        if found is None or len(self.mms) > 4 or not any(vma.anon_vma for vma in found[0].vmas):
            return
        self.fork(*found)

    def fork(self, mm: Mm, pid: int) -> None:
        self.enter(pid, "clone", 0x11)
        child = Mm(self.slabs["mm"].alloc())
        self.mms.append(child)
        for vma in list(mm.vmas):
            copy = self.new_vma(child, vma.start, vma.end, vma.vm_pgoff, vma.anon_pgoff)
            if vma.anon_vma is None:
                continue
            self.clone(copy, vma, pid)
            idle = [
                avc.anon_vma
                for avc in vma.chain
                if all(a.vma.anon_vma is not avc.anon_vma for a in avc.anon_vma.tree)
            ]
            if idle:
                copy.anon_vma = idle[0]
            else:
                copy.anon_vma = AnonVma(self.slabs["anon_vma"].alloc())
                self.link(copy, copy.anon_vma, pid)
        child.private = set(mm.private)
        for node in self.nodes:
            for (other, at), mapped in list(node.ptes.items()):
                if other is mm:
                    node.ptes[child, at] = mapped
        self.birth(child, pid, 0x01200000)
        self.leave(pid, "clone", child.tasks[0])

    def do_thread(self) -> None:
        """A thread, or a child of vfork(), which shares the mm as well."""
        if (found := self.some_mm()) is None or len(found[0].tasks) > 2:
            return
        mm, pid = found
        thread = self.number(3) > 0
        self.birth(mm, pid, CLONE_VM | (CLONE_THREAD if thread else 0x4000))
        if not thread:
            self.vforked.add(mm.tasks[-1])

    def birth(self, mm: Mm, pid: int, flags: int) -> None:
        child = self.pids.alloc() // 64
        self.emit("ev_task", pid, kind="fork", child_pid=child)
        self.emit("ev_task", pid, kind="newtask", child_pid=child, clone_flags=flags)
        mm.tasks.append(child)

    def do_exec(self) -> None:
        """execve() by the only task of an mm or by a child of vfork(); else a new program from nowhere."""
        found = self.some_mm()
        alone = found is not None and (len(found[0].tasks) == 1 or found[1] in self.vforked)
        if len(self.mms) <= 5:
            self.exec_mmap(found if alone else None)

    def exec_mmap(self, task: tuple[Mm, int] | None) -> None:
        """The stack of the new program is written before the old address space goes."""
        pid = task[1] if task else self.pids.fresh() // 64
        new = Mm(self.slabs["mm"].alloc())
        self.mms.append(new)
        top = (FIRST_PAGE + 2 * PAGES + 8) * PAGE
        stack = self.new_vma(new, top - 2 * PAGE, top, top // PAGE + 40, top // PAGE + 40)
        stack.grows_down = True
        self.anon_vma_prepare(stack, pid)
        if task:
            task[0].tasks.remove(pid)
            if not task[0].tasks:
                self.exit_mmap(task[0], pid)
            self.emit("ev_task", pid, kind="exec")
        self.vforked.discard(pid)
        new.tasks.append(pid)

    def do_exit(self) -> None:
        if (found := self.some_mm()) is None:
            return
        mm, pid = found
        self.enter(pid, "exit_group", 0)
        leaving = [pid] if pid in self.vforked else mm.tasks
        mm.tasks = [task for task in mm.tasks if task not in leaving]
        if not mm.tasks:
            self.zap(mm, 0, 1 << 47)
            self.meanwhile()
            self.exit_mmap(mm, pid)
        for task in leaving:
            self.emit("ev_task", task, kind="exit")
            self.vforked.discard(task)
            if self.number(2):
                self.pids.free.append(task * 64)

    def exit_mmap(self, mm: Mm, pid: int) -> None:
        self.zap(mm, 0, 1 << 47)
        for vma in list(mm.vmas):
            self.free_vma(vma, pid)
        self.emit("ev_exit_mmap", pid, mm=mm.pointer)
        self.release(mm)

    def release(self, mm: Mm) -> None:
        """The mm is freed when no task is in it and no rmap_item holds it."""
        if (
            mm in self.mms
            and not mm.vmas
            and not mm.tasks
            and all(item.mm is not mm for item in self.items())
        ):
            self.mms.remove(mm)
            self.slabs["mm"].free.append(mm.pointer)
