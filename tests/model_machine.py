"""Histories of system calls, faults and forks for property tests of the model, as event tables."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import polars as pl
import pyarrow as pa
from hypothesis import strategies as st

from schemas import TABLES

PAGE = 4096
BASE = 0x7F00_0000_0000
PAGES = 12
PIDS = (100, 101, 102)


def empty_events() -> dict[str, pl.DataFrame]:
    """Every event table, without rows."""
    return {
        name: pl.DataFrame(pl.from_arrow(table.empty()))
        for name, table in TABLES.items()
        if name.startswith("ev_")
    }


class History:
    """Event tables in the making; each event has the next place."""

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = {
            **{"ev_syscall": [], "ev_task": [], "ev_fault": [], "ev_mmap_lock": []}
        }
        self.threads: list[tuple[int, int]] = []
        self.maps: list[dict[str, Any]] = []
        self.seq = 0

    def _event(self, table: str, pid: int, **fields: Any) -> None:
        row = dict.fromkeys(TABLES[table].arrow.names) | fields
        row |= {"seq": self.seq, "ts_ns": 1000 * self.seq, "cpu": 0, "pid": pid}
        self.rows[table].append(row)
        self.seq += 1

    def call(self, pid: int, name: str, arguments: tuple[int, ...], ret: int = 0) -> None:
        """Entry and return of a system call."""
        self.enter(pid, name, arguments)
        self.leave(pid, name, ret)

    def leave(self, pid: int, name: str, ret: int) -> None:
        """Return of a system call."""
        self._event("ev_syscall", pid, is_exit=True, name=name, ret=ret)

    def enter(self, pid: int, name: str, arguments: tuple[int, ...]) -> None:
        """Entry of a system call; who calls it may not return before something else happens."""
        given = {f"arg{number}": value for number, value in enumerate(arguments)}
        self._event("ev_syscall", pid, is_exit=False, name=name, **given)

    def locked(self, pid: int, mm: int, name: str = "madvise", *, write: bool = True) -> None:
        """A system call that takes the lock of an address space and changes nothing."""
        self.enter(pid, name, ())
        self._event("ev_mmap_lock", pid, mm=mm, is_write=write)
        self.leave(pid, name, -22)

    def fault(self, pid: int, address: int, *, write: bool = True) -> None:
        """A page fault."""
        self._event("ev_fault", pid, is_user=True, address=address, error_code=6 if write else 4)

    def fork(self, pid: int, child: int, flags: int | None = 0) -> None:
        """task_newtask, or without flags sched_process_fork."""
        kind = "fork" if flags is None else "newtask"
        self._event("ev_task", pid, kind=kind, child_pid=child, clone_flags=flags)

    def task(self, pid: int, kind: str, old_pid: int | None = None) -> None:
        """exec or exit."""
        self._event("ev_task", pid, kind=kind, old_pid=old_pid)

    def snapshot(
        self, pid: int, lines: list[dict[str, Any]], *, whole: bool = True, behind: bool = False
    ) -> None:
        """Lines of /proc/PID/maps; without more, of private memory. ``behind``: at the place of an event."""
        self._map(pid, lines, is_whole=whole, is_record=False, place=self.seq - behind)
        self.seq += 1

    def record(self, pid: int, line: dict[str, Any]) -> None:
        """The kernel's record of a VMA."""
        now = 1000 * self.seq
        self._map(pid, [line], is_whole=False, is_record=True, place=self.seq, begin_ns=now, end_ns=now)
        self.seq += 1

    def _map(self, pid: int, lines: list[dict[str, Any]], **usual: Any) -> None:
        number = self.maps[-1]["snapshot"] + 1 if self.maps else 0
        empty = dict.fromkeys(TABLES["proc_map"].arrow.names) | {"prot": 3, "is_shared": False}
        self.maps += [{**empty, **usual, "snapshot": number, "pid": pid, **line} for line in lines]

    def events(self) -> dict[str, pl.DataFrame]:
        """The tables; ``proc_map`` only if there are snapshots."""
        schemas = {name: frame.schema for name, frame in empty_events().items()}
        told = {"proc_map": TABLES["proc_map"].arrow} if self.maps else {}
        threads = pl.DataFrame(self.threads, schema={"pid": pl.Int32, "tgid": pl.Int32}, orient="row")
        maps = {name: pl.DataFrame(pa.Table.from_pylist(self.maps, schema)) for name, schema in told.items()}
        return (
            empty_events()
            | {name: pl.DataFrame(rows, schema=schemas[name]) for name, rows in self.rows.items()}
            | maps
            | ({"proc_thread": threads} if self.threads else {})
        )


