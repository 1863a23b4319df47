"""KSM from stock events: the columns against their twin, and both against a kernel in small that knows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.ksm_nodes import migrations, nodes
from replay.ksm_stock import determined
from replay.oracle_ksm_stock import known_addresses
from tests.test_ksm_stock import EXCLUSIVE, READ, _pte, _table, migration_entry

Page = tuple[int, int]
"""Address space and page number; the same pages are in each."""
PAGES = [(mm, page) for mm in (1, 2) for page in range(1, 6)]


@dataclass(eq=False)
class Node:
    """A KSM page: its frame, and the pages of its rmap_items, newest first."""

    frame: int
    hlist: list[Page] = field(default_factory=list)


class Kernel:
    """ksmd and compaction on a few pages of two processes; writes the events that they make."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.nodes: list[Node] = []
        self.mapped: dict[Page, Node] = {}
        self.own = {page: 100 + number for number, page in enumerate(PAGES)}
        self.free = list(range(1, 40))
        self.seq = 0
        self.truth: dict[tuple[int, int], int] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {
            "ev_merge": [],
            "ev_ksm_removed": [],
            "ev_migration_pte": [],
        }

    def place(self) -> int:
        self.seq += 4
        return self.seq

    def pick(self, things: list[Any]) -> Any:
        return self.draw(st.sampled_from(things))

    def rarely(self, of: int) -> bool:
        return self.draw(st.integers(1, of)) == of

    def merge_event(self, page: Page, node: Node, *, makes: bool = False, err: int = 0) -> int:
        own = {"rmap_item": 16 * page[0] + page[1], "mm": page[0], "pfn": node.frame, "err": err}
        row = {"seq": self.place(), "ts_ns": self.seq, "cpu": 0, "pid": 30, "ksm_page": 0 if makes else 64}
        self.rows["ev_merge"].append(row | own)
        return self.seq

    def listed(self, page: Page, node: Node, born: int) -> None:
        self.free.append(self.own.pop(page))
        self.mapped[page] = node
        node.hlist.insert(0, page)
        self.truth[16 * page[0] + page[1], born] = page[1] << 12

    def leaves(self, page: Page) -> None:
        """ksmd drops what it had for the page."""
        for node in self.nodes:
            if page in node.hlist:
                node.hlist.remove(page)

    def make(self) -> None:
        """try_to_merge_two_pages()."""
        one = self.pick(sorted(self.own) or [None])
        near = [page for page in sorted(self.own) if page != one and (page[0] == one[0] or self.rarely(4))]
        if not near:
            return
        two = self.pick(near)
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
            near = [page for page in sorted(self.own) if not node.hlist or page[0] == node.hlist[0][0]]
            page = self.pick(near if near and not self.rarely(6) else sorted(self.own))
            self.leaves(page)
            self.listed(page, node, self.merge_event(page, node))

    def copy(self) -> None:
        """A write to a KSM page: the rmap_item is still listed."""
        if self.mapped:
            page = self.pick(sorted(self.mapped))
            del self.mapped[page]
            self.own[page] = self.free.pop()

    def drop(self) -> None:
        """No event tells."""
        for node in self.nodes:
            node.hlist = [page for page in node.hlist if self.mapped.get(page) is node]

    def end(self) -> None:
        """remove_node_from_stable_tree()."""
        for node in [node for node in self.nodes if node not in self.mapped.values()]:
            self.nodes.remove(node)
            row = {"seq": self.place(), "ts_ns": self.seq, "cpu": 0, "pid": 30, "pfn": node.frame}
            self.rows["ev_ksm_removed"].append(row | {"rmap_item": None})
            self.free.append(node.frame)

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
            pages = [page for page in folio.hlist if self.mapped.get(page) is folio] if is_ksm else [folio]
            for _, page in pages:
                self.pte(pid, page, migration_entry(frame, kind), is_set=True)
            unmapped.append((folio, pages))
        for folio, pages in self.draw(st.permutations(unmapped)):
            frame = folio.frame if isinstance(folio, Node) else self.own[folio]
            if not self.rarely(8):
                to = self.free.pop(-self.draw(st.integers(1, 4)))
                self.free.append(frame)
            else:
                to = frame
            if isinstance(folio, Node):
                folio.frame = to
            else:
                self.own[folio] = to
            gone = self.rarely(8)
            for number, (_, page) in enumerate(pages):
                if number or not gone:  # the task was quicker, and unmapped it
                    entry = to << 12 | 0x25
                    none = ~(to << 12) & ((1 << 52) - 4096) | 0x160  # PROT_NONE
                    self.pte(pid, page, none if self.rarely(8) else entry, is_set=False)
            if gone and isinstance(folio, Node):
                del self.mapped[pages[0]]
                self.own[pages[0]] = self.free.pop()

    def pte(self, pid: int, page: int, pte: int, *, is_set: bool) -> None:
        row = _pte(self.place(), page, pte, is_set=is_set) | {"pid": pid}
        self.rows["ev_migration_pte"].append(row)


@st.composite
def kernels(draw: st.DrawFn) -> Kernel:
    kernel = Kernel(draw)
    steps = (
        *(kernel.make, kernel.join, kernel.migrate, kernel.migrate, kernel.migrate),
        *(kernel.copy, kernel.drop, kernel.end),
    )
    for step in (0, *draw(st.lists(st.integers(0, len(steps) - 1), min_size=12, max_size=30))):
        steps[step]()
    return kernel


FORKS = st.lists(st.tuples(st.integers(0, 400), st.sampled_from((10, 20))), max_size=2)


@given(kernel=kernels(), forks=FORKS, known=st.sampled_from(((1, 2), (1,))))
@settings(max_examples=50, deadline=None)
def test_what_is_determined_is_so_and_the_twin_says_the_same(
    kernel: Kernel, forks: list[tuple[int, int]], known: tuple[int, ...]
) -> None:
    events = {name: _table(name, rows) for name, rows in kernel.rows.items()}
    items, moves = nodes(events, migrations(events["ev_migration_pte"]))
    numbers = {mm: 10 * mm for mm in known}
    items = items.with_columns(
        number=pl.col("mm").replace_strict(numbers, default=None, return_dtype=pl.UInt64)
    )
    schema = {"mm": pl.UInt64, "born": pl.Int64, "parent": pl.UInt64}
    relatives = pl.DataFrame([(30, place, mm) for place, mm in forks], schema=schema, orient="row")
    told, walked = determined(items, moves, events["ev_migration_pte"], relatives)
    mine = {(row["rmap_item"], row["born"]): row["address"] for row in told.to_dicts()}
    twin, walks = known_addresses(events, numbers, forks)
    assert (mine, walked["first"].to_list()) == (twin, walks)
    assert mine.items() <= kernel.truth.items()
