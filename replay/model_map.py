"""An ordered map from (address space, first page) to VMA, for ``model_vma``: sorted entries in small blocks.

Blocks are listed in order with their first key, so a look-up is two binary searches over dense memory, and
an insertion moves half a block. Compiled by numba, or run as it is (``model_state``).
"""

from __future__ import annotations

from replay.model_state import BLOCK, BLOCK_SLOTS, BLOCKS, FREE_BLOCKS, KEY_BITS, LAST_PLACE, State


def map_place(s: State, key: int) -> int:
    """Place in the order of blocks where ``key`` belongs; -1: there are no blocks.

    One operation asks for neighbours, so the last answer is tried first.
    """
    blocks = s.count[BLOCKS]
    last = s.count[LAST_PLACE]
    if last < blocks and s.order[last].key <= key and (last + 1 == blocks or key < s.order[last + 1].key):
        return int(last)
    low, high = 0, blocks
    while low < high:
        middle = (low + high) >> 1
        if s.order[middle].key <= key:
            low = middle + 1
        else:
            high = middle
    if blocks == 0:
        return -1
    s.count[LAST_PLACE] = max(low - 1, 0)
    return max(low - 1, 0)


def map_entry(s: State, block: int, key: int) -> int:
    """Number of entries of the block with keys up to ``key``."""
    base = block * BLOCK
    low, high = 0, s.block[block].length
    while low < high:
        middle = (low + high) >> 1
        if s.entry[base + middle].key <= key:
            low = middle + 1
        else:
            high = middle
    return low


def map_floor(s: State, mm: int, page: int) -> int:
    """The VMA of ``mm`` with the greatest start up to ``page``; -1: none."""
    key = (mm << KEY_BITS) | page
    place = map_place(s, key)
    if place < 0:
        return -1
    block = s.order[place].block
    entry = map_entry(s, block, key) - 1
    if entry < 0:
        return -1
    at = block * BLOCK + entry
    return s.entry[at].vma if s.entry[at].key >> KEY_BITS == mm else -1


def map_insert(s: State, mm: int, page: int, vma: int) -> None:
    """Add an entry; its key is new."""
    key = (mm << KEY_BITS) | page
    place = map_place(s, key)
    if place < 0:
        place = 0
        new_block(s, 0, key)
    block = s.order[place].block
    if s.block[block].length == BLOCK:
        split_block(s, place)
        if s.order[place + 1].key <= key:
            place += 1
            block = s.order[place].block
    base = block * BLOCK
    entry = map_entry(s, block, key)
    at = base + s.block[block].length
    while at > base + entry:
        s.entry[at].key = s.entry[at - 1].key
        s.entry[at].vma = s.entry[at - 1].vma
        at -= 1
    s.entry[at].key = key
    s.entry[at].vma = vma
    s.block[block].length += 1
    if entry == 0:
        s.order[place].key = key


def map_delete(s: State, mm: int, page: int) -> None:
    """Take an entry out; it is there."""
    key = (mm << KEY_BITS) | page
    place = map_place(s, key)
    block = s.order[place].block
    base = block * BLOCK
    at = base + map_entry(s, block, key) - 1
    s.block[block].length -= 1
    last = base + s.block[block].length
    first = at == base
    while at < last:
        s.entry[at].key = s.entry[at + 1].key
        s.entry[at].vma = s.entry[at + 1].vma
        at += 1
    if s.block[block].length == 0:
        drop_block(s, place)
    elif first:
        s.order[place].key = s.entry[base].key


def map_rekey(s: State, mm: int, page: int, new_page: int) -> None:
    """A VMA starts elsewhere; its place among the others stays."""
    key = (mm << KEY_BITS) | page
    place = map_place(s, key)
    block = s.order[place].block
    entry = map_entry(s, block, key) - 1
    s.entry[block * BLOCK + entry].key = (mm << KEY_BITS) | new_page
    if entry == 0:
        s.order[place].key = (mm << KEY_BITS) | new_page


def new_block(s: State, place: int, key: int) -> int:
    """An empty block at a place of the order."""
    if s.count[FREE_BLOCKS]:
        s.count[FREE_BLOCKS] -= 1
        block = s.free[s.count[FREE_BLOCKS]].block
    else:
        block = s.count[BLOCK_SLOTS]
        s.count[BLOCK_SLOTS] += 1
    s.block[block].length = 0
    at = s.count[BLOCKS]
    while at > place:
        s.order[at].block = s.order[at - 1].block
        s.order[at].key = s.order[at - 1].key
        at -= 1
    s.order[place].block = block
    s.order[place].key = key
    s.count[BLOCKS] += 1
    return int(block)


def drop_block(s: State, place: int) -> None:
    """Take an empty block out of the order."""
    s.free[s.count[FREE_BLOCKS]].block = s.order[place].block
    s.count[FREE_BLOCKS] += 1
    s.count[BLOCKS] -= 1
    for at in range(place, s.count[BLOCKS]):
        s.order[at].block = s.order[at + 1].block
        s.order[at].key = s.order[at + 1].key


def split_block(s: State, place: int) -> None:
    """The upper half of a full block becomes a block of its own behind it."""
    block = s.order[place].block
    half = BLOCK >> 1
    new = new_block(s, place + 1, s.entry[block * BLOCK + half].key)
    for entry in range(BLOCK - half):
        s.entry[new * BLOCK + entry].key = s.entry[block * BLOCK + half + entry].key
        s.entry[new * BLOCK + entry].vma = s.entry[block * BLOCK + half + entry].vma
    s.block[new].length = BLOCK - half
    s.block[block].length = half
