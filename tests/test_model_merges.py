"""Merging, by the kernel's tools/testing/vma re-stated: who has an anon_vma, and what never merges.

The kernel's tests set fields of VMAs as they like; here they come to be as system calls and faults make them.
So where a state cannot be, as a VMA without an anon_vma whose list of anon_vma_chains is not empty, the
outcome is that of the state that can.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.model_machine import PAGE, History
from tests.test_model import check, said
from tests.test_model_golden import P, mapped, page, protected, ranges, tree
from tests.test_model_rules import advised, alive, model

if TYPE_CHECKING:
    from replay.state.kernel import KernelRules

RW, R = 3, 1
MADV_DONTFORK, MADV_DOFORK, MADV_GUARD_INSTALL = 10, 11, 102


def test_merge_new_step_by_step(history: History, rules: str) -> None:
    """All eight steps: none, both, previous, next, both, next, both; one VMA and one tree are left."""

    def step(first: int, last: int) -> list[tuple[int, int]]:
        mapped(history, first, last)
        return ranges(model(history, rules))

    mapped(history, 0, 2)
    mapped(history, 3, 4)
    mapped(history, 11, 12)
    history.fault(P, page(3))
    assert step(7, 9) == [(0, 2), (3, 4), (7, 9), (11, 12)]
    assert step(2, 3) == [(0, 4), (7, 9), (11, 12)]
    assert tree(model(history, rules), 1) == [(1, 0, 4)]
    assert step(4, 5) == [(0, 5), (7, 9), (11, 12)]
    assert step(6, 7) == [(0, 5), (6, 9), (11, 12)]
    assert step(5, 6) == [(0, 9), (11, 12)]
    assert step(10, 11) == [(0, 9), (10, 12)]
    assert step(9, 10) == [(0, 12)]
    assert tree(model(history, rules), 1) == [(1, 0, 12)]


def pieces(history: History, *faulted: str) -> None:
    """Previous ``[0, 3)``, middle ``[3, 7)`` and next ``[7, 10)``; the middle one is not to be forked."""
    mapped(history, 0, 10)
    advised(history, 3, 7, MADV_DONTFORK)
    for name, first in (("prev", 0), ("middle", 3), ("next", 7)):
        if name in faulted:
            history.fault(P, page(first))


@pytest.mark.parametrize("faulted", ["", "prev", "middle", "next"])
@pytest.mark.parametrize(
    ("first", "last", "merged"),
    [
        (3, 7, [(0, 10)]),
        (3, 6, [(0, 6), (6, 7), (7, 10)]),
        (4, 7, [(0, 3), (3, 4), (4, 10)]),
        (4, 5, [(0, 3), (3, 4), (4, 5), (5, 7), (7, 10)]),
        (4, 6, [(0, 3), (3, 4), (4, 6), (6, 7), (7, 10)]),
    ],
    ids=["whole", "its begin", "its end", "a page inside", "pages inside"],
)
def test_merge_existing(
    history: History, rules: str, first: int, last: int, merged: list[tuple[int, int]], faulted: str
) -> None:
    """The middle one becomes like its neighbours.

    6.12 refuses a faulted one to neighbours that are not. A middle one that is not faulted merges with any
    neighbour: what has no anon_vma takes that of the other.
    """
    pieces(history, faulted)
    advised(history, first, last, MADV_DOFORK)
    found = model(history, rules)
    refused = rules == "6.12" and faulted == "middle"
    if not refused:
        assert ranges(found) == merged
    elif (first, last) == (3, 7):
        assert ranges(found) == [(0, 3), (3, 7), (7, 10)]
    else:
        inner = sorted({3, first, last, 7})
        assert ranges(found) == [(0, 3), *pairwise(inner), (7, 10)]
    place = {"prev": 0, "middle": 3, "next": 7}.get(faulted)
    own = [row for row in alive(found) if row["anon_vma"] is not None]
    assert bool(own) is bool(faulted)
    if place is not None:
        assert any(row["vm_start"] <= page(place) < row["vm_end"] for row in own)  # type: ignore[operator]


@pytest.mark.parametrize("modified", [True, False], ids=["modified", "new"])
def test_neighbours_with_different_anon_vmas(history: History, rules: str, modified: bool) -> None:
    """anon_vma_non_mergeable: each would do, but not both; the previous one it is."""
    mapped(history, 0, 3)
    mapped(history, 7, 9)
    history.fault(P, page(0))
    history.fault(P, page(7))
    mapped(history, 3, 7, prot=R if modified else RW)
    if modified:
        protected(history, 3, 7, RW)
    found = model(history, rules)
    assert ranges(found) == [(0, 7), (7, 9)]
    assert (tree(found, 1), tree(found, 2)) == ([(1, 0, 7)], [(1, 7, 9)])


@pytest.mark.parametrize(("faulted", "expected"), [("prev", 1), ("next", 1), ("middle", 1)])
def test_the_one_that_grows_takes_the_anon_vma(
    history: History, rules: str, faulted: str, expected: int
) -> None:
    """dup_anon_vma, in the cases where all three become one."""
    pieces(history, faulted)
    advised(history, 3, 7, MADV_DOFORK)
    found = model(history, rules)
    if rules == "6.12" and faulted == "middle":
        assert tree(found, 1) == [(1, 3, 7)]
    else:
        assert tree(found, expected) == [(1, 0, 10)]
    assert found.lives["anon_vma"].n_unique() == 1


def test_copy_vma_into_a_neighbour(history: History, rules: str) -> None:
    """What is not faulted gets the page offset of where it goes, and so merges there."""
    mapped(history, 0, 2)
    mapped(history, 6, 8)
    history.call(P, "mremap", (page(0), 2 * PAGE, 2 * PAGE, 3, page(4)), page(4))
    assert ranges(model(history, rules)) == [(4, 8)]


def test_special_flags_never_merge(history: History, rules: str) -> None:
    """Huge pages have VM_DONTEXPAND: split by mprotect(), they stay apart. Their offset is that of a file."""
    mapped(history, 0, 2048, flags=0x40032)
    protected(history, 512, 1024, R)
    protected(history, 512, 1024, RW)
    history.fault(P, page(0))
    found = model(history, rules)
    assert ranges(found) == [(0, 512), (512, 1024), (1024, 2048)]
    assert [row["vm_pgoff"] for row in alive(found)] == [0, 512, 1024]
    assert found.lives["first_pgoff"].to_list() == [page(0) // PAGE if rules == "7.3" else 0]


@pytest.mark.parametrize("bit", [0x400, 0x4000, 0x40000, 0x10000000], ids=["pf", "io", "de", "mm"])
def test_special_flags_of_smaps_never_merge(history: History, rules: str, bit: int) -> None:
    lines = [
        {
            "vm_start": page(first),
            "vm_end": page(first + 2),
            "vm_flags": 0x100073 | bit,
            "pgoff": first,
            "file": "f",
        }
        for first in (0, 4)
    ]
    history.snapshot(P, lines)
    protected(history, 0, 1, R)
    protected(history, 0, 1, RW)
    assert ranges(model(history, rules)) == [(0, 1), (1, 2), (4, 6)]


def test_what_has_a_close_hook_is_not_taken_away(history: History, rules: str) -> None:
    """merge_with_close: attached segments give pages to a neighbour, but none of them may vanish."""
    history.call(P, "shmget", (0, 10 * PAGE, 0o3600), 5)
    history.call(P, "shmat", (5, 0, 0), page(0))
    protected(history, 3, 7, R)
    protected(history, 3, 6, RW)
    assert ranges(model(history, rules)) == [(0, 6), (6, 7), (7, 10)]
    protected(history, 6, 7, RW)
    assert ranges(model(history, rules)) == [(0, 6), (6, 7), (7, 10)]
    protected(history, 4, 6, R)
    protected(history, 5, 6, RW)
    assert ranges(model(history, rules)) == [(0, 4), (4, 5), (5, 7), (7, 10)]


def test_sticky_flags_do_not_keep_apart(history: History) -> None:
    """7.3: MADV_GUARD_INSTALL marks the VMA, and gives it an anon_vma; new memory merges with it."""
    mapped(history, 0, 4)
    advised(history, 2, 3, MADV_GUARD_INSTALL)
    mapped(history, 4, 6)
    found = model(history, "7.3")
    assert (ranges(found), tree(found, 1)) == ([(0, 6)], [(1, 0, 6)])
    advised(history, 4, 6, MADV_DONTFORK)
    advised(history, 4, 6, MADV_DOFORK)
    assert tree(model(history, "7.3"), 1) == [(1, 0, 6)]


def test_a_file_beside_what_was_moved_is_refused_for_the_same_reasons(
    history: History, rules: KernelRules
) -> None:
    """From 7.3 on what follows in the file has to follow among anonymous pages too, if it is private."""
    mapped(history, 0, 4)
    history.fault(P, page(0))
    history.call(P, "mremap", (page(0), 4 * PAGE, 4 * PAGE, 3, page(10)), page(10))
    history.call(P, "mmap", (page(14), 4 * PAGE, RW, 2, 5, page(4)), page(14))
    found = check(history.events(), rules)
    assert ranges(found) == [(10, 14), (14, 18)]
    (refusal,) = found.refusals.to_dicts()
    assert (said(refusal["older"]), said(refusal["newer"])) == ({"file"}, {"file", "pgoff"})
