"""The oracle's address spaces and mapped pages: who runs where, who was forked from whom, what is mapped.

Slow and obvious on purpose, and shares no code with the columns that it checks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from replay.oracle.state import BEFORE, PAGE_SIZE, Interval

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replay.oracle.state import Item, Row

CLONE_VM: Final = 0x100
CLONE_THREAD: Final = 0x10000
PF_WRITE: Final = 2
MAP_FIXED: Final = 0x10
EINVAL: Final = 22
PR_SET_MEMORY_MERGE: Final = 67
MADV_DROPS: Final = {4, 9, 13, 23, 24, 25}
"""DONTNEED, REMOVE, UNMERGEABLE, POPULATE_WRITE, DONTNEED_LOCKED, COLLAPSE."""


@dataclass(eq=False)
class Space:
    """One life of one mm: the time in which it has an interval on any tree."""

    mm: int
    first: Interval
    until: int
    relatives: list[int] = field(default_factory=list)
    """The mms that it can be a fork of: they hold its first interval's range on the same tree."""

    @property
    def born(self) -> int:
        """Place of its first interval."""
        return self.first.born


@dataclass(frozen=True)
class Running:
    """From ``seq`` on a task runs in ``mm``, or where its ``parent`` does; ``birth``: it is a new task."""

    seq: int
    mm: int | None = None
    parent: int | None = None
    birth: bool = False


