"""Short histories, told call by call, on the small mm of ``tests.ksm_machine``: addresses are page numbers.

story = Story()                       # 6.12; Story("7.3")
task = story.task
task.mmap(0x400, 4)                   # four anonymous pages
task.write(0x400, 4)
node = task.merge(0x400, 4)           # ksmd: four rmap_items on one node
task.mprotect(0x401, 1)               # splits
story.migrate(node)
outcome = story.replay()              # columns and oracle, held equal
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from typing import Any

import polars as pl

from replay.findings.causes import missed_because
from replay.walks.exact import Exact, replay_exact
from tests.ksm_machine import Machine
from tests.mm_machine import PAGE, AnonVma, Mm, Node, Vma
from tests.test_oracle import STRATEGIES, compare, table

MIGRATES, RESTORES, UNMAPS, AGES = (
    "try_to_migrate_one",
    "remove_migration_pte",
    "try_to_unmap_one",
    "folio_referenced_one",
)


class Story(Machine):
    """One boot of a kernel, with one task: ``task``."""

    def __init__(self, kernel: str = "6.12") -> None:
        super().__init__(repeat(1), anon_pgoff=kernel == "7.3", linear=kernel == "7.3")
        self.task = Task(self, self.mms[0], self.mms[0].tasks[0])

    def new_node(self) -> Node:
        """A stable node without pages."""
        self.nodes.append(node := Node(self.slabs["node"].alloc(), self.slabs["folio"].alloc()))
        return node

    def migrate(self, node: Node, pid: int = 1) -> None:
        """Both walks of a migration; the folio is another one when everything was unmapped."""
        self.walk(node, MIGRATES, pid)
        if not any(node.ptes.values()):
            node.folio = self.slabs["folio"].alloc()
        self.walk(node, RESTORES, pid)

    def replay(self) -> Outcome:
        """Replay the story: columns and oracle agree in every row, and with what the walks really did."""
        events = {name: table(name, rows) for name, rows in self.events.items()}
        compare(events)
        exact = replay_exact(events, STRATEGIES)
        native = exact.loop.filter(pl.col("strategy") == ("linear" if self.linear else "full"))
        really = [vars(loop) for walk in self.truth for loop in walk.loops]
        assert native.select(really[0].keys() if really else []).to_dicts() == really
        return Outcome(exact, missed_because(exact.replayed.miss, exact, events, {}))


@dataclass
class Task:
    """A process with one thread."""

    story: Story
    mm: Mm
    pid: int

    def vma(self, page: int) -> Vma:
        """The VMA that holds the page."""
        return next(vma for vma in self.mm.vmas if vma.start <= page * PAGE < vma.end)

    def mmap(self, page: int, pages: int, *, file_page: int | None = None) -> Vma:
        """A private mapping, anonymous or of a file from one of its pages on."""
        start, flags = page * PAGE, 0x22 if file_page is None else 0x2
        arguments = (start, pages * PAGE, 3, flags, 3, (file_page or 0) * PAGE)
        self.story.enter(self.pid, "mmap", *arguments)
        key = page if file_page is None else file_page
        vma = self.story.new_vma(self.mm, start, start + pages * PAGE, key, page)
        self.story.leave(self.pid, "mmap", start)
        return vma

    def write(self, page: int, pages: int = 1) -> None:
        """Write faults."""
        for at in range(page, page + pages):
            self.story.fault(self.vma(at), at * PAGE, self.pid)

    def merge(self, page: int, pages: int = 1, node: Node | None = None) -> Node:
        """ksmd merges pages, in order, into a node or a new one."""
        node = node or self.story.new_node()
        for at in range(page, page + pages):
            self.story.append((self.mm, at * PAGE), node)
            assert (self.mm, at * PAGE) in node.ptes
        return node

    def scanned(self, page: int, pages: int, node: Node) -> None:
        """ksmd meets KSM pages that a fork left without an rmap_item: they get theirs, over any limit."""
        for at in range(page, page + pages):
            del node.ptes[self.mm, at * PAGE]
            self.mm.private.add(at * PAGE)
        self.merge(page, pages, node)

    def mprotect(self, page: int, pages: int) -> None:
        """Splits off a range: the middle keeps the VMA, both outer parts are new ones."""
        start, end = page * PAGE, (page + pages) * PAGE
        self.story.enter(self.pid, "mprotect", start, end - start, 1)
        vma = self.vma(page)
        if vma.start < start:
            self.story.split(vma, start, self.pid, new_below=True)
        if end < vma.end:
            self.story.split(vma, end, self.pid, new_below=False)
        self.story.leave(self.pid, "mprotect", 0)

    def split_into_pages(self, page: int, pages: int) -> None:
        """Every page a VMA of its own."""
        for at in range(page, page + pages, 2):
            self.mprotect(at, 1)

    def mprotect_back(self, page: int, pages: int) -> None:
        """commit_merge(): the first VMA of the range grows over the others."""
        start, end = page * PAGE, (page + pages) * PAGE
        self.story.enter(self.pid, "mprotect", start, end - start, 3)
        first, *others = [vma for vma in self.mm.vmas if start <= vma.start and vma.end <= end]
        self.story.adjust(first, start, end, self.pid)
        for vma in others:
            self.story.free_vma(vma, self.pid)
        self.story.leave(self.pid, "mprotect", 0)

    def grow_left(self, page: int, by: int) -> None:
        """The VMA takes in pages below it: a merge with a new mapping, or a stack that grows."""
        vma = self.vma(page)
        self.story.adjust(vma, vma.start - by * PAGE, vma.end, self.pid)

    def munmap(self, page: int, pages: int) -> None:
        """munmap(2)."""
        self.story.enter(self.pid, "munmap", page * PAGE, pages * PAGE)
        self.story.unmap(self.mm, page * PAGE, (page + pages) * PAGE, self.pid)
        self.story.leave(self.pid, "munmap", 0)

    def dontneed(self, page: int, pages: int) -> None:
        """madvise(MADV_DONTNEED)."""
        self.story.enter(self.pid, "madvise", page * PAGE, pages * PAGE, 4)
        self.story.zap(self.mm, page * PAGE, (page + pages) * PAGE)
        self.story.leave(self.pid, "madvise", 0)

    def mremap(self, page: int, pages: int, to: int, *, dontunmap: bool = False) -> None:
        """Moves a range; the page offset of what was written once stays. KSM pages are copied."""
        story, pid, mm, shift = self.story, self.pid, self.mm, (to - page) * PAGE
        start, end = page * PAGE, (page + pages) * PAGE
        story.enter(pid, "mremap", start, end - start, end - start, 7 if dontunmap else 3, to * PAGE)
        story.unmap(mm, start + shift, end + shift, pid)
        old = self.vma(page)
        if old.start < start:
            story.split(old, start, pid, new_below=True)
        if end < old.end:
            story.split(old, end, pid, new_below=False)
        story.copied(mm, start, end)
        written = old.anon_vma is not None
        keys = (old.vm_pgoff, old.anon_pgoff) if written else (to, to)
        new = story.new_vma(mm, start + shift, end + shift, *keys)
        story.clone(new, old, pid)
        moved = {at for at in mm.private if start <= at < end}
        mm.private = (mm.private - moved) | {at + shift for at in moved}
        if not dontunmap:
            story.free_vma(old, pid)
        story.leave(pid, "mremap", to * PAGE)

    def fork(self) -> Task:
        """fork(2)."""
        before = len(self.story.mms)
        self.story.fork(self.mm, self.pid)
        child = self.story.mms[before]
        return Task(self.story, child, child.tasks[0])

    def exit(self) -> None:
        """exit_group(2)."""
        self.story.enter(self.pid, "exit_group", 0)
        self.mm.tasks = []
        self.story.exit_mmap(self.mm, self.pid)
        self.story.emit("ev_task", self.pid, kind="exit")

    def anon_vma(self, page: int) -> AnonVma | None:
        """The anon_vma of the VMA that holds the page."""
        return self.vma(page).anon_vma


@dataclass
class Outcome:
    """What the replay says of a story's walks, in order; the last one unless told otherwise."""

    exact: Exact
    causes: pl.DataFrame

    def loops(self, strategy: str, walk: int = -1) -> list[int]:
        """Iterations of each inner loop."""
        return [row["iterations"] for row in self._rows(self.exact.loop, strategy, walk)]

    def counts(self, strategy: str, walk: int = -1) -> list[tuple[int, int, int, int]]:
        """Of each inner loop: iterations, skipped by address, by mm, rmap_one calls."""
        names = ("iterations", "skip_addr_out_of_range", "skip_mm_mismatch", "rmap_one_calls")
        return [tuple(row[name] for name in names) for row in self._rows(self.exact.loop, strategy, walk)]  # type: ignore[misc]

    def found(self, walk: int = -1) -> dict[str, tuple[int, int]]:
        """By strategy: mappings found, mappings missed."""
        rows = {s: self._rows(self.exact.replayed.walk, s, walk)[0] for s in STRATEGIES}
        return {strategy: (row["found"], row["mappings_missed"]) for strategy, row in rows.items()}

    def total(self, strategy: str, walk: int = -1) -> int:
        """Iterations of the walk."""
        return sum(self.loops(strategy, walk))

    def missed(self, strategy: str, walk: int = -1) -> list[tuple[int, str]]:
        """Page and cause of each mapping missed."""
        return [
            (row["address"] // PAGE, row["cause_event"]) for row in self._rows(self.causes, strategy, walk)
        ]

    def kinds(self, strategy: str, walk: int = -1) -> set[tuple[str, str]]:
        """Kinds and arguments of the causes."""
        rows = self._rows(self.causes, strategy, walk)
        return {(row["cause_kind"], row["cause_arguments"]) for row in rows}

    def _rows(self, frame: pl.DataFrame, strategy: str, walk: int) -> list[dict[str, Any]]:
        walks = self.exact.walks["walk_id"].to_list()
        return frame.filter((pl.col("walk_id") == walks[walk]) & (pl.col("strategy") == strategy)).to_dicts()
