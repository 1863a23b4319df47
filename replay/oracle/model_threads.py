"""Threads from before the capture, one event at a time: the slow twin of ``model.threads``."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from replay.state.event_pairs import CHANGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl


def threads_before(events: Mapping[str, pl.DataFrame]) -> list[tuple[int, int]]:
    """A task of an address space, and a thread that was in it from the begin; the former is there already."""
    told: dict[int, int] = {}
    for row in events["proc_thread"].to_dicts() if "proc_thread" in events else ():
        if row["pid"] != row["tgid"]:
            told.setdefault(row["pid"], row["tgid"])
    with_maps = {row["pid"] for row in events["proc_map"].to_dicts()} if "proc_map" in events else set()
    took = _locks(events, told)
    sharing = defaultdict(set)
    for pid, pointers in took.items():
        if len(pointers) == 1:
            sharing[min(pointers)].add(pid)
    pairs = []
    for pids in sharing.values():
        owner = min(pids, key=lambda pid: (pid not in with_maps, pid))
        pairs += [(owner, pid) for pid in sorted(pids - {owner})]
    moved = {thread for _, thread in pairs}
    return sorted(pairs) + [(tgid, pid) for pid, tgid in told.items() if pid not in moved]


def _locks(events: Mapping[str, pl.DataFrame], told: Mapping[int, int]) -> dict[int, set[int]]:
    """The address spaces of which each old process took the lock, inside of calls that change its own."""
    rows = [
        (row["seq"], name, row)
        for name in ("ev_syscall", "ev_task", "ev_mmap_lock")
        for row in events[name].iter_rows(named=True)
    ]
    calls: dict[int, str | None] = {}
    new: set[int] = set()
    took: dict[int, set[int]] = defaultdict(set)
    for _, name, row in sorted(rows, key=lambda each: each[0]):
        if name == "ev_syscall":
            calls[row["pid"]] = None if row["is_exit"] else row["name"]
        elif name == "ev_task":
            if row["kind"] in ("newtask", "fork"):
                new.add(row["child_pid"])
            elif row["kind"] == "exec":
                new |= {row["pid"], row["old_pid"]}
        elif row["is_write"] and row["pid"] not in new and calls.get(row["pid"]) in CHANGES:
            took[told.get(row["pid"], row["pid"])].add(row["mm"])
    return took