@st.composite
def histories(draw: st.DrawFn) -> dict[str, pl.DataFrame]:
    """A few tasks work on the same few pages; not every call succeeds, or makes sense."""
    history = History()
    pid = st.sampled_from(PIDS)
    page = st.integers(0, PAGES - 1).map(lambda number: BASE + number * PAGE)
    length = st.integers(1, 4).map(lambda number: number * PAGE)
    prot = st.sampled_from((0, 1, 3, 3))
    walked = st.sampled_from((0, 0, 0, 0, -12, -13, -1))
    flags = st.sampled_from(
        (
            0x22,
            0x32,
            0x22 | 0x4000,
            0x32 | 0x8000,
            0x2022,
            0x21,
            0x2,
            0x122,
            0x12,
            0x40022,
            0x40022 | 14 << 26,
        )
    )

    def mmap() -> None:
        start, size = draw(page), draw(length)
        arguments = (start, size, draw(prot), draw(flags), 3, draw(st.integers(0, 3)) * PAGE)
        ret = draw(st.sampled_from((start, start, start, -12, -1, -22, -9)))
        history.call(draw(pid), "mmap", arguments, ret)

    def munmap() -> None:
        history.call(draw(pid), "munmap", (draw(page), draw(length)), draw(st.sampled_from((0, 0, -22, -1))))

    def mprotect() -> None:
        arguments = (draw(page), draw(length), draw(prot) | draw(st.sampled_from((0, 0, 0, 0x1000000))))
        if draw(st.integers(0, 3)):
            history.call(draw(pid), "mprotect", arguments, draw(walked))
        else:
            key = draw(st.sampled_from((0, 1, 2**64 - 1, 2**32 - 1)))
            history.call(draw(pid), "pkey_mprotect", (*arguments, key), draw(walked))

    def madvise() -> None:
        advice = st.sampled_from((2, 10, 11, 12, 12, 13, 15, 18, 19, 23, 23, 4, 102))
        ret = draw(st.sampled_from((0, 0, -12, -22, -11)))
        history.call(draw(pid), "madvise", (draw(page), draw(length), draw(advice)), ret)

    def mremap() -> None:
        start, new, target = draw(page), draw(length), draw(page)
        old = draw(st.integers(0, 4)) * PAGE
        how = draw(st.sampled_from((0, 1, 3, 3, 5, 7)))
        size = old if how & 4 or draw(st.booleans()) else new
        target = target if how & 6 or draw(st.booleans()) else start
        history.call(
            draw(pid),
            "mremap",
            (start, old, size, how, target),
            draw(st.sampled_from((target, target, -14, -12, -11, -1))),
        )

    def brk() -> None:
        top = BASE + draw(st.integers(PAGES + 2, PAGES + 8)) * PAGE + draw(st.sampled_from((0, 16)))
        history.call(draw(pid), "brk", (draw(st.sampled_from((0, top))),), top)

    def lock() -> None:
        name = draw(st.sampled_from(("mlock", "mlock2", "munlock", "mlockall", "munlockall", "mbind")))
        arguments = {
            "mlockall": (draw(st.integers(1, 7)),),
            "mbind": (
                draw(page),
                draw(length),
                draw(st.integers(0, 2)),
                draw(st.sampled_from((8, 16))),
                64,
                0,
            ),
        }.get(name, (draw(page), draw(length), draw(st.integers(0, 1))))
        history.call(draw(pid), name, arguments, draw(walked))

    def fork() -> None:
        parent, child = draw(pid), draw(pid)
        given = draw(st.sampled_from((0, 0, 0x100, 0x1200011)))
        call = draw(st.sampled_from(("clone", "clone3", "vfork", "fork")))
        history.enter(parent, call, (given,))
        if child != parent:
            history.fork(parent, child, given)

    def task() -> None:
        kind = draw(st.sampled_from(("exec", "exit")))
        history.task(draw(pid), kind, draw(st.sampled_from((None, *PIDS))) if kind == "exec" else None)

    def mseal() -> None:
        history.call(draw(pid), "mseal", (draw(page), draw(length), 0), draw(st.sampled_from((0, 0, -12))))

    def segment() -> None:
        number, start = draw(st.integers(0, 2)), draw(page)
        history.call(
            draw(pid),
            "shmget",
            (draw(st.integers(0, 1)), draw(length), draw(st.sampled_from((0o3000, 0)))),
            number,
        )
        history.call(draw(pid), "shmat", (number, 0, draw(st.sampled_from((0, 0o10000, 0o40000)))), start)
        history.call(
            draw(pid), "shmdt", (draw(st.sampled_from((start, BASE))),), draw(st.sampled_from((0, -22)))
        )

    def seldom() -> None:
        start, size = draw(page), draw(length)
        name, arguments, ret = draw(
            st.sampled_from(
                (
                    ("remap_file_pages", (start, size, 0, 2, 0), 0),
                    ("map_shadow_stack", (0, size, 1), start),
                    ("map_shadow_stack", (0, size, 0), start),
                    ("set_mempolicy_home_node", (start, size, 1, 0), 0),
                    ("process_madvise", (3, BASE, 1, 12, 0), 4096),
                    ("process_madvise", (3, BASE, 1, 20, 0), 4096),
                    ("userfaultfd", (1,), 5),
                    ("prctl", (0x53564D41, 0, start, size, BASE), 0),
                )
            )
        )
        history.call(draw(pid), name, arguments, ret)

    def merge_any() -> None:
        history.call(draw(pid), "prctl", (67, draw(st.integers(0, 1))))

    def fault() -> None:
        address = draw(page) - PAGE * draw(st.sampled_from((0, 0, 0, 300, 2100))) + 24
        history.fault(draw(pid), address, write=draw(st.sampled_from((True, True, False))))

    def snapshot() -> None:
        edges = sorted(draw(st.sets(st.integers(0, PAGES), min_size=2, max_size=6)))
        lines: list[dict[str, Any]] = []
        for first, last in pairwise(edges):
            if draw(st.booleans()):
                continue
            line = mapping(first, last)
            flags = draw(st.sampled_from((None, None, 0x100073, 0x80100073, 0x4073)))
            if flags is not None and line["name"] == "[stack]":
                flags |= 0x100
            lines.append(line | {"vm_flags": flags, "is_faulted": draw(st.sampled_from((None, None, True)))})
        history.snapshot(draw(pid), lines, whole=draw(st.booleans()), behind=draw(st.booleans()))

    def mapping(first: int, last: int) -> dict[str, Any]:
        file = draw(st.sampled_from((None, None, "a", "b")))
        name = draw(st.sampled_from((None, None, None, "[stack]"))) if file is None else None
        return {
            "vm_start": BASE + first * PAGE,
            "vm_end": BASE + last * PAGE,
            "prot": draw(st.sampled_from((0, 1, 3, 3))),
            "is_shared": draw(st.sampled_from((False, False, True))) if name is None else False,
            "file": file,
            "pgoff": None if file is None else draw(st.integers(0, 3)),
            "name": name,
        }

    def record(task: int) -> None:
        first = draw(st.sampled_from((*range(PAGES), -300, -2100)))
        line = mapping(first, draw(st.integers(max(first, 0) + 1, PAGES)))
        history.record(task, line | {"pgoff": draw(st.integers(1, 3))})

    def record_in_call() -> None:
        task, name = draw(pid), draw(st.sampled_from(("mprotect", "shmat", "exit_group", "execve")))
        history.enter(task, name, ())
        record(task)
        history.leave(task, name, -22)

    def execve() -> None:
        task, late = draw(pid), draw(st.booleans())
        history.enter(task, "execve", ())
        if late:
            history.task(task, "exec")
        for _ in range(draw(st.integers(0, 3))):
            record(task)
            history.fault(task, draw(page), write=draw(st.booleans()))
        if not late:
            history.task(task, "exec", draw(st.sampled_from((None, task, *PIDS))))
        history.leave(task, "execve", 0)

    def locked() -> None:
        history.locked(
            draw(pid),
            draw(st.integers(1, 2)),
            draw(st.sampled_from(("madvise", "madvise", "read"))),
            write=draw(st.sampled_from((True, True, False))),
        )

    history.threads = draw(st.lists(st.tuples(pid, pid), max_size=2))
    often = (mmap, munmap, mprotect, madvise, mremap, fault, fault, fault, mprotect, madvise, fork)
    for _ in range(draw(st.integers(1, 40))):
        draw(
            st.sampled_from(
                (
                    *often,
                    *(
                        brk,
                        lock,
                        locked,
                        task,
                        merge_any,
                        snapshot,
                        mseal,
                        execve,
                        record_in_call,
                        segment,
                        seldom,
                    ),
                    lambda: record(draw(pid)),
                )
            )
        )()
    return history.events()
