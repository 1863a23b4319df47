"""System calls, faults and forks -> VMAs and their trees, one event at a time: the twin of ``model``.

Follows the kernel's functions by name; the primitives are in ``oracle.model_vma``. Slow on purpose.

Over 400 lines because the kernel's functions that it follows call one another; they are read side by side.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from replay.oracle.model_flags import FlagCalls
from replay.oracle.model_mremap import MremapCalls, pages_of
from replay.oracle.model_threads import threads_before
from replay.oracle.model_told import faults_of_execs, gaps, records, snapshots, tell
from replay.oracle.model_vma import Areas, Mm, Proposed, Vma
from replay.state import kernel as k

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

Event = dict[str, Any]
_PAGE = 1 << k.PAGE_SHIFT
MAX_PAGE = 1 << 44


def _may_try_huge_page(vma: Vma, page: int) -> bool:
    """Whether a read fault gives the VMA its anon_vma if huge pages are enabled: create_huge_pmd()."""
    first = page - page % k.HUGE_PAGE
    anonymous = vma.file == 0 and not vma.flags & (k.VM_SHARED | k.VM_NOHUGEPAGE)
    fits = vma.start <= first and first + k.HUGE_PAGE <= vma.end
    return anonymous and fits and vma.anon_vma is None and not vma.told


def _born(row: Event) -> Event:
    """Birth of what an event makes; what a snapshot told when the capture began was there before."""
    seen = row["seq"] >= 0
    return {"born_seq": row["seq"] if seen else None, "born_ts_ns": row["ts_ns"] if seen else None}


class OracleModel(MremapCalls, FlagCalls):
    """The machine that the events drive.

    Attributes:
        lives: One dict a life of an interval, in order of birth.
        versions: One dict a version of a VMA, in order of birth.
        refusals: One dict a merge that the rules of some kernel refuse, in order.
        doubts: How often the model had to do without knowing.
    """

    def __init__(self, rules: k.Rules) -> None:
        self.rules = rules
        self.areas = Areas(rules)
        self.lives: list[Event] = []
        self.versions: list[Event] = []
        self.refusals: list[Event] = []
        self.doubts: Counter[str] = Counter()
        self._task_mm: dict[int, Mm] = {}
        self._calls: dict[int, Event] = {}
        self._new_mms: list[Mm] = []
        self._segments: dict[int, int] = {}
        self._attached = 0
        self._open_lives: dict[int, Event] = {}
        self._open_versions: dict[int, Event] = {}

    def run(self, events: Mapping[str, pl.DataFrame]) -> OracleModel:
        """Take all events in order of their place."""
        rows = [
            (row["seq"], name, row)
            for name in ("ev_syscall", "ev_task", "ev_fault")
            for row in events[name].iter_rows(named=True)
        ]
        rows.sort(key=lambda each: each[0])
        rows, late = faults_of_execs(rows)
        if "proc_map" in events:
            followed = {name.removeprefix("_sys_") for name in dir(self) if name.startswith("_sys_")}
            read, self.doubts["maps_torn"] = snapshots(events)
            told = records(events, followed) + read
            told.sort(key=lambda each: (each["seq"], each["pid"]))
            # A snapshot holds behind the event at its place.
            rows += [(each["seq"], "proc_map", each) for each in told]
        rows += late
        for pid, thread in threads_before(events) if "ev_mmap_lock" in events else ():
            self._task_mm[thread] = self._mm_of(pid)
            self._task_mm[thread].users += 1
        newtasks = (events["ev_task"]["kind"] == "newtask").any()
        self._birth = "newtask" if newtasks else "fork"
        for _, name, row in sorted(rows, key=lambda each: each[0]):
            self._cause: str | None = None
            if name == "proc_map":
                self._snapshot(row)
                continue
            {"ev_syscall": self._syscall, "ev_task": self._task, "ev_fault": self._fault}[name](row)
            self._publish(row)
        self.doubts["told_merges"] = self.areas.told_merges
        self.doubts["stack_unknown"] = sum(mm.stack_unknown for mm in self._new_mms)
        self.doubts = Counter({name: count for name, count in self.doubts.items() if count})
        return self

    def _snapshot(self, row: Event) -> None:
        self._cause = "maps"
        mm = self._mm_of(row["pid"])
        for number, (start, end) in enumerate(gaps(row["lines"])):
            if row["is_whole"] and start < end:
                vma = mm.find(start)
                if vma is not None and vma.start < end:
                    self.doubts["maps_differ"] += 1
                    self.areas.munmap(mm, start, end)
                self._publish(row)
            if number < len(row["lines"]):
                mm.stack_unknown &= row["lines"][number]["name"] != "[stack]"
                self.doubts["maps_differ"] += tell(self.areas, mm, row["lines"][number])
                self._publish(row)

    # What comes out

    def _publish(self, row: Event) -> None:
        """Close and open lives and versions after one operation."""
        for is_insert, avc, start, end, pgoff, anon_pgoff, told in self.areas.log:
            if not is_insert:
                life = self._open_lives.pop(avc.number)
                life["died_seq"], life["died_ts_ns"] = row["seq"], row["ts_ns"]
                continue
            key = k.TOLD_ANON_PGOFF if self.rules.anon_pgoff else k.TOLD_PGOFF
            first = None if told & key else anon_pgoff if self.rules.anon_pgoff else pgoff
            life = {
                "avc": avc.number + 1,
                "anon_vma": avc.anon_vma.number,
                "vma": avc.vma.number,
                "mm": avc.vma.mm.number,
                "first_pgoff": first,
                "last_pgoff": None if first is None else first + end - start - 1,
                "vm_start": start * _PAGE,
                "vm_end": end * _PAGE,
                "vm_pgoff": None if told & k.TOLD_PGOFF else pgoff,
                "pid": row["pid"],
                **_born(row),
                "died_seq": None,
                "died_ts_ns": None,
            }
            self.lives.append(life)
            self._open_lives[avc.number] = life
        for number in sorted(self.areas.touched):
            self._version(self.areas.touched[number], row)
        for older, newer, flags, anon_vma in self.areas.refused:
            self.refusals.append(
                {
                    **{name: row[name] for name in ("seq", "ts_ns", "pid")},
                    "older": older,
                    "newer": newer,
                    "vm_flags": flags,
                    "anon_vma": anon_vma,
                }
            )
        self.areas.refused.clear()
        self.areas.log.clear()
        self.areas.touched.clear()

    def _version(self, vma: Vma, row: Event) -> None:
        now = {
            "vma": vma.number,
            "mm": vma.mm.number,
            "vm_start": vma.start * _PAGE,
            "vm_end": vma.end * _PAGE,
            "vm_pgoff": None if vma.told & k.TOLD_PGOFF else vma.pgoff,
            "anon_pgoff": vma.anon_pgoff
            if self.rules.anon_pgoff and not vma.told & k.TOLD_ANON_PGOFF
            else None,
            "vm_flags": None if vma.told & k.TOLD_FLAGS else vma.flags & ~k.OWN_FLAGS,
            "all": (vma.flags & ~k.OWN_FLAGS, vma.pgoff, vma.anon_pgoff, vma.told),
            "anon_vma": vma.anon_vma.number if vma.anon_vma is not None else None,
        }
        before = self._open_versions.get(vma.number)
        if before is not None:
            if not vma.dead and all(before[name] == value for name, value in now.items()):
                return
            before["died_seq"], before["died_ts_ns"] = row["seq"], row["ts_ns"]
            del self._open_versions[vma.number]
        if not vma.dead:
            born = {
                **_born(row),
                "died_seq": None,
                "died_ts_ns": None,
                "cause_event": self._cause,
            }
            self.versions.append(now | born)
            self._open_versions[vma.number] = self.versions[-1]

    # Tasks

    def _mm_of(self, pid: int) -> Mm:
        if pid not in self._task_mm:
            self._task_mm[pid] = Mm()
        return self._task_mm[pid]

    def _task(self, row: Event) -> None:
        if row["kind"] == self._birth:
            self._clone(row)
        elif row["kind"] == "exec":
            self._cause = "execve"
            before = row["old_pid"] if row["old_pid"] is not None else row["pid"]
            for task in (before, row["pid"]):
                self._calls.pop(task, None)
            old = self._mm_of(before)
            self._mmput(old)
            del self._task_mm[before]
            if row["pid"] in self._task_mm:
                self._mmput(self._task_mm[row["pid"]])
            self._task_mm[row["pid"]] = Mm(merge_any=old.merge_any, stack_unknown=True)
            self._new_mms.append(self._task_mm[row["pid"]])
        elif row["kind"] == "exit":
            self._mmput(self._mm_of(row["pid"]))
            self._task_mm.pop(row["pid"], None)
            self._calls.pop(row["pid"], None)

    def _clone(self, row: Event) -> None:
        """copy_mm()."""
        parent = self._mm_of(row["pid"])
        call = self._calls.get(row["pid"])
        self._cause = call["name"] if call else "fork"
        flags = row["clone_flags"]
        if flags is None:
            flags = self._flags_of(call)
        if flags & k.CLONE_VM:
            parent.users += 1
            self._task_mm[row["child_pid"]] = parent
            return
        child = Mm(brk=parent.brk, merge_any=parent.merge_any)
        self._task_mm[row["child_pid"]] = child
        self._dup_mmap(child, parent)

    def _flags_of(self, call: Event | None) -> int:
        """clone_flags where the capture has no task_newtask."""
        if call is None or call["name"] in ("clone3", "exit", "exit_group"):
            self.doubts["clone_flags"] += 1
            return 0
        flags = {"fork": 0, "vfork": k.CLONE_VM}.get(call["name"], call["arg0"])
        return int(flags or 0)

    def _dup_mmap(self, child: Mm, parent: Mm) -> None:
        for vma in parent.vmas:
            if vma.flags & k.VM_DONTCOPY:
                continue
            copy = self.areas.proposal(vma, vma.start, vma.end)
            copy.flags &= ~k.VM_LOCKED_MASK
            copy.anon_vma = None
            new = self.areas.new_vma(child, copy)
            new.told = vma.told
            child.vmas.append(new)
            if not vma.flags & k.VM_WIPEONFORK:
                self.areas.anon_vma_fork(new, vma)

    def _mmput(self, mm: Mm) -> None:
        """mmput(), exit_mmap()."""
        mm.users -= 1
        if not mm.users:
            for vma in mm.vmas:
                self.areas.drop(vma)
            mm.vmas = []

    # Faults

    def _fault(self, row: Event) -> None:
        self._cause = "page_fault"
        mm, page = self._mm_of(row["pid"]), row["address"] >> k.PAGE_SHIFT
        vma = mm.find(page)
        if page > MAX_PAGE:
            return
        if vma is None or page < vma.start:
            if vma is not None and vma.flags & k.VM_GROWSDOWN:
                self._expand_stack(mm, vma, page)
            elif row["error_code"] & k.PF_WRITE:
                self.doubts["fault_of_unknown"] += 1
            return
        if not row["error_code"] & k.PF_WRITE:
            self.doubts["huge_page_read_fault"] += _may_try_huge_page(vma, page)
        elif vma.flags & k.VM_WRITE and not vma.flags & k.VM_SHARED:
            self.areas.anon_vma_prepare(vma)

    def _expand_stack(self, mm: Mm, vma: Vma, page: int) -> None:
        below = mm.before(vma.start)
        if (
            below is not None
            and not below.flags & k.VM_GROWSDOWN
            and below.flags & k.VM_ACCESS_FLAGS
            and page < below.end + k.STACK_GUARD_GAP
        ):
            return
        self.areas.anon_vma_prepare(vma)
        if vma.end - page > k.STACK_LIMIT:
            self.doubts["stack_limit_unknown"] += 1
        elif vma.pgoff >= vma.start - page:
            self.areas.expand(vma, page)

    # System calls

    def _syscall(self, row: Event) -> None:
        changes = hasattr(self, f"_sys_{row['name']}")
        self.doubts["calls_cut"] += changes
        if not row["is_exit"]:
            self._calls[row["pid"]] = row
            return
        call = self._calls.pop(row["pid"], None)
        if call is None or call["name"] != row["name"] or row["ret"] is None:
            return
        self.doubts["calls_cut"] -= 2 * changes
        arguments = [call[f"arg{number}"] or 0 for number in range(6)]
        if row["ret"] >= 0:
            self._untold(row["name"], arguments, row["ret"])
        handler = getattr(self, f"_sys_{row['name']}", None)
        if handler is not None:
            self._cause = row["name"]
            handler(self._mm_of(row["pid"]), arguments, row["ret"])

    def _untold(self, name: str, arguments: list[int], ret: int) -> None:
        """What a call did to VMAs that its arguments do not tell; and the segments that there are."""
        if name == "shmget" and not arguments[2] & k.SHM_HUGETLB:
            if arguments[0] == k.IPC_PRIVATE or arguments[2] & k.IPC_NEW == k.IPC_NEW:
                self._segments[ret] = arguments[1]
        elif name == "shmat":
            self.doubts["shmat_size"] += arguments[0] not in self._segments
        elif name == "process_madvise" and self.rules.advises_itself:
            changing = (*k.ADVICE, k.MADV_GUARD_INSTALL, k.MADV_POPULATE_WRITE)
            self.doubts["process_madvise"] += arguments[3] in changing
        self.doubts["mbind_nodes"] += name == "mbind" and bool(arguments[2] and arguments[3])
        self.doubts["userfaultfd"] += name == "userfaultfd"
        self.doubts["named_vmas"] += name == "prctl" and arguments[0] == k.PR_SET_VMA

    def _sys_shmat(self, mm: Mm, arguments: list[int], ret: int) -> None:
        if ret < 0 or arguments[0] not in self._segments:
            return
        flags = k.VM_READ | k.VM_MAY | k.VM_SHARED | k.VM_MAYSHARE
        flags |= 0 if arguments[2] & k.SHM_RDONLY else k.VM_WRITE
        flags |= k.VM_EXEC if arguments[2] & k.SHM_EXEC else 0
        self._attached += 1
        start = ret >> k.PAGE_SHIFT
        self._replace(
            mm,
            start,
            start + pages_of(self._segments[arguments[0]]),
            flags,
            k.SHM_FILE - self._attached,
            0,
            placed=not arguments[2] & k.SHM_REMAP,
        )

    def _replace(
        self, mm: Mm, start: int, end: int, flags: int, file: int, pgoff: int, *, placed: bool
    ) -> None:
        """mmap_region(), in the place of what is there unless the kernel had found it free."""
        self._clear_target(mm, start, end) if placed else self.areas.munmap(mm, start, end)
        self._map(mm, start, end, flags | mm.def_flags, file, pgoff)

    def _sys_shmdt(self, mm: Mm, arguments: list[int], ret: int) -> None:
        addr, file = arguments[0] >> k.PAGE_SHIFT, None
        for vma in (
            [each for each in mm.vmas if each.end > addr and each.file <= k.SHM_FILE] if not ret else ()
        ):
            if vma.start - addr == vma.pgoff and file in (None, vma.file):
                file = vma.file
                self.areas.munmap(mm, vma.start, vma.end)

    def _sys_remap_file_pages(self, mm: Mm, arguments: list[int], ret: int) -> None:
        start, pages = arguments[0] >> k.PAGE_SHIFT, arguments[1] >> k.PAGE_SHIFT
        vma = mm.lookup(start)
        if ret or vma is None or not vma.flags & k.VM_SHARED:
            return
        kept = k.VM_ACCESS_FLAGS | k.VM_MAY | k.VM_SHARED | k.VM_MAYSHARE | k.VM_LOCKED
        self._replace(mm, start, start + pages, vma.flags & kept, vma.file, arguments[3], placed=False)

    def _sys_map_shadow_stack(self, mm: Mm, arguments: list[int], ret: int) -> None:
        if ret < 0:
            return
        start, end = ret >> k.PAGE_SHIFT, (ret >> k.PAGE_SHIFT) + pages_of(arguments[1])
        flags = k.VM_READ | k.VM_WRITE | k.VM_MAY | k.VM_ACCOUNT | k.VM_SHADOW_STACK
        self._replace(mm, start, end, flags, 0, start, placed=True)
        if arguments[2] & k.SHADOW_STACK_SET_TOKEN or mm.def_flags & k.VM_LOCKED:
            self._populate(mm, start, end)

    def _sys_mmap(self, mm: Mm, arguments: list[int], ret: int) -> None:
        _, length, prot, flags, fd, offset = arguments
        if -4096 < ret < 0 and length:
            self._failed_mmap(mm, arguments, -ret)
        if -4096 < ret < 0 or not length:
            return
        count = pages_of(length)
        if flags & k.MAP_HUGETLB and flags & k.MAP_ANONYMOUS:
            size = flags >> k.MAP_HUGE_SHIFT & k.MAP_HUGE_MASK
            huge = 1 << size - k.PAGE_SHIFT if k.PAGE_SHIFT <= size < 35 else k.HUGE_PAGE if size == 0 else 1
            count = -(-count // huge) * huge
        start, end = ret >> k.PAGE_SHIFT, (ret >> k.PAGE_SHIFT) + count
        file, vm_flags = self._mapped(mm, prot, flags, fd)
        has_file = not flags & k.MAP_ANONYMOUS or flags & k.MAP_HUGETLB
        pgoff = offset >> k.PAGE_SHIFT if has_file else 0 if vm_flags & k.VM_SHARED else start
        self._replace(mm, start, end, vm_flags, file, pgoff, placed=not flags & k.MAP_FIXED)
        if vm_flags & k.VM_LOCKED or flags & (k.MAP_POPULATE | k.MAP_NONBLOCK) == k.MAP_POPULATE:
            self._populate(mm, start, end)

    def _failed_mmap(self, mm: Mm, arguments: list[int], error: int) -> None:
        """__mmap_region() to where it failed, if that is known."""
        addr, length, _, flags, *_ = arguments
        if not flags & k.MAP_FIXED or flags & k.MAP_FIXED_NOREPLACE or addr % _PAGE:
            return
        start, end = addr // _PAGE, addr // _PAGE + pages_of(length)
        there = [vma for vma in mm.vmas if vma.end > start and vma.start < end]
        if error == k.EPERM and any(vma.flags & k.VM_SEALED for vma in there):
            self._split_at(mm, start)
            return
        has_hook = not flags & k.MAP_ANONYMOUS or bool(flags & (k.MAP_SHARED | k.MAP_HUGETLB))
        is_late = error == k.ENOMEM or (has_hook and error not in k.MMAP_FAILS_EARLY)
        self.doubts["fixed_mmap_failed"] += bool(there) and is_late

    def _mapped(self, mm: Mm, prot: int, flags: int, fd: int) -> tuple[int, int]:
        """do_mmap(): the file (0: none; a negative number of its own for shared memory) and vm_flags."""
        vm_flags = prot & 7 | k.VM_MAY | mm.def_flags
        for map_flag, vm_flag in (
            (k.MAP_GROWSDOWN, k.VM_GROWSDOWN),
            (k.MAP_LOCKED, k.VM_LOCKED),
            (k.MAP_NORESERVE, k.VM_NORESERVE),
            (k.MAP_STACK, k.VM_NOHUGEPAGE),
            (k.MAP_HUGETLB, k.VM_HUGETLB | k.VM_DONTEXPAND),
        ):
            if flags & map_flag:
                vm_flags |= vm_flag
        file = 0 if flags & k.MAP_ANONYMOUS else (fd & k.MAX_FD) + 1
        kind = flags & k.MAP_TYPE
        if kind & k.MAP_SHARED:
            vm_flags |= k.VM_SHARED | k.VM_MAYSHARE
        elif kind == k.MAP_DROPPABLE:
            vm_flags |= k.VM_DROPPABLE | k.VM_NORESERVE | k.VM_WIPEONFORK | k.VM_DONTDUMP
        if vm_flags & k.VM_HUGETLB or (kind & k.MAP_SHARED and not file):
            self._shared = getattr(self, "_shared", 0) + 1
            file = -self._shared
        accountable = k.VM_WRITE | k.VM_SHARED | k.VM_NORESERVE | k.VM_HUGETLB
        if vm_flags & accountable == k.VM_WRITE:
            vm_flags |= k.VM_ACCOUNT
        return file, vm_flags

    def _map(
        self, mm: Mm, start: int, end: int, flags: int, file: int, pgoff: int, *, just_expand: bool = False
    ) -> None:
        """mmap_region(), do_brk_flags(): merge or make a VMA."""
        mergeable = k.VM_MERGEABLE if mm.merge_any and not flags & k.KSM_INCOMPATIBLE else 0
        if self.rules.mergeable_first:
            flags |= mergeable
        new = Proposed(start, end, flags, file, pgoff, start, None, None, mergeable=mergeable)
        if self.areas.merge_new_range(mm, new, just_expand=just_expand) is None:
            new.flags |= mergeable
            mm.add(self.areas.new_vma(mm, new))

    def _sys_munmap(self, mm: Mm, arguments: list[int], ret: int) -> None:
        start = arguments[0] >> k.PAGE_SHIFT
        if ret == 0:
            self.areas.munmap(mm, start, start + pages_of(arguments[1]))
            return
        if ret == -k.EPERM:
            self._split_at(mm, start)

    def _sys_brk(self, mm: Mm, arguments: list[int], ret: int) -> None:
        old, mm.brk = mm.brk, ret
        if old is None:
            if arguments[0] and ret == arguments[0]:
                self.doubts["brk_before"] += 1
            return
        if pages_of(ret) < pages_of(old):
            self.areas.munmap(mm, pages_of(ret), pages_of(old))
        elif pages_of(ret) > pages_of(old):
            self._clear_target(mm, pages_of(old), pages_of(ret))
            flags = k.VM_READ | k.VM_WRITE | k.VM_MAY | k.VM_ACCOUNT | mm.def_flags
            self._map(mm, pages_of(old), pages_of(ret), flags, 0, pages_of(old), just_expand=True)
            if mm.def_flags & k.VM_LOCKED:
                self._populate(mm, pages_of(old), pages_of(ret))
