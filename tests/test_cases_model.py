"""Cases in which system calls alone must lead to the right trees: what every strategy costs and finds there.

The model rebuilds the trees from a few calls; ksmd then merges pages, and a walk goes over them. Columns and
oracle agree on it. One function a case; the others are in ``test_cases``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import polars as pl
import pytest

from replay.model.rebuild import reconstruct
from replay.oracle.model import OracleModel
from replay.state.kernel import RULES
from replay.walks.exact import replay_exact
from tests.model_machine import History
from tests.stories import RESTORES, Outcome
from tests.test_oracle import STRATEGIES, compare, table

if TYPE_CHECKING:
    from typing import Any

    from replay.state.kernel import KernelRules

PAGE = 4096
BASE = 0x7F00_0000_0000
PID, CHILD, OTHER = 100, 101, 102
RW, PRIVATE, POPULATE, FIXED = 3, 0x22, 0x8000, 0x10
DONTFORK, MERGEABLE, WIPEONFORK, DONTDUMP, DODUMP = 10, 12, 18, 16, 17
KERNELS: tuple[KernelRules, ...] = ("6.12", "7.3")


def at(page: int) -> int:
    """Address of a page."""
    return BASE + page * PAGE


@dataclass
class Told:
    """A history, told call by call; pages are numbered from ``BASE``."""

    history: History

    def mmap(self, page: int, pages: int, *, pid: int = PID, flags: int = PRIVATE) -> None:
        start = at(page)
        self.history.call(pid, "mmap", (start, pages * PAGE, RW, flags | FIXED, 0, 0), start)

    def write(self, *pages: int, pid: int = PID) -> None:
        for page in pages:
            self.history.fault(pid, at(page))

    def madvise(self, page: int, pages: int, advice: int, *, pid: int = PID) -> None:
        self.history.call(pid, "madvise", (at(page), pages * PAGE, advice))

    def mprotect(self, page: int, pages: int, prot: int) -> None:
        self.history.call(PID, "mprotect", (at(page), pages * PAGE, prot))

    def mremap(self, page: int, pages: int, to: int, flags: int = 3) -> None:
        size = pages * PAGE
        self.history.call(PID, "mremap", (at(page), size, size, flags, at(to)), at(to))

    def fork(self, pid: int, child: int) -> None:
        self.history.enter(pid, "clone", (0,))
        self.history.fork(pid, child)
        self.history._event("ev_syscall", pid, is_exit=True, name="clone", ret=child)

    def trees(self, kernel: KernelRules) -> pl.DataFrame:
        """The intervals that are on trees in the end, in order of insertion."""
        lives = reconstruct(self.history.events(), kernel).lives
        return lives.filter(pl.col("died_seq").is_null())

    def walked(self, kernel: KernelRules, *pages: int, newest: bool = False) -> Outcome:
        """ksmd merges the pages (of the newest address space that has them) and a walk restores them."""
        lives = self.trees(kernel)
        versions = reconstruct(self.history.events(), kernel).versions
        versions = versions.filter(pl.col("died_ts_ns").is_null())
        rows: dict[str, list[dict[str, Any]]] = {"ev_avc": [], "ev_append": [], "ev_walk": []}
        seq = iter(range(10**6))

        def emit(name: str, **fields: object) -> None:
            place = next(seq)
            rows[name].append({"seq": place, "ts_ns": place, "cpu": 0, "pid": 1, **fields})

        for life in lives.to_dicts():
            kept = ("avc", "anon_vma", "vma", "mm", "vm_start", "vm_end", "vm_pgoff", "anon_pgoff")
            emit("ev_avc", is_insert=True, vm_flags=0, **{name: life[name] for name in kept})
        for page in pages:
            held = versions.filter((pl.col("vm_start") <= at(page)) & (pl.col("vm_end") > at(page)))
            held = held.drop_nulls("anon_vma").sort("mm", descending=newest)
            vma = held.row(0, named=True)
            emit(
                "ev_append",
                rmap_item=0x1000 + page,
                stable_node=0x2000,
                mm=vma["mm"],
                address=at(page) | 0x200,
                anon_vma=vma["anon_vma"],
            )
        for is_return in (False, True):
            emit("ev_walk", is_return=is_return, stable_node=0x2000, rmap_one=RESTORES)
        events = {name: frame.clear() for name, frame in History().events().items()}
        events |= {
            name: table(name, [dict.fromkeys(events[name].columns) | row for row in own])
            for name, own in rows.items()
        }
        compare(events)
        exact = replay_exact(events, STRATEGIES)
        return Outcome(exact, exact.miss)


@pytest.fixture
def told() -> Told:
    return Told(History())


def first_pass(outcome: Outcome) -> dict[str, list[int]]:
    """Iterations of the loops of the first pass: what one item costs, by strategy."""
    return {name: loops[: len(loops) // 2] for name in STRATEGIES if (loops := outcome.loops(name))}


def hits(outcome: Outcome) -> dict[str, int]:
    """rmap_one calls of each strategy in the first pass."""
    counts = {name: outcome.counts(name) for name in STRATEGIES}
    return {name: sum(one[3] for one in own[: len(own) // 2]) for name, own in counts.items()}


def test_case_16_a_written_vma_beside_one_that_is_not(told: Told) -> None:
    """6.12 does not merge them and 7.3 does; page offsets stay, so linear costs the same."""
    told.mmap(0, 2)
    told.madvise(1, 1, DONTDUMP)
    told.write(0)
    told.madvise(0, 1, DONTDUMP)
    told.write(1)
    costs = {kernel: first_pass(told.walked(kernel, 0, 1)) for kernel in KERNELS}
    assert costs["6.12"]["full"] == [2, 2]
    assert costs["7.3"]["full"] == [1, 1]
    assert costs["6.12"]["linear"] == costs["7.3"]["linear"] == [1, 1]


def test_case_17_memory_merge_and_growth(told: Told) -> None:
    """6.12 marks a VMA mergeable after it tried to merge it: every piece stays a VMA of its own."""
    told.history.call(PID, "prctl", (67, 1))
    for page in range(4):
        told.mmap(page, 1)
        told.write(page)
    costs = {kernel: first_pass(told.walked(kernel, *range(4))) for kernel in KERNELS}
    assert costs["6.12"]["full"] == [4] * 4
    assert costs["7.3"]["full"] == [1] * 4
    assert costs["6.12"]["linear"] == costs["7.3"]["linear"] == [1] * 4


def test_case_17_memory_merge_and_brk(told: Told) -> None:
    told.history.call(PID, "prctl", (67, 1))
    told.history.call(PID, "brk", (0,), at(0))
    for page in range(3):
        told.history.call(PID, "brk", (at(page + 1),), at(page + 1))
        told.write(page)
    costs = {kernel: first_pass(told.walked(kernel, *range(3))) for kernel in KERNELS}
    assert costs["6.12"]["full"] == [3] * 3
    assert costs["7.3"]["full"] == [1] * 3
    assert costs["6.12"]["linear"] == [1] * 3


@pytest.mark.parametrize("kernel", KERNELS)
def test_case_18_growth_in_a_fork_child(told: Told, kernel: KernelRules) -> None:
    """Beside an inherited VMA a new one begins a family of its own; in the parent it merges."""
    told.mmap(0, 2)
    told.write(0, 1)
    told.fork(PID, CHILD)
    for pid in (PID, CHILD):
        told.mmap(2, 1, pid=pid)
        told.write(2, pid=pid)
    child = told.walked(kernel, 2, newest=True)
    assert first_pass(child) == {name: [1] for name in STRATEGIES}
    parent = told.walked(kernel, 2)
    assert first_pass(parent)["full"] == [2]
    assert first_pass(parent)["linear"] == [1]


@pytest.mark.parametrize("kernel", KERNELS)
def test_case_19_mprotect_back(told: Told, kernel: KernelRules) -> None:
    """Written before the split, all parts have one anon_vma and merge again; flags must be equal."""
    told.mmap(0, 3)
    told.write(0, 1, 2)
    told.mprotect(1, 1, 1)
    assert first_pass(told.walked(kernel, 1))["full"] == [3]
    told.mprotect(1, 1, 3)
    assert first_pass(told.walked(kernel, 1))["full"] == [1]


@pytest.mark.parametrize("kernel", KERNELS)
def test_case_21_an_idle_anon_vma_is_used_again(told: Told, kernel: KernelRules) -> None:
    """The middle process is gone: its grandchild gets its anon_vma, on whose tree the child still is."""
    told.mmap(0, 1)
    told.write(0)
    told.fork(PID, CHILD)
    told.fork(CHILD, OTHER)
    told.history.task(CHILD, "exit")
    told.fork(OTHER, OTHER + 1)
    outcome = told.walked(kernel, 0, newest=True)
    assert first_pass(outcome) == {name: [2] for name in STRATEGIES}
    assert hits(outcome) == dict.fromkeys(STRATEGIES, 1)
    lives = told.trees(kernel)
    assert lives["anon_vma"].n_unique() == 3  # of four processes that were


@pytest.mark.parametrize("kernel", KERNELS)
def test_case_21_no_process_has_gone(told: Told, kernel: KernelRules) -> None:
    told.mmap(0, 1)
    told.write(0)
    told.fork(PID, CHILD)
    told.fork(CHILD, OTHER)
    told.fork(OTHER, OTHER + 1)
    outcome = told.walked(kernel, 0, newest=True)
    assert first_pass(outcome) == {name: [1] for name in STRATEGIES}


def test_case_21_the_kernels_choose_among_two_idle_ones(told: Told) -> None:
    """7.3 turns the list of anon_vmas around with each fork, 6.12 does not: another tree, so full costs more.

    The one that 6.12 takes has a VMA that was split on its tree, of a process forked straight from its owner.
    """
    told.mmap(0, 2)
    told.write(0, 1)
    chain = [PID, *range(101, 106)]
    for parent, child in ((chain[0], chain[1]), (chain[1], chain[2])):
        told.fork(parent, child)
    told.history.task(chain[1], "exit")
    told.fork(chain[2], 110)  # takes the anon_vma that is idle
    told.madvise(1, 1, DONTDUMP, pid=110)
    for parent, child in pairwise(chain[2:]):
        told.fork(parent, child)
    for pid in chain[2:4]:
        told.history.task(pid, "exit")
    told.fork(chain[5], 111)
    outcomes = {kernel: told.walked(kernel, 0, newest=True) for kernel in KERNELS}
    assert {kernel: first_pass(outcome)["full"] for kernel, outcome in outcomes.items()} == {
        "6.12": [5],
        "7.3": [3],
    }
    assert {kernel: first_pass(outcome)["linear"] for kernel, outcome in outcomes.items()} == {
        "6.12": [4],
        "7.3": [3],
    }
    for outcome in outcomes.values():
        assert hits(outcome) == dict.fromkeys(STRATEGIES, 1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_case_22_dontunmap_of_a_vma_that_had_moved(told: Told, kernel: KernelRules) -> None:
    """The source leaves the tree; written again it has its old page offset (6.12) or its address (7.3)."""
    told.mmap(0, 1)
    told.write(0)
    told.mremap(0, 1, 100)
    told.mremap(100, 1, 200, flags=7)
    assert len(told.trees(kernel)) == 1
    told.write(100)
    outcome = told.walked(kernel, 100)
    assert hits(outcome) == dict.fromkeys(STRATEGIES, 1) | {"addr": int(kernel == "7.3")}


@pytest.mark.parametrize("kernel", KERNELS)
def test_case_23_ranges_that_a_fork_leaves_out(told: Told, kernel: KernelRules) -> None:
    """DONTFORK: the child has no VMA; WIPEONFORK: it has one that is on no tree."""
    told.mmap(0, 3)
    told.write(0, 1, 2)
    told.madvise(1, 1, DONTFORK)
    told.madvise(2, 1, WIPEONFORK)
    told.fork(PID, CHILD)
    outcome = told.walked(kernel, 0, 1, 2)
    assert first_pass(outcome)["full"] == [4] * 3
    assert first_pass(outcome)["linear"] == [1, 1, 2]  # newest first: 2, 1, 0
    assert hits(outcome) == dict.fromkeys(STRATEGIES, 3)


@pytest.mark.parametrize("kernel", KERNELS)
def test_case_24_written_without_a_write_fault(told: Told, kernel: KernelRules) -> None:
    """MAP_POPULATE and mlock give a VMA its anon_vma, at once; what is written beside it later joins it."""
    told.mmap(0, 1, flags=PRIVATE | POPULATE)
    told.mmap(10, 1)
    told.history.call(PID, "mlock", (at(10), PAGE))
    told.mmap(20, 1)
    told.write(20)
    told.mmap(1, 1, flags=PRIVATE | POPULATE)
    lives = told.trees(kernel)
    assert {(start - BASE) // PAGE for start in lives["vm_start"]} == {0, 10, 20}
    outcome = told.walked(kernel, 0, 1, 10)
    assert first_pass(outcome) == {name: [1, 1, 1] for name in STRATEGIES}


@pytest.mark.parametrize("kernel", KERNELS)
def test_case_24_a_read_fault_may_try_a_huge_page(told: Told, kernel: KernelRules) -> None:
    """With huge pages enabled a read gives the VMA its anon_vma; that setting is in no event.

    The model takes it for not enabled, and counts such reads; beside probes the difference is named
    (``huge_page_read_fault``).
    """
    told.mmap(0, 1024)
    told.history.fault(PID, at(511), write=False)
    told.mmap(2048, 511)
    told.history.fault(PID, at(2048), write=False)  # no whole huge page fits
    events = told.history.events()
    found, twin = reconstruct(events, kernel), OracleModel(RULES[kernel]).run(events)
    assert found.lives.is_empty()
    assert found.doubts["huge_page_read_fault"] == twin.doubts["huge_page_read_fault"] == 1
    told.write(700)
    assert len(told.trees(kernel)) == 1


@pytest.mark.parametrize("kernel", KERNELS)
def test_case_25_calls_that_change_no_flag(told: Told, kernel: KernelRules) -> None:
    """No split: neither by mprotect to what is, nor by advice that is set or that is no flag."""
    told.mmap(0, 4)
    told.write(0, 1, 2, 3)
    told.madvise(0, 4, MERGEABLE)
    told.mprotect(1, 1, RW)
    told.madvise(2, 1, MERGEABLE)
    told.madvise(1, 1, DODUMP)
    told.madvise(3, 1, 4)
    outcome = told.walked(kernel, 0, 1, 2, 3)
    assert first_pass(outcome) == {name: [1] * 4 for name in STRATEGIES}
