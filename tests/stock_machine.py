"""ksmd, compaction and splits on a few pages of a few processes: what stock events they make, and the truth.

As mm/ksm.c: cmp_and_merge_page(), rmap_walk_ksm() of a kernel that looks at whole trees; mm/migrate.c
migrate_pages_batch(). Each choice is drawn, so any history of a few steps may be made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

PAGE, MERGEABLE, NEVER = 4096, 0x80000000, (1 << 63) - 1
KSMD = 30
READ, EXCLUSIVE = 25, 26

Page = tuple[int, int]
"""Address space and page number; the same pages are in each."""
PAGES = range(1, 6)
CHILD, PARENT, OTHER = 3, 1, 2
STRATEGIES = ("full", "addr", "vm_pgoff", "linear")


@dataclass(eq=False)
class Node:
    """A KSM page: its frame, and its rmap_items, newest first."""

    frame: int
    hlist: list[Item] = field(default_factory=list)


@dataclass(eq=False)
class Item:
    """One rmap_item on a node: what the kernel knew of its page when it was merged."""

    page: Page
    born: int
    tree: int
    vm_pgoff: int
    linear: int

    @property
    def pointer(self) -> int:
        return 16 * self.page[0] + self.page[1]

    def looks_up(self, strategy: str) -> tuple[int, int]:
        point = {"addr": self.page[1], "vm_pgoff": self.vm_pgoff, "linear": self.linear}
        return (0, 1 << 60) if strategy == "full" else (point[strategy], point[strategy])


@dataclass(eq=False)
class Vma:
    """Pages ``[first, end)`` of an address space; one of the ends of its life is a window."""

    mm: int
    first: int
    end: int
    flags: int
    born: tuple[int, int]
    died: tuple[int, int] = (NEVER - 1, NEVER)

    @property
    def pgoff(self) -> int:
        """Moved once, before any fault: page offsets are not those of the address."""
        return self.first + 100 * (PARENT if self.mm == CHILD else self.mm)


def migration_entry(frame: int, kind: int) -> int:
    """__swp_entry() of arch/x86/include/asm/pgtable_64.h, with the young bit above the frame."""
    offset = frame | 1 << 34
    return (~offset << 14 & (1 << 64) - 1) >> 5 | kind << 59


def pte_row(seq: int, page: int, pte: int, *, is_set: bool) -> dict[str, Any]:
    return {"seq": seq, "ts_ns": seq, "cpu": 0, "pid": 9, "is_set": is_set, "address": page << 12, "pte": pte}


class StockMachine:
    """One boot.

    Attributes:
        rows: The events.
        truth: Address by (rmap_item, place of its merge).
        items: Every rmap_item that was merged, by the same.
        walks: Iterations of each loop of each walk, by (place before its first entry, strategy): (rmap_item,
            place of its merge, pass, iterations).
        vmas: All that there have been.
        forks: Place, parent and child of each fork.
    """

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.nodes: list[Node] = []
        self.mapped: dict[Page, Node] = {}
        self.own = {(mm, page): 100 * mm + page for mm in (1, 2) for page in PAGES}
        self.free = list(range(1, 60))
        self.seq = 0
        self.scanned: dict[int, int] = {}
        self.truth: dict[tuple[int, int], int] = {}
        self.items: dict[tuple[int, int], Item] = {}
        self.walks: dict[tuple[int, str], list[tuple[int, int, int, int]]] = {}
        self.forks: list[tuple[int, int, int]] = []
        self.gone: set[int] = set()
        self.passing: set[int] = set()
        names = (
            *("ev_merge", "ev_ksm_removed", "ev_migration_pte", "ev_scan"),
            *("ev_exit_mmap", "ev_syscall", "ev_fault"),
        )
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        self.vmas = [
            Vma(mm, first, end, flags, (-2, -1))
            for mm in (1, 2)
            for first, end, flags in ((PAGES[0], PAGES[-1] + 1, MERGEABLE), (PAGES[-1] + 1, PAGES[-1] + 3, 0))
        ]
        self.now = list(self.vmas)

    def place(self) -> int:
        self.seq += 4
        return self.seq

    def pick(self, things: list[Any]) -> Any:
        return self.draw(st.sampled_from(things))

    def rarely(self, of: int) -> bool:
        return bool(self.draw(st.integers(1, of)) == of)

    def event(self, table: str, pid: int, **own: Any) -> int:
        self.rows[table].append({"seq": self.place(), "ts_ns": self.seq, "cpu": 0, "pid": pid} | own)
        return self.seq

    # ksmd ------------------------------------------------------------------------------------------------

    def scan(self, page: Page) -> None:
        """ksmd comes to a page; where it has passed it, in another pass."""
        if self.scanned.get(page[0], 0) >= page[1] or not self.scanned:
            self.passes()
            self.scanned = {}
        self.scanned[page[0]] = page[1]

    def passes(self) -> None:
        """A pass is over, and another begins: nothing is left of what was gone when the former began."""
        if self.rows["ev_scan"]:
            self.event("ev_scan", KSMD, is_stop=True)
            for node in self.nodes:
                node.hlist = [item for item in node.hlist if item.page[0] not in self.passing]
        self.event("ev_scan", KSMD, is_stop=False)
        self.passing = set(self.gone)

    def merge_event(self, page: Page, node: Node, *, makes: bool = False, err: int = 0) -> int:
        pointer = 16 * page[0] + page[1]
        own = {"rmap_item": pointer, "mm": page[0], "pfn": node.frame, "err": err}
        return self.event("ev_merge", KSMD, ksm_page=0 if makes else 64, **own)

    def listed(self, page: Page, node: Node, born: int) -> None:
        vma = next(vma for vma in self.now if vma.mm == page[0] and vma.first <= page[1] < vma.end)
        item = Item(page, born, page[0], vma.pgoff, vma.pgoff + page[1] - vma.first)
        self.free.append(self.own.pop(page))
        self.mapped[page] = node
        node.hlist.insert(0, item)
        self.truth[item.pointer, born] = page[1] << 12
        self.items[item.pointer, born] = item

    def leaves(self, page: Page) -> None:
        """ksmd drops what it had for the page."""
        for node in self.nodes:
            node.hlist = [item for item in node.hlist if item.page != page]

    def make(self) -> None:
        """try_to_merge_two_pages(): the second page was passed before."""
        pages = sorted(self.own)
        if len(pages) < 2:
            return
        one = self.pick(pages)
        near = [page for page in pages if page != one and (page[0] == one[0] or self.rarely(4))]
        if not near:
            return
        two = self.pick(near)
        if one[0] == two[0] and one < two:
            one, two = two, one
        if self.scanned.get(one[0], 0) >= one[1]:
            self.scanned = {}
        if one[0] == two[0] and self.scanned.get(one[0], 0) < two[1]:
            self.scan(two)
        self.scan(one)
        self.leaves(one)
        self.leaves(two)
        node = Node(self.own[one])
        if self.rarely(8):
            self.merge_event(one, node, makes=True)
            self.merge_event(two, node, err=-14)
            return
        first = self.merge_event(one, node, makes=True)
        second = self.merge_event(two, node)
        self.nodes.append(node)
        self.listed(two, node, first)
        self.listed(one, node, second)
        self.free.remove(node.frame)

    def join(self) -> None:
        """cmp_and_merge_page() with a node that is there."""
        if self.nodes and self.own:
            node = self.pick(self.nodes)
            near = [page for page in sorted(self.own) if node.hlist and page[0] == node.hlist[0].page[0]]
            page = self.pick(near if near and not self.rarely(6) else sorted(self.own))
            self.scan(page)
            self.leaves(page)
            self.listed(page, node, self.merge_event(page, node))

    def drop(self) -> None:
        """ksmd takes away what maps nothing, now and then what does; no event tells."""
        for node in self.nodes:
            node.hlist = [
                item for item in node.hlist if self.mapped.get(item.page) is node and not self.rarely(12)
            ]

    def end(self) -> None:
        """remove_node_from_stable_tree()."""
        for node in [node for node in self.nodes if node not in self.mapped.values()]:
            self.nodes.remove(node)
            self.event("ev_ksm_removed", KSMD, pfn=node.frame, rmap_item=None)
            self.free.append(node.frame)

    # processes ---------------------------------------------------------------------------------------------

    def copy(self) -> None:
        """A write to a KSM page: the rmap_item is still listed."""
        if self.mapped:
            page = self.pick(sorted(self.mapped))
            self.event("ev_fault", 20 + page[0], address=page[1] << 12, error_code=7)
            del self.mapped[page]
            self.own[page] = self.free.pop()

    def fork(self) -> None:
        """dup_mmap(): the child maps the parent's KSM pages, which list nothing of it."""
        if self.forks or self.rarely(2):
            return
        self.forks.append((self.place(), PARENT, CHILD))
        for page in PAGES:
            if (PARENT, page) in self.mapped:
                self.mapped[CHILD, page] = self.mapped[PARENT, page]
            else:
                self.own[CHILD, page] = self.free.pop()
        for vma in [vma for vma in self.now if vma.mm == PARENT]:
            self.begins(Vma(CHILD, vma.first, vma.end, vma.flags, (self.seq - 1, self.seq)))

    def exits(self) -> None:
        """exit_mmap(): the rmap_items stay until ksmd comes by."""
        if self.gone or self.rarely(2):
            return
        self.gone.add(OTHER)
        place = self.event("ev_exit_mmap", 20 + OTHER, mm=OTHER)
        for page in PAGES:
            if self.mapped.pop((OTHER, page), None) is None:
                self.free.append(self.own.pop((OTHER, page)))
        for vma in [vma for vma in self.now if vma.mm == OTHER]:
            vma.died = (place - 1, place)
            self.now.remove(vma)

    def begins(self, vma: Vma) -> None:
        self.vmas.append(vma)
        self.now.append(vma)

    def cut(self) -> None:
        """mprotect() that splits a VMA, or lets two be one again; others go on before and after that."""
        mm = self.pick(sorted({vma.mm for vma in self.now}))
        at = self.pick(list(PAGES[1:]))
        enter = self.event("ev_syscall", 20 + mm, name="mprotect", is_exit=False)
        meanwhile = self.pick([None, self.migrate, self.join])
        before = self.rarely(2)
        if meanwhile is not None and before:
            meanwhile()
        old = [vma for vma in self.now if vma.mm == mm and vma.flags and vma.first <= at <= vma.end]
        first, end = min(vma.first for vma in old), max(vma.end for vma in old)
        parts = [(first, end)] if len(old) == 2 else [(first, at), (at, end)]
        self.now = [vma for vma in self.now if vma not in old]
        for part in parts:
            self.begins(Vma(mm, *part, MERGEABLE, (enter, NEVER)))
        if meanwhile is not None and not before:
            meanwhile()
        leave = self.event("ev_syscall", 20 + mm, name="mprotect", is_exit=True)
        for vma in self.vmas:
            if vma.born == (enter, NEVER):
                vma.born = (enter, leave)
            if vma in old:
                vma.died = (enter, leave)

    # walks -------------------------------------------------------------------------------------------------

    def migrate(self) -> None:
        """migrate_pages_batch(): several folios are unmapped before the first is restored."""
        pid = self.pick([8, 9])
        folios: list[Any] = [node for node in self.nodes if node in self.mapped.values()]
        folios += sorted(self.own) if not folios or self.rarely(3) else []
        batch = self.draw(st.lists(st.sampled_from(folios), min_size=1, max_size=3, unique=True))
        unmapped = []
        for folio in batch:
            is_ksm = isinstance(folio, Node)
            frame, kind = (folio.frame, READ) if is_ksm else (self.own[folio], EXCLUSIVE)
            pages = self.hits(folio) if is_ksm else [folio]
            if is_ksm and pages:
                self.walk(folio, restores=False)
            for _, page in pages:
                self.pte(pid, page, migration_entry(frame, kind), is_set=True)
            unmapped.append((folio, pages))
        for folio, pages in self.draw(st.permutations(unmapped)):
            self.restore(pid, folio, pages)

    def restore(self, pid: int, folio: Node | Page, pages: list[Page]) -> None:
        frame = folio.frame if isinstance(folio, Node) else self.own[folio]
        left = isinstance(folio, Node) and any(
            node is folio and page not in pages for page, node in self.mapped.items()
        )
        to = frame
        if not left and not self.rarely(8):
            to = self.free.pop(-self.draw(st.integers(1, 4)))
            self.free.append(frame)
        if isinstance(folio, Node):
            folio.frame = to
            if pages:
                self.walk(folio, restores=True)
        else:
            self.own[folio] = to
        gone = self.rarely(8)
        for number, (_, page) in enumerate(pages):
            if number or not gone:  # the task was quicker, and unmapped it
                entry = to << 12 | 0x25
                none = ~(to << 12) & ((1 << 52) - 4096) | 0x160  # PROT_NONE
                self.pte(pid, page, none if self.rarely(8) else entry, is_set=False)
        if gone and isinstance(folio, Node) and pages:
            del self.mapped[pages[0]]
            self.own[pages[0]] = self.free.pop()

    def pte(self, pid: int, page: int, pte: int, *, is_set: bool) -> None:
        self.rows["ev_migration_pte"].append(pte_row(self.place(), page, pte, is_set=is_set) | {"pid": pid})

    def tree(self, number: int) -> list[Vma]:
        """The intervals on the tree of an address space: its own and its child's, in order."""
        mms = (PARENT, CHILD) if number == PARENT else (number,)
        return sorted((vma for vma in self.now if vma.mm in mms), key=lambda vma: vma.pgoff)

    def hits(self, node: Node) -> list[Page]:
        """The pages that rmap_walk_ksm() finds, in order."""
        found: list[Page] = []
        for _, item, vma in self.visits(node, "full"):
            page = (vma.mm, item.page[1])
            if self.mapped.get(page) is node and page not in found:
                found.append(page)
        return found

    def visits(self, node: Node, strategy: str) -> Any:
        """The calls of rmap_one, by loop: (pass, rmap_item, VMA)."""
        for second in (0, 1):
            for item in node.hlist:
                first, last = item.looks_up(strategy)
                for vma in self.tree(item.tree):
                    if vma.pgoff > last or vma.pgoff + vma.end - vma.first <= first:
                        continue
                    if vma.first <= item.page[1] < vma.end and (vma.mm == item.page[0]) == (second == 0):
                        yield second, item, vma

    def walk(self, node: Node, *, restores: bool) -> None:
        """Write down what rmap_walk_ksm() does under each strategy; its entries are told next."""
        for strategy in STRATEGIES:
            left = {page for page, of in self.mapped.items() if of is node}
            loops = self.walks[self.seq + 3, strategy] = []
            for second in (0, 1):
                for item in node.hlist:
                    first, last = item.looks_up(strategy)
                    iterations = 0
                    for vma in self.tree(item.tree):
                        if vma.pgoff > last or vma.pgoff + vma.end - vma.first <= first:
                            continue
                        iterations += 1
                        if vma.first <= item.page[1] < vma.end and (vma.mm == item.page[0]) == (second == 0):
                            left.discard((vma.mm, item.page[1]))
                            if not left and not restores:
                                break
                    loops.append((item.pointer, item.born, second, iterations))
                    if not left and not restores:
                        break
                if not left and not restores:
                    break


@st.composite
def stock_machines(draw: st.DrawFn) -> StockMachine:
    machine = StockMachine(draw)
    steps = (
        *(machine.make, machine.join, machine.join, machine.migrate, machine.migrate, machine.migrate),
        *(machine.copy, machine.drop, machine.end, machine.cut, machine.fork, machine.exits),
    )
    for step in (0, 1, 0, 3, *draw(st.lists(st.integers(0, len(steps) - 1), min_size=12, max_size=30))):
        steps[step]()
    return machine
