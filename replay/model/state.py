"""State of the modelled address spaces: tables of integer records, in arrays or in lists.

``model.rmap``, ``model.vma``, ``model.calls`` and the others work on it. They are plain Python that numba can
compile: over numpy record arrays they run compiled; over lists of objects they run as they are, which suits a
small capture better than compiling. Addresses are page numbers, ends exclusive; -1 is "none". Slots of VMAs,
avcs and address spaces are used again; their numbers, which the output shows, are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from replay.state.kernel import Rules

Records = Any
"""A list of objects, or a record array: ``records[slot].field`` reads and writes both."""

KEY_BITS: Final = 44
"""Bits of a page number in a key of the map: user addresses of 56 bits. 19 are left for the slot of the
address space, which is used again when that is over: half a million at once."""
BLOCK: Final = 32
"""Entries of one block of the map; a power of two."""
LINE_KEYS: Final = 8
"""Keys of one cache line."""
RING: Final = 16
"""Operations that ``model.ahead`` has in mind."""
NO_KEY: Final = (1 << 63) - 1
"""Of an entry that is not used: after all keys."""

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
    FIRST_LIFE,
    LIVES_ENDED,
    VERSIONS_ENDED,
    LOOKS_AHEAD,
    FIXED_MMAP_FAILED,
    FAULT_OF_UNKNOWN,
    HUGE_PAGE_READ_FAULT,
    STACK_LIMIT_UNKNOWN,
    STACK_UNKNOWN,
    MLOCK_FAILED,
    FAILED_AT_UNKNOWN,
    MOVES_CUT,
    NEEDED,
) = range(43)
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
        space: Address spaces by slot; ``vmas``: how many it has; ``depth``: forks above it;
            ``stack_unknown``: 1 after an exec, until something tells where its stack is.
        first: First keys of the blocks of the map from (space, start) to VMA, in order.
        order: The blocks that they are of.
        block: Blocks by number.
        key: Keys of entries, ``BLOCK`` a block, in order; then ``NO_KEY``.
        entry: The VMAs that they are of.
        free: Stacks of free slots, by place.
        queue: VMAs that the operation touched, by place, and what they were before.
        life: Lives of intervals on trees; ``born``: operation; ``version``: of the VMA.
        life_end: Rows of ``life`` and the operations that ended them, as they came: old rows are far from
            the processor, so nothing but what is new is written.
        version: What a VMA was from an operation that changed it to the next.
        version_end: Likewise.
        refusal: Merges with a VMA beside that the rules of some kernel refuse; ``older``, ``newer``: reasons
            by those of 6.12 and of 7.3 (``merge_rules``); ``flags``: bits of vm_flags that differ.
        task: Address space by task.
        ahead: Where later operations will look, by their number (``model.ahead``).
    """

    count: Records
    vma: Records
    avc: Records
    anon_vma: Records
    space: Records
    first: Records
    order: Records
    block: Records
    key: Records
    entry: Records
    free: Records
    queue: Records
    life: Records
    life_end: Records
    version: Records
    version_end: Records
    refusal: Records
    task: Records
    ahead: Records


FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "vma": (
        *("start", "end", "flags", "pgoff", "anon_pgoff"),
        *("file", "policy", "anon_vma", "chain", "prev", "next"),
        *("head", "tail", "space", "touched", "number", "version", "told"),
    ),
    "avc": ("next", "prev", "vma", "anon_vma", "life", "number"),
    "anon_vma": ("parent", "children", "active", "linked"),
    "space": (
        *("brk", "def_flags", "number", "users", "merge_any", "first", "vmas", "depth"),
        "stack_unknown",
    ),
    "first": ("key",),
    "order": ("block",),
    "block": ("length",),
    "key": ("key",),
    "entry": ("vma",),
    "free": ("vma", "avc", "space", "block"),
    "queue": ("start", "end", "flags", "pgoff", "anon_pgoff", "vma", "anon_vma", "told"),
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
        "version",
        "told",
    ),
    "life_end": ("row", "op"),
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
        "told",
    ),
    "version_end": ("row", "op"),
    "refusal": ("flags", "op", "older", "newer", "anon_vma"),
    "task": ("space",),
    "ahead": ("key", "block", "vma"),
}
"""Fields by table. In a VMA, what look-ups and merge conditions read comes first: one cache line."""

WIDE: Final = frozenset(("start", "end", "flags", "pgoff", "anon_pgoff", "brk", "def_flags", "key"))
"""Fields of 64 bits, in an array; numbers and slots have 32."""

BYTES: Final = {"vma": 128, "queue": 64, "life": 64, "version": 64, "space": 48}
"""Size of a record that is not the sum of its fields."""


def new_state(rules: Rules, tasks: int, operations: int, *, arrays: bool) -> State:
    """An empty state.

    Args:
        rules: Rules of the kernel.
        tasks: Number of different tasks.
        operations: Number of operations; a first guess of lengths is made from it.
        arrays: Tables are arrays, not lists.
    """
    lengths = dict.fromkeys(FIELDS, 64) | {"key": 64 * BLOCK, "entry": 64 * BLOCK, "task": tasks}
    if arrays:
        lengths |= dict.fromkeys(("life", "life_end", "version", "version_end"), operations + 64)
    count = np.zeros(COUNTS, np.int64) if arrays else [0] * COUNTS
    state = State(count, *(_records(name, lengths[name], arrays=arrays) for name in FIELDS))
    flags = {
        ANON_PGOFF: rules.anon_pgoff,
        MERGES_FAULTED: rules.merges_faulted_into_unfaulted,
        CLONE_REVERSES: rules.clone_reverses,
        MERGEABLE_FIRST: rules.mergeable_first,
        DONTUNMAP_RESETS: rules.dontunmap_resets,
        LOOKS_AHEAD: arrays,
    }
    for place, value in flags.items():
        state.count[place] = int(value)
    return state


def with_room(state: State) -> State:
    """The state with tables as long as needed; what grows is at least twice as long then."""
    needed = {name: int(state.count[NEEDED + place]) for place, name in enumerate(GROWING)}
    slots = max(needed[name] for name in ("vma", "avc", "space", "block"))
    needed |= dict.fromkeys(("first", "order"), needed["block"])
    needed |= dict.fromkeys(("key", "entry"), needed["block"] * BLOCK)
    needed |= dict.fromkeys(("free", "queue"), slots)
    needed |= {f"{name}_end": needed[name] for name in ("life", "version")}
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


CACHE_LINE: Final = 64
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
        raw = np.zeros(length * kind.itemsize + CACHE_LINE, np.uint8)
        ahead = -raw.ctypes.data % CACHE_LINE
        records = raw[ahead : ahead + length * kind.itemsize].view(kind)
        if name == "task":
            records["space"] = -1
        if name == "ahead":
            records["block"] = records["vma"] = -1
        return records
    objects = [_CLASSES[name]() for _ in range(length)]
    if name == "task":
        for task in objects:
            task.space = -1
    return objects
