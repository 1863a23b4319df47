"""State of the modelled address spaces: tables of integer records, in arrays or in lists.

``model_rmap``, ``model_vma``, ``model_calls`` and the others work on it. They are plain Python that numba can
compile: over numpy record arrays they run compiled; over lists of objects they run as they are, which suits a
small capture better than compiling. Addresses are page numbers, ends exclusive, everything is int64; -1 is
"none". Slots of VMAs, avcs and address spaces are used again; their numbers, which the output shows, are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from replay.model_rules import Rules

Records = Any
"""A list of objects, or a record array: ``records[slot].field`` reads and writes both."""

KEY_BITS: Final = 44
"""Bits of a page number in a key of the map: user addresses of 56 bits."""
MAX_SPACES: Final = 1 << 19
BLOCK: Final = 64
"""Entries of one block of the map."""

# Places in ``State.count``: numbers given out, rows written, slots used and free, rules, doubts.
(
    OP,
    VMAS,
    AVCS,
    ANON_VMAS,
    SPACES,
    LIVES,
    VERSIONS,
    TOUCHED,
    BLOCKS,
    VMA_SLOTS,
    AVC_SLOTS,
    SPACE_SLOTS,
    BLOCK_SLOTS,
    FREE_VMAS,
    FREE_AVCS,
    FREE_SPACES,
    FREE_BLOCKS,
    ANON_PGOFF,
    MERGES_FAULTED,
    CLONE_REVERSES,
    MERGEABLE_FIRST,
    DONTUNMAP_RESETS,
    BRK_BEFORE,
    MREMAP_OF_UNKNOWN,
) = range(24)
COUNTS: Final = 24


class State(NamedTuple):
    """All tables.

    Attributes:
        count: Integers by the constants above.
        vma: VMAs by slot. ``head``, ``tail``: their avcs; ``prev``, ``next``: neighbours in the address space;
            ``version``: the open row of ``version``; ``touched``: last operation that did; ``free``, ``queue``:
            stacks of free slots and of touched VMAs, by place.
        avc: anon_vma_chains by slot; ``life``: its row of ``life`` while it is on the tree.
        anon_vma: anon_vmas by number; ``linked``: intervals on its tree.
        space: Address spaces by slot; ``vmas``, ``avcs``: how many it has.
        order: Blocks of the map from (space, start) to VMA, in order; ``key``: their first one.
        block: Blocks by number.
        entry: Entries, ``BLOCK`` a block.
        life: Lives of intervals; ``born``, ``died``: operations, -1: alive.
        version: Versions of VMAs, likewise.
        task: Address space by task.
    """

    count: Records
    vma: Records
    avc: Records
    anon_vma: Records
    space: Records
    order: Records
    block: Records
    entry: Records
    life: Records
    version: Records
    task: Records


FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "vma": (
        *("number", "space", "start", "end", "flags", "file", "pgoff", "anon_pgoff", "policy", "anon_vma"),
        *("head", "tail", "prev", "next", "version", "touched", "free", "queue"),
    ),
    "avc": ("number", "vma", "anon_vma", "next", "prev", "life", "free"),
    "anon_vma": ("parent", "children", "active", "linked"),
    "space": ("number", "users", "brk", "def_flags", "merge_any", "first", "vmas", "avcs", "free"),
    "order": ("block", "key"),
    "block": ("length", "free"),
    "entry": ("key", "vma"),
    "life": ("avc", "anon_vma", "vma", "mm", "start", "end", "pgoff", "anon_pgoff", "born", "died"),
    "version": ("vma", "mm", "start", "end", "pgoff", "anon_pgoff", "flags", "anon_vma", "born", "died"),
    "task": ("space",),
}


def new_state(rules: Rules, tasks: int, operations: int, *, arrays: bool) -> State:
    """An empty state.

    Args:
        rules: Rules of the kernel.
        tasks: Number of different tasks.
        operations: Number of operations; a first guess of lengths is made from it.
        arrays: Tables are arrays, not lists.
    """
    lengths = dict.fromkeys(FIELDS, 64) | {"entry": 64 * BLOCK, "task": tasks}
    if arrays:
        lengths |= {"life": 4 * operations + 64, "version": 3 * operations + 64}
    count = np.zeros(COUNTS, np.int64) if arrays else [0] * COUNTS
    state = State(count, *(_records(name, lengths[name], arrays=arrays) for name in FIELDS))
    flags = {
        ANON_PGOFF: rules.anon_pgoff,
        MERGES_FAULTED: rules.merges_faulted_into_unfaulted,
        CLONE_REVERSES: rules.clone_reverses,
        MERGEABLE_FIRST: rules.mergeable_first,
        DONTUNMAP_RESETS: rules.dontunmap_resets,
    }
    for place, value in flags.items():
        state.count[place] = int(value)
    for task in range(tasks):
        state.task[task].space = -1
    return state


def with_room(state: State, needed: dict[str, int]) -> State:
    """The state with tables at least as long as ``needed`` says, those that grow twice as long.

    Args:
        state: The state; not to be used any more.
        needed: Length by name of the table.
    """
    tables = {}
    for name, length in needed.items():
        table = getattr(state, name)
        lack = length - len(table)
        if lack > 0:
            more = _records(name, max(lack, len(table)), arrays=not isinstance(table, list))
            tables[name] = table + more if isinstance(table, list) else np.concatenate((table, more))
    return state._replace(**tables)


def _slots(name: str) -> type:
    """A class whose objects have the fields of a record."""
    return type(name, (), {"__slots__": FIELDS[name]})


_CLASSES: Final = {name: _slots(name) for name in FIELDS}


def _records(name: str, length: int, *, arrays: bool) -> Records:
    fields = FIELDS[name]
    if arrays:
        return np.zeros(length, np.dtype([(field, np.int64) for field in fields]))
    return [_CLASSES[name]() for _ in range(length)]
