"""Event tables -> operations: one row a thing that changes address spaces, in order, operands in pages.

A system call is one operation, at the place of its return; a call without its entry, or without its return,
is left out, and so is what does not change a VMA.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Final

import polars as pl

from replay.model.births import births
from replay.model.kinds import (
    MAX_PAGE,
    OP_ADVISE,
    OP_BRK,
    OP_EXEC,
    OP_EXIT,
    OP_FAILED_MMAP,
    OP_FAILED_MOVE_MANY,
    OP_FAILED_MREMAP_TO,
    OP_FAILED_MUNMAP,
    OP_FAULT,
    OP_FORK,
    OP_GROW,
    OP_GUARD,
    OP_HOME_NODE,
    OP_LOCK,
    OP_LOCK_ALL,
    OP_MBIND,
    OP_MERGE_ANY,
    OP_MMAP,
    OP_MMAP_POPULATE,
    OP_MOVE,
    OP_MOVE_MANY,
    OP_MPROTECT,
    OP_MPROTECT_KEY,
    OP_MUNMAP,
    OP_POPULATE,
    OP_REMAP_FILE,
    OP_SHMDT,
    OP_THREAD,
    OPERANDS,
    PAGE,
)
from replay.model.threads import older_threads
from replay.model.told import told_maps
from replay.state import kernel as k
from replay.state.call_arguments import ARGUMENTS
from replay.state.event_pairs import faults_apart, finished_calls, not_determined, with_segments

if TYPE_CHECKING:
    from collections.abc import Mapping


def _pages(name: str) -> pl.Expr:
    """PAGE_ALIGN() of a number of bytes, in pages."""
    return (pl.col(name) // PAGE + (pl.col(name) % PAGE != 0).cast(pl.UInt64)).cast(pl.Int64)


def _page(name: str) -> pl.Expr:
    return (pl.col(name) // PAGE).cast(pl.Int64)


def _has(name: str, bits: int) -> pl.Expr:
    return (pl.col(name) & bits) != 0


def _bits(chosen: list[tuple[pl.Expr, int]]) -> pl.Expr:
    """The bits of all conditions that hold."""
    terms = [pl.when(condition).then(pl.lit(bit, pl.Int64)).otherwise(0) for condition, bit in chosen]
    return reduce(lambda one, other: one | other, terms)


def operations(events: Mapping[str, pl.DataFrame], rules: k.Rules) -> tuple[pl.DataFrame, dict[str, int]]:
    """All operations in order of their place.

    Args:
        events: Tables ``ev_syscall``, ``ev_task`` and ``ev_fault``.
        rules: Rules of the kernel.

    Returns:
        ``seq``, ``ts_ns``, ``pid``, ``cause``, ``kind``, ``a`` to ``e``; operands that name a task are
        still its pid. And counts of what was not known, by name.
    """
    done = with_segments(finished_calls(events["ev_syscall"]).with_columns(pl.col(*ARGUMENTS).fill_null(0)))
    followed = pl.col("name").is_in(list(_CALLS))
    births, doubts = _births(events)
    if "ev_mmap_lock" in events:
        births.insert(0, _older(events))
    doubts["calls_cut"] = events["ev_syscall"].filter(followed).height - 2 * done.filter(followed).height
    own, in_exec = faults_apart(events)
    frames = [*births, *_tasks(events["ev_task"]), _faults(own)]
    doubts |= not_determined(done, rules)
    for name in done["name"].unique():
        if (make := _CALLS.get(name)) is not None:
            frames += make(done.filter(pl.col("name") == name), rules)
    if "proc_map" in events and len(events["proc_map"]):
        told, doubts["maps_torn"] = told_maps(events, list(_CALLS))
        frames += told
    frames.append(_faults(in_exec))
    whole = pl.concat(frames)
    near = pl.all_horizontal(pl.col(name).is_between(-MAX_PAGE, MAX_PAGE) for name in ("a", "b"))
    return whole.filter(near | (pl.col("kind") == OP_LOCK_ALL)).sort("seq", maintain_order=True), doubts


def _rows(
    rows: pl.DataFrame, kind: int | pl.Expr, *operands: pl.Expr | int, cause: pl.Expr | None = None
) -> pl.DataFrame:
    """Operations of one kind."""
    given = [pl.lit(value) if isinstance(value, int) else value for value in operands]
    given += [pl.lit(0)] * (len(OPERANDS) - len(given))
    kind = pl.lit(kind) if isinstance(kind, int) else kind
    return rows.select(
        "seq",
        "ts_ns",
        "pid",
        cause=(pl.col("name") if cause is None else cause).cast(pl.Categorical),
        kind=kind.cast(pl.Int64),
        **{name: value.cast(pl.Int64) for name, value in zip(OPERANDS, given, strict=True)},
    )


def _births(events: Mapping[str, pl.DataFrame]) -> tuple[list[pl.DataFrame], dict[str, int]]:
    """Forks and threads."""
    born = births(events)
    unknown = born["flags"].null_count()
    shares = (pl.col("flags").fill_null(0) & k.CLONE_VM) != 0
    made = pl.when(shares).then(OP_THREAD).otherwise(OP_FORK)
    cause = pl.col("call").fill_null("fork")
    return [_rows(born, made, pl.col("child_pid"), cause=cause)], {"clone_flags": unknown}


def _older(events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """Threads from before the capture, before all that is in it."""
    rows = older_threads(events).select("pid", "thread", seq=pl.lit(-1, pl.Int64), ts_ns=pl.lit(0, pl.Int64))
    return _rows(rows, OP_THREAD, pl.col("thread"), cause=pl.lit("thread"))


def _tasks(ev_task: pl.DataFrame) -> list[pl.DataFrame]:
    execs, exits = (ev_task.filter(pl.col("kind") == event) for event in ("exec", "exit"))
    return [
        _rows(execs, OP_EXEC, pl.coalesce("old_pid", "pid"), cause=pl.lit("execve")),
        _rows(exits, OP_EXIT, cause=pl.lit("exit")),
    ]


def _faults(ev_fault: pl.DataFrame) -> pl.DataFrame:
    writes = _has("error_code", k.PF_WRITE)
    return _rows(ev_fault, OP_FAULT, _page("address"), writes, cause=pl.lit("page_fault"))


def _mmap(rows: pl.DataFrame, rules: k.Rules) -> list[pl.DataFrame]:
    # Addresses of user space are below 2^63; what is negative is an error.
    worked = rows.filter(pl.col("ret") >= 0).with_columns(pl.col("ret").cast(pl.UInt64))
    anonymous, shared = _has("arg3", k.MAP_ANONYMOUS), _has("arg3", k.MAP_SHARED)
    droppable = pl.col("arg3") & k.MAP_TYPE == k.MAP_DROPPABLE
    huge = _has("arg3", k.MAP_HUGETLB)
    flags = (pl.col("arg2") & 7).cast(pl.Int64) | _bits(
        [
            (pl.lit(True), k.VM_MAY),
            (_has("arg3", k.MAP_GROWSDOWN), k.VM_GROWSDOWN),
            (_has("arg3", k.MAP_LOCKED), k.VM_LOCKED),
            (_has("arg3", k.MAP_NORESERVE), k.VM_NORESERVE),
            (_has("arg3", k.MAP_STACK), k.VM_NOHUGEPAGE),
            (~_has("arg3", k.MAP_FIXED), k.VM_PLACED),
            (huge, k.VM_HUGETLB | k.VM_DONTEXPAND),
            (shared, k.VM_SHARED | k.VM_MAYSHARE),
            (droppable, k.VM_DROPPABLE | k.VM_NORESERVE | k.VM_WIPEONFORK | k.VM_DONTDUMP),
        ]
    )
    own = huge | (shared & anonymous)
    limited = k.VM_WRITE | k.VM_SHARED | k.VM_NORESERVE | k.VM_HUGETLB
    start = _page("ret")
    asked = pl.col("arg3") & (k.MAP_POPULATE | k.MAP_NONBLOCK) == k.MAP_POPULATE
    made = worked.sort("seq").with_columns(
        flags=flags,
        file=pl.when(own)
        .then(-own.cast(pl.Int64).cum_sum())
        .when(anonymous)
        .then(0)
        .otherwise((pl.col("arg4") & k.MAX_FD).cast(pl.Int64) + 1),
        # Huge pages are those of a file, also without one.
        pgoff=pl.when(~anonymous | huge).then(_page("arg5")).when(shared).then(0).otherwise(start),
        asked=asked,
    )
    made = made.filter(pl.col("arg1") > 0)
    charged = pl.when(pl.col("flags") & limited == k.VM_WRITE).then(k.VM_ACCOUNT).otherwise(0)
    return [
        _rows(
            made,
            pl.when("asked").then(OP_MMAP_POPULATE).otherwise(OP_MMAP),
            start,
            start + _mapped_pages(),
            pl.col("flags") | charged,
            pl.col("file"),
            pl.col("pgoff"),
        ),
        _failed_mmap(rows.filter(pl.col("ret") < 0)),
    ]


def _mapped_pages() -> pl.Expr:
    """Pages that mmap() maps: whole huge pages, of the size that the flags name, or of a PMD.

    Simplified: those of a file of hugetlbfs are as the caller asks. Kernel: mm/mmap.c ksys_mmap_pgoff().
    """
    size = (pl.col("arg3") // (1 << k.MAP_HUGE_SHIFT) & k.MAP_HUGE_MASK).cast(pl.Int64)
    of_size = {0: k.HUGE_PAGE} | {log: 1 << log - k.PAGE_SHIFT for log in range(k.PAGE_SHIFT, 35)}
    huge = size.replace_strict(of_size, default=1, return_dtype=pl.Int64)
    has_any = _has("arg3", k.MAP_HUGETLB) & _has("arg3", k.MAP_ANONYMOUS)
    unit = pl.when(has_any).then(huge).otherwise(1)
    return (_pages("arg1") + unit - 1) // unit * unit


def _failed_mmap(rows: pl.DataFrame) -> pl.DataFrame:
    """MAP_FIXED that may have got as far as what is mapped there."""
    place = k.MAP_FIXED | k.MAP_FIXED_NOREPLACE
    late = ~pl.col("ret").is_in([-error for error in k.MMAP_FAILS_EARLY])
    tried = rows.filter(
        late & (pl.col("arg3") & place == k.MAP_FIXED) & (pl.col("arg0") % PAGE == 0) & (pl.col("arg1") > 0)
    )
    kind = k.MAP_ANONYMOUS | k.MAP_HUGETLB | k.MAP_SHARED
    is_private_anon = pl.col("arg3") & kind == k.MAP_ANONYMOUS
    end = _page("arg0") + _pages("arg1")
    return _rows(tried, OP_FAILED_MMAP, _page("arg0"), end, -pl.col("ret"), is_private_anon)


def _munmap(rows: pl.DataFrame, rules: k.Rules) -> list[pl.DataFrame]:
    worked, sealed = (rows.filter(pl.col("ret") == ret) for ret in (0, -k.EPERM))
    return [
        _rows(worked, OP_MUNMAP, _page("arg0"), _page("arg0") + _pages("arg1")),
        _rows(sealed, OP_FAILED_MUNMAP, _page("arg0")),
    ]


def _mseal(rows: pl.DataFrame, rules: k.Rules) -> list[pl.DataFrame]:
    worked = rows.filter(pl.col("ret") == 0)
    return [_rows(worked, OP_ADVISE, _page("arg0"), _page("arg0") + _pages("arg1"), 0, k.VM_SEALED)]


def _shmat(rows: pl.DataFrame, rules: k.Rules) -> list[pl.DataFrame]:
    """A shared mapping of a segment that the capture saw made."""
    known = rows.filter(pl.col("ret") >= 0).drop_nulls("segment_bytes").sort("seq").with_row_index("number")
    known = known.with_columns(pl.col("ret").cast(pl.UInt64))
    flags = _bits(
        [
            (pl.lit(True), k.VM_READ | k.VM_MAY | k.VM_SHARED | k.VM_MAYSHARE),
            (~_has("arg2", k.SHM_RDONLY), k.VM_WRITE),
            (_has("arg2", k.SHM_EXEC), k.VM_EXEC),
            (~_has("arg2", k.SHM_REMAP), k.VM_PLACED),
        ]
    )
    end = _page("ret") + _pages("segment_bytes")
    return [_rows(known, OP_MMAP, _page("ret"), end, flags, k.SHM_FILE - pl.col("number").cast(pl.Int64))]


def _shmdt(rows: pl.DataFrame, rules: k.Rules) -> list[pl.DataFrame]:
    return [_rows(rows.filter(pl.col("ret") == 0), OP_SHMDT, _page("arg0"))]


def _remap_file_pages(rows: pl.DataFrame, rules: k.Rules) -> list[pl.DataFrame]:
    worked, end = rows.filter(pl.col("ret") == 0), _page("arg0") + _page("arg1")
    return [_rows(worked, OP_REMAP_FILE, _page("arg0"), end, pl.col("arg3"))]


def _map_shadow_stack(rows: pl.DataFrame, rules: k.Rules) -> list[pl.DataFrame]:
    worked = rows.filter(pl.col("ret") >= 0).with_columns(pl.col("ret").cast(pl.UInt64))
    flags = k.VM_READ | k.VM_WRITE | k.VM_MAY | k.VM_ACCOUNT | k.VM_SHADOW_STACK | k.VM_PLACED
    kind = pl.when(_has("arg2", k.SHADOW_STACK_SET_TOKEN)).then(OP_MMAP_POPULATE).otherwise(OP_MMAP)
    start = _page("ret")
    return [_rows(worked, kind, start, start + _pages("arg1"), flags, 0, start)]


def _set_mempolicy_home_node(rows: pl.DataFrame, rules: k.Rules) -> list[pl.DataFrame]:
    worked, end = rows.filter(pl.col("ret") == 0), _page("arg0") + _pages("arg1")
    return [_rows(worked, OP_HOME_NODE, _page("arg0"), end, pl.col("arg2"))]


def _brk(rows: pl.DataFrame, rules: k.Rules) -> list[pl.DataFrame]:
    rows = rows.with_columns(pl.col("ret").cast(pl.UInt64, strict=False)).filter(pl.col("ret").is_not_null())
    moved = (pl.col("arg0") != 0) & (pl.col("arg0") == pl.col("ret"))
    return [_rows(rows, OP_BRK, _pages("ret"), moved)]


def _mprotect(rows: pl.DataFrame, rules: k.Rules) -> list[pl.DataFrame]:
    begun = pl.col("ret").is_in((0, -k.ENOMEM, -k.EACCES, -k.EPERM))
    changed = rows.filter(begun & (pl.col("arg0") % PAGE == 0))
    has_key = (pl.col("name") == "pkey_mprotect") & (pl.col("arg3") <= k.VM_PKEY >> k.VM_PKEY_SHIFT)
    key = pl.when(has_key).then(pl.col("arg3") * (1 << k.VM_PKEY_SHIFT)).otherwise(0)
    kind = pl.when(has_key).then(OP_MPROTECT_KEY).otherwise(OP_MPROTECT)
    prot = (pl.col("arg2") & k.VM_ACCESS_FLAGS) | key
    end = _page("arg0") + _pages("arg1")
    grows = _has("arg2", k.PROT_GROWSDOWN)
    return [_rows(changed, kind, _page("arg0"), end, prot, grows, -pl.col("ret"))]


def _madvise(rows: pl.DataFrame, rules: k.Rules) -> list[pl.DataFrame]:
    begun = rows.filter(
        pl.col("ret").is_in((0, -k.ENOMEM, -k.EINVAL, -k.EAGAIN)) & (pl.col("arg0") % PAGE == 0)
    )
    start, end = _page("arg0"), _page("arg0") + _pages("arg1")
    begun = begun.filter(start < end)
    advice, refused = pl.col("arg2"), pl.col("ret") == -k.EINVAL
    changes = begun.filter(
        advice.is_in(list(k.ADVICE)) & (~refused | advice.is_in(k.MADV_REFUSED))
    ).with_columns(advice=advice.cast(pl.Int64))
    clear, add = (
        pl.col("advice").replace_strict(
            {number: pair[at] for number, pair in k.ADVICE.items()}, return_dtype=pl.Int64
        )
        for at in (0, 1)
    )
    failed = _bits([(pl.col("ret") == -k.EAGAIN, k.TOO_MANY), (refused, k.REFUSED)])
    guards = begun.filter((advice == k.MADV_GUARD_INSTALL) & (pl.col("ret") == 0) & pl.lit(rules.guards))
    return [
        _rows(changes, OP_ADVISE, start, end, clear, add, pl.col("advice") | failed),
        _rows(begun.filter(advice == k.MADV_POPULATE_WRITE), OP_POPULATE, start, end),
        _rows(guards, OP_GUARD, start, end),
    ]


def _prctl(rows: pl.DataFrame, rules: k.Rules) -> list[pl.DataFrame]:
    worked = rows.filter((pl.col("arg0") == k.PR_SET_MEMORY_MERGE) & (pl.col("ret") == 0))
    return [_rows(worked, OP_MERGE_ANY, pl.col("arg1") != 0)]


def _mlock(rows: pl.DataFrame, rules: k.Rules) -> list[pl.DataFrame]:
    begun = rows.filter(pl.col("ret").is_in((0, -k.ENOMEM, -k.EAGAIN)))
    begun = begun.with_columns(reach=pl.col("arg0") + pl.col("arg1"))
    on_fault = (pl.col("name") == "mlock2") & _has("arg2", k.MLOCK_ONFAULT)
    bits = _bits([(pl.col("name") != "munlock", k.VM_LOCKED), (on_fault, k.VM_LOCKONFAULT)])
    return [_rows(begun, OP_LOCK, _page("arg0"), _pages("reach"), bits, -pl.col("ret"))]


def _mlockall(rows: pl.DataFrame, rules: k.Rules) -> list[pl.DataFrame]:
    worked = rows.filter(pl.col("ret") == 0)
    locks = pl.col("name") == "mlockall"
    bits = _bits([(locks, k.VM_LOCKED), (locks & _has("arg0", k.MCL_ONFAULT), k.VM_LOCKONFAULT)])
    later = pl.when(_has("arg0", k.MCL_FUTURE)).then(bits).otherwise(0)
    return [_rows(worked, OP_LOCK_ALL, bits, later, ~locks | _has("arg0", k.MCL_CURRENT))]


def _mbind(rows: pl.DataFrame, rules: k.Rules) -> list[pl.DataFrame]:
    worked = rows.filter(pl.col("ret").is_in((0, -k.EIO)))
    policy = pl.when(pl.col("arg2") == 0).then(0).otherwise(pl.struct("arg2", "arg3", "arg4").rank("dense"))
    end = _page("arg0") + _pages("arg1")
    return [_rows(worked, OP_MBIND, _page("arg0"), end, policy)]


def _mremap(rows: pl.DataFrame, rules: k.Rules) -> list[pl.DataFrame]:
    start, old, new = _page("arg0"), _pages("arg1"), _pages("arg2")
    rows, fixed, error = rows.filter(new > 0), _has("arg3", k.MREMAP_FIXED), -pl.col("ret")
    many = fixed & (old == new) & pl.lit(rules.moves_many)
    flags = pl.col("arg3") & (k.MREMAP_FIXED | k.MREMAP_DONTUNMAP)
    errors = (k.EPERM, k.ENOMEM) if rules.moves_many else (k.EPERM, k.ENOMEM, k.EFAULT, k.EAGAIN)
    kept = rows.filter(fixed & ~many & error.is_in(errors))
    torn = rows.filter(many & error.is_in((k.EPERM, k.ENOMEM, k.EFAULT)))
    worked = rows.filter(pl.col("ret") >= 0).with_columns(target=pl.col("ret").cast(pl.UInt64))
    stays = flags == 0
    shrinks, grows = stays & (old >= new), stays & (old < new) & (pl.col("target") == pl.col("arg0"))
    operands = (start, old, new)
    return [
        _rows(kept, OP_FAILED_MREMAP_TO, *operands, _page("arg4"), error),
        _rows(torn, OP_FAILED_MOVE_MANY, start, old, error, _page("arg4"), flags),
        _rows(worked.filter(many), OP_MOVE_MANY, *operands, _page("arg4"), flags),
        _rows(worked.filter(shrinks), OP_MUNMAP, start + new, start + old),
        _rows(worked.filter(grows), OP_GROW, start, start + new),
        _rows(worked.filter(~many & ~shrinks & ~grows), OP_MOVE, *operands, _page("target"), flags),
    ]


_CALLS: Final = {
    "mmap": _mmap,
    "munmap": _munmap,
    "mseal": _mseal,
    "shmat": _shmat,
    "shmdt": _shmdt,
    "remap_file_pages": _remap_file_pages,
    "map_shadow_stack": _map_shadow_stack,
    "set_mempolicy_home_node": _set_mempolicy_home_node,
    "brk": _brk,
    "mprotect": _mprotect,
    "pkey_mprotect": _mprotect,
    "madvise": _madvise,
    "prctl": _prctl,
    "mlock": _mlock,
    "mlock2": _mlock,
    "munlock": _mlock,
    "mlockall": _mlockall,
    "munlockall": _mlockall,
    "mbind": _mbind,
    "mremap": _mremap,
}
