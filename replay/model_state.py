"""State of the modelled address spaces: tables of integer records, in arrays or in lists.

``model_rmap``, ``model_vma``, ``model_calls`` and the others work on it. They are plain Python that numba can
compile: over numpy record arrays they run compiled; over lists of objects they run as they are, which suits a
small capture better than compiling. Addresses are page numbers, ends exclusive; -1 is "none". Slots of VMAs,
avcs and address spaces are used again; their numbers, which the output shows, are not.
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
BLOCK: Final = 32
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
    REFUSALS,
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
    LAST_PLACE,
    ANON_PGOFF,
    MERGES_FAULTED,
    CLONE_REVERSES,
    MERGEABLE_FIRST,
    DONTUNMAP_RESETS,
    BRK_BEFORE,
    MREMAP_OF_UNKNOWN,
    TARGET_NOT_FREE,
    MAPS_DIFFER,
    TOLD_MERGES,
    TOO_MANY_VMAS,
    NEEDED,
) = range(31)
GROWING: Final = ("vma", "avc", "anon_vma", "space", "block", "life", "version", "refusal")
"""Tables whose needed lengths are in ``State.count`` from ``NEEDED`` on."""
COUNTS: Final = NEEDED + len(GROWING)


class State(NamedTuple):
    """All tables.

    Attributes:
        count: Integers by the constants above.
        vma: VMAs by slot. ``head``, ``tail``, ``chain``: their avcs, and how many; ``prev``, ``next``:
            neighbours in the address space; ``touched``: last operation that did; ``version``: its row there;
            ``told``: what is not known of it (``TOLD_PGOFF`` and others).
        avc: anon_vma_chains by slot; ``life``: its row of ``life`` while it is on the tree.
        anon_vma: anon_vmas by number; ``linked``: intervals on its tree.
        space: Address spaces by slot; ``vmas``: how many it has; ``depth``: forks above it.
        order: Blocks of the map from (space, start) to VMA, in order; ``key``: their first one.
        block: Blocks by number.
        entry: Entries, ``BLOCK`` a block.
        free: Stacks of free slots, by place.
        queue: VMAs that the operation touched, by place.
        life: Lives of intervals on trees; ``born``, ``died``: operations; ``version``: of the VMA.
        version: What a VMA was from an operation that changed it to the next.
        refusal: Merges with a VMA beside that the rules of some kernel refuse; ``older``, ``newer``: reasons
            by those of 6.12 and of 7.3 (``merge_rules``); ``flags``: bits of vm_flags that differ.
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
    free: Records
    queue: Records
    life: Records
    version: Records
    refusal: Records
    task: Records


FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "vma": (
        *("start", "end", "flags", "pgoff", "anon_pgoff"),
        *("file", "policy", "anon_vma", "chain", "prev", "next"),
        *("head", "tail", "space", "touched", "number", "version", "told"),
    ),
    "avc": ("next", "prev", "vma", "anon_vma", "life", "number"),
    "anon_vma": ("parent", "children", "active", "linked"),
    "space": ("brk", "def_flags", "number", "users", "merge_any", "first", "vmas", "depth"),
    "order": ("key", "block"),
    "block": ("length",),
    "entry": ("key", "vma"),
    "free": ("vma", "avc", "space", "block"),
    "queue": ("vma",),
    "life": (
        "start",
        "end",
        "pgoff",
        "anon_pgoff",
        "avc",
        "anon_vma",
        "vma",
        "mm",
        "born",
        "died",
        "version",
        "told",
    ),
    "version": (
        "start",
        "end",
        "pgoff",
        "anon_pgoff",
        "flags",
        "vma",
        "mm",
        "anon_vma",
        "born",
        "died",
        "told",
    ),
    "refusal": ("flags", "op", "older", "newer", "anon_vma"),
    "task": ("space",),
}
"""Fields by table. In a VMA, what look-ups and merge conditions read comes first: one cache line."""

WIDE: Final = frozenset(("start", "end", "flags", "pgoff", "anon_pgoff", "brk", "def_flags", "key"))
"""Fields of 64 bits, in an array; numbers and slots have 32."""

BYTES: Final = {"vma": 128, "entry": 16, "order": 16, "life": 64, "version": 64, "space": 40}
"""Size of a record that is not the sum of its fields."""


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
        lengths |= dict.fromkeys(("life", "version"), operations + 64)
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
    return state


def with_room(state: State) -> State:
    """The state with tables as long as needed; what grows is at least twice as long then."""
    needed = {name: int(state.count[NEEDED + place]) for place, name in enumerate(GROWING)}
    slots = max(needed[name] for name in ("vma", "avc", "space", "block"))
    needed |= {"order": needed["block"], "entry": needed["block"] * BLOCK, "free": slots, "queue": slots}
    tables = {}
    for name, length in needed.items():
        table = getattr(state, name)
        if length > len(table):
            tables[name] = _longer(name, table, max(length, 2 * len(table)))
    return state._replace(**tables)


def _longer(name: str, table: Records, length: int) -> Records:
    if isinstance(table, list):
        return table + _records(name, length - len(table), arrays=False)
    longer = _records(name, length, arrays=True)
    longer[: len(table)] = table
    return longer


def _slots(name: str) -> type:
    """A class whose objects have the fields of a record."""
    return type(name, (), {"__slots__": FIELDS[name]})


_CACHE_LINE: Final = 64
_CLASSES: Final = {name: _slots(name) for name in FIELDS}


def record_type(name: str) -> np.dtype[Any]:
    """Type of an element of a table that is an array."""
    if name not in FIELDS:
        return np.dtype(np.int64)
    kinds = [(field, np.int64 if field in WIDE else np.int32) for field in FIELDS[name]]
    spare = range((BYTES.get(name, 0) - np.dtype(kinds).itemsize) // 4)
    return np.dtype(kinds + [(f"spare{number}", np.int32) for number in spare])


def _records(name: str, length: int, *, arrays: bool) -> Records:
    """New records; their fields are written before they are read, save that a task is nowhere yet."""
    if arrays:
        kind = record_type(name)
        raw = np.zeros(length * kind.itemsize + _CACHE_LINE, np.uint8)
        ahead = -raw.ctypes.data % _CACHE_LINE
        records = raw[ahead : ahead + length * kind.itemsize].view(kind)
        if name == "task":
            records["space"] = -1
        return records
    objects = [_CLASSES[name]() for _ in range(length)]
    if name == "task":
        for task in objects:
            task.space = -1
    return objects
