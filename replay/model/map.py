"""An ordered map from (address space, first page) to VMA, for ``model.vma``: sorted entries in small blocks.

Blocks are listed in order with their first key. A look-up is two binary searches over keys that lie close
together, without a branch that the processor would guess wrong half of the time; an insertion moves half a
block. Compiled by numba, or run as it is (``model.state``).
"""

from __future__ import annotations

from replay.model.state import BLOCK, BLOCK_SLOTS, BLOCKS, FREE_BLOCKS, KEY_BITS, LAST_PLACE, NO_KEY, State


def map_place(s: State, key: int) -> int:
    """Place in the order of blocks where ``key`` belongs; -1: there are no blocks.

    One operation asks for neighbours, so the last answer is tried first.
    """
    blocks = s.count[BLOCKS]
    last = s.count[LAST_PLACE]
    if last < blocks and s.first[last].key <= key and (last + 1 == blocks or key < s.first[last + 1].key):
        return int(last)
    if blocks == 0:
        return -1
    s.count[LAST_PLACE] = map_search(s, key)
    return int(s.count[LAST_PLACE])


def map_search(s: State, key: int) -> int:
    """Place of the last block that starts up to ``key``; 0: none does, and there are blocks."""
    low, length = 0, s.count[BLOCKS]
    while length > 1:
        half = length >> 1
        low += half * int(s.first[low + half].key <= key)
        length -= half
    return int(low)


def map_entry(s: State, block: int, key: int) -> int:
    """Number of entries of the block with keys up to ``key``."""
    base = block * BLOCK
    low, step = base, BLOCK >> 1
    while step:
        low += step * int(s.key[low + step - 1].key <= key)
        step >>= 1
    return int(low - base + int(s.key[low].key <= key))


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
    return s.entry[at].vma if s.key[at].key >> KEY_BITS == mm else -1


def map_insert(s: State, mm: int, page: int, vma: int) -> int:
    """Add an entry; its key is new. Returns the VMA before it in the address space; -1: none."""
    key = (mm << KEY_BITS) | page
    place = map_place(s, key)
    if place < 0:
        place = 0
        new_block(s, 0, key)
    block = s.order[place].block
    if s.block[block].length == BLOCK:
        split_block(s, place)
        if s.first[place + 1].key <= key:
            place += 1
            block = s.order[place].block
    base = block * BLOCK
    entry = map_entry(s, block, key)
    at = base + s.block[block].length
    while at > base + entry:
        s.key[at].key = s.key[at - 1].key
        s.entry[at].vma = s.entry[at - 1].vma
        at -= 1
    s.key[at].key = key
    s.entry[at].vma = vma
    s.block[block].length += 1
    if entry == 0:
        s.first[place].key = key
        return -1
    return s.entry[at - 1].vma if s.key[at - 1].key >> KEY_BITS == mm else -1


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
        s.key[at].key = s.key[at + 1].key
        s.entry[at].vma = s.entry[at + 1].vma
        at += 1
    s.key[last].key = NO_KEY
    if last == base:
        drop_block(s, place)
    elif first:
        s.first[place].key = s.key[base].key


def map_rekey(s: State, mm: int, page: int, new_page: int) -> None:
    """A VMA starts elsewhere; its place among the others stays."""
    key = (mm << KEY_BITS) | page
    place = map_place(s, key)
    block = s.order[place].block
    entry = map_entry(s, block, key) - 1
    s.key[block * BLOCK + entry].key = (mm << KEY_BITS) | new_page
    if entry == 0:
        s.first[place].key = (mm << KEY_BITS) | new_page


def new_block(s: State, place: int, key: int) -> int:
    """An empty block at a place of the order."""
    if s.count[FREE_BLOCKS]:
        s.count[FREE_BLOCKS] -= 1
        block = s.free[s.count[FREE_BLOCKS]].block
    else:
        block = s.count[BLOCK_SLOTS]
        s.count[BLOCK_SLOTS] += 1
    s.block[block].length = 0
    for entry in range(block * BLOCK, (block + 1) * BLOCK):
        s.key[entry].key = NO_KEY
    at = s.count[BLOCKS]
    while at > place:
        s.order[at].block = s.order[at - 1].block
        s.first[at].key = s.first[at - 1].key
        at -= 1
    s.order[place].block = block
    s.first[place].key = key
    s.count[BLOCKS] += 1
    return int(block)


def drop_block(s: State, place: int) -> None:
    """Take an empty block out of the order."""
    s.free[s.count[FREE_BLOCKS]].block = s.order[place].block
    s.count[FREE_BLOCKS] += 1
    s.count[BLOCKS] -= 1
    for at in range(place, s.count[BLOCKS]):
        s.order[at].block = s.order[at + 1].block
        s.first[at].key = s.first[at + 1].key


def split_block(s: State, place: int) -> None:
    """The upper half of a full block becomes a block of its own behind it."""
    half = BLOCK >> 1
    old = s.order[place].block * BLOCK + half
    new = new_block(s, place + 1, s.key[old].key)
    for entry in range(half):
        s.key[new * BLOCK + entry].key = s.key[old + entry].key
        s.entry[new * BLOCK + entry].vma = s.entry[old + entry].vma
        s.key[old + entry].key = NO_KEY
    s.block[new].length = half
    s.block[s.order[place].block].length = half
