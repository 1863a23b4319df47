"""Threads from before the capture: in the address space of their process, if anything tells which that is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replay.model.threads import older_threads
from tests.model_machine import PAGE, History
from tests.test_model import check
from tests.test_model_golden import CHILD, GRANDCHILD, P, mapped, page, ranges, tree

if TYPE_CHECKING:
    from replay.state.kernel import KernelRules

MM, OTHER = 0xFFFF_8880_0000_1000, 0xFFFF_8880_0000_2000


def pairs(history: History) -> list[tuple[int, int]]:
    return older_threads(history.events()).rows()


def two_threads_work(history: History) -> None:
    """One maps, the other writes and protects."""
    mapped(history, 0, 4)
    history.fault(CHILD, page(0))
    history.call(CHILD, "mprotect", (page(2), PAGE, 1))


def test_without_a_word_each_is_a_process(history: History, rules: KernelRules) -> None:
    two_threads_work(history)
    found = check(history.events(), rules)
    assert (ranges(found), found.doubts) == ([(0, 4)], {"fault_of_unknown": 1})


def test_what_perf_found_tells_it(history: History, rules: KernelRules) -> None:
    history.threads = [(P, P), (CHILD, P)]
    two_threads_work(history)
    found = check(history.events(), rules)
    assert (ranges(found), found.doubts) == ([(0, 2), (2, 3), (3, 4)], {})
    assert tree(found, 1) == [(1, 0, 2), (1, 2, 3), (1, 3, 4)]


def test_the_lock_that_both_take_tells_it(history: History, rules: KernelRules) -> None:
    two_threads_work(history)
    history.locked(P, MM)
    history.locked(CHILD, MM)
    found = check(history.events(), rules)
    assert (ranges(found), found.doubts) == ([(0, 2), (2, 3), (3, 4)], {})


def test_maps_are_of_the_whole_process(history: History, rules: KernelRules) -> None:
    """The process of the snapshot lends its address space, also if another thread has a lower number."""
    history.snapshot(CHILD, [{"vm_start": page(0), "vm_end": page(4)}])
    history.call(P, "munmap", (page(1), PAGE))
    history.locked(P, MM)
    history.locked(CHILD, MM)
    assert pairs(history) == [(CHILD, P)]
    assert ranges(check(history.events(), rules)) == [(0, 1), (2, 4)]


def test_it_is_gone_when_the_last_thread_exits(history: History, rules: KernelRules) -> None:
    history.threads = [(CHILD, P)]
    mapped(history, 0, 4)
    history.task(P, "exit")
    assert ranges(check(history.events(), rules)) == [(0, 4)]
    history.task(CHILD, "exit")
    assert ranges(check(history.events(), rules)) == []


def test_a_thread_forks_the_memory_of_all(history: History, rules: KernelRules) -> None:
    history.threads = [(CHILD, P)]
    mapped(history, 0, 4)
    history.fault(P, page(0))
    history.fork(CHILD, GRANDCHILD)
    assert tree(check(history.events(), rules), 1) == [(1, 0, 4), (2, 0, 4)]


def test_a_lock_tells_nothing_of_a_task_that_is_new(history: History) -> None:
    """A pointer is used again: who was born or executed a program in the capture has another one."""
    history.locked(P, MM)
    history.fork(GRANDCHILD, CHILD)
    history.locked(CHILD, MM)
    history.task(GRANDCHILD, "exec")
    history.locked(GRANDCHILD, MM)
    assert pairs(history) == []


def test_only_locks_that_must_be_their_own_count(history: History) -> None:
    """Readers are about others' too, and so are calls such as a read of a /proc file."""
    history.locked(P, MM)
    history.locked(CHILD, MM, write=False)
    history.locked(GRANDCHILD, MM, "read")
    assert pairs(history) == []
    history.locked(CHILD, OTHER)
    history.locked(CHILD, MM)
    assert pairs(history) == []


def test_locks_and_records_together(history: History, rules: KernelRules) -> None:
    """One tells of two threads, the other that their process is another's too (vfork, clone)."""
    history.threads = [(GRANDCHILD, CHILD)]
    history.locked(GRANDCHILD, MM)
    history.locked(P, MM)
    two_threads_work(history)
    history.call(GRANDCHILD, "munmap", (page(0), PAGE))
    assert pairs(history) == [(P, CHILD), (CHILD, GRANDCHILD)]
    assert ranges(check(history.events(), rules)) == [(1, 2), (2, 3), (3, 4)]
