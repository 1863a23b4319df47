"""The scenarios of ``replay testbench``: each a few lines of what happens to the VMAs."""

from __future__ import annotations

import errno
import os
import random as random_
import re
import resource
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from replay.testbench import mm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replay.testbench.bench import Bench

_FIRST_FILE_PAGE: Final = 16
"""Where the mapping of scenario ``file`` begins: not at 0, so that file offset and address differ."""

_BELOW_STACK: Final = 256
"""Pages between the stack in use and the pages of scenario ``stack``."""

_ROUNDS: Final = 8
"""Rounds of scenario ``random``, each with as many operations as a process has pages / 8, then walks."""


def split(bench: Bench) -> None:
    """One VMA a page, by mprotect of every second page: the tree has as many VMAs as there are pages."""
    pages = bench.options.pages
    address = _merged(bench)
    bench.walk("merged", _each(address, pages))
    _split(address, pages)
    bench.walk("split", _each(address, pages))


def fork(bench: Bench) -> None:
    """A child and a grandchild split their pages too: the tree has the VMAs of the whole family."""
    pages = bench.options.pages
    address = _merged(bench)

    def child(hold: Callable[[], None]) -> None:
        _split(address, pages)
        with _child(grandchild):
            hold()

    def grandchild(hold: Callable[[], None]) -> None:
        _split(address + mm.PAGE, pages - 1)
        hold()

    with _child(lambda hold: hold()):
        bench.walk("forked", _each(address, pages))
    with _child(child):
        bench.walk("children-split", _each(address, pages))
        _split(address, pages)
        bench.walk("split", _each(address, pages))


def mremap(bench: Bench) -> None:
    """Memory that moved between its first write and the merge: address >> 12 is not its page offset."""
    pages = bench.options.pages
    address = mm.map_anonymous(pages)
    mm.advise(address, pages, mm.MADV_NOHUGEPAGE)
    bench.fill(address, pages)
    address = mm.move(address, pages)
    mm.advise(address, pages, mm.MADV_MERGEABLE)
    bench.merge(pages)
    bench.walk("moved", _each(address, pages))
    _split(address, pages)
    bench.walk("split", _each(address, pages))


def holes(bench: Bench) -> None:
    """Splits by madvise and munmap, pages that are merged no more, VMAs that become one again."""
    pages = bench.options.pages
    address = _merged(bench)
    quarters = range(0, pages - 3, 4)
    for place in quarters:
        mm.advise(address + place * mm.PAGE, 1, mm.MADV_DONTFORK)
        mm.unmap(address + (place + 2) * mm.PAGE, 1)
    left = [address + (place + each) * mm.PAGE for place in quarters for each in (0, 1, 3)]
    bench.walk("holes", left)
    for place in range(0, pages - 3, 8):
        mm.advise(address + (place + 3) * mm.PAGE, 1, mm.MADV_UNMERGEABLE)
    bench.walk("unmerged", left)
    for place in quarters:
        mm.advise(address + place * mm.PAGE, 1, mm.MADV_DOFORK)
    bench.walk("joined", left)


def file(bench: Bench) -> None:
    """Pages of a private file mapping, written and merged: up to 7.2 the tree knows them by file offset."""
    pages = bench.options.pages
    with tempfile.TemporaryFile() as target:
        target.truncate((pages + _FIRST_FILE_PAGE) * mm.PAGE)
        address = mm.map_file(target.fileno(), _FIRST_FILE_PAGE, pages)
    bench.fill(address, pages)
    mm.advise(address, pages, mm.MADV_MERGEABLE)
    bench.merge(pages)
    bench.walk("merged", _each(address, pages))
    _split(address, pages)
    bench.walk("split", _each(address, pages))


def stack(bench: Bench) -> None:
    """Pages of the stack, which exec moved: their page offset was never address >> 12."""
    limit, _ = resource.getrlimit(resource.RLIMIT_STACK)
    most = bench.options.pages if limit == resource.RLIM_INFINITY else limit // mm.PAGE // 2
    pages = min(bench.options.pages, most)
    found = re.search(r"^([0-9a-f]+)-.*\[stack\]$", Path("/proc/self/maps").read_text("ascii"), re.MULTILINE)
    if found is None:
        raise OSError(errno.ENOENT, "no [stack] in /proc/self/maps")
    address = int(found[1], 16) - (_BELOW_STACK + pages) * mm.PAGE
    mm.write(address, 1)  # the stack grows down to it
    bench.fill(address, pages)
    mm.merge_all_of_this_process()
    bench.merge(pages)
    bench.walk("merged", _each(address, pages))
    _split(address, pages)
    bench.walk("split", _each(address, pages))


