"""Looking ahead: what an operation will read is asked of the memory some operations before.

A model of many VMAs does not fit the processor's caches, and what the operations want of it lies anywhere. So
each operation looks for the VMA of a later one, in three steps some operations apart: its block of the map,
itself, its neighbours. Whatever changes meanwhile, nothing but time is lost. In machine code only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from replay.model.map import map_entry, map_search
from replay.model.state import BLOCK, BLOCKS, KEY_BITS, LINE_KEYS, RING, State

if TYPE_CHECKING:
    from replay.model.kinds import Operations
    from replay.model.state import Records

STEP: Final = 4
"""Operations between two of the steps; three of them are less than ``RING``."""
MANY: Final = 8192
"""VMAs that do not fit the cache that is near the processor (L2, of 1 to 2 MiB)."""


def prefetch(_table: Records, _slot: int) -> None:
    """Ask for the cache lines of a record; in machine code an instruction for each (``model.jit``)."""


def look_ahead(s: State, ops: Operations, op: int) -> None:
    """One step each for three later operations."""
    at = op + 3 * STEP
    if at < len(ops.kind):
        find_block(s, s.task[ops.task[at]].space, ops.a[at], at % RING)
    find_vma_in_block(s, (op + 2 * STEP) % RING)
    vma = s.ahead[(op + STEP) % RING].vma
    if vma >= 0:
        prefetch(s.vma, s.vma[vma].prev)
        prefetch(s.vma, s.vma[vma].next)
        prefetch(s.avc, s.vma[vma].head)


def find_block(s: State, space: int, page: int, place: int) -> None:
    """The block of the map where the page of an operation belongs."""
    ahead = s.ahead[place]
    ahead.block = -1
    if space < 0 or s.count[BLOCKS] == 0:
        return
    ahead.key = (space << KEY_BITS) | page
    ahead.block = s.order[map_search(s, ahead.key)].block
    for key in range(ahead.block * BLOCK, (ahead.block + 1) * BLOCK, LINE_KEYS):
        prefetch(s.key, key)
    prefetch(s.entry, ahead.block * BLOCK)
    prefetch(s.entry, ahead.block * BLOCK + BLOCK - 1)


def find_vma_in_block(s: State, place: int) -> None:
    """The VMA there."""
    ahead = s.ahead[place]
    ahead.vma = -1
    if ahead.block >= 0:
        entry = max(map_entry(s, ahead.block, ahead.key) - 1, 0)
        ahead.vma = s.entry[ahead.block * BLOCK + entry].vma
        prefetch(s.vma, ahead.vma)
