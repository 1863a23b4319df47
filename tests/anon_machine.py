"""Walks over ordinary anonymous pages on the small mm of ``tests.mm_machine``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.mm_machine import PAGE, AddressSpaces

if TYPE_CHECKING:
    from tests.mm_machine import AnonVma, Mm, Vma

CALLERS = (
    "try_to_migrate_one",
    "remove_migration_pte",
    "try_to_unmap_one",
    "folio_referenced_one",
    "damon_folio_mkold_one",
    None,
)
ENDING = ("try_to_migrate_one", "try_to_unmap_one", "folio_referenced_one")


@dataclass
class TrueWalk:
    """What a walk did."""

    enter: int
    relatives: int
    mapping: int
    iterations: int


class AnonMachine(AddressSpaces):
    """One boot. A page is mapped by any of its relatives: what does not matter to the walk is not kept."""

    def __init__(self, numbers: list[int], *, anon_pgoff: bool) -> None:
        self.truth: list[TrueWalk] = []
        self.written: set[tuple[Mm, int]] = set()
        super().__init__(numbers, anon_pgoff=anon_pgoff)

    def exec_mmap(self, task: tuple[Mm, int] | None) -> None:
        pid = task[1] if task else self.pids.next // 64 + 1
        self.enter(pid, "execve", 0)
        super().exec_mmap(task)
        self.leave(pid, "execve", 0)

    def fault(self, vma: Vma, address: int, pid: int) -> None:
        super().fault(vma, address, pid)
        self.written.add((vma.mm, address))

    def relatives(self, vma: Vma, tree: int, first: int, last: int) -> list[Vma]:
        """VMAs on one of the trees of ``vma`` that overlap the range, in order."""
        return [
            avc.vma
            for avc in vma.chain[tree].anon_vma.tree
            if self.key(avc.vma) <= last and self.key(avc.vma) + (avc.vma.end - avc.vma.start) // PAGE > first
        ]

    def do_anon_walk(self) -> None:
        """rmap_walk_anon() over a folio of one page or of two."""
        faulted = [vma for mm in self.mms for vma in mm.vmas if vma.anon_vma]
        if (vma := self.pick(faulted)) is None:
            return
        pid, caller, tree = (
            31 + self.number(2),
            self.pick([*CALLERS, *4 * CALLERS[:1]]),
            self.number(len(vma.chain)),
        )
        order = int(self.number(5) == 0)
        first = self.key(vma) + self.number((vma.end - vma.start) // PAGE)
        last = first + (1 << order) - 1
        anon_vma = vma.chain[tree].anon_vma
        for each in self.relatives(vma, tree, first, last):  # forks write it
            address = each.start + (first - self.key(each)) * PAGE
            if (
                each.anon_vma is not anon_vma
                and each.mm.tasks
                and each.start <= address < each.end
                and self.number(3)
            ):
                self.fault(each, address, each.mm.tasks[0])
        chance = [self.number(3) > 0 for _ in range(16)]
        mapped = self.mapped(self.relatives(vma, tree, first, last), anon_vma, first, chance)
        mapping = sum(mapped)
        try_lock = caller == "folio_referenced_one"
        enter = self.emit(
            "ev_anon_walk",
            pid,
            is_return=False,
            folio=0xFFFF_EA00_0000_0000 + first * 64,
            anon_vma=anon_vma.pointer,
            index=first,
            flags=0x40 * order,
            flags_1=0x100 * self.number(3) + (order or 0xC8),
            rmap_one=caller,
            try_lock=try_lock,
            mapcount=0 if caller == "remove_migration_pte" else mapping,
            comm="walker",
        )
        if self.number(6) == 0:  # while it waits for the lock
            for _ in range(1 + self.number(3)):
                self.pick([self.do_split, self.do_fork, self.do_munmap, self.do_exit])()
        if vma.chain[tree:] and vma.chain[tree].anon_vma is anon_vma:
            met = self.relatives(vma, tree, first, last)
            mapped = self.mapped(met, anon_vma, first, chance)
            if caller == "remove_migration_pte":
                mapping = sum(mapped)
            contended = try_lock and self.number(4) == 0
            visited = 0 if contended else self.walk(met, mapped, sum(mapped), caller, pid, first)
            self.truth.append(TrueWalk(enter, len(met), mapping, visited))
        self.emit("ev_anon_walk", pid, is_return=True)

    def mapped(self, met: list[Vma], anon_vma: AnonVma, first: int, chance: list[bool]) -> list[bool]:
        """Which relatives map the folio: any, but those that wrote the page into a folio of their own."""
        return [
            maps
            and not (
                vma.anon_vma is not anon_vma
                and (vma.mm, vma.start + (first - self.key(vma)) * PAGE) in self.written
            )
            for vma, maps in zip(met, chance, strict=False)
        ]

    def walk(
        self, met: list[Vma], mapped: list[bool], left: int, caller: str | None, pid: int, first: int
    ) -> int:
        """The loop; how many it visits."""
        self.emit("ev_obs_first", pid, is_return=False, first=first, last=first)
        self.emit("ev_obs_first", pid, is_return=True, avc=0)
        for visited, (vma, maps) in enumerate(zip(met, mapped, strict=False), 1):
            address = vma.start + (first - self.key(vma)) * PAGE
            self.emit("ev_obs_one", pid, is_return=False, fn=caller or "ksm", vma=vma.pointer)
            if maps and caller in ("try_to_migrate_one", "remove_migration_pte"):
                self.emit("ev_migration_pte", pid, is_set=caller != CALLERS[1], address=max(address, 0))
            self.emit("ev_obs_one", pid, is_return=True, fn=caller or "ksm", ret=1)
            left -= maps
            if caller in ENDING and maps and left == 0:
                return visited
            self.emit("ev_obs_next", pid, avc=0, vma=vma.pointer)
        return min(len(met), len(mapped))

    def run(self) -> AnonMachine:
        """Everything that the numbers ask for."""
        operations = (
            *(self.do_mmap, self.do_fault, self.do_fault, self.do_split, self.do_merge, self.do_fork),
            *(self.do_fork, self.do_move, self.do_munmap, self.do_exit, self.do_thread, self.do_exec),
            *(self.do_anon_walk, self.do_anon_walk, self.do_anon_walk, self.do_grow),
        )
        while True:
            try:
                self.pick(list(operations))()
            except StopIteration:
                return self