def random(bench: Bench) -> None:
    """Random operations of three processes on the same pages; a --seed and --pages always give the same."""
    pages = bench.options.pages
    address = _merged(bench)
    for number in range(_ROUNDS):
        left = _each(address, pages)

        def other(hold: Callable[[], None], seed: int = 2 * number, left: list[int] = left) -> None:
            _operate(left, random_.Random(f"{bench.options.seed}.{seed}"), pages // _ROUNDS)
            hold()

        def another(hold: Callable[[], None], seed: int = 2 * number, left: list[int] = left) -> None:
            with _child(other):
                _operate(left, random_.Random(f"{bench.options.seed}.{seed + 1}"), pages // _ROUNDS)
                hold()

        with _child(another):
            bench.walk(f"round-{number + 1}", left)
    own = _operate(_each(address, pages), random_.Random(bench.options.seed), pages)
    bench.walk("own", own)
    bench.merge(0)
    bench.walk("merged-again", own)


def family(bench: Bench) -> None:
    """Ordinary pages, nothing merged: forks that wrote some of them are relatives that map them no more."""
    pages = bench.options.pages
    address = mm.map_anonymous(pages)
    mm.advise(address, pages, mm.MADV_NOHUGEPAGE)
    mm.fill(address, pages, 0x5A)
    left = _each(address, pages)
    bench.walk("alone", left)

    def child(hold: Callable[[], None]) -> None:
        mm.fill(address, pages // 2, 0xA5)
        with _child(grandchild):
            hold()

    def grandchild(hold: Callable[[], None]) -> None:
        mm.fill(address, pages // 4, 0x3C)
        hold()

    with _child(child), _child(child):
        bench.walk("written", left)
        mm.fill(address, pages // 8, 0x11)
        bench.walk("written-again", left)
    bench.walk("alone-again", left)


SCENARIOS: Final = {each.__name__: each for each in (split, fork, mremap, holes, file, stack, random, family)}
"""Every scenario by the name that the command line takes."""


def _merged(bench: Bench) -> int:
    """Address of new anonymous memory whose pages KSM has merged."""
    pages = bench.options.pages
    address = mm.map_anonymous(pages)
    mm.advise(address, pages, mm.MADV_NOHUGEPAGE)
    bench.fill(address, pages)
    mm.advise(address, pages, mm.MADV_MERGEABLE)
    bench.merge(pages)
    return address


def _each(address: int, pages: int) -> list[int]:
    """Addresses of the pages."""
    return [address + place * mm.PAGE for place in range(pages)]


def _split(address: int, pages: int) -> None:
    """Make every page a VMA of its own."""
    for place in range(0, pages, 2):
        mm.protect(address + place * mm.PAGE, 1, writable=False)


def _operate(addresses: list[int], chance: random_.Random, count: int) -> list[int]:
    """Do ``count`` random operations on ranges of up to 16 pages.

    Returns:
        The pages that are still mapped, where they are now.
    """
    left = list(addresses)
    for _ in range(count):
        first = chance.randrange(len(left))
        pages = next(
            (n for n in range(1, 16) if left[first + n : first + n + 1] != [left[first] + n * mm.PAGE]), 16
        )
        pages = chance.randint(1, pages)
        address, last = left[first], first + pages
        match chance.randrange(8):
            case 0 | 1:
                mm.protect(address, pages, writable=False)
            case 2:
                mm.protect(address, pages, writable=True)
            case 3:
                mm.advise(address, pages, mm.MADV_RANDOM)
            case 4:
                mm.advise(address, pages, mm.MADV_NORMAL)
            case 5:
                mm.protect(address, pages, writable=True)
                mm.write(address, chance.randrange(1, 4))
            case 6:
                mm.advise(address, pages, mm.MADV_DONTNEED)
            case 7 if len(left) > len(addresses) // 2:
                mm.unmap(address, pages)
                del left[first:last]
            case _:
                left[first] = mm.move(address, 1)  # not more: 6.12 moves only what is in one VMA
    return left


@contextmanager
def _child(work: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """A forked child that does ``work`` before the body runs, and lives until the body has ended.

    Args:
        work: Called in the child with a function that it calls when all is done; that one returns when the
            child is to end.

    Raises:
        OSError: The child failed.
    """
    ready, done = os.pipe()
    end, wait = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(wait)

            def hold() -> None:
                os.write(done, b".")
                os.read(end, 1)

            work(hold)
            status = 0
        finally:
            os._exit(status)
    os.close(done)
    os.close(end)
    try:
        if os.read(ready, 1) != b".":
            raise OSError(errno.ECHILD, "a child process failed")
        yield
    finally:
        os.close(wait)
        os.close(ready)
        os.waitpid(child, 0)