class Spaces:
    """Which task runs in which mm, and what is mapped there.

    Args:
        intervals: All lives of intervals, in order of birth.
        items: All lives of rmap_items.
        events: All events in order: name of the table, row.
    """

    def __init__(
        self, intervals: list[Interval], items: list[Item], events: Iterable[tuple[str, Row]]
    ) -> None:
        self.intervals = [each for each in intervals if each.mm is not None]
        self.spaces: dict[int, list[Space]] = defaultdict(list)
        self.forks: list[tuple[int, int, int]] = []
        """``(born, mm, parent)``: dup_mmap()."""
        self._runs: dict[int, list[Running]] = defaultdict(list)
        self._merges: dict[tuple[int | None, int | None], list[tuple[int, int | None]]] = defaultdict(list)
        self._unmaps: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
        self.emptied: dict[int | None, list[int]] = defaultdict(list)
        self._exits: dict[int, list[int]] = defaultdict(list)
        self._find_spaces()
        for item in sorted(items, key=lambda each: each.merged_at):
            if item.born_ts is not None:
                self._merges[item.mm, item.address].append((item.merged_at, item.stable_node))
        listed = list(events)
        self._run(listed)
        self._unmap(listed)

    def _find_spaces(self) -> None:
        for interval in self.intervals:
            lives = self.spaces[interval.mm]
            if not lives or (interval.born > lives[-1].until and not self._put_back(interval)):
                lives.append(Space(interval.mm, interval, interval.died))
                lives[-1].relatives = self._relatives(interval)
            else:
                lives[-1].until = max(lives[-1].until, interval.died)

    def _put_back(self, interval: Interval) -> bool:
        """Whether the VMA of its mm that left the trees last is this one: vma_complete() by the same task."""
        left = [each for each in self.intervals if each.mm == interval.mm and each.died <= interval.born]
        last = max(left, key=lambda each: each.died)
        return (last.vma, last.removed_by) == (interval.vma, interval.row["pid"])

    def _relatives(self, new: Interval) -> list[int]:
        """The other mms with the same start on the same tree, longest there first; exec finds none."""
        if new.born_seq is None:
            return []
        return [
            old.mm
            for old in self.intervals
            if old.mm != new.mm
            and new.vm_start is not None
            and (old.anon_vma, old.vm_start) == (new.anon_vma, new.vm_start)
            and old.born < new.born < old.died
        ]

    def space(self, mm: int, seq: int) -> Space | None:
        """The life of ``mm`` that began last up to ``seq``."""
        begun = [space for space in self.spaces[mm] if space.born <= seq]
        return begun[-1] if begun else None

    def running(self, pid: int, seq: int) -> int | None:
        """The mm in which the task runs, as its events up to ``seq`` tell."""
        told = self._told(pid, seq)
        last = self._runs[pid][told - 1] if told else Running(seq)
        return last.mm if last.parent is None else self.mm_of(last.parent, last.seq)

    def _told(self, pid: int, seq: int) -> int:
        return bisect_right(self._runs[pid], seq, key=lambda since: since.seq)

    def mm_of(self, pid: int, seq: int) -> int | None:
        """The same; while nothing is known of the task, what its first event that tells does."""
        running, later = self.running(pid, seq), self._runs[pid][self._told(pid, seq) :]
        if running is None and later and not later[0].birth:
            return later[0].mm
        return running

    def _run(self, events: list[tuple[str, Row]]) -> None:
        kinds = {row["kind"] for table, row in events if table == "ev_task"}
        birth = "newtask" if "newtask" in kinds else "fork"
        copied: dict[int, int] = {}
        for table, row in events:
            if table == "ev_avc" and row["is_insert"] and row["mm"] is not None:
                self._anon_vma_chain_link(row, copied)
            elif table == "ev_task" and row["kind"] == birth and row["child_pid"] is not None:
                self._copy_process(row, copied.pop(row["pid"], None))

    def _anon_vma_chain_link(self, row: Row, copied: dict[int, int]) -> None:
        """A task inserts intervals of its own mm, but in dup_mmap() those of the child's."""
        pid, mm, seq = row["pid"], row["mm"], row["seq"]
        space = self.space(mm, seq)
        if space is None or not space.relatives or space.first.row["pid"] != pid:
            if self.running(pid, seq) != mm:
                self._runs[pid].append(Running(seq, mm))
        elif space.born == seq:
            copied[pid] = mm
            running = self.running(pid, seq)
            self.forks.append((seq, mm, running if running in space.relatives else space.relatives[0]))

    def _copy_process(self, row: Row, copy: int | None) -> None:
        """A new task runs in the copy that its parent made, or (CLONE_VM) where its parent runs."""
        flags, seq = row["clone_flags"], row["seq"]
        shares = copy is None if flags is None else bool(flags & CLONE_VM)
        new = Running(seq, parent=row["pid"], birth=True) if shares else Running(seq, copy, birth=True)
        self._runs[row["child_pid"]].append(new)

    def _unmap(self, events: list[tuple[str, Row]]) -> None:
        vforked: set[int] = set()
        before: dict[int, Row] = {}
        for table, row in events:
            if table == "ev_task" and row["kind"] == "newtask":
                vforked.discard(row["child_pid"])
                if (row["clone_flags"] or 0) & (CLONE_VM | CLONE_THREAD) == CLONE_VM:
                    vforked.add(row["child_pid"])
            elif table == "ev_task" and row["kind"] == "exec":
                vforked.discard(row["pid"])
            elif table == "ev_node_remove":
                self.emptied[row["stable_node"]].append(row["seq"])
            elif table == "ev_fault" and row["error_code"] & PF_WRITE:
                page = row["address"] // PAGE_SIZE * PAGE_SIZE
                self._end(row, page, page + PAGE_SIZE)
            elif table == "ev_syscall":
                entry = before.get(row["pid"])
                before[row["pid"]] = row
                if not row["is_exit"]:
                    if row["name"] == "exit_group" and row["pid"] not in vforked:
                        self._exit_group(row)
                elif entry is not None and not entry["is_exit"] and entry["name"] == row["name"]:
                    self._system_call(entry, row)

    def _exit_group(self, row: Row) -> None:
        mm = self.mm_of(row["pid"], row["seq"])
        if mm is not None:
            self._exits[mm].append(row["seq"])

    def _system_call(self, entry: Row, row: Row) -> None:
        """What a call that has returned took away."""
        name, ret = row["name"], row["ret"]
        a, b, c, d = (entry[f"arg{number}"] for number in range(4))
        if name == "madvise" and c in MADV_DROPS and ret != -EINVAL:
            self._end(row, a, a + b)
        if ret < 0:
            return
        if name in ("munmap", "mremap"):
            self._end(row, a, a + b)
        if name == "mremap" and ret != a:
            self._end(row, ret, ret + c)
        if name == "mmap" and d & MAP_FIXED:
            self._end(row, ret, ret + b)
        if name == "prctl" and a == PR_SET_MEMORY_MERGE and b == 0:
            self._end(row, 0, 1 << 64)

    def _end(self, row: Row, start: int, end: int) -> None:
        mm = self.mm_of(row["pid"], row["seq"])
        if mm is not None:
            self._unmaps[mm].append((row["seq"], start, end))

    def _ended(self, mm: int, address: int, after: int, until: int) -> bool:
        unmaps = self._unmaps[mm]
        window = (bisect_right(unmaps, seq, key=lambda unmap: unmap[0]) for seq in (after, until))
        return any(start <= address < end for _, start, end in unmaps[slice(*window)])

    def mapped(self, mm: int, address: int, stable_node: int | None, at: int) -> bool:
        """Whether ``mm`` maps the node's page at ``address``, as far as the events tell."""
        emptied = max((seq for seq in self.emptied[stable_node] if seq <= at), default=BEFORE)
        return self._mapped(mm, address, stable_node, at, emptied)

    def _mapped(self, mm: int, address: int, stable_node: int | None, at: int, emptied: int) -> bool:
        """By the last merge or fork in this life of ``mm``; the node's page is younger than ``emptied``."""
        merges = [merge for merge in self._merges.get((mm, address), ()) if merge[0] <= at]
        forks = [fork for fork in self.forks if fork[1] == mm and fork[0] <= at]
        merged, node = merges[-1] if merges else (BEFORE, None)
        forked, _, parent = forks[-1] if forks else (BEFORE, mm, mm)
        space, since = self.space(mm, at), max(merged, forked)
        if since == BEFORE or (space is not None and since < space.born):
            return False
        if self._ended(mm, address, since, at):
            return False
        if merged > forked:
            return node == stable_node and merged > emptied
        return self._mapped(parent, address, stable_node, forked - 1, emptied)

    def exiting(self, mm: int, at: int) -> bool:
        """Whether the process of ``mm`` has begun to exit."""
        space = self.space(mm, at)
        return space is not None and any(space.born < seq <= at for seq in self._exits.get(mm, ()))

    def torn_down(self, mm: int, at: int) -> bool:
        """Whether exit_mmap() has begun to take the VMAs of ``mm`` off their trees."""
        space, begun = self.space(mm, at), [seq for seq in self._exits.get(mm, ()) if seq <= at]
        if space is None or not begun or max(begun) <= space.born:
            return False
        return any(each.mm == mm and max(begun) < each.died <= at for each in self.intervals)

    def family(self, mm: int, until: int) -> set[int]:
        """``mm`` and all that were forked from it, or from those, up to ``until``."""
        found, fresh = {mm}, {mm}
        while fresh:
            fresh = {child for born, child, parent in self.forks if born <= until and parent in fresh} - found
            found |= fresh
        return found
