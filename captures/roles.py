"""Which raw event, and which of its fields, becomes what column of the ``ev_*`` tables. Data, no logic.

A probe is recognised by the kernel function that it is on, whatever its system is called and whoever made
it, or by one of the short names that our own recipes use; its fields by their names. Functions are those
of 6.12 and of 7.3 (which renamed the interval tree functions). A stock tracepoint is known by its full name.

To read another dialect: add its event name to ``aliases`` or its field names to the column.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Rule = Literal["", "pair", "node", "symbol", "plus_one", "line", "frames", "ulong_max", "thread"]
"""What happens to the raw value on its way into the column.

``""``: only its type changes. ``pair``: the second name is the upper half of 32 bits. ``node``: the two low
bits are cleared. ``symbol``: a text or address becomes the name of a function. ``plus_one``: the kernel
stores one less. ``line``: a line break at the end goes. ``frames``: addresses up to the first 0 become text.
``ulong_max``: the largest number of 4 bytes is the largest of 8, too. ``thread``: where the second name is
the same process, the flags that every thread is made with (kernel/fork.c: CLONE_THREAD takes CLONE_VM); else
null.
"""


@dataclass(frozen=True)
class From:
    """Where the values of a column come from.

    Attributes:
        names: Names of the raw field; the first that the event has counts.
        rule: What happens to the value.
        upper: For ``pair``: names of the field with the upper 32 bits; for ``thread``: with the process
            of the parent.
    """

    names: tuple[str, ...]
    rule: Rule = ""
    upper: tuple[str, ...] = ()


@dataclass(frozen=True)
class Role:
    """One kind of raw event.

    Attributes:
        table: The ``ev_*`` table that it becomes.
        functions: Kernel functions, for probes.
        aliases: Other names that a probe of this role has.
        tracepoints: Full names ``system:name``, for stock events; they have no probe address.
        is_return: Whether it is the return of the function.
        constants: Columns that the event itself says.
        columns: Columns that its fields say. A column that may not be null makes its field essential.
    """

    table: str
    columns: Mapping[str, From] = field(default_factory=dict)
    functions: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    tracepoints: tuple[str, ...] = ()
    is_return: bool = False
    constants: Mapping[str, bool | str] = field(default_factory=dict)


def _same(*names: str) -> dict[str, From]:
    """Columns whose field has the same name."""
    return {name: From((name,)) for name in names}


_AVC: Final = {
    "avc": From(("avc", "node")),
    "anon_vma": From(("anon_vma", "av")),
    "vma": From(("vma",)),
    "mm": From(("vm_mm", "mm")),
    "vm_start": From(("vm_start", "s", "start")),
    "vm_end": From(("vm_end", "e", "end")),
    "vm_pgoff": From(("vm_pgoff", "pg", "pgoff")),
    "anon_pgoff": From(
        ("anon_pgoff_lo", "__vm_anon_pgoff_lo", "lo"), "pair", ("anon_pgoff_hi", "__vm_anon_pgoff_hi", "hi")
    ),
    "vm_flags": From(("vm_flags", "fl", "flags")),
}
_ITEM: Final = {
    "rmap_item": From(("rmap_item", "ri")),
    "address": From(("address", "addr")),
    "mm": From(("mm",)),
    "anon_vma": From(("anon_vma", "av")),
}
_WALK: Final = {
    "folio": From(("folio",)),
    "stable_node": From(("stable_node", "mapping", "sn"), "node"),
    "rmap_one": From(("rmap_one_sym", "rmap_one", "one"), "symbol"),
    "done": From(("done",)),
    "invalid_vma": From(("invalid_vma", "inv")),
    "try_lock": From(("try_lock", "try")),
    "mapcount": From(("mapcount", "_mapcount"), "plus_one"),
    "comm": From(("comm",)),
}
_ANON_WALK: Final = {
    **{name: _WALK[name] for name in ("folio", "rmap_one", "try_lock", "mapcount", "comm")},
    "anon_vma": From(("mapping",), "node"),
    **_same("index", "flags", "flags_1"),
}
_PTE: Final = {"address": From(("addr", "address")), **_same("pte", "order")}
_FAULT: Final = _same("address", "error_code")

RMAP_ONE_FUNCTIONS: Final = (
    "try_to_migrate_one",
    "try_to_unmap_one",
    "remove_migration_pte",
    "folio_referenced_one",
    "page_idle_clear_pte_refs_one",
    "damon_folio_mkold_one",
    "damon_folio_young_one",
)
"""Functions that are called through ``rwc->rmap_one`` for KSM folios."""

ROLES: Final = (
    Role(
        "ev_avc",
        _AVC,
        functions=("anon_vma_interval_tree_insert", "anon_rmap_tree_insert"),
        aliases=("avc_insert", "ins"),
        constants={"is_insert": True},
    ),
    Role(
        "ev_avc",
        _AVC,
        functions=("anon_vma_interval_tree_remove", "anon_rmap_tree_remove"),
        aliases=("avc_remove", "del"),
        constants={"is_insert": False},
    ),
    Role(
        "ev_append",
        {
            **_ITEM,
            "stable_node": From(("stable_node", "sn")),
            "kpfn": From(("kpfn",)),
            "linear_page_index": From(("linear_page_index", "idx")),
        },
        functions=("stable_tree_append",),
        aliases=("app",),
    ),
    Role(
        "ev_item_remove",
        {**_ITEM, "head": From(("head",))},
        functions=("remove_rmap_item_from_tree",),
        aliases=("rm",),
        constants={"is_return": False},
    ),
    Role(
        "ev_item_remove",
        functions=("remove_rmap_item_from_tree",),
        aliases=("remove_rmap_item_from_tree_ret", "rmx"),
        is_return=True,
        constants={"is_return": True},
    ),
    Role(
        "ev_node_remove",
        {"stable_node": From(("stable_node", "sn"))},
        functions=("remove_node_from_stable_tree",),
        aliases=("rmn",),
    ),
    Role("ev_walk", _WALK, functions=("rmap_walk_ksm",), aliases=("walk",), constants={"is_return": False}),
    Role(
        "ev_walk",
        {"comm": From(("comm",))},
        functions=("rmap_walk_ksm",),
        aliases=("rmap_walk_ksm_ret", "walkx"),
        is_return=True,
        constants={"is_return": True},
    ),
    Role("ev_anon_walk", _ANON_WALK, functions=("rmap_walk_anon",), constants={"is_return": False}),
    Role(
        "ev_anon_walk",
        {"comm": From(("comm",))},
        functions=("rmap_walk_anon",),
        aliases=("rmap_walk_anon_ret",),
        is_return=True,
        constants={"is_return": True},
    ),
    Role("ev_scan", {}, tracepoints=("ksm:ksm_start_scan",), constants={"is_stop": False}),
    Role("ev_scan", {}, tracepoints=("ksm:ksm_stop_scan",), constants={"is_stop": True}),
    Role("ev_ksm_enter", _same("mm"), tracepoints=("ksm:ksm_enter",)),
    Role("ev_ksm_removed", _same("pfn"), tracepoints=("ksm:ksm_remove_ksm_page",)),
    Role("ev_ksm_removed", _same("pfn", "rmap_item"), tracepoints=("ksm:ksm_remove_rmap_item",)),
    Role("ev_folio_migrate", _same("newfolio", "folio"), functions=("folio_migrate_ksm",)),
    Role("ev_migration_pte", _PTE, tracepoints=("migrate:set_migration_pte",), constants={"is_set": True}),
    Role(
        "ev_migration_pte", _PTE, tracepoints=("migrate:remove_migration_pte",), constants={"is_set": False}
    ),
    Role("ev_fault", _FAULT, tracepoints=("exceptions:page_fault_user",), constants={"is_user": True}),
    Role("ev_fault", _FAULT, tracepoints=("exceptions:page_fault_kernel",), constants={"is_user": False}),
    Role(
        "ev_merge",
        _same("ksm_page", "pfn", "rmap_item", "mm", "err"),
        tracepoints=("ksm:ksm_merge_with_ksm_page",),
    ),
    Role(
        "ev_lock",
        {"lock": From(("lock_addr",)), "lock_flags": From(("flags",))},
        tracepoints=("lock:contention_begin",),
        constants={"is_end": False},
    ),
    Role(
        "ev_lock",
        {"lock": From(("lock_addr",))},
        tracepoints=("lock:contention_end",),
        constants={"is_end": True},
    ),
    Role("ev_switch", _same("prev_pid", "next_pid"), tracepoints=("sched:sched_switch",)),
    Role("ev_exit_mmap", _same("mm"), tracepoints=("mmap:exit_mmap",)),
    Role(
        "ev_mmap_lock",
        {"mm": From(("mm",)), "is_write": From(("write",))},
        tracepoints=("mmap_lock:mmap_lock_acquire_returned",),
    ),
    Role(
        "ev_stack",
        {"frames": From(("caller",), "frames")},
        tracepoints=("ftrace:user_stack", "perf:user_stack"),
    ),
    Role("ev_marker", {"text": From(("buf",), "line")}, tracepoints=("ftrace:print",)),
    Role(
        "ev_task",
        {"child_pid": From(("pid_",)), **_same("clone_flags", "comm")},
        tracepoints=("task:task_newtask",),
        constants={"kind": "newtask"},
    ),
    Role(
        "ev_task",
        {"child_pid": From(("child_pid",)), "comm": From(("child_comm",))},
        tracepoints=("sched:sched_process_fork",),
        constants={"kind": "fork"},
    ),
    Role(
        "ev_task",
        _same("old_pid"),
        tracepoints=("sched:sched_process_exec",),
        constants={"kind": "exec"},
    ),
    Role("ev_task", _same("comm"), tracepoints=("sched:sched_process_exit",), constants={"kind": "exit"}),
    Role(
        "ev_task",
        {**_same("child_pid"), "clone_flags": From(("child_tgid",), "thread", ("parent_tgid",))},
        tracepoints=("perf:fork",),
        constants={"kind": "fork"},
    ),
    Role("ev_task", tracepoints=("perf:exec",), constants={"kind": "exec"}),
    Role("ev_task", tracepoints=("perf:exit",), constants={"kind": "exit"}),
    Role(
        "ev_task",
        {"child_pid": From(("pid_",)), "comm": From(("comm",))},
        tracepoints=("sched:sched_process_free",),
        constants={"kind": "free"},
    ),
    Role(
        "ev_obs_first",
        {
            "anon_vma": From(("anon_vma",)),
            "root": From(("root",)),
            "first": From(("first", "pgoff_start", "start")),
            "last": From(("last", "pgoff_last"), "ulong_max"),
        },
        functions=("anon_vma_interval_tree_iter_first", "anon_rmap_tree_iter_first"),
        aliases=("iter_first",),
        constants={"is_return": False},
    ),
    Role(
        "ev_obs_first",
        {"avc": From(("ret", "arg1"))},
        functions=("anon_vma_interval_tree_iter_first", "anon_rmap_tree_iter_first"),
        aliases=("iter_first_ret",),
        is_return=True,
        constants={"is_return": True},
    ),
    Role(
        "ev_obs_next",
        {
            "avc": From(("avc", "node")),
            "vma": From(("vma",)),
            "first": From(("first", "pgoff_start", "start")),
            "last": From(("last", "pgoff_last")),
        },
        functions=("anon_vma_interval_tree_iter_next", "anon_rmap_tree_iter_next"),
        aliases=("iter_next",),
    ),
    *(
        Role(
            "ev_obs_one",
            {
                "ret": From(("ret", "arg1")),
            }
            if is_return
            else {"mm": From(("vm_mm", "mm")), **_same("vma", "address", "vm_start", "vm_end")},
            functions=(function,),
            aliases=(f"one_{function}_ret",) if is_return else (f"one_{function}",),
            is_return=is_return,
            constants={"is_return": is_return, "fn": function},
        )
        for function in RMAP_ONE_FUNCTIONS
        for is_return in (False, True)
    ),
    Role("ev_obs_loop", tracepoints=("ksm:ksm_rmap_loop",)),
    Role("ev_obs_walk", tracepoints=("ksm:ksm_rmap_walk",)),
)
"""Every role. ``ev_obs_loop`` and ``ev_obs_walk`` name no column: theirs are the event's own fields."""

OF_32_BITS: Final = {"mmap_pgoff": "mmap"}
"""What 32-bit machines have instead of a system call; mmap_pgoff() takes its offset in pages."""

SYSCALLS: Final = (
    "brk",
    "clone",
    "clone3",
    "execve",
    "execveat",
    "exit",
    "exit_group",
    "fork",
    "madvise",
    "map_shadow_stack",
    "mbind",
    "migrate_pages",
    "mlock",
    "mlock2",
    "mlockall",
    "mmap",
    "move_pages",
    "mprotect",
    "mremap",
    "mseal",
    "munlock",
    "munlockall",
    "munmap",
    "pkey_mprotect",
    "prctl",
    "process_madvise",
    "remap_file_pages",
    "set_mempolicy",
    "set_mempolicy_home_node",
    "shmat",
    "shmdt",
    "shmget",
    "userfaultfd",
    "vfork",
)
"""System calls that change address spaces, make or end tasks, or move pages."""
